"""Which entries go out: those of a ledger that fit a question, each proved, one piece of the log at a time."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from datetime import datetime

import msgspec

from palladion.export.item import Item, pseudonym_of
from palladion.ledger.index import Question
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import decode_record
from palladion.ledger.since import ORDER_SLACK
from palladion.ledger.tiles import TILE_WIDTH

Names = Mapping[str, str]  # of clients by pseudonym


def take(reader: LedgerReader, question: Question, *, start: int = 0, names: Names | None = None) -> Iterator[Item]:
    """The entries from `start` on that fit, in their order. Raises TamperError at the first that cannot be proved.

    Clients are named as `names` has it, and stay pseudonyms without. Reads the log itself and no index, which might
    leave entries out; of what cannot fit, only the hash is computed.
    """
    if question.since is not None:
        start = max(start, _first_since(reader, question.since))
    groups = _marks(question)
    for number, data in reader.entries(start):
        # most are not meant, and reading a record whole takes ten times as long
        if all(any(mark in data for mark in marks) for marks in groups):
            record = decode_record(data, what=f"entry {number}")
            if question.fits(record):
                named = (names or {}).get(pseudonym_of(record) or "")
                yield Item(number, data, record, named)


def _marks(question: Question) -> list[list[bytes]]:
    """Of each condition the bytes of which one is in every canonical record that fits; others may quote them."""
    conditions = (
        (("kind",), question.kinds),
        (("actor",), _given(question.actor)),
        (("subject",), _given(question.subject)),
        (("actor", "subject"), _given(question.party)),
    )
    return [
        [f'"{field}":'.encode() + msgspec.json.encode(text) for field in fields for text in texts]
        for fields, texts in conditions
        if texts
    ]


def _given(text: str | None) -> tuple[str, ...]:
    return () if text is None else (text,)


def _first_since(reader: LedgerReader, moment: datetime) -> int:
    """An entry before which everything happened before `moment`; some twenty pieces are read to find it."""
    kept_from = reader.pruned.until // TILE_WIDTH if reader.pruned is not None else 0  # before, not all can be asked
    pieces = range(kept_from, -(-reader.size // TILE_WIDTH))

    def begins(piece: int) -> datetime:
        number = piece * TILE_WIDTH
        return decode_record(reader.entry(number), what=f"entry {number}").time

    later = bisect_left(pieces, moment - ORDER_SLACK, key=begins)
    # where nothing is left to compare with, what was kept is read from its beginning
    return (kept_from + later - 1) * TILE_WIDTH if later else 0
