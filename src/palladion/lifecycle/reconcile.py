"""Holds the registry against the ledger: which of the two was cut back, replaced, or torn from the other by a crash.

Whatever is registered was recorded before, so the ledger may be ahead of the registry by one interrupted command, and
never behind it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from palladion import files
from palladion.errors import ConflictError, TamperError
from palladion.keys import Root
from palladion.ledger.journal import read_journal
from palladion.ledger.record import decode_record
from palladion.ledger.tiles import BUNDLE_BYTES_MAX, TILE_WIDTH, tile_path, tiles_of
from palladion.ledger.writer import JOURNAL_FILE
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import parse_version
from palladion.registry import Records, Version

_ABOUT_MODELS = b'"model.'  # in every record of such a kind, which is canonical JSON
_VERSIONS = {"model.protected", "model.sealed", "model.resealed"}
_BESIDE = {"recipients", "reason"}  # what such a record says besides the statement
_CANARY = "canary"  # a version that a share of clients is served; its end leaves the promoted one
_PROMOTIONS = {"model.promoted": "promote", "model.rolled-back": "rollback"}


@dataclass(frozen=True)
class History:
    """The life of models as one of the two tells it: versions with what is stated of them, promotions, what is served.

    Versions are (model, number), promotions (model, kind, number) with how often each took place.
    """

    versions: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    promotions: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    served: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """What one of the two lacks, or says otherwise, and what to do about it."""

    message: str
    hint: str


def statement(version: Version) -> dict[str, Any]:
    """What the ledger's record of a protected version states of it."""
    sealed = {"served": version.served, "original": version.original}
    return {
        "content": version.content_digest,
        "graph": version.graph_digest,
        "format": version.format,
        "parent": version.parent,
        "publisher": version.publisher,
        "marks": list(version.marks),
        "sealed": {kind: {"root": file.digest, "header": file.header_digest} for kind, file in sealed.items() if file},
        **_stated(version),
    }


def _stated(version: Version) -> dict[str, Any]:
    """The member of a statement that has what is said of the training's privacy; none where nothing is."""
    if version.privacy is None:
        return {}
    return {"privacy": {"document": dict(version.privacy.document), "signature": version.privacy.signature}}


def registered(records: Records, models: Sequence[str] | None = None) -> History:
    """What the registry tells, of `models` or of all."""
    told = History()
    for model in [row.name for row in records.models.all()] if models is None else models:
        for version in records.versions.all(model):
            told.versions[model, version.number] = statement(version)
        for event in records.promotions.history(model):
            told.promotions[model, event.kind, event.number] += 1
            told.served[model] = event.number
        for canary in records.canaries.history(model):
            if canary.kind == "begin":
                told.promotions[model, _CANARY, canary.number] += 1
    return told


def recorded(installation: Installation, gate: Root) -> History:
    """What the ledger tells, with what is acknowledged and not published yet.

    Costs one reading of the ledger's entries, an eighth of `verify_ledger`: only bundles that speak of models are
    decoded, and proved. That the others were not changed, to hide one, is for `ledger.audit` to say.
    """
    told = History()
    for index, entry in _entries(installation, gate):
        record = decode_record(entry, what=f"entry {index}")
        if record.kind in _VERSIONS:
            # the last one counts: a version that was sealed anew has other files
            told.versions[_version_of(record.subject, index)] = {
                key: value for key, value in record.details.items() if key not in _BESIDE
            }
        elif record.kind == "model.canary":
            model, number = _version_of(record.subject, index)
            told.promotions[model, _CANARY, number] += 1
        elif record.kind in _PROMOTIONS and "canary" not in record.details:
            model, number = _version_of(record.subject, index)
            told.promotions[model, _PROMOTIONS[record.kind], number] += 1
            told.served[model] = number
    return told


