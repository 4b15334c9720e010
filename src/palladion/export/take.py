"""Which entries go out: those of a ledger that fit a question, each proved, one piece of the log at a time."""

from collections.abc import Iterator, Mapping

import msgspec

from palladion.export.item import Item, pseudonym_of
from palladion.ledger.index import Question
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import decode_record
from palladion.ledger.since import first_since

Names = Mapping[str, str]  # of clients by pseudonym


def take(reader: LedgerReader, question: Question, *, start: int = 0, names: Names | None = None) -> Iterator[Item]:
    """The entries from `start` on that fit, in their order. Raises TamperError at the first that cannot be proved.

    Clients are named as `names` has it, and stay pseudonyms without. Reads the log itself and no index, which might
    leave entries out; of what cannot fit, only the hash is computed.
    """
    if question.since is not None:
        start = max(start, first_since(reader, question.since))
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
