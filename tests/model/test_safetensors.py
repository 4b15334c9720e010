import json
import struct
import time
import tracemalloc
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import FormatError
from palladion.model import safetensors
from palladion.model.safetensors import Span
from palladion.model.tensors import DTYPES, DType, Tensor, tensor_from_bytes

reference: Any = pytest.importorskip("safetensors", reason="the safetensors package is the reference here")
reference_numpy: Any = pytest.importorskip("safetensors.numpy")


def parse(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    return safetensors.parse(memoryview(data), what="m.safetensors")


def file_of(header: Any, payload: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + payload


def entry(begin: int, end: int, shape: list[int] | None = None, dtype: str = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


def sample() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    return {
        "layer.weight": rng.standard_normal((3, 4)).astype(np.float32),
        "layer.bias": rng.standard_normal(4),
        "half": rng.standard_normal(5).astype(np.float16),
        "brain": rng.standard_normal(5).astype(ml_dtypes.bfloat16),
        "eight": rng.standard_normal(5).astype(ml_dtypes.float8_e4m3fn),
        "ids": np.arange(6, dtype=np.int64).reshape(2, 3),
        "mask": np.array([True, False, True]),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
        "complex": np.array([1 + 2j], np.complex64),
    }


def test_what_the_reference_writes_is_read_alike() -> None:
    arrays = sample()
    data = reference_numpy.save(arrays, {"format": "np", "über": "ß"})

    tensors, metadata = parse(data)

    assert metadata == {"format": "np", "über": "ß"}
    assert tensors.keys() == arrays.keys()
    for name, array in arrays.items():
        assert tensors[name].shape == array.shape
        assert tensors[name].data.dtype == array.dtype
        assert tensors[name].data.tobytes() == array.tobytes()
        assert np.shares_memory(tensors[name].data, np.frombuffer(data, np.uint8)) == (array.size > 0)


def test_what_we_write_is_byte_for_byte_what_the_reference_writes() -> None:
    data = reference_numpy.save(sample(), {"format": "np"})
    tensors, metadata = parse(data)

    assert safetensors.serialise(reversed(list(tensors.values())), metadata) == data


def test_types_narrower_than_a_byte_stay_packed() -> None:
    data = file_of({"a": entry(0, 6, [2, 4], "F6_E2M3"), "b": entry(6, 8, [4], "F4")}, bytes(range(8)))

    tensors, _ = parse(data)

    assert (tensors["a"].dtype.name, tensors["a"].shape, tensors["a"].data.tolist()) == (
        "float6_e2m3fn",
        (2, 4),
        [0, 1, 2, 3, 4, 5],
    )
    assert tensors["b"].data.tolist() == [6, 7]


# Hypothesis takes constants out of the source, and that one is no name of a tensor
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda name: name != "__metadata__")
dtypes = st.sampled_from([DTYPES[name] for name in ("float32", "int8", "bfloat16", "uint64")])
shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)
tensor_lists = st.lists(st.tuples(names, dtypes, shapes), unique_by=lambda item: item[0], max_size=5)


@pytest.mark.slow
@given(tensor_lists, st.dictionaries(names, names, max_size=3), st.binary(min_size=27 * 8, max_size=27 * 8))
def test_writing_and_reading_round_trips(
    described: list[tuple[str, DType, tuple[int, ...]]], metadata: dict[str, str], noise: bytes
) -> None:
    tensors = [
        tensor_from_bytes(name, dtype, shape, memoryview(noise)[: dtype.byte_count(shape)], what=name)
        for name, dtype, shape in described
    ]

    data = safetensors.serialise(tensors, metadata)
    again, metadata_again = parse(data)

    assert metadata_again == metadata
    assert safetensors.serialise(again.values(), metadata_again) == data
    assert {name: tensor.data.tobytes() for name, tensor in again.items()} == {
        tensor.name: tensor.data.tobytes() for tensor in tensors
    }


@given(st.data())
def test_a_changed_byte_of_the_header_is_refused_or_read_as_the_reference_reads_it(data: st.DataObject) -> None:
    good = bytearray(reference_numpy.save({"a": np.arange(4, dtype=np.int16), "b": np.ones(3, np.float32)}))
    position = data.draw(st.integers(0, len(good) - 21))
    good[position] = data.draw(st.integers(0, 255))
    try:
        tensors, _ = parse(bytes(good))
    except FormatError:
        return

    expected = {name: (item["dtype"], item["shape"], item["data"]) for name, item in reference.deserialize(bytes(good))}
    assert {name: (list(tensor.shape), tensor.data.tobytes()) for name, tensor in tensors.items()} == {
        name: (shape, bytes(content)) for name, (_, shape, content) in expected.items()
    }


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(FormatError):
        parse(noise + b"\xff")


ENTRY = json.dumps(entry(0, 1)).encode()
BROKEN: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "too few"),
    "header longer than the file": (struct.pack("<Q", 99) + b"{}", "only 2 follow"),
    "header of 2^63 bytes": (struct.pack("<Q", 2**63) + b"{}", "more than the 100000000"),
    "header that starts with a space": (file_of(b" {}"), "does not start"),
    "header that is a list": (file_of(b"[]"), "does not start"),
    "header that is not UTF-8": (file_of(b'{"\xff":1}'), "not valid JSON"),
    "header with a lone surrogate": (file_of(b'{"\\ud800":1}'), "not valid JSON"),
    "header with more after it": (file_of(b"{}{}"), "not valid JSON"),
    "header with NaN": (file_of(b'{"a":NaN}'), "not valid JSON"),
    "header with an endless number": (file_of(b'{"a":' + b"9" * 5000 + b"}"), "not valid JSON"),
    "header nested without end": (file_of(b'{"a":' + b"[" * 100_000), "not valid JSON"),
    "header of too many items": (file_of(b"{" + b"," * 2_000_001), "more than 2000000 items"),
    "two tensors of one name": (file_of(b'{"a":%b,"a":%b}' % (ENTRY, ENTRY), b"1"), "given twice"),
    "a key of an entry twice": (file_of(b'{"a":{"dtype":"I8",%b}' % ENTRY[1:], b"1"), "given twice"),
    "metadata that is not text": (file_of({"__metadata__": {"a": 1}}), "object of strings"),
    "metadata that is a list": (file_of({"__metadata__": []}), "object of strings"),
    "entry that is a number": (file_of({"a": 1}), "'a' is not described"),
    "entry with an unknown key": (file_of({"a": {**entry(0, 1), "more": 1}}, b"1"), "'a' is not described"),
    "entry without a shape": (file_of({"a": {"dtype": "U8", "data_offsets": [0, 0]}}), "'a' is not described"),
    "unknown type": (file_of({"a": entry(0, 1, dtype="C128")}, b"1"), "unknown dtype 'C128'"),
    "type that is a list": (file_of({"a": {**entry(0, 1), "dtype": []}}, b"1"), "unknown dtype"),
    "negative size": (file_of({"a": entry(0, 1, [-1])}, b"1"), "whole numbers"),
    "size that is a truth": (file_of({"a": {**entry(0, 1), "shape": [True]}}, b"1"), "whole numbers"),
    "size that is a fraction": (file_of({"a": {**entry(0, 1), "shape": [1.0]}}, b"1"), "whole numbers"),
    "shape that overflows": (file_of({"a": entry(0, 4, [2**32, 2**32 + 1], "F32")}, b"1234"), "no memory can hold"),
    "shape that overflows to the right size": (
        file_of({"a": entry(0, 4, [2**51, 2**11 + 1], "F32")}, b"1234"),
        "no memory",
    ),
    "size that no canonical JSON holds": (file_of({"a": entry(0, 0, [0, 2**53], "F32")}), "whole numbers up to"),
    "one offset": (file_of({"a": {**entry(0, 1), "data_offsets": [0]}}, b"1"), "two whole numbers"),
    "offsets in reverse": (file_of({"a": entry(0, 0), "b": entry(1, 0, [0])}, b"1"), "'b' lies at"),
    "offsets of 2^53": (file_of({"a": entry(0, 2**53, [1])}, b"1"), "two whole numbers up to"),
    "offsets beyond the file": (file_of({"a": entry(0, 2**53 - 1)}, b"1"), "truncated"),
    "65 dimensions": (file_of({"a": entry(0, 1, [1] * 65)}, b"1"), "'a' has 65 dimensions"),
    "name of 2049 bytes": (file_of({"ä" * 1024 + "x": entry(0, 1)}, b"1"), "of a tensor has 2049 bytes, at most 2048"),
    "hole": (
        file_of({"a": entry(0, 1), "b": entry(2, 3)}, b"123"),
        "'b' lies at bytes 2 to 3, expected it to start at 1",
    ),
    "hole at the start": (file_of({"a": entry(1, 2)}, b"12"), "expected it to start at 0"),
    "overlap": (file_of({"a": entry(0, 2), "b": entry(1, 3)}, b"123"), "'b' lies at"),
    "two tensors on the same bytes": (file_of({"a": entry(0, 2), "b": entry(0, 2)}, b"12"), "'b' lies at"),
    "bytes after the last tensor": (file_of({"a": entry(0, 1)}, b"12"), "1 bytes follow"),
    "truncated": (file_of({"a": entry(0, 3)}, b"12"), "truncated"),
    "shape that does not fit its bytes": (file_of({"a": entry(0, 3, [4])}, b"123"), "'a' holds 3 bytes, expected 4"),
    "elements that end within a byte": (file_of({"a": entry(0, 2, [3], "F4")}, b"12"), "end within a byte"),
    "bool of 2": (file_of({"a": entry(0, 1, dtype="BOOL")}, b"\x02"), "other than 0 and 1"),
}