def unrecorded(registry: History, ledger: History) -> Iterator[Difference]:
    """What the registry has and the ledger lacks or states otherwise: no crash explains it.

    The registry has to be read before the ledger.
    """
    cut = "the ledger was cut back or replaced, or the registry changed: restore a backup"
    for (model, number), stated in sorted(registry.versions.items()):
        record = ledger.versions.get((model, number))
        if record is None:
            yield Difference(f"the registry lists {model}@{number}, and the ledger has no record of it", cut)
        elif record != stated:
            yield Difference(f"the registry says of {model}@{number} other things than the ledger recorded", cut)
    for model, kind, number in sorted(registry.promotions - ledger.promotions):
        message = f"the registry lists a {kind} to {model}@{number} of which the ledger has no record"
        yield Difference(message, cut)


def unregistered(ledger: History, registry: History) -> Iterator[Difference]:
    """What the ledger records and the registry lacks: a command was interrupted, or an older registry put back.

    The registry has to be read after the ledger.
    """
    for model, number in sorted(ledger.versions.keys() - registry.versions.keys()):
        yield Difference(
            f"the ledger records {model}@{number}, and the registry does not list it",
            "if protect was interrupted, run it again with the same file; else restore the newest backup",
        )


def unserved(before: History, ledger: History, after: History) -> Iterator[Difference]:
    """Models of which the ledger's last record names another served version than the registry, before and after."""
    for model, number in sorted(ledger.served.items()):
        found = after.served.get(model)
        if number not in {found, before.served.get(model)}:
            yield Difference(
                f"the ledger's last word is that {model}@{number} is served, the registry says "
                + (f"{model}@{found}" if found else "that none is"),
                f"if a promotion was interrupted, palladion model promote {model} {number}; else restore a backup",
            )


def require_next(
    installation: Installation, gate: Root, registry: History, *, model: str, number: int, content: str
) -> None:
    """Raise unless version `number` of `model` can be given to `content`; the caller holds the ledger.

    The ledger may know that number only from an attempt with the same content that was interrupted, and is finished
    now. TamperError where the ledger lacks what is registered, ConflictError where the registry is the older one.
    """
    ledger = recorded(installation, gate)
    for difference in unrecorded(registry, ledger):
        raise TamperError(difference.message, difference.hint)
    taken = {key: stated for key, stated in ledger.versions.items() if key[0] == model and key[1] >= number}
    if taken and (set(taken) != {(model, number)} or taken[model, number].get("content") != content):
        last = max(taken)[1]
        raise ConflictError(
            f"the ledger records {model}@{last}, and the registry's next version of {model} would be {number}",
            "an older registry was put back: restore the newest backup",
            f"if protect was interrupted at {model}@{number}, run it again with the same file first",
        )


def _entries(installation: Installation, gate: Root) -> Iterator[tuple[int, bytes]]:
    """Index and bytes of every acknowledged entry that may be about a model."""
    # 1. the journal first: it goes on where some checkpoint ended, and a later one covers at least as much
    folder = installation.paths.ledger
    journal = read_journal(folder / JOURNAL_FILE, gate.derive("journal"))
    reader = installation.read_ledger()
    # 2. what is published; nearly all of a ledger that serves is of other kinds, and most bundles can be passed over
    for bundle, width in tiles_of(reader.size):
        if width == TILE_WIDTH:
            path = folder / tile_path("entries", bundle)
            data = files.read_limited(path, size_max=BUNDLE_BYTES_MAX, what="the ledger's bundle")
            if _ABOUT_MODELS not in data:
                continue
        start = bundle * TILE_WIDTH
        yield from (item for item in reader.entries(start, start + width) if _ABOUT_MODELS in item[1])
    # 3. what is not published yet
    for index, entry in enumerate(journal.entries, journal.first):
        if index >= reader.size and _ABOUT_MODELS in entry:
            yield index, entry


def _version_of(subject: str, index: int) -> tuple[str, int]:
    model, number = parse_version(subject)
    if number is None:
        raise TamperError(f"entry {index} names no version: {subject!r}")
    return model, number
