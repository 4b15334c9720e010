"""Tensors of an ONNX file: `TensorProto` in all its encodings, and the files beside the model that hold external data.

Opens nothing: external files are asked for by their checked location. Source: onnx/onnx.in.proto, `TensorProto`.
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.model import onnx_schema as schema
from palladion.model.graph import StringTensor
from palladion.model.model import is_plain_name
from palladion.model.protobuf import Message
from palladion.model.tensors import DTYPES, RANK_MAX, DType, Tensor, check_shape, tensor_from_array, tensor_from_bytes

EXTERNAL_FILES_MAX = 4095  # a sealed file holds 4096, and one is the model itself; some exporters write one per tensor
PADDING_BYTES_MAX = 64 * 1024  # writers align tensors to pages, of 64 KiB at most (ONNX's ExternalData.md)
_DATA_FIELDS = ("raw_data", "float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
_FLOAT_FIELDS = {
    "float32": "float_data",
    "complex64": "float_data",
    "float64": "double_data",
    "complex128": "double_data",
}
_INTEGER_FIELDS = {"int64": "int64_data", "uint32": "uint64_data", "uint64": "uint64_data"}
_EXTERNAL_KEYS = {"location", "offset", "length", "checksum"}
_EXTERNAL = 1
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
# Windows' drives, streams and wildcards; a location must mean one file on every machine, and `*` is in the
# pseudo-location by which ONNX Runtime takes an offset for an address in memory ("*/_ORT_MEM_ADDR_/*").
_FORBIDDEN = re.compile(r"[:*?\"<>|]")


def check_location(location: str, *, what: str) -> str:
    """`location`, if it is a plain relative path that stays in the model's folder. Raises FormatError otherwise."""
    if _FORBIDDEN.search(location) or not is_plain_name(location):
        raise FormatError(
            f"{what} keeps its data in {location[:80]!r}, which is not a plain path inside the model's folder",
            "a model must not reach for other files; save it again with its data in its own folder",
        )
    return location


class ExternalData:
    """The external-data files of one model: opened once each through `open_file`, and who uses which bytes."""

    def __init__(self, open_file: Callable[[str], memoryview]) -> None:
        self._open_file = open_file
        self._files: dict[str, memoryview] = {}
        self._regions: dict[str, list[tuple[int, int, str]]] = {}

    @property
    def files(self) -> dict[str, memoryview]:
        """The files opened so far by location."""
        return dict(self._files)

    def region(self, message: Message, size: int, *, what: str) -> memoryview:
        """The `size` bytes that the external_data entries of a TensorProto point at."""
        entries = _external_entries(message, what)
        if "location" not in entries:
            raise FormatError(f"{what} has external data without a location")
        location = check_location(entries["location"], what=what)
        offset = _decimal(entries.get("offset", "0"), "offset", what)
        length = _decimal(entries.get("length", str(size)), "length", what)
        if length != size:
            raise FormatError(f"{what} claims {length} bytes of external data, expected {size} for its shape and type")
        data = self._file(location, what)
        if offset + size > data.nbytes:
            raise FormatError(
                f"{what} ends at byte {offset + size} of {location!r}, which has {data.nbytes}: it is truncated"
            )
        if size:
            self._regions.setdefault(location, []).append((offset, offset + size, what))
        return data[offset : offset + size]

    def check_coverage(self) -> None:
        """Raise FormatError unless every byte belongs to one tensor, or to the zeros that align the next one.

        Bytes that no digest covers could carry anything; shared ones could make the tensors larger than their files.
        """
        for location, data in self._files.items():
            regions = sorted(self._regions.get(location, ()))
            begin, before = 0, "its beginning"
            for start, end, what in [*regions, (data.nbytes, data.nbytes, "its end")]:
                if start < begin:
                    raise FormatError(
                        f"{before} and {what} overlap in {location!r}, expected each to have its own bytes"
                    )
                if start - begin > PADDING_BYTES_MAX or np.frombuffer(data[begin:start], np.uint8).any():
                    raise FormatError(
                        f"{location!r} has {start - begin} bytes between {before} and {what} that no tensor uses, "
                        f"expected at most {PADDING_BYTES_MAX} zeros",
                        "a writer appends to an external-data file that exists: delete it, and save the model again",
                    )
                begin, before = end, what

    def _file(self, location: str, what: str) -> memoryview:
        if location not in self._files:
            if len(self._files) >= EXTERNAL_FILES_MAX:
                raise FormatError(f"{what} is in one more than the {EXTERNAL_FILES_MAX} external-data files allowed")
            self._files[location] = self._open_file(location)
        return self._files[location]


