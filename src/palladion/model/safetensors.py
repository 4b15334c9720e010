"""The safetensors format: bytes to tensors without a copy, and back (huggingface.co/docs/safetensors, "Format").

Stricter than the reference reader where that leaves room to hide something: no unknown keys, no duplicate keys.
"""

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from palladion.errors import FormatError
from palladion.model.tensors import DIMENSION_MAX, DTYPES, DType, Tensor, check_shape, tensor_from_bytes

HEADER_BYTES_MAX = 100_000_000  # the reference reader's own limit
# A mixture of experts with 100 000 tensors has 0.9 million; the parsed header takes about 100 bytes for each.
HEADER_ITEMS_MAX = 2_000_000
NAME_CHARACTERS_QUOTED = 80  # in an error message: a hostile header can be one name of 100 MB
METADATA_KEY = "__metadata__"
ALIGNMENT_BYTES = 8  # the header is padded with spaces, as the reference writer does

# From wide to narrow, in the order in which the reference writer lays tensors out.
_DTYPES: Mapping[str, str] = {
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "C64": "complex64",
    "F32": "float32",
    "U32": "uint32",
    "I32": "int32",
    "BF16": "bfloat16",
    "F16": "float16",
    "U16": "uint16",
    "I16": "int16",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I8": "int8",
    "U8": "uint8",
    "F6_E3M2": "float6_e3m2fn",
    "F6_E2M3": "float6_e2m3fn",
    "F4": "float4_e2m1fn",
    "BOOL": "bool",
}
_CODES: Mapping[str, str] = {name: code for code, name in _DTYPES.items()}


@dataclass(frozen=True)
class Span:
    """Where one tensor lies: its type, its shape, and its bytes counted from the end of the header."""

    dtype: DType
    shape: tuple[int, ...]
    begin: int
    end: int


