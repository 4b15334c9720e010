"""Ledgers for tests: a fixed key, a fixed time, and as many records as asked for."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from palladion.keys import Ed25519Signer
from palladion.ledger.checkpoint import VerifierKey
from palladion.ledger.record import Record
from palladion.ledger.writer import Ledger

ORIGIN = "ledger.example/test"
SIGNER = Ed25519Signer(bytes(range(32)))
JOURNAL_KEY = bytes(range(32, 64))
KEY = VerifierKey(ORIGIN, SIGNER.public_key)
START = datetime(2026, 5, 1, tzinfo=UTC)


def record(number: int, text: str = "") -> Record:
    """The record of that number; the same number gives the same bytes."""
    return Record(
        "model.opened", START + timedelta(seconds=number), "user:test", f"fraud@{number}", {"n": number, "t": text}
    )


def make(directory: Path, size: int) -> None:
    """A closed ledger with `size` records in one checkpoint."""
    with Ledger.create(directory, ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        for start in range(0, size, 500):
            ledger.append([record(number) for number in range(start, min(size, start + 500))])
