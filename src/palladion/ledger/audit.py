"""Recomputes a whole ledger from its entries, and names what was changed.

Trusts nothing but the verifier key: each leaf is hashed again, each tile rebuilt, the root compared with the signed
one, and the history with a checkpoint that was saved elsewhere, if there is one.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hmac import compare_digest
from pathlib import Path

import msgspec

from palladion.clock import parse_timestamp, timestamp
from palladion.errors import FormatError, TamperError
from palladion.ledger import merkle
from palladion.ledger.checkpoint import Checkpoint, VerifierKey, verify_checkpoint
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import RECORD_FIELDS, decode_record
from palladion.ledger.tiles import TILE_LEVELS, TILE_WIDTH, tile_path, tiles_of

Progress = Callable[[int, int], None]


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


def verify_ledger(
    directory: Path, key: VerifierKey, *, against: Sequence[bytes] = (), progress: Progress | None = None
) -> LedgerReport:
    """Verify everything that the ledger's checkpoint covers; `against` are notes of it that were saved earlier.

    Raises TamperError naming the entry or tile that was changed. Reads all entries: about a second for 300,000.
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
    leaves, summary = _verify_entries(reader, progress)
    root = _verify_tiles(reader, leaves)
    # 4. the root against the signed one
    if not compare_digest(root, reader.checkpoint.root):
        raise TamperError(
            f"the ledger was rewritten: its {reader.size} entries lead to another root than the signed checkpoint's"
        )
    # 5. the history against the saved checkpoints
    for checkpoint in saved:
        if not compare_digest(reader.root_at(checkpoint.size), checkpoint.root):
            raise TamperError(
                f"the ledger was rewritten: its first {checkpoint.size} entries are not those of a saved checkpoint"
            )
    return LedgerReport(reader.checkpoint.origin, reader.size, root, *summary, against=saved)


def _verify_entries(
    reader: LedgerReader, progress: Progress | None
) -> tuple[list[bytes], tuple[datetime | None, datetime | None, dict[str, int]]]:
    """Hash every entry and compare it with its tile; returns the root of each full tile and counts of the records."""
    roots: list[bytes] = []
    kinds: Counter[str] = Counter()
    times: list[str] = []
    for index, width in tiles_of(reader.size):
        entries, leaves = reader.checked_bundle(index)
        for offset, entry in enumerate(entries):
            kind, time = _header(entry, index * TILE_WIDTH + offset)
            kinds[kind] += 1
            times = [times[0] if times else time, time]
        roots.append(merkle.list_root(leaves))
        if progress is not None:
            progress(index * TILE_WIDTH + width, reader.size)
    first, last = (_moment(times[0]), _moment(times[1])) if times else (None, None)
    return roots, (first, last, dict(sorted(kinds.items())))


def _moment(text: str) -> datetime:
    try:
        return parse_timestamp(text)
    except ValueError:
        raise FormatError(f"the ledger's first or last entry has no canonical time: {text[:80]!r}") from None


def _header(entry: bytes, index: int) -> tuple[str, str]:
    """Kind and time of a record. The quick look here accepts what is canonical; the slow one says what is wrong."""
    try:
        document = msgspec.json.decode(entry)
        if document.keys() == RECORD_FIELDS and msgspec.json.encode(document, order="sorted") == entry:
            return str(document["kind"]), str(document["time"])
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError, RecursionError):
        pass
    record = decode_record(entry, what=f"entry {index}")
    return record.kind, timestamp(record.time)


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
