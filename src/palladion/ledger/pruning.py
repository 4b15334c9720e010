"""Lets the oldest answers go, and keeps everything else provable: what was asked and answered, after its time is over.

Bundles of entries are deleted whole; their hashes stay, so every root, and every proof of what is left, is what it was.
Entries of other kinds than answers are kept aside, `tile/kept/<index>`, each of them as it was. That this was done,
until where, and what was kept, is an entry of the ledger (`ledger.pruned`), to which the file `pruned` points: a bundle
that is gone without one was not let go, it was taken. The entry holds a digest over the digests of what was kept of
each bundle, which lie in `pruned.<entry>`, so that one bundle can be checked without reading all of them.
"""

import struct
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from palladion import canonical, files
from palladion.errors import FormatError, NotFoundError, TamperError
from palladion.ledger.merkle import HASH_BYTES
from palladion.ledger.record import Record, decode_record
from palladion.ledger.tiles import BUNDLE_BYTES_MAX, TILE_WIDTH, tile_path

if TYPE_CHECKING:
    from palladion.ledger.reader import LedgerReader

PRUNED_FILE = "pruned"
KEPT = "kept"
PRUNABLE = frozenset({"answer.given", "answer.begun", "answer.broken", "answer.refused"})
KIND = "ledger.pruned"
KEPT_BYTES_MAX = BUNDLE_BYTES_MAX + 2 * TILE_WIDTH
DIGESTS_BYTES_MAX = 1 << 30  # of one pruning; ten million entries have 1.25 MB
_MARKER_BYTES_MAX = 1024

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Pruned:
    """That entries from `start` to `until` may be gone: entry `record` of the ledger says so, of `time`, and why.

    `digest` is SHA-256, in hexadecimal, over the digests of what was kept of each bundle; entry `previous` says so of
    those before.
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


class Prunings:
    """All prunings of a ledger, oldest first, and what was kept at each. Raises TamperError where nothing says so."""

    def __init__(self, reader: "LedgerReader") -> None:
        self._directory = reader.directory
        self._digests: dict[int, bytes] = {}  # by entry, once read and found to be what it says
        self.all: list[Pruned] = []
        found = _marked(reader)
        while found is not None:
            self.all.insert(0, found)
            before = _read_record(reader, found.previous) if found.previous is not None else None
            if found.start != (before.until if before is not None else 0):
                raise TamperError(f"entry {found.record} says of no pruning that ended where its own begins")
            found = before

    @property
    def last(self) -> Pruned | None:
        """The last one, up to whose end entries may be gone."""
        return self.all[-1] if self.all else None

    def kept(self, index: int) -> dict[int, bytes]:
        """What was kept of a bundle by place, all of it and nothing else; not proved to be in the tree."""
        found = self.all[bisect_right([item.until for item in self.all], index * TILE_WIDTH)]
        digests = self._digests.get(found.record)
        if digests is None:
            digests = self._digests[found.record] = self._read_digests(found)
        position = HASH_BYTES * (index - found.start // TILE_WIDTH)
        entries = kept_entries(self._directory, index)
        if sha256(encode_kept(entries)).digest() != digests[position : position + HASH_BYTES]:
            first = index * TILE_WIDTH
            raise TamperError(
                f"of entries {first} to {first + TILE_WIDTH - 1} others are left than entry {found.record} kept"
            )
        return entries

    def check(self) -> None:
        """Raise TamperError unless the digests of each pruning are what its entry says."""
        for found in self.all:
            self._read_digests(found)

    def _read_digests(self, found: Pruned) -> bytes:
        path = _digests_path(self._directory, found.record)
        if not path.exists():
            raise TamperError(f"the ledger lacks {path.name}, which was written when it was pruned")
        size = HASH_BYTES * (found.until - found.start) // TILE_WIDTH
        data = files.read_limited(path, size_max=size, what="the digests of what was kept of the ledger")
        if len(data) != size or sha256(data).hexdigest() != found.digest:
            raise TamperError(f"{path.name} is not what entry {found.record} says was kept: it was changed")
        return data


def _marked(reader: "LedgerReader") -> Pruned | None:
    """The last pruning, as the file that points there says; None if there never was one."""
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


def plan(reader: "LedgerReader", before: datetime, now: datetime, progress: Progress | None = None) -> Plan:
    """What could be let go of what happened before a moment. Raises TamperError at what is not proved.

    Records that state a time after `now` are of a clock that went wrong, and hold nothing back.
    """
    known = reader.pruned
    start = known.until if known is not None else 0
    until, dropped, kept, size, digest = start, 0, 0, 0, sha256()
    for index in range(start // TILE_WIDTH, reader.size // TILE_WIDTH):
        entries = dict(reader.entries(index * TILE_WIDTH, (index + 1) * TILE_WIDTH))
        # records of one bundle are not quite in order of time
        times = [decode_record(data, what=f"entry {number}").time for number, data in entries.items()]
        if max((time for time in times if time <= now), default=before) >= before:
            break
        staying = _to_keep({number % TILE_WIDTH: data for number, data in entries.items()}, index)
        digest.update(sha256(encode_kept(staying)).digest())
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
    bundles = range(found.start // TILE_WIDTH, found.until // TILE_WIDTH)
    digests = b""
    for done, index in enumerate(bundles):
        kept = _to_keep(reader.remaining(index)[0], index)
        digests += sha256(encode_kept(kept)).digest()
        if kept:
            target = reader.directory / tile_path(KEPT, index)
            files.make_private_directory(target.parent)
            files.write_atomically(target, encode_kept(kept))
        if progress is not None:
            progress(done, 2 * len(bundles))
    if sha256(digests).hexdigest() != found.digest:
        raise TamperError(
            f"what is there of entries {found.start} to {found.until - 1} is not what entry {record} keeps"
        )
    files.write_atomically(_digests_path(reader.directory, record), digests)
    # 2. what says that the rest was let go
    files.write_atomically(reader.directory / PRUNED_FILE, canonical.encode({"entry": record}))
    # 3. the rest
    for done, index in enumerate(bundles):
        _bundle(reader.directory, index).unlink(missing_ok=True)
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
    """What there is of a bundle that was pruned, by place; neither proved nor known to be all. Raises FormatError."""
    path = directory / tile_path(KEPT, index)
    if not path.exists():
        return {}
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


def _digests_path(directory: Path, record: int) -> Path:
    return directory / f"{PRUNED_FILE}.{record}"


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
