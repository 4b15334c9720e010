"""Canonical JSON agrees with RFC 8785 and accepts nothing else."""

from collections.abc import Callable
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from palladion import canonical
from palladion.errors import FormatError


class Subtext(str):
    """A text of another type, which is taken for a caller's mistake."""

    __slots__ = ()


class Subnumber(int):
    """A number of another type."""


class Submap(dict[str, int]):
    """A mapping of another type."""


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


HOSTILE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(
        [canonical.INTEGER_MAX, canonical.INTEGER_MAX + 1, -canonical.INTEGER_MAX, -canonical.INTEGER_MAX - 1]
    )
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=8)
    | st.binary(max_size=4)
    | st.dates()
    | st.sampled_from(["\ud800", "a\udfff", '\x7f\x00"\\', Subtext("s"), Subnumber(7), Subnumber(2**60), Submap(a=1)]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.frozensets(st.integers(), max_size=2)
        | st.dictionaries(KEYS | st.sampled_from(["é", "\ud800", 1, None, True, 1.5, ("a",)]), inner, max_size=3)
        | inner.map(lambda value: {"a": {"b": [value]}})
    ),
    max_leaves=12,
)


def _reference(value: Any, depth: int = 0) -> str:
    """The encoding by its definition, a character at a time; raises on what has none."""
    if depth > canonical.DEPTH_MAX:
        raise ValueError
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Subtext | Subnumber):
        raise TypeError
    if isinstance(value, str):
        value.encode()
        return '"' + "".join(_character(character) for character in value) + '"'
    if isinstance(value, int) and abs(value) <= canonical.INTEGER_MAX:
        return str(int(value))
    if isinstance(value, list | tuple):
        return "[" + ",".join(_reference(item, depth + 1) for item in value) + "]"
    if isinstance(value, dict) and all(isinstance(key, str) and key.isascii() for key in value):
        items = (f"{_reference(key)}:{_reference(value[key], depth + 1)}" for key in sorted(value))
        return "{" + ",".join(items) + "}"
    raise ValueError


def _character(character: str) -> str:
    short = {"\b": "b", "\t": "t", "\n": "n", "\f": "f", "\r": "r", '"': '"', "\\": "\\"}
    if character in short:
        return "\\" + short[character]
    return f"\\u{ord(character):04x}" if character < " " else character


def _outcome(encode: Callable[[Any], bytes], value: Any) -> bytes | None:
    try:
        return encode(value)
    except (TypeError, ValueError):
        return None


@pytest.mark.slow
@settings(max_examples=400)
@given(HOSTILE)
def test_what_is_quick_refuses_and_writes_exactly_what_the_definition_does(value: Any) -> None:
    assert _outcome(canonical.encode, value) == _outcome(lambda item: _reference(item).encode(), value)


@given(HOSTILE, st.integers(canonical.DEPTH_MAX - 3, canonical.DEPTH_MAX + 2), st.booleans())
def test_so_it_does_where_documents_get_too_deep(value: Any, depth: int, listed: bool) -> None:
    for _ in range(depth):
        value = [value] if listed else {"a": value}
    assert _outcome(canonical.encode, value) == _outcome(lambda item: _reference(item).encode(), value)