def read_tensor(message: Message, name: str, external: ExternalData, *, what: str) -> Tensor | StringTensor:
    """The tensor of a TensorProto under `name`. Raises FormatError, naming `what`, where its parts disagree."""
    if message.has("segment"):
        raise FormatError(f"{what} is only a segment of a tensor, which cannot be read")
    type_name = schema.DATA_TYPES.get(message.integer("data_type"))
    if type_name is None:
        raise FormatError(f"{what} has the unknown data type {message.integer('data_type')}")
    shape = read_dims(message, what=what)
    sources = [field for field in _DATA_FIELDS if message.has(field)]
    location = message.integer("data_location")
    if location not in {0, _EXTERNAL} or (message.has("external_data") and location != _EXTERNAL):
        raise FormatError(f"{what} does not say clearly whether its data is external (data_location {location})")
    if len(sources) > 1 or (sources and location == _EXTERNAL):
        raise FormatError(f"{what} has its data in more than one place: {', '.join(sources)}, expected one")
    if type_name == schema.STRING:
        return _read_strings(message, shape, sources, what)
    dtype = DTYPES[type_name]
    check_shape(shape, dtype, what=what)
    if location == _EXTERNAL:
        data = external.region(message, dtype.byte_count(shape), what=what)
        return tensor_from_bytes(name, dtype, shape, data, what=what)
    if sources == ["raw_data"]:
        return tensor_from_bytes(name, dtype, shape, message.blob("raw_data"), what=what)
    return _read_typed(message, name, dtype, shape, sources, what=what)


def read_dims(message: Message, *, what: str) -> tuple[int, ...]:
    """The `dims` of a message as a shape; at most `RANK_MAX` of them."""
    dims = message.integers("dims", "<i8")
    if len(dims) > RANK_MAX:
        raise FormatError(f"{what} has {len(dims)} dimensions, more than the {RANK_MAX} allowed")
    shape = tuple(int(size) for size in dims)
    if any(size < 0 for size in shape):
        raise FormatError(f"{what} has a negative dimension in its shape {list(shape)}")
    return shape


def _read_typed(
    message: Message, name: str, dtype: DType, shape: tuple[int, ...], sources: list[str], *, what: str
) -> Tensor:
    field = _FLOAT_FIELDS.get(dtype.name) or _INTEGER_FIELDS.get(dtype.name) or "int32_data"
    if sources not in ([], [field]):
        raise FormatError(f"{what} is {dtype.name} and has its data in {sources[0]}, expected {field} or raw_data")
    elements = int(np.prod(shape, dtype=object))
    numbers: NDArray[Any]
    if dtype.name in _FLOAT_FIELDS:
        wide = field == "double_data"
        numbers = message.floats(field, "<f8" if wide else "<f4")
        if dtype.name.startswith("complex"):
            elements *= 2
    else:
        numbers = message.integers(field, _integer_code(dtype))
        if dtype.packed and dtype.bits != 6:
            elements = dtype.byte_count(shape)
    if len(numbers) != elements:
        raise FormatError(f"{what} holds {len(numbers)} numbers, expected {elements} for {dtype.name} of {list(shape)}")
    if dtype.bits == 6:
        numbers = _pack_six_bits(numbers, what)
    elif dtype.name.startswith("complex"):
        numbers = np.ascontiguousarray(numbers)
    return tensor_from_array(name, dtype, shape, numbers, what=what)


def _integer_code(dtype: DType) -> str:
    """How `int32_data` and its like hold a type: integers as themselves, everything else as its bits."""
    if dtype.name.startswith(("int", "uint")) and not dtype.packed:
        return str(dtype.carrier.str)
    return f"<u{dtype.carrier.itemsize}"


def _pack_six_bits(codes: NDArray[np.uint8], what: str) -> NDArray[np.uint8]:
    if len(codes) and codes.max() > 63:
        raise FormatError(f"{what} holds a value of more than 6 bits")
    bits = np.unpackbits(codes[:, None], axis=1, count=6, bitorder="little")
    return np.packbits(bits.reshape(-1), bitorder="little")


def _read_strings(message: Message, shape: tuple[int, ...], sources: list[str], what: str) -> StringTensor:
    expected = int(np.prod(shape, dtype=object))
    strings = message.strings("string_data")
    if sources not in ([], ["string_data"]) or len(strings) != expected or message.has("external_data"):
        raise FormatError(f"{what} holds {len(strings)} strings, expected {expected} and nothing else")
    return StringTensor(shape, strings)


def _external_entries(message: Message, what: str) -> dict[str, str]:
    entries: dict[str, str] = {}
    for entry in message.messages("external_data", schema.ENTRY, what):
        key = entry.text("key")
        # an unknown key may point at other bytes: ONNX Runtime takes weights from `prepacked` ones
        if key in entries or key not in _EXTERNAL_KEYS:
            raise FormatError(
                f"{what} has external data with the key {key[:40]!r}, expected only "
                f"{', '.join(sorted(_EXTERNAL_KEYS))}, each at most once"
            )
        entries[key] = entry.text("value")
    return entries


def _decimal(text: str, key: str, what: str) -> int:
    if not _DECIMAL.fullmatch(text):
        raise FormatError(f"{what} has external data with the {key} {text[:40]!r}, expected a whole number")
    return int(text)