@pytest.mark.parametrize("defect", BROKEN)
def test_a_broken_file_is_refused_with_its_defect_named(defect: str) -> None:
    data, message = BROKEN[defect]

    with pytest.raises(FormatError, match=message):
        parse(data)


def spans_of(data: bytes, head: int | None = None) -> tuple[dict[str, Span], dict[str, str]]:
    return safetensors.parse_header(memoryview(data)[:head], len(data), what="m.safetensors")


@given(tensor_lists, st.dictionaries(names, names, max_size=3), st.binary(min_size=27 * 8, max_size=27 * 8))
def test_the_header_alone_says_where_every_tensor_lies(
    described: list[tuple[str, DType, tuple[int, ...]]], metadata: dict[str, str], noise: bytes
) -> None:
    data = safetensors.serialise(
        [
            tensor_from_bytes(name, dtype, shape, memoryview(noise)[: dtype.byte_count(shape)], what=name)
            for name, dtype, shape in described
        ],
        metadata,
    )
    begin = safetensors.header_bytes(memoryview(data)[:8], len(data), what="m.safetensors")

    tensors, metadata_of_all = parse(data)
    spans, metadata_of_head = spans_of(data, begin)

    assert metadata_of_head == metadata_of_all == metadata
    assert spans_of(data) == (spans, metadata)
    assert list(spans) == list(tensors)
    for name, span in spans.items():
        assert (span.dtype, span.shape) == (tensors[name].dtype, tensors[name].shape)
        assert data[begin + span.begin : begin + span.end] == tensors[name].data.tobytes()


