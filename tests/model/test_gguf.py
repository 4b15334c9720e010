"""GGUF files: what the reference package writes is read alike, and everything odd is refused."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palladion.errors import FormatError
from palladion.model import gguf
from palladion.model.gguf import IncompleteError
from palladion.model.safetensors import Span
from palladion.model.tensors import DTYPES, Tensor

UINT8, UINT32, FLOAT32, BOOL, STRING, ARRAY = 0, 4, 6, 7, 8, 9
F32, Q8_0, I8 = 0, 8, 24


def parse(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    return gguf.parse(memoryview(data), what="m.gguf")


def text(value: str | bytes) -> bytes:
    encoded = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(encoded)) + encoded


def pair(key: str | bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def array(kind: int, count: int, items: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + items


def info(name: str | bytes, dims: list[int], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def file_of(
    *infos: bytes,
    pairs: list[bytes] | None = None,
    payload: bytes = b"",
    version: int = 3,
    counts: tuple[int, int] | None = None,
    alignment: int = 32,
) -> bytes:
    pairs = pairs or []
    tensors, keys = counts or (len(infos), len(pairs))
    head = b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + b"".join(pairs) + b"".join(infos)
    return head + bytes(-len(head) % alignment) + payload if infos else head


def test_a_matrix_comes_as_rows_and_columns_without_a_copy() -> None:
    numbers = np.arange(6, dtype="<f4")
    data = file_of(
        info("w", [3, 2], F32, 0), pairs=[pair("general.name", STRING, text("ß"))], payload=numbers.tobytes()
    )

    tensors, metadata = parse(data)

    assert tensors["w"].data.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert np.shares_memory(tensors["w"].data, np.frombuffer(data, np.uint8))
    assert metadata == {"general.name": "ß"}


def test_version_2_is_read_like_version_3() -> None:
    assert parse(file_of(info("w", [4], I8, 0), payload=b"abcd", version=2))[0]["w"].data.tobytes() == b"abcd"


def test_quantised_tensors_stay_in_their_blocks() -> None:
    data = file_of(info("w", [64, 3], Q8_0, 0), payload=bytes(range(204)))

    tensor = parse(data)[0]["w"]

    assert (tensor.dtype.name, tensor.shape, tensor.byte_count, tensor.element_count) == ("q8_0", (3, 64), 204, 192)
    assert tensor.data.tolist() == list(range(204))


def test_a_tensor_of_an_unknown_type_is_kept_as_its_bytes() -> None:
    infos = [info("a", [4], 99, 0), info("b", [4], F32, 64), info("c", [256, 7], 98, 96)]
    data = file_of(*infos, payload=bytes(range(120)))

    tensors, _ = parse(data)

    assert {name: (item.dtype.name, item.shape) for name, item in tensors.items()} == {
        "a": ("uint8", (64,)),
        "b": ("float32", (4,)),
        "c": ("uint8", (24,)),
    }
    assert tensors["c"].data.tolist() == list(range(96, 120))


def test_tensors_keep_the_order_of_the_header_wherever_they_lie() -> None:
    data = file_of(info("a", [4], I8, 32), info("b", [4], I8, 0), payload=b"bbbb" + bytes(28) + b"aaaa")

    tensors, _ = parse(data)

    assert [(name, item.data.tobytes()) for name, item in tensors.items()] == [("a", b"aaaa"), ("b", b"bbbb")]


def test_the_alignment_of_the_file_counts() -> None:
    pairs = [pair("general.alignment", UINT32, struct.pack("<I", 64))]
    infos = [info("a", [4], I8, 0), info("b", [4], I8, 64)]

    tensors, _ = parse(file_of(*infos, pairs=pairs, payload=b"aaaa" + bytes(60) + b"bbbb" + bytes(60), alignment=64))

    assert tensors["b"].data.tobytes() == b"bbbb"


def test_metadata_becomes_text_and_long_arrays_their_digest() -> None:
    words = [text(f"w{number}") for number in range(17)]
    pairs = [
        pair("n", UINT32, struct.pack("<I", 7)),
        pair("x", FLOAT32, struct.pack("<f", 0.5)),
        pair("yes", BOOL, b"\1"),
        pair("few", ARRAY, array(UINT8, 3, b"\1\2\3")),
        pair("names", ARRAY, array(STRING, 2, text("a") + text("b"))),
        pair("many", ARRAY, array(STRING, 17, b"".join(words))),
        pair("bytes", ARRAY, array(UINT8, 17, bytes(17))),
    ]

    _, metadata = parse(file_of(pairs=pairs))
    _, other = parse(file_of(pairs=[*pairs[:5], pair("many", ARRAY, array(STRING, 17, b"".join(words[::-1])))]))

    assert list(metadata.items())[:5] == [
        ("n", "7"),
        ("x", "0.5"),
        ("yes", "true"),
        ("few", "[1, 2, 3]"),
        ("names", "['a', 'b']"),
    ]
    assert metadata["many"].startswith("17 × string, sha256 ")
    assert metadata["bytes"].startswith("17 × uint8, sha256 ")
    assert other["many"] != metadata["many"]


def test_a_file_without_tensors_is_read() -> None:
    assert parse(file_of()) == ({}, {})


def test_an_empty_tensor_lies_where_the_next_begins() -> None:
    tensors, _ = parse(file_of(info("a", [4], I8, 0), info("e", [0, 4], F32, 0), payload=b"aaaa"))

    assert tensors["e"].shape == (4, 0)
    assert tensors["a"].data.tobytes() == b"aaaa"


def test_the_header_can_be_read_without_the_tensors() -> None:
    data = file_of(info("w", [64, 3], Q8_0, 0), payload=bytes(204))
    begin = len(data) - 204

    layout = gguf.parse_header(memoryview(data)[:begin], len(data), what="m.gguf")

    assert layout.begin == begin
    assert layout.spans == {"w": Span(DTYPES["q8_0"], (3, 64), 0, 204)}
    for short in (0, 10, begin - 33):
        with pytest.raises(IncompleteError, match="within its header"):
            gguf.parse_header(memoryview(data)[:short], len(data), what="m.gguf")


def test_what_the_reference_writes_is_read_alike(tmp_path: Path) -> None:
    reference: Any = pytest.importorskip("gguf", reason="the gguf package is the reference here")
    rng = np.random.default_rng(3)
    arrays = {
        "f32": rng.standard_normal((3, 4)),
        "half": rng.standard_normal(5),
        "experts": rng.standard_normal((2, 3, 4)),
    }
    kinds = reference.GGMLQuantizationType
    matrix = rng.standard_normal((4, 64)).astype(np.float32)
    quantised = {
        kind: reference.quants.quantize(matrix, kind) for kind in (kinds.Q4_0, kinds.Q5_1, kinds.Q8_0, kinds.BF16)
    }
    writer = reference.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_head_count(4)
    writer.add_token_list([f"token {number}" for number in range(100)])
    for name, values in arrays.items():
        writer.add_tensor(name, values.astype(np.float16 if name == "half" else np.float32))
    for kind, blocks in quantised.items():
        writer.add_tensor(kind.name, blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    tensors, metadata = parse((tmp_path / "m.gguf").read_bytes())

    assert metadata["general.architecture"] == "llama"
    assert metadata["llama.attention.head_count"] == "4"
    assert {name: tensors[name].shape for name in arrays} == {name: values.shape for name, values in arrays.items()}
    assert np.array_equal(tensors["experts"].data, arrays["experts"].astype(np.float32))
    assert tensors["half"].data.dtype == np.float16
    for kind, blocks in quantised.items():
        assert tensors[kind.name].shape == (4, 64)
        assert tensors[kind.name].data.tobytes() == blocks.tobytes()


def test_every_type_that_the_reference_knows_has_the_size_it_says() -> None:
    reference: Any = pytest.importorskip("gguf", reason="the gguf package is the reference here")

    for kind, (elements, size) in reference.GGML_QUANT_SIZES.items():
        tensor = parse(file_of(info("w", [elements * 2], int(kind), 0), payload=bytes(2 * size)))[0]["w"]
        assert (tensor.shape, tensor.byte_count) == ((elements * 2,), 2 * size), kind.name


ONE = info("w", [4], I8, 0)
BROKEN: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "within its header"),
    "another format": (b"GGML" + bytes(40), "does not start with"),
    "version 1": (file_of(ONE, payload=b"abcd", version=1), "version 1, expected 2 or 3"),
    "version 4": (file_of(ONE, payload=b"abcd", version=4), "version 4, expected 2 or 3"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "2^40 tensors": (file_of(counts=(2**40, 0)), "1099511627776 tensors"),
    "2^40 pairs": (file_of(counts=(0, 2**40)), "1099511627776 metadata pairs"),
    "one tensor too few": (file_of(ONE, payload=b"abcd", counts=(2, 0)), "m.gguf"),
    "a key of 2^60 bytes": (file_of(pairs=[struct.pack("<Q", 2**60)]), "more than the 65535 allowed"),
    "a key that is not UTF-8": (file_of(pairs=[pair(b"\xff", BOOL, b"\1")]), "not UTF-8"),
    "a key without a name": (file_of(pairs=[pair("", BOOL, b"\1")]), "without a name"),
    "a key twice": (file_of(pairs=[pair("a", BOOL, b"\1")] * 2), "twice"),
    "an unknown value": (file_of(pairs=[pair("a", 13, b"")]), "unknown type 13"),
    "a bool of 2": (file_of(pairs=[pair("a", BOOL, b"\2")]), "expected 0 or 1"),
    "a string of 2^60 bytes": (file_of(pairs=[pair("a", STRING, struct.pack("<Q", 2**60))]), "more than the"),
    "a string that is not UTF-8": (file_of(pairs=[pair("a", STRING, text(b"\xff"))]), "not UTF-8"),
    "an array of arrays": (file_of(pairs=[pair("a", ARRAY, array(ARRAY, 1))]), "expected scalars or text"),
    "an array of 2^60": (file_of(pairs=[pair("a", ARRAY, array(UINT8, 2**60))]), "more than the 8000000"),
    "arrays of too many": (
        file_of(pairs=[pair(key, ARRAY, array(UINT8, 5_000_000, bytes(5_000_000))) for key in "ab"]),
        "more than 8000000 items",
    ),
    "an array of bools of 2": (file_of(pairs=[pair("a", ARRAY, array(BOOL, 1, b"\2"))]), "expected 0 or 1"),
    "a truncated array": (file_of(pairs=[pair("a", ARRAY, array(UINT8, 99))]), "within its header"),
    "an alignment of 24": (file_of(pairs=[pair("general.alignment", UINT32, struct.pack("<I", 24))]), "power of two"),
    "an alignment of 0": (file_of(pairs=[pair("general.alignment", UINT32, bytes(4))]), "power of two"),
    "an alignment of 2^31": (file_of(pairs=[pair("general.alignment", UINT32, struct.pack("<I", 2**31))]), "power of"),
    "an alignment as text": (file_of(pairs=[pair("general.alignment", STRING, text("32"))]), "as uint32"),
    "a name of 2^60 bytes": (file_of(struct.pack("<Q", 2**60)), "more than the 2048 allowed"),
    "a name that is not UTF-8": (file_of(info(b"\xff", [4], I8, 0), payload=b"abcd"), "not UTF-8"),
    "a name twice": (file_of(ONE, info("w", [4], I8, 32), payload=bytes(36)), "there twice"),
    "5 dimensions": (file_of(info("w", [1, 1, 1, 1, 4], I8, 0), payload=b"abcd"), "5 dimensions"),
    "2^32 - 1 dimensions": (file_of(text("w") + struct.pack("<I", 2**32 - 1)), "4294967295 dimensions"),
    "a dimension of 2^60": (file_of(info("w", [2**60], I8, 0), payload=b"abcd"), "no memory can hold"),
    "dimensions whose product wraps": (file_of(info("w", [2**32, 2**32], F32, 0), payload=b"abcd"), "no memory"),
    "a row of half a block": (file_of(info("w", [48], Q8_0, 0), payload=bytes(51)), "whole blocks of 32"),
    "a scalar in blocks": (file_of(info("w", [], Q8_0, 0), payload=bytes(34)), "whole blocks of 32"),
    "a tensor beyond the end": (file_of(info("w", [5], I8, 0), payload=b"abcd"), "truncated"),
    "an offset beyond the end": (file_of(info("w", [4], I8, 2**63), payload=b"abcd"), "expected it to start at 0"),
    "an unknown type beyond the end": (file_of(ONE, info("v", [4], 99, 32), payload=b"abcd"), "truncated"),
    "an unaligned offset": (file_of(ONE, info("v", [4], I8, 8), payload=bytes(12)), "expected it to start at 32"),
    "two tensors in one place": (file_of(ONE, info("v", [4], I8, 0), payload=b"abcd"), "expected it to start at 32"),
    "a hole": (file_of(ONE, info("v", [4], I8, 64), payload=bytes(68)), "expected it to start at 32"),
    "a hole at the start": (file_of(info("w", [4], I8, 32), payload=bytes(36)), "expected it to start at 0"),
    "something after the end": (file_of(ONE, payload=bytes(33)), "1 bytes follow the last tensor"),
    "something after no tensor": (file_of() + bytes(40), "follow the last tensor"),
}


@pytest.mark.parametrize("defect", BROKEN)
def test_a_broken_file_is_refused(defect: str) -> None:
    data, message = BROKEN[defect]
    with pytest.raises(FormatError, match=message) as caught:
        parse(data)
    assert caught.value.message.startswith("m.gguf")


SOUND = file_of(
    info("w", [64, 2], Q8_0, 0),
    info("v", [5], F32, 160),
    info("u", [3], 99, 192),
    pairs=[
        pair("general.alignment", UINT32, struct.pack("<I", 32)),
        pair("names", ARRAY, array(STRING, 2, text("a") + text("bc"))),
        pair("yes", BOOL, b"\1"),
        pair("many", ARRAY, array(STRING, 20, text("a") * 20)),
    ],
    payload=bytes(range(200)),
)


def test_no_truncated_file_is_read() -> None:
    parse(SOUND)
    # the last tensor is of an unknown type: it reaches to the end, wherever that is
    for length in range(len(SOUND) - 8):
        with pytest.raises(FormatError):
            parse(SOUND[:length])


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=100)
def test_changed_bytes_are_read_or_refused(changes: list[tuple[int, int]]) -> None:
    data = bytearray(SOUND)
    for position, value in changes:
        data[position] = value
    try:
        tensors, _ = parse(bytes(data))
    except FormatError:
        return
    assert sum(tensor.byte_count for tensor in tensors.values()) <= len(data)


@given(st.binary(max_size=300))
def test_noise_behind_a_sound_start_is_read_or_refused(noise: bytes) -> None:
    for start in (b"", b"GGUF", SOUND[:24], SOUND[:60]):
        try:
            parse(start + noise)
        except FormatError:
            continue
        assert start == SOUND[:24] or start == b"GGUF"
