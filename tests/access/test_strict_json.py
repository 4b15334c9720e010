"""JSON that every reader reads alike."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.access.strict_json import decode_object
from palladion.errors import FormatError

values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3))


@pytest.mark.slow
@given(st.dictionaries(st.text(), values, max_size=5))
def test_an_object_comes_back(document: dict[str, Any]) -> None:
    assert decode_object(json.dumps(document).encode(), what="it") == document


@pytest.mark.parametrize(
    "data",
    [b"", b"1", b"[]", b"{", b'{"a":1,"a":1}', b'[{"a":1}]', b'{"a":NaN}', b'{"a":-Infinity}', b"\xff", b"[" * 9999],
)
def test_anything_else_is_a_sentence_that_repeats_nothing(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"^it is not (JSON in UTF-8 with each member once|a JSON object)$"):
        decode_object(data, what="it")
