"""One retained query: what goes in comes out, and nothing else does."""

from contextlib import suppress

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.ledger.body import Body, decode_body, encode_body

NUMBERS = st.sampled_from(["f2", "f4", "f8", "i1", "i8", "u2", "?"])


def body(values: NDArray[np.generic] | None = None) -> Body:
    inputs = {"x": np.arange(4, dtype=np.float32) if values is None else values}
    return Body("00112233", 7, inputs, np.array([0.25, 0.75]), b"h" * 16, 0.125, "reduced")


@given(arrays(NUMBERS, array_shapes(min_dims=0, max_dims=3)))
def test_what_was_kept_is_what_is_read(values: NDArray[np.generic]) -> None:
    found = decode_body(encode_body(body(values)), what="it")
    assert found.inputs["x"].dtype == values.dtype
    assert np.array_equal(found.inputs["x"], values, equal_nan=values.dtype.kind == "f")
    assert found.scores.tolist() == [0.25, 0.75]
    assert (found.request, found.row, found.query_hash, found.strength, found.disclosed) == (
        "00112233",
        7,
        b"h" * 16,
        0.125,
        "reduced",
    )


def test_texts_cannot_be_kept() -> None:
    with pytest.raises(ValueError, match="only numbers"):
        encode_body(body(np.array(["a"])))


def _changed(**changes: object) -> bytes:
    document = msgspec.msgpack.decode(encode_body(body()))
    for index, value in changes.items():
        document[int(index.removeprefix("at"))] = value
    return msgspec.msgpack.encode(document)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        encode_body(body())[:-1],
        encode_body(body()) + b"\0",
        _changed(at1="seven"),
        _changed(at2={"x": ["<f4", [5], bytes(16)]}),
        _changed(at2={"x": ["<f4", [-1, -1], bytes(16)]}),
        _changed(at2={"x": ["|O8", [1], bytes(8)]}),
        _changed(at2={"x": ["<f4", [1] * 9, bytes(4)]}),
        _changed(at3=["<M8", [1], bytes(8)]),
    ],
    ids=[
        "nothing",
        "no MessagePack",
        "cut",
        "more",
        "another type",
        "too few numbers",
        "two open sizes",
        "objects",
        "nine dimensions",
        "dates",
    ],
)
def test_what_is_no_body_is_a_sentence(data: bytes) -> None:
    with pytest.raises(FormatError, match="it has a body of an unknown shape"):
        decode_body(data, what="it")


@given(st.binary(max_size=200))
def test_whatever_bytes_come_they_are_a_body_or_a_sentence(data: bytes) -> None:
    with suppress(FormatError):
        assert isinstance(decode_body(data, what="it"), Body)
