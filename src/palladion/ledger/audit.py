"""Recomputes a whole ledger from its entries, and names what was changed.

Trusts nothing but the verifier key: each leaf is hashed again, each tile rebuilt, the root compared with the signed
one, and the history with a checkpoint that was saved elsewhere, if there is one.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from datetime import datetime
from hmac import compare_digest
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import msgspec

from palladion.clock import parse_timestamp, timestamp
from palladion.errors import FormatError, StorageError, TamperError
from palladion.ledger import merkle
from palladion.ledger.checkpoint import Checkpoint, VerifierKey, verify_checkpoint
from palladion.ledger.pruning import Pruned
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import decode_record
from palladion.ledger.tiles import TILE_LEVELS, TILE_WIDTH, tile_path, tiles_of

Progress = Callable[[int, int], None]

SHARED_MIN = 200_000  # entries; of fewer, starting processes takes longer than they save
PROCESSES_MAX = 8
STRETCH = 128  # bundles that a process verifies at once, some 30,000 entries
_AT_ONCE = 8  # entries that are decoded in one piece: more leave the processor's caches before they are compared


@dataclass(frozen=True)
class LedgerReport:
    """What a verified ledger holds."""

    origin: str
    size: int
    root: bytes
    first: datetime | None = None
    last: datetime | None = None
    kinds: dict[str, int] = field(default_factory=dict)
    against: tuple[Checkpoint, ...] = ()
    pruned: Pruned | None = None


def verify_ledger(
    directory: Path, key: VerifierKey, *, against: Sequence[bytes] = (), progress: Progress | None = None
) -> LedgerReport:
    """Verify everything that the ledger's checkpoint covers; `against` are notes of it that were saved earlier.

    Raises TamperError naming the entry or tile that was changed. Reads all entries: a million take some 7 s of CPU,
    which several processes share.
    """
    # 1. the signature of the checkpoint
    reader = LedgerReader(directory, key)
    # 2. the saved checkpoints: signed by the same key, and not of a longer log
    saved = tuple(verify_checkpoint(note, key) for note in against)
    for checkpoint in saved:
        if checkpoint.size > reader.size:
            raise TamperError(
                f"the ledger's tail was cut: it has {reader.size} entries, a saved checkpoint covers {checkpoint.size}",
                f"entries {reader.size} to {checkpoint.size - 1} are missing",
            )
    # 3. every entry against its leaf hash, and every tile against the one below
    leaves, summary = _verify_entries(reader, key, progress)
    root = _verify_tiles(reader, leaves)
    # 4. the root against the signed one
    if not compare_digest(root, reader.checkpoint.root):
        raise TamperError(
            f"the ledger was rewritten: its {reader.size} entries lead to another root than the signed checkpoint's"
        )
    # 5. what was kept of what was pruned
    reader.check_prunings()
    # 6. the history against the saved checkpoints
    for checkpoint in saved:
        if not compare_digest(reader.root_at(checkpoint.size), checkpoint.root):
            raise TamperError(
                f"the ledger was rewritten: its first {checkpoint.size} entries are not those of a saved checkpoint"
            )
    return LedgerReport(reader.checkpoint.origin, reader.size, root, *summary, against=saved, pruned=reader.pruned)


@dataclass
class _Part:
    """What a stretch of bundles holds: the root of each, how many records of each kind, the first and the last time."""

    roots: list[bytes] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    times: list[str] = field(default_factory=list)

    def add(self, other: "_Part") -> None:
        """Take in the stretch that follows."""
        self.roots += other.roots
        self.kinds += other.kinds
        times = self.times + other.times
        self.times = [times[0], times[-1]] if times else []


def _verify_entries(
    reader: LedgerReader, key: VerifierKey, progress: Progress | None
) -> tuple[list[bytes], tuple[datetime | None, datetime | None, dict[str, int]]]:
    """Hash every entry and compare it with its tile; returns the root of each full tile and counts of the records."""
    bundles, found = list(tiles_of(reader.size)), _Part()
    for part in _parts(reader, key, bundles):
        found.add(part)
        if progress is not None:
            progress(min(len(found.roots) * TILE_WIDTH, reader.size), reader.size)
    first, last = (_moment(found.times[0]), _moment(found.times[-1])) if found.times else (None, None)
    return found.roots, (first, last, dict(sorted(found.kinds.items())))


def _parts(reader: LedgerReader, key: VerifierKey, bundles: Sequence[tuple[int, int]]) -> Iterator[_Part]:
    """The parts in order, so that the first damage is what is named; on several processes where it is worth it."""
    stretches = [bundles[start : start + STRETCH] for start in range(0, len(bundles), STRETCH)]
    processes = min(PROCESSES_MAX, len(os.sched_getaffinity(0)))
    if reader.size < SHARED_MIN or processes == 1:
        for stretch in stretches:
            yield _verify_bundles(reader, stretch)
        return
    # spawned: whoever verifies may have threads, and a fork would take their locks along
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(_verify_stretch, reader.directory, key, reader.note, stretch) for stretch in stretches]
        try:
            for future in waiting:
                yield future.result()
        except BrokenProcessPool:
            raise StorageError("a process that verified the ledger was killed", "is there enough memory?") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _verify_stretch(directory: Path, key: VerifierKey, note: bytes, stretch: Sequence[tuple[int, int]]) -> _Part:
    return _verify_bundles(LedgerReader(directory, key, note=note), stretch)


def _verify_bundles(reader: LedgerReader, bundles: Sequence[tuple[int, int]]) -> _Part:
    found = _Part()
    for index, _ in bundles:
        entries, leaves = reader.remaining(index)
        headers = [(header.kind, header.time) for header in _headers(entries, index)]
        if headers:
            found.kinds.update([kind for kind, _ in headers])
            found.times = [found.times[0] if found.times else headers[0][1], headers[-1][1]]
        found.roots.append(merkle.list_root(leaves))
    return found


def _no_float(text: str) -> float:
    raise ValueError(f"{text} has no canonical form")


class _Document(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A record as it lies in an entry."""

    actor: str
    details: dict[str, Any]
    kind: str
    subject: str
    time: str
    v: Literal[1]


