"""ArcSight's Common Event Format, CEF:0: a header between pipes, then `key=value`. One line a record."""

from types import MappingProxyType

import msgspec

from palladion.export.item import PRODUCT, VERSION, Item, Severity, Source, shortened, visible

# the lengths of CEF's dictionary of keys; what is longer is cut by receivers, in the middle of an escape if need be
MESSAGE_CHARACTERS_MAX = 1023
CUSTOM_CHARACTERS_MAX = 4000
HEADER_CHARACTERS_MAX = 512  # of its name; its other fields have 63 to 1023
_SEVERITIES = MappingProxyType({Severity.INFORMATIONAL: 1, Severity.LOW: 3, Severity.MEDIUM: 5, Severity.HIGH: 8})


def encode(item: Item, source: Source) -> bytes:
    """The line of an entry, without a line break."""
    record = item.record
    header = (PRODUCT, PRODUCT, VERSION, record.kind, item.title, str(_SEVERITIES[item.severity]))
    model, version = item.model
    served = None if model is None else model if version is None else f"{model}@{version}"
    # name, value, longest
    pairs: list[tuple[str, str | None, int]] = [
        ("rt", str(item.milliseconds), 40),
        ("externalId", str(item.number), 40),
        ("cat", record.kind.partition(".")[0], MESSAGE_CHARACTERS_MAX),
        ("suid", item.client or record.actor, MESSAGE_CHARACTERS_MAX),
        ("suser", item.name or item.client or record.actor, MESSAGE_CHARACTERS_MAX),
        ("outcome", _outcome(record.kind), 63),
        ("reason", item.detail("reason"), MESSAGE_CHARACTERS_MAX),
        ("cnt", _text(item.count("requests")), 40),
    ]
    custom = (
        ("subject", record.subject),
        ("model", served),
        ("route", item.route),
        ("standing", item.standing),
        ("leafHash", item.leaf),
        ("log", source.origin),
    )
    parts = [f"{name}={_value(value, longest)}" for name, value, longest in pairs if value]
    for place, (label, value) in enumerate(custom, 1):
        if value:
            parts.append(f"cs{place}={_value(value, CUSTOM_CHARACTERS_MAX)} cs{place}Label={label}")
    for name, label, value in (
        ("flexString1", "cause", item.cause),
        ("flexString2", "techniques", " ".join(item.techniques)),
    ):
        if value:
            parts.append(f"{name}={_value(value, MESSAGE_CHARACTERS_MAX)} {name}Label={label}")
    details = msgspec.json.encode(record.details, order="sorted").decode()
    parts.append(f"msg={_value(details, MESSAGE_CHARACTERS_MAX)}")
    return f"CEF:0|{'|'.join(map(_header, header))}|{' '.join(parts)}".encode()


def _header(text: str) -> str:
    return visible(shortened(text, HEADER_CHARACTERS_MAX)).replace("\\", "\\\\").replace("|", "\\|")


def _value(text: str, characters_max: int) -> str:
    # of what would break a line, CEF has a spelling for two alone
    shown = visible(shortened(text, characters_max), keep="\n\r").replace("\\", "\\\\").replace("=", "\\=")
    return shown.replace("\n", "\\n").replace("\r", "\\r")


def _outcome(kind: str) -> str | None:
    return {"answer.given": "success", "answer.refused": "failure", "answer.broken": "failure"}.get(kind)


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