# what is only seen in a tensor itself, when it is made
SEEN_IN_TENSORS = {"bool of 2", "name of 2049 bytes"}


@pytest.mark.parametrize("defect", BROKEN)
def test_a_broken_header_is_refused_without_its_tensors_in_the_same_words(defect: str) -> None:
    data, _ = BROKEN[defect]
    if defect in SEEN_IN_TENSORS:
        assert list(spans_of(data)[0].values())
        return

    with pytest.raises(FormatError) as of_all:
        parse(data)
    with pytest.raises(FormatError) as of_head:
        spans_of(data)

    assert of_head.value.message == of_all.value.message


def test_a_head_that_does_not_hold_the_header_is_refused() -> None:
    data = file_of({"a": entry(0, 4)}, b"1234")
    begin = len(data) - 4

    assert spans_of(data, begin)[0]["a"] == Span(DTYPES["uint8"], (4,), 0, 4)
    for head in (8, 9, begin - 1):
        with pytest.raises(FormatError):
            spans_of(data, head)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 2**40])
def test_the_length_of_a_header_is_held_against_the_size_of_the_file(size: int) -> None:
    start = memoryview(struct.pack("<Q", 2))

    if size < 10:
        with pytest.raises(FormatError, match=r"too few|only"):
            safetensors.header_bytes(start, size, what="m")
    else:
        assert safetensors.header_bytes(start, size, what="m") == 10
    for length in (100_000_001, 2**63, 2**64 - 1):
        with pytest.raises(FormatError, match="more than the 100000000"):
            safetensors.header_bytes(memoryview(struct.pack("<Q", length)), 2**62 + 8, what="m")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["F4", "U8"])
def test_hundreds_of_thousands_of_dimensions_cost_no_time_and_are_not_quoted(dtype: str) -> None:
    data = file_of({"a": entry(0, 1, [3] * 400_000, dtype)}, b"1")

    started = time.process_time()
    with pytest.raises(FormatError, match="'a' has 400000 dimensions, more than the 64 allowed") as caught:
        parse(data)
    taken = time.process_time() - started

    assert taken < 1  # it took 12 s
    assert len(caught.value.message) < 200


def test_a_name_of_a_million_characters_is_not_quoted_whole() -> None:
    data = file_of({"a" * 10**6: entry(0, 4, [5])}, b"1234")

    with pytest.raises(FormatError, match="holds 4 bytes, expected 5") as caught:
        parse(data)

    assert len(caught.value.message) < 200


def test_a_lying_header_makes_us_allocate_nothing_for_what_it_claims() -> None:
    data = file_of({"a": entry(0, 2**40, [2**40])}, b"1")
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            parse(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 100_000


def test_reading_costs_the_header_and_not_the_tensors() -> None:
    size = 2**31
    payload = np.zeros(size + 1024, np.uint8)  # pages of zeros that nobody touches take no memory
    header = file_of({"a": entry(0, size // 2, [size // 8], "F32"), "b": entry(size // 2, size, dtype="U8")})
    payload[: len(header)] = np.frombuffer(header, np.uint8)

    started = time.process_time()
    tensors, _ = safetensors.parse(payload.data[: len(header) + size], what="big")
    taken = time.process_time() - started

    assert tensors["b"].byte_count == size // 2
    assert taken < 0.1


@pytest.mark.parametrize("dtype", ["complex128", "int4", "uint2"])
def test_what_the_format_cannot_hold_is_the_callers_mistake(dtype: str) -> None:
    tensor = tensor_from_bytes("a", DTYPES[dtype], (4,), memoryview(bytes(DTYPES[dtype].byte_count((4,)))), what="a")

    with pytest.raises(ValueError, match="cannot hold 'a'"):
        safetensors.serialise([tensor], {})


def test_two_tensors_of_one_name_cannot_be_written() -> None:
    tensor = tensor_from_bytes("a", DTYPES["uint8"], (1,), memoryview(b"1"), what="a")

    with pytest.raises(ValueError, match="taken"):
        safetensors.serialise([tensor, tensor], {})
