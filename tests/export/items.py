"""Entries for tests of exports: usual ones, and hostile ones that Hypothesis makes."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from palladion import canonical
from palladion.clock import timestamp
from palladion.export.item import Item, Source
from palladion.ledger.record import Record
from palladion.ledger.writer import Ledger
from tests.ledger.ledgers import JOURNAL_KEY, KEY, ORIGIN, SIGNER

START = datetime(2026, 5, 1, 12, 30, 0, 123_999, tzinfo=UTC)
WHO = "client:0123456789abcdef0123"
SOURCE = Source(
    ORIGIN, str(KEY), size=1000, root="ab" * 32, host="gate-1.example", witnessed=10, witnesses=("w.example/1",)
)


def item(kind: str, details: dict[str, Any] | None = None, **changed: Any) -> Item:
    """An entry of that kind, by the gate about a client unless told otherwise."""
    number, name = changed.pop("number", 7), changed.pop("name", None)
    record = Record(kind, **{"time": START, "actor": "gate", "subject": WHO, "details": details or {}, **changed})
    return Item(number, encoded(record), record, name)


def answer(**details: Any) -> Item:
    """An answer of fraud@3."""
    usual = {"route": "/v1/fraud", "queries": 1, "standing": "trusted", "p_value": None, "request": "r1"}
    return item("answer.given", {**usual, **details}, actor=WHO, subject="fraud@3")


def encoded(record: Record) -> bytes:
    """The bytes of a record of whatever kind."""
    fields = {"time": timestamp(record.time), "kind": record.kind, "actor": record.actor, "subject": record.subject}
    return canonical.encode({"v": 1, **fields, "details": record.details})


def make(directory: Path, records: list[Record]) -> None:
    """A closed ledger of these records."""
    with Ledger.create(directory, ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        for start in range(0, len(records), 500):
            ledger.append(records[start : start + 500])


def refusals(count: int, start: int = 0) -> list[Record]:
    """So many refusals of a client, one a second."""
    return [
        Record("answer.refused", START + timedelta(seconds=n), "gate", WHO, {"reason": "limit", "requests": n + 1})
        for n in range(start, start + count)
    ]


# no surrogates: canonical JSON has none; the rest of Unicode, and what forms are made of, in plenty
_HOSTILE = st.sampled_from('|=\\"]\n\r\t\x00\x1b[31m\x7f\x85\u2028\u2029\u202e<165>1 2 - é日𝔘 CEF:0 a=b ')
TEXTS = st.lists(_HOSTILE, max_size=40).map("".join) | st.lists(
    _HOSTILE | st.characters(exclude_categories=["Cs"]), max_size=60
).map("".join)
_VALUES = st.recursive(
    TEXTS | st.integers(-(2**53) + 1, 2**53 - 1) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["by", "n", "x y"]), inner, max_size=3),
    max_leaves=6,
)
_NAMES = st.sampled_from(["route", "standing", "reason", "text", "to", "from", "endpoint", "requests", "by", "a|b=c\n"])
ITEMS = st.builds(
    lambda kind, actor, subject, details, name, number: item(
        kind, details, actor=actor, subject=subject, name=name, number=number
    ),
    st.sampled_from(["answer.given", "answer.refused", "standing.changed", "incident.noted", "decoy.touched", "x.y-z"]),
    TEXTS | TEXTS.map(lambda text: f"client:{text}"),
    TEXTS | TEXTS.map(lambda text: f"{text}@3"),
    st.dictionaries(_NAMES, _VALUES, max_size=6),
    st.none() | TEXTS,
    st.integers(0, 2**40),
)
