"""Records: one encoding each, and nothing else is read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion import canonical
from palladion.errors import FormatError
from palladion.ledger.record import KINDS, RECORD_FIELDS, Record, decode_record, encode_record

from .ledgers import START, record

EARLIEST = START.replace(year=1000, tzinfo=None)  # years have four digits


@given(
    st.sampled_from(sorted(KINDS)),
    st.datetimes(EARLIEST),
    st.text(st.characters(codec="utf-8"), max_size=50),
)
def test_a_record_reads_back(kind: str, moment: Any, text: str) -> None:
    made = Record(kind, moment.replace(tzinfo=START.tzinfo), text, text, {"text": text})
    assert decode_record(encode_record(made), what="it") == made


def test_an_unknown_kind_is_a_mistake_when_writing_and_accepted_when_reading() -> None:
    with pytest.raises(ValueError, match="no kind of record"):
        encode_record(Record("model.imagined", START, "a", "b"))
    later = encode_record(record(1)).replace(b"model.opened", b"model.imagined")
    assert decode_record(later, what="it").kind == "model.imagined"


@pytest.mark.parametrize(
    ("name", "value"),
    [("v", 2), ("time", "2026"), ("time", 3), ("kind", "Model"), ("actor", None), ("details", []), ("extra", 1)],
)
def test_a_record_of_another_shape_is_refused(name: str, value: object) -> None:
    document = json.loads(encode_record(record(1)))
    document[name] = value
    with pytest.raises(FormatError, match="it "):
        decode_record(canonical.encode(document), what="it")


@pytest.mark.parametrize("name", sorted(RECORD_FIELDS))
def test_a_record_without_one_of_its_fields_is_refused(name: str) -> None:
    document = json.loads(encode_record(record(1)))
    del document[name]
    with pytest.raises(FormatError, match="it is not a record"):
        decode_record(canonical.encode(document), what="it")


def test_a_record_that_is_too_large_is_not_written() -> None:
    with pytest.raises(ValueError, match="at most 65535 fit"):
        encode_record(record(1, "x" * 66_000))
    with pytest.raises(ValueError, match="at most 512 characters"):
        encode_record(Record("model.opened", START, "x" * 513, "b"))
