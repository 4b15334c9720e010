"""Canonical JSON agrees with RFC 8785 and accepts nothing else."""

from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from palladion import canonical
from palladion.errors import FormatError

TEXT = st.text(st.characters(codec="utf-8"))
KEYS = st.text(st.characters(max_codepoint=127))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-canonical.INTEGER_MAX, canonical.INTEGER_MAX) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_the_encoding_is_that_of_rfc_8785(value: Any) -> None:
    assert canonical.encode(value) == rfc8785.dumps(value)


@given(VALUES)
def test_what_is_encoded_reads_back(value: Any) -> None:
    assert canonical.decode(canonical.encode(value), size_max=10**6, what="it") == value


@given(st.binary(max_size=60))
def test_whatever_is_accepted_encodes_to_the_same_bytes(data: bytes) -> None:
    try:
        value = canonical.decode(data, size_max=10**6, what="it")
    except FormatError:
        return
    assert canonical.encode(value) == data


@pytest.mark.parametrize(
    "data",
    [
        b'{"b":1,"a":2}',
        b'{"a": 1}',
        b'{"a":1,"a":1}',
        b"[1.0]",
        b'["\\u0041"]',
        b"[1e3]",
        b"[9007199254740992]",
        b"",
        b"\xff",
    ],
    ids=["order", "space", "duplicate", "float", "escape", "exponent", "huge", "empty", "not-utf-8"],
)
def test_other_encodings_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="it is not canonical JSON"):
        canonical.decode(data, size_max=100, what="it")


def test_a_document_over_its_limit_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(FormatError, match="more than the 3 allowed"):
        canonical.decode(b"[1,2", size_max=3, what="it")


def test_deep_nesting_is_refused() -> None:
    depth = 100_000
    with pytest.raises(FormatError):
        canonical.decode(b"[" * depth + b"]" * depth, size_max=10**6, what="it")
    nested: Any = []
    for _ in range(canonical.DEPTH_MAX + 1):
        nested = [nested]
    with pytest.raises(ValueError, match="nested deeper"):
        canonical.encode(nested)


@pytest.mark.parametrize("depth", range(canonical.DEPTH_MAX - 1, canonical.DEPTH_MAX + 2))
def test_texts_lie_no_deeper_than_anything_else(depth: int) -> None:
    def encodes(value: Any) -> bool:
        for _ in range(depth):
            value = {"a": value}
        try:
            return bool(canonical.encode(value))
        except ValueError:
            return False

    assert encodes("text") == encodes(1) == (depth <= canonical.DEPTH_MAX)


@pytest.mark.parametrize("value", [1.5, b"bytes", {1: 2}, {"é": 1}, 2**53, "\ud800", {"a": "\ud800"}])
def test_values_without_a_canonical_form_are_refused(value: Any) -> None:
    with pytest.raises(ValueError):
        canonical.encode(value)
