"""Tensors in JSON and in bytes: what was written is read, and what is not exactly a tensor is told with its place."""

import math
import re
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.gate.protocols.tensors import (
    BF16,
    DATATYPES,
    DTYPES,
    Layout,
    NumberError,
    Sections,
    TensorError,
    shown_shape,
    split_body,
)
from palladion.model.run import STRING, Port

from .arrays import DATATYPES as ALL
from .arrays import arrays, port, same


def _layout(dtype: str = "float32", shape: tuple[int | str | None, ...] = (None, 2), datatype: str = "") -> Layout:
    return Layout(Port("x", dtype, shape), datatype)


def _raw(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


def test_every_type_of_a_model_has_its_name() -> None:
    assert DATATYPES == {
        "bool": "BOOL", "string": "BYTES",
        "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
        "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
        "float16": "FP16", "float32": "FP32", "float64": "FP64",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("datatype", ALL)
@given(data=st.data())
def test_what_was_written_is_read(datatype: str, data: st.DataObject) -> None:
    array = data.draw(arrays(datatype))
    layout = Layout(port("x", datatype, array), datatype)
    layout.check(datatype, array.shape)
    assert same(layout.read_binary(layout.write_binary(array), array.shape), array)
    flat = msgspec.Raw(msgspec.json.encode(layout.write_json(array)))
    assert same(layout.read_json(flat, array.shape), array)
    nested = msgspec.Raw(msgspec.json.encode(array.tolist()))
    assert same(layout.read_json(nested, array.shape), array)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_bf16_rounds_as_processors_do(values: list[float]) -> None:
    array = np.array(values, np.float32)
    with np.errstate(over="ignore"):
        expected = array.astype(ml_dtypes.bfloat16)
    layout = _layout(shape=(None,), datatype=BF16)
    if not np.isfinite(expected.astype(np.float32)).all():
        with pytest.raises(TensorError, match="does not fit BF16"):
            layout.write_binary(array)
    else:
        assert layout.write_binary(array) == expected.tobytes()


def test_a_number_between_two_of_bf16_goes_to_the_even_one() -> None:
    array = np.array([0x3F808000, 0x3F818000, 0xBF808000, 0x3F808001], np.uint32).view(np.float32)
    written = np.frombuffer(_layout(shape=(None,), datatype=BF16).write_binary(array), "<u2")
    assert [hex(half) for half in written.tolist()] == ["0x3f80", "0x3f82", "0xbf80", "0x3f81"]


@pytest.mark.parametrize(
    ("dtype", "shape", "reason"),
    [("complex64", (None,), "no name for"), ("float32", (), "no rows"), ("float32", (None,) * 17, "rank")],
)
def test_a_port_that_the_protocol_cannot_say_is_refused(dtype: str, shape: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        _layout(dtype, shape)


@pytest.mark.parametrize(
    ("datatype", "shape", "place"),
    [
        ("FP64", [1, 2], ".datatype"),
        ("", [1, 2], ".datatype"),
        ("FP32", [1, 3], ".shape"),
        ("FP32", [2], ".shape"),
        ("FP32", [], ".shape"),
        ("FP32", [1, 2, 1], ".shape"),
    ],
)
def test_another_type_or_shape_is_refused(datatype: str, shape: list[int], place: str) -> None:
    with pytest.raises(TensorError) as caught:
        _layout().check(datatype, shape)
    assert caught.value.place == place


@pytest.mark.parametrize(
    ("dtype", "text", "place"),
    [
        ("float32", "[1,2,3]", ".data"),
        ("float32", "[1]", ".data"),
        ("float32", "[]", ".data"),
        ("float32", "[[1,2],[3,4]]", ".data"),
        ("float32", "[[1],[2]]", ".data"),
        ("float32", "[[1,2],[3]]", ".data"),
        ("float32", "[[[1,2]]]", ".data[0][0]"),
        ("float32", "[[1,[2]]]", ".data[0][1]"),
        ("float32", "[1,[2]]", ".data[1]"),
        ("float32", "[1,1e39]", ".data[1]"),
        ("float32", "[[1,-1e39]]", ".data[0][1]"),
        ("float32", "[1,1e999]", ".data[1]"),
        ("float32", '[1,"2"]', ".data[1]"),
        ("float32", "[1,true]", ".data[1]"),
        ("float32", "[1,null]", ".data[1]"),
        ("float32", "null", ".data"),
        ("float32", '{"0":1}', ".data"),
        ("float16", "[1,65520]", ".data[1]"),
        ("uint8", "[1,256]", ".data"),
        ("uint8", "[1,-1]", ".data"),
        ("int64", "[1,1.5]", ".data[1]"),
        ("int64", "[1,9223372036854775808]", ".data"),
        ("bool", "[true,1]", ".data[1]"),
        (STRING, '["a",1]', ".data[1]"),
    ],
)
def test_json_that_is_no_such_tensor_is_refused_with_its_place(dtype: str, text: str, place: str) -> None:
    with pytest.raises(TensorError) as caught:
        _layout(dtype).read_json(_raw(text), [1, 2])
    assert caught.value.place == place


def test_json_may_have_blanks() -> None:
    assert _layout().read_json(_raw(" [ [ 1, 2 ] ] "), [1, 2]).tolist() == [[1, 2]]


def _texts(*texts: bytes) -> bytes:
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


@pytest.mark.parametrize(
    ("dtype", "data", "place"),
    [
        ("float32", bytes(7), ".data"),
        ("float32", bytes(9), ".data"),
        ("float32", b"", ".data"),
        ("float32", np.array([1, np.nan], "<f4").tobytes(), ".data[1]"),
        ("float64", np.array([np.inf, 1], "<f8").tobytes(), ".data[0]"),
        ("bool", b"\x01\x02", ".data"),
        (STRING, _texts(b"a"), ".data"),
        (STRING, _texts(b"a", b"b", b"c"), ".data"),
        (STRING, _texts(b"a", b"b") + b"c", ".data"),
        (STRING, _texts(b"a", b"\xff"), ".data[1]"),
        (STRING, _texts(b"a", b"\xed\xa0\x80"), ".data[1]"),
        (STRING, _texts(b"a") + b"\xff\xff\xff\xffb", ".data[1]"),
        (STRING, _texts(b"abcd") + b"\x01\x00", ".data[1]"),
    ],
)
def test_bytes_that_are_no_such_tensor_are_refused_with_their_place(dtype: str, data: bytes, place: str) -> None:
    with pytest.raises(TensorError) as caught:
        _layout(dtype).read_binary(data, [1, 2])
    assert caught.value.place == place


def test_a_shape_that_claims_much_costs_no_memory() -> None:
    with pytest.raises(TensorError, match="too few"):
        _layout(STRING, (None, None)).read_binary(b"\0" * 8, [2**40, 2**40])
    with pytest.raises(TensorError, match="its shape says"):
        _layout("float32", (None, None)).read_binary(b"\0" * 8, [2**40, 2**40])
    with pytest.raises(TensorError, match="its shape says"):
        _layout("float32", (None, None)).read_json(_raw("[1]"), [2**40, 2**40])


def test_what_is_read_does_not_hold_the_body() -> None:
    array = _layout().read_binary(bytes(8), [1, 2])
    assert array.flags.writeable
    assert array.flags.aligned


@pytest.mark.parametrize(
    ("length", "text", "rest"), [(None, b"{}ab", b""), (b"2", b"{}", b"ab"), (b"4", b"{}ab", b""), (b"0", b"", b"{}ab")]
)
def test_a_body_is_split_where_the_header_says(length: bytes | None, text: bytes, rest: bytes) -> None:
    head, tail = split_body(b"{}ab", length)
    assert (head, bytes(tail)) == (text, rest)


@pytest.mark.parametrize("length", [b"", b"5", b"-1", b"+1", b" 1", b"1.0", b"0x1", "²".encode(), b"0" * 13])
def test_a_length_that_is_none_is_refused(length: bytes) -> None:
    with pytest.raises(TensorError, match="is no length"):
        split_body(b"{}ab", length)


def test_sections_are_taken_in_order_and_to_the_end() -> None:
    sections = Sections(memoryview(b"abcd"))
    assert (sections.take(1), sections.take(0), sections.take(2)) == (b"a", b"", b"bc")
    with pytest.raises(TensorError, match=re.escape("1 bytes of binary data belong to no tensor")):
        sections.end()
    with pytest.raises(TensorError, match="2 bytes of binary data, and 1 are left"):
        sections.take(2)
    sections.take(1)
    sections.end()


def test_open_sizes_are_shown_as_minus_one() -> None:
    assert shown_shape(Port("x", "float32", ("n", None, 3))) == [-1, -1, 3]


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
@pytest.mark.parametrize("fault", [math.inf, math.nan])
def test_a_number_that_is_none_among_those_of_a_flat_list_is_found(datatype: str, fault: float) -> None:
    layout = Layout(Port("x", DTYPES[datatype], (None, 3)))
    assert layout.read_flat([1.5, -0.0, 2.0], [1, 3]).tolist() == [[1.5, 0.0, 2.0]]
    with pytest.raises(NumberError, match="a number does not fit") as caught:
        layout.read_flat([1.5, fault, 2.0], [1, 3])
    assert caught.value.place == ".data[1]"
