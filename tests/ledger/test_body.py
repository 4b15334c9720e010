"""One retained query: what goes in comes out, and nothing else does."""

import struct
from contextlib import suppress
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.ledger.body import Body, cell_of, decode_body, encode_body
from palladion.mark.answers.noise import Pairs, are_probabilities

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


# --- its cell

# few different numbers, so that many are tied; and those that are none, or too large to be subtracted
FEW = st.sampled_from([0.0, -0.0, 0.25, 0.5, 1.0, -3.0, 1e-320, 6e4, 1e308, -1e308, np.inf, -np.inf, np.nan])


def _scored(scores: NDArray[np.generic], strength: float = 0.1) -> Body:
    return Body("r", 0, {}, scores, b"h" * 16, strength, "full")


@given(
    arrays("f8", st.integers(2, 12), elements=FEW | st.floats(width=16, allow_nan=False)),
    st.sampled_from(["f2", "f4", "f8"]),
    st.booleans(),
)
def test_a_cell_is_that_of_the_marks(numbers: NDArray[np.float64], kind: str, softmax: bool) -> None:
    with np.errstate(all="ignore"):
        if softmax:
            numbers = np.exp(numbers - numbers.max())
            numbers = numbers / numbers.sum()
        scores = numbers.astype(kind)
        exact = scores.astype(np.float64)[None]
        pairs = Pairs.of(exact, are_probabilities(exact))
        found = cell_of(_scored(scores))
    if not np.isfinite(pairs.margins[0]):
        assert found is None
    else:
        two = sorted([int(pairs.first[0]), int(pairs.second[0])])
        assert found == struct.pack("<II", *two) + b"h" * 16


def test_what_cannot_be_marked_is_in_no_cell() -> None:
    assert cell_of(_scored(np.ones(1))) is None


def _unmarked(values: NDArray[np.generic], *, name: str = "x", scores: NDArray[np.generic] | None = None) -> Body:
    return Body("r", 0, {name: values}, np.ones(3) if scores is None else scores, b"", 0.0, "full")


def test_the_cell_of_a_query_without_a_mark_is_that_query_alone() -> None:
    values = np.arange(4, dtype=np.float32)
    found = cell_of(_unmarked(values))
    assert found is not None
    assert cell_of(_unmarked(values.copy(), scores=np.zeros(0))) == found
    others = [
        _unmarked(np.nextafter(values, np.float32(9))),
        _unmarked(values.reshape(2, 2)),
        _unmarked(values.view(np.int32)),
        _unmarked(values, name="y"),
        Body("r", 0, {"x": values}, np.ones(3), b"h" * 16, 0.1, "full"),
    ]
    assert len({found, *(cell_of(item) for item in others)}) == 6


def test_a_body_says_when_it_was_asked_and_one_of_before_does_not() -> None:
    asked = replace(body(), at=1_700_000_000.5)
    assert decode_body(encode_body(asked), what="it").at == 1_700_000_000.5
    before = msgspec.msgpack.encode(msgspec.msgpack.decode(encode_body(asked))[:7])
    assert decode_body(before, what="it").at == 0.0


def test_two_classes_are_one_cell_whichever_of_them_leads() -> None:
    assert cell_of(_scored(np.array([0.7, 0.1, 0.2]))) == cell_of(_scored(np.array([0.2, 0.1, 0.7])))
    assert cell_of(_scored(np.array([0.7, 0.1, 0.2]))) != cell_of(_scored(np.array([0.7, 0.2, 0.1])))


# --- its bytes


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
