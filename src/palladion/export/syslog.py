"""Syslog messages of RFC 5424, and how they travel on a connection: octet counting (RFC 6587 §3.4.1)."""

from types import MappingProxyType

import msgspec

from palladion.export import cef
from palladion.export.item import Item, Severity, Source, shortened, visible

FACILITY = 13  # "log audit" (RFC 5424 §6.2.1)
APPLICATION = "palladion"
STRUCTURED_DATA_ID = "palladion@32473"  # the enterprise number that RFC 5612 keeps for examples: we have none
MESSAGE_BYTES_MAX = 8192  # what a receiver should take (RFC 5425 §4.3.1); what is longer may be cut or dropped
VALUE_CHARACTERS_MAX = 128  # so that structured data alone cannot exceed that, whatever the record holds
_BOM = b"\xef\xbb\xbf"  # says that the text is UTF-8, and has to be there if it is (§6.4)
_SEVERITIES = MappingProxyType({Severity.INFORMATIONAL: 6, Severity.LOW: 5, Severity.MEDIUM: 4, Severity.HIGH: 2})


def encode(item: Item, source: Source) -> bytes:
    """The message of an entry: facts as structured data, then a sentence and the details, cut where too long."""
    version = item.model[1]
    facts = (
        ("entry", str(item.number)),
        ("log", source.origin),
        ("leaf", item.leaf),
        ("size", str(source.size)),
        ("root", source.root),
        ("actor", item.record.actor),
        ("subject", item.record.subject),
        ("client", item.client),
        ("name", item.name),
        ("model", item.model[0]),
        ("version", None if version is None else str(version)),
        ("route", item.route),
        ("standing", item.standing),
        ("cause", item.cause),
        ("techniques", " ".join(item.techniques)),
    )
    parameters = " ".join(f'{name}="{_value(text)}"' for name, text in facts if text)
    head = f"{_header(item, source)} [{STRUCTURED_DATA_ID} {parameters}] ".encode()
    details = msgspec.json.encode(item.record.details, order="sorted").decode()
    text = visible(f"{item.title} {details}").encode()
    return head + _BOM + _cut(text, MESSAGE_BYTES_MAX - len(head) - len(_BOM))


def encode_cef(item: Item, source: Source) -> bytes:
    """A CEF line in the syslog message that receivers of CEF expect around it; without BOM, which they do not."""
    return f"{_header(item, source)} - ".encode() + cef.encode(item, source)


def framed(message: bytes) -> bytes:
    """The message as it travels: its length comes first, so nothing in it can end it."""
    return b"%d %s" % (len(message), message)


def _header(item: Item, source: Source) -> str:
    priority = FACILITY * 8 + _SEVERITIES[item.severity]
    moment = item.record.time.isoformat(timespec="microseconds").removesuffix("+00:00")
    kind = _printable(item.record.kind, 32)
    return f"<{priority}>1 {moment}Z {_printable(source.host, 255)} {APPLICATION} - {kind}"


def _printable(text: str, characters_max: int) -> str:
    """A field of the header: printable US-ASCII without spaces (§6)."""
    return "".join(c if "!" <= c <= "~" else "?" for c in text)[:characters_max] or "-"


def _value(text: str) -> str:
    # §6.3.3: these three, each after a backslash, and no other
    shown = visible(shortened(text, VALUE_CHARACTERS_MAX))
    return shown.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")


def _cut(text: bytes, bytes_max: int) -> bytes:
    """The beginning of UTF-8 `text`, never in the middle of a character."""
    return text if len(text) <= bytes_max else text[:bytes_max].decode(errors="ignore").encode()