def parse(data: memoryview, *, what: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of the safetensors bytes `data`; the tensors are views into `data`.

    Only the header is read (and the bytes of bool tensors). Raises FormatError, naming `what`, on anything odd.
    """
    spans, metadata = parse_header(data, data.nbytes, what=what)
    payload = data[header_bytes(data, data.nbytes, what=what) :]
    tensors = {
        name: tensor_from_bytes(name, span.dtype, span.shape, payload[span.begin : span.end], what=_label(name, what))
        for name, span in spans.items()
    }
    return tensors, metadata


def header_bytes(start: memoryview, size: int, *, what: str) -> int:
    """Where the tensors begin in a file of `size` bytes, by its first eight. Raises FormatError."""
    if size < 8:
        raise FormatError(f"{what} has {size} bytes, too few for a safetensors file")
    (length,) = struct.unpack("<Q", start[:8])
    if length > HEADER_BYTES_MAX:
        raise FormatError(f"{what} claims a header of {length} bytes, more than the {HEADER_BYTES_MAX} allowed")
    if length > size - 8:
        raise FormatError(f"{what} claims a header of {length} bytes, and only {size - 8} follow")
    return int(8 + length)


def parse_header(head: memoryview, size: int, *, what: str) -> tuple[dict[str, Span], dict[str, str]]:
    """Where the tensors lie in a file of `size` bytes that begins with `head`, and its metadata.

    `head` holds the header at least: `header_bytes` of it. Raises FormatError, naming `what`, on anything odd.
    """
    begin = header_bytes(head, size, what=what)
    document, payload_bytes = _document(bytes(head[8:begin]), what), size - begin
    metadata = _metadata(document.pop(METADATA_KEY, {}), what)
    entries = [(*_entry(name, entry, what), name) for name, entry in document.items()]
    entries.sort(key=lambda entry: (entry[0], entry[1]))
    spans = {}
    position = 0
    for begin, end, code, shape, name in entries:
        label = _label(name, what)
        if begin != position or end < begin:
            raise FormatError(
                f"{label} lies at bytes {begin} to {end}, expected it to start at {position}",
                "tensors must follow each other without holes or overlaps; write the file again",
            )
        if end > payload_bytes:
            raise FormatError(f"{label} ends at byte {end} of {payload_bytes}: the file is truncated")
        dtype = DTYPES[_DTYPES[code]]
        check_shape(shape, dtype, what=label)
        if dtype.packed and prod(shape) * dtype.bits % 8:
            raise FormatError(f"{label} has {list(shape)} elements of {dtype.bits} bits, which end within a byte")
        if end - begin != dtype.byte_count(shape):
            raise FormatError(
                f"{label} holds {end - begin} bytes, expected {dtype.byte_count(shape)} "
                f"for {dtype.name} of shape {list(shape)}"
            )
        spans[name] = Span(dtype, shape, begin, end)
        position = end
    if position != payload_bytes:
        raise FormatError(f"{what}: {payload_bytes - position} bytes follow the last tensor, expected none")
    return {name: spans[name] for name in document}, metadata


def serialise(tensors: Iterable[Tensor], metadata: Mapping[str, str]) -> bytes:
    """The safetensors bytes of `tensors`: the same bytes as the reference writer, wide types first, then by name.

    Raises ValueError on what the format cannot hold. Costs one copy of the tensors.
    """
    ranks = {code: rank for rank, code in enumerate(_DTYPES)}
    ordered = sorted(tensors, key=lambda tensor: (ranks[_code(tensor)], tensor.name))
    header: dict[str, Any] = {METADATA_KEY: dict(sorted(metadata.items()))} if metadata else {}
    position = 0
    for tensor in ordered:
        if tensor.name in header or tensor.name == METADATA_KEY:
            raise ValueError(f"tensor name {tensor.name!r} is taken")
        end = position + tensor.byte_count
        entry = {"dtype": _code(tensor), "shape": list(tensor.shape), "data_offsets": [position, end]}
        header[tensor.name] = entry
        position = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT_BYTES)
    if len(text) > HEADER_BYTES_MAX:
        raise ValueError(f"the header has {len(text)} bytes, more than the {HEADER_BYTES_MAX} allowed")
    return b"".join([struct.pack("<Q", len(text)), text, *(tensor.data.tobytes() for tensor in ordered)])


def _code(tensor: Tensor) -> str:
    code = _CODES.get(tensor.dtype.name)
    if code is None or (tensor.dtype.packed and tensor.element_count * tensor.dtype.bits % 8):
        raise ValueError(f"safetensors cannot hold {tensor.name!r}: {tensor.dtype.name} of shape {tensor.shape}")
    return code


def _document(text: bytes, what: str) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise FormatError(f"{what} has a header that does not start with '{{'")
    if sum(text.count(mark) for mark in (b",", b"[", b"{")) > HEADER_ITEMS_MAX:
        raise FormatError(f"{what} has a header of more than {HEADER_ITEMS_MAX} items")
    try:
        document: dict[str, Any] = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} has a header that is not valid JSON: {error}") from None
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        # readers disagree on which one counts
        raise ValueError("a key is given twice in one object")
    for key in members:
        key.encode()  # a lone surrogate cannot be written back
    return members


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _metadata(value: Any, what: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise FormatError(f"{what}: {METADATA_KEY} is not an object of strings")
    return value


def _entry(name: str, entry: Any, what: str) -> tuple[int, int, str, tuple[int, ...]]:
    label = _label(name, what)
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{label} is not described by exactly dtype, shape and data_offsets")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in _DTYPES:
        got = repr(code[:40]) if isinstance(code, str) else type(code).__name__
        raise FormatError(f"{label} has the unknown dtype {got}, expected one of {', '.join(_DTYPES)}")
    if not _whole_numbers(shape):
        raise FormatError(f"{label} has a shape that is not a list of whole numbers up to {DIMENSION_MAX}")
    if not _whole_numbers(offsets) or len(offsets) != 2:
        raise FormatError(f"{label} has data_offsets that are not two whole numbers up to {DIMENSION_MAX}")
    return offsets[0], offsets[1], code, tuple(shape)


def _label(name: str, what: str) -> str:
    return f"{what}: tensor {name[:NAME_CHARACTERS_QUOTED]!r}"


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item <= DIMENSION_MAX for item in value)
