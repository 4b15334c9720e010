"""The entries of a ledger from a moment on, without reading those before: for reports over millions of them."""

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
    for index, entry in reader.entries(_first(reader, moment - ORDER_SLACK)):
        # canonical JSON, so that each record has one of these where it is of such a kind; others may quote one
        if any(mark in entry for mark in marks):
            record = decode_record(entry, what=f"entry {index}")
            if record.kind in kinds and record.time >= moment:
                yield record


def _first(reader: LedgerReader, moment: datetime) -> int:
    """An entry before which everything happened before `moment`."""
    begin = reader.pruned.until // TILE_WIDTH if reader.pruned is not None else 0  # before, not all can be asked
    low, high = begin, (reader.size + TILE_WIDTH - 1) // TILE_WIDTH  # the first piece that begins at `moment` or later
    while low < high:
        middle = (low + high) // 2
        index = middle * TILE_WIDTH
        if decode_record(reader.entry(index), what=f"entry {index}").time < moment:
            low = middle + 1
        else:
            high = middle
    # where nothing is left to compare with, what was kept is read from its beginning
    return (low - 1) * TILE_WIDTH if low > begin else 0
