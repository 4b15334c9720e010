"""The entries of a ledger from a moment on, without reading those before: for reports over millions of them."""

from bisect import bisect_left
from collections.abc import Iterator
from datetime import datetime, timedelta

from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import Record, decode_record
from palladion.ledger.tiles import TILE_WIDTH

# A record states when something happened, and is written a little later: after others that happened a little later.
ORDER_SLACK = timedelta(minutes=10)


def records_since(reader: LedgerReader, moment: datetime, kinds: frozenset[str]) -> Iterator[Record]:
    """The records of these kinds from `moment` on, proved, oldest first. Raises TamperError at what cannot be.

    Reads some twenty pieces to find the first; then one piece at a time, of which only these kinds are decoded.
    """
    marks = [f'"kind":"{kind}"'.encode() for kind in sorted(kinds)]
    for index, entry in reader.entries(first_since(reader, moment)):
        # canonical JSON, so that each record has one of these where it is of such a kind; others may quote one
        if any(mark in entry for mark in marks):
            record = decode_record(entry, what=f"entry {index}")
            if record.kind in kinds and record.time >= moment:
                yield record


def first_since(reader: LedgerReader, moment: datetime) -> int:
    """An entry before which everything happened before `moment`; some twenty pieces are read to find it."""
    kept_from = reader.pruned.until // TILE_WIDTH if reader.pruned is not None else 0  # before, not all can be asked
    pieces = range(kept_from, -(-reader.size // TILE_WIDTH))

    def begins(piece: int) -> datetime:
        number = piece * TILE_WIDTH
        return decode_record(reader.entry(number), what=f"entry {number}").time

    later = bisect_left(pieces, moment - ORDER_SLACK, key=begins)
    # where nothing is left to compare with, what was kept is read from its beginning
    return (kept_from + later - 1) * TILE_WIDTH if later else 0
