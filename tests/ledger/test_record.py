"""Records: one encoding each, and nothing else is read."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion import canonical
from palladion.errors import FormatError
from palladion.ledger.record import KINDS, RECORD_FIELDS, Record, decode_record, document_of, encode_record

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


_MEMBERS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**54), 2**54)
    | st.floats()
    | st.binary(max_size=3)
    | st.datetimes()
    | st.text(st.characters(exclude_categories=()), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=8,
)
_MOMENTS = st.datetimes(
    timezones=st.sampled_from([UTC, timezone(timedelta(0)), timezone(timedelta(hours=5))])
) | st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.replace(microsecond=0))


def _outcome(encode: Callable[[], bytes]) -> bytes | str:
    try:
        return encode()
    except (ValueError, TypeError, OverflowError) as error:
        return type(error).__name__


@given(_MOMENTS, st.text(st.characters(exclude_categories=()), max_size=6), _MEMBERS | st.just(b"actor"), _MEMBERS)
def test_a_record_is_written_as_its_document_is_or_refused_as_that_is(
    moment: datetime, subject: str, actor: Any, details: Any
) -> None:
    made = Record("model.opened", moment, actor, subject, details if isinstance(details, dict) else {"a": details})
    expected = _outcome(lambda: canonical.encode(document_of(made))) if hasattr(actor, "__len__") else "TypeError"
    assert _outcome(lambda: encode_record(made)) == expected


@pytest.mark.parametrize("depth", range(canonical.DEPTH_MAX - 3, canonical.DEPTH_MAX + 2))
def test_details_may_lie_as_deep_as_in_their_document(depth: int) -> None:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    made = Record("model.opened", START + timedelta(microseconds=1), "a", "b", value)
    assert _outcome(lambda: encode_record(made)) == _outcome(lambda: canonical.encode(document_of(made)))


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