_read = msgspec.json.Decoder(_Document, float_hook=_no_float).decode_lines
_write = msgspec.json.Encoder(order="sorted").encode_lines


def _moment(text: str) -> datetime:
    try:
        return parse_timestamp(text)
    except ValueError:
        raise FormatError(f"the ledger's first or last entry has no canonical time: {text[:80]!r}") from None


def _headers(entries: Mapping[int, bytes], bundle: int) -> Iterator[_Document]:
    """The records of a bundle."""
    every = list(entries.items())
    for start in range(0, len(every), _AT_ONCE):
        some = every[start : start + _AT_ONCE]
        yield from _quick([entry for _, entry in some]) or [
            _slow(entry, bundle * TILE_WIDTH + place) for place, entry in some
        ]


def _quick(entries: Sequence[bytes]) -> list[_Document]:
    """The records of entries that are canonical; none where one is not, which `_slow` says what is wrong with."""
    # Each line is one entry: the encoder writes a line break after a record and nowhere else, so equal texts with as
    # many records as entries break at the same places.
    text = b"\n".join([*entries, b""])
    try:
        found = _read(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return []
    return found if len(found) == len(entries) and _write(found) == text else []


def _slow(entry: bytes, index: int) -> _Document:
    record = decode_record(entry, what=f"entry {index}")
    return _Document(record.actor, record.details, record.kind, record.subject, timestamp(record.time), 1)


def _verify_tiles(reader: LedgerReader, roots: list[bytes]) -> bytes:
    """Rebuild each level from the one below, compare with the stored tiles, and return the root of all.

    `roots` holds the root of each level-0 tile; the last one may be partial.
    """
    level = 1
    below = roots
    while True:
        complete = reader.size >> (TILE_LEVELS * level)
        if not complete:
            return merkle.list_root(below)
        above = []
        for index, width in tiles_of(len(below)):
            start = index * TILE_WIDTH
            group = below[start : start + width]
            stored = _stored(reader, level, index, complete)
            if group[: len(stored)] != stored:
                place = next(i for i in range(len(stored)) if group[i] != stored[i])
                span = TILE_WIDTH**level
                first = (start + place) * span
                raise TamperError(
                    f"tile {tile_path(level, index)} does not fit the entries {first} to {first + span - 1} below it"
                )
            above.append(merkle.list_root(group))
        below = above
        level += 1


def _stored(reader: LedgerReader, level: int, index: int, complete: int) -> list[bytes]:
    """The stored hashes of a tile; none where only the unfinished right edge would be in it."""
    return reader.hashes(level, index) if index * TILE_WIDTH < complete else []
