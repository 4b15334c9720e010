"""Lets the oldest answers go, and keeps everything else provable: what was asked and answered, after its time is over.

Bundles of entries are deleted whole; their hashes stay, so every root, and every proof of what is left, is what it was.
Entries of other kinds than answers are kept aside, `tile/kept/<index>`, each of them as it was. That this was done,
until where, and what was kept, is an entry of the ledger (`ledger.pruned`), to which the file `pruned` points: a bundle
that is gone without one was not let go, it was taken.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from palladion import canonical, files
from palladion.errors import FormatError, NotFoundError, TamperError
from palladion.ledger.record import Record, decode_record
from palladion.ledger.tiles import BUNDLE_BYTES_MAX, TILE_WIDTH, tile_path

if TYPE_CHECKING:
    from palladion.ledger.reader import LedgerReader

PRUNED_FILE = "pruned"
KEPT = "kept"
PRUNABLE = frozenset({"answer.given", "answer.begun", "answer.broken", "answer.refused"})
KIND = "ledger.pruned"
KEPT_BYTES_MAX = BUNDLE_BYTES_MAX + 2 * TILE_WIDTH
_MARKER_BYTES_MAX = 1024

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Pruned:
    """That entries from `start` to `until` may be gone: entry `record` of the ledger says so, of `time`, and why.

    `digest` is SHA-256, in hexadecimal, over what was kept of them; entry `previous` says so of those before.
    """

    start: int
    until: int
    record: int
    time: datetime
    reason: str
    digest: str
    previous: int | None


@dataclass(frozen=True)
class Plan:
    """What would be let go: of the entries from `start` to `until` so many, with so many bytes; and the others kept."""

    start: int
    until: int
    dropped: int
    kept: int
    bytes: int
    digest: str
    previous: int | None


def read_pruned(reader: "LedgerReader") -> Pruned | None:
    """Until where the ledger was pruned, as an entry of it says; None if it never was.

    Raises TamperError where the file that points there does not point to such an entry.
    """
    path = reader.directory / PRUNED_FILE
    if not path.exists():
        return None
    data = files.read_limited(path, size_max=_MARKER_BYTES_MAX, what="the ledger's mark of pruning")
    try:
        number = msgspec.json.decode(data, type=_Marker).entry
    except msgspec.DecodeError:
        number = -1
    found = _read_record(reader, number)
    if found is None:
        raise TamperError(
            f"{path} names no entry by which the ledger was pruned: entries were taken, or it was changed"
        )
    return found


def check_kept(reader: "LedgerReader") -> None:
    """Raise TamperError unless all that was kept at each pruning is there, and nothing else."""
    found = reader.pruned
    while found is not None:
        digest = sha256()
        for index in range(found.start // TILE_WIDTH, found.until // TILE_WIDTH):
            digest.update(encode_kept(_to_keep(reader.remaining(index)[0], index)))
        if digest.hexdigest() != found.digest:
            raise TamperError(
                f"of entries {found.start} to {found.until - 1} others are left than entry {found.record} kept"
            )
        if (found.previous is None) != (found.start == 0):
            raise TamperError(f"entry {found.record} says of no pruning that ended where its own begins")
        before = _read_record(reader, found.previous) if found.previous is not None else None
        if found.previous is not None and (before is None or before.until != found.start):
            raise TamperError(f"entry {found.record} says of no pruning that ended where its own begins")
        found = before


def plan(reader: "LedgerReader", before: datetime, progress: Progress | None = None) -> Plan:
    """What could be let go of what happened before a moment. Raises TamperError at what is not proved."""
    known = reader.pruned
    start = known.until if known is not None else 0
    until, dropped, kept, size, digest = start, 0, 0, 0, sha256()
    for index in range(start // TILE_WIDTH, reader.size // TILE_WIDTH):
        entries = dict(reader.entries(index * TILE_WIDTH, (index + 1) * TILE_WIDTH))
        # records of one bundle are not quite in order of time
        if max(decode_record(data, what=f"entry {number}").time for number, data in entries.items()) >= before:
            break
        staying = _to_keep({number % TILE_WIDTH: data for number, data in entries.items()}, index)
        digest.update(encode_kept(staying))
        until, dropped, kept = (index + 1) * TILE_WIDTH, dropped + TILE_WIDTH - len(staying), kept + len(staying)
        size += sum(len(data) + 2 for data in entries.values()) - sum(len(data) + 2 for data in staying.values())
        if progress is not None:
            progress(until, reader.size)
    return Plan(start, until, dropped, kept, size, digest.hexdigest(), known.record if known is not None else None)


def pruned_record(found: Plan, *, reason: str, actor: str, subject: str, now: datetime) -> Record:
    """The entry that says so; it has to be under a checkpoint before anything is deleted."""
    details = {
        "start": found.start,
        "until": found.until,
        "dropped": found.dropped,
        "kept": found.kept,
        "digest": found.digest,
        "previous": found.previous,
        "reason": reason,
    }
    return Record(KIND, now, actor, subject, details)


def prune(reader: "LedgerReader", record: int, progress: Progress | None = None) -> None:
    """Let go of what entry `record` of the ledger says. May be interrupted, and begun again.

    Raises TamperError where that entry says nothing of the kind, StorageError where something cannot be written.
    """
    # 1. what is kept, on the disk before anything is deleted
    found = _read_record(reader, record)
    if found is None:
        raise TamperError(f"entry {record} says nothing of pruning")
    bundles = [index for index in range(found.until // TILE_WIDTH) if _bundle(reader.directory, index).exists()]
    for done, index in enumerate(bundles):
        kept = _to_keep(reader.remaining(index)[0], index)
        target = reader.directory / tile_path(KEPT, index)
        files.make_private_directory(target.parent)
        files.write_atomically(target, encode_kept(kept))
        if progress is not None:
            progress(done, 2 * len(bundles))
    # 2. what says that the rest was let go
    files.write_atomically(reader.directory / PRUNED_FILE, canonical.encode({"entry": record}))
    # 3. the rest
    for done, index in enumerate(bundles):
        _bundle(reader.directory, index).unlink()
        if progress is not None:
            progress(len(bundles) + done, 2 * len(bundles))


def encode_kept(entries: dict[int, bytes]) -> bytes:
    """Entries by their place in a bundle: place and length in two bytes each, and the entry."""
    return b"".join(struct.pack(">HH", place, len(data)) + data for place, data in sorted(entries.items()))


def decode_kept(data: bytes, *, what: str) -> dict[int, bytes]:
    """The entries of `encode_kept`. Raises FormatError on anything else."""
    found: dict[int, bytes] = {}
    position, last = 0, -1
    while position < len(data):
        if position + 4 > len(data):
            raise FormatError(f"{what} ends within an entry")
        place, length = struct.unpack_from(">HH", data, position)
        position += 4
        if not last < place < TILE_WIDTH or position + length > len(data):
            raise FormatError(f"{what} is not a list of entries")
        found[place] = data[position : position + length]
        position, last = position + length, place
    return found


def kept_entries(directory: Path, index: int) -> dict[int, bytes]:
    """What was kept of a bundle by place, not proved. Raises TamperError where it is gone, FormatError."""
    path = directory / tile_path(KEPT, index)
    if not path.exists():
        raise TamperError(f"the ledger lacks {path.relative_to(directory)}, which was kept when it was pruned")
    data = files.read_limited(path, size_max=KEPT_BYTES_MAX, what="what was kept of the ledger")
    return decode_kept(data, what=f"what was kept of bundle {index}")


def _read_record(reader: "LedgerReader", number: int) -> Pruned | None:
    """What an entry says of pruning; None if it says nothing of it."""
    if not 0 <= number < reader.size:
        return None
    try:
        record = decode_record(reader.lasting_entry(number), what=f"entry {number}")
        said = msgspec.convert(record.details, _Said)
    except (msgspec.ValidationError, NotFoundError):
        return None
    whole = said.start % TILE_WIDTH == said.until % TILE_WIDTH == 0
    if record.kind != KIND or not whole or not 0 <= said.start < said.until <= number:
        return None
    return Pruned(said.start, said.until, number, record.time, said.reason, said.digest, said.previous)


def _to_keep(entries: Mapping[int, bytes], index: int) -> dict[int, bytes]:
    """Those entries of a bundle, by place, that are of other kinds than answers."""
    first = index * TILE_WIDTH
    return {
        place: data
        for place, data in entries.items()
        if decode_record(data, what=f"entry {first + place}").kind not in PRUNABLE
    }


def _bundle(directory: Path, index: int) -> Path:
    return directory / tile_path("entries", index)


class _Said(msgspec.Struct):
    start: int
    until: int
    digest: str
    reason: str
    previous: int | None = None


class _Marker(msgspec.Struct, forbid_unknown_fields=True):
    entry: int
