"""Tensors of the Open Inference Protocol v2: data types, JSON data and the binary tensor extension. Pure.

Source: the protocol's REST page (kserve/open-inference-protocol, specification/protocol/inference_rest.md) and its
extension for binary tensor data. Both sides of the gate read and write by it; what a fault means, each says itself.
"""

import struct
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from palladion.gate.decode import is_finite, packed, packed_flat
from palladion.model.run import STRING, Port

DATATYPES: Mapping[str, str] = {
    "bool": "BOOL",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    STRING: "BYTES",
}
BF16 = "BF16"  # NumPy has no such type: here it is a float32, which holds all of its values
DTYPES: Mapping[str, str] = {**{wire: name for name, wire in DATATYPES.items()}, BF16: "float32"}
HEADER_LENGTH = b"inference-header-content-length"
OCTETS = b"application/octet-stream"
LENGTH_DIGITS_MAX = 12  # as of a content-length
COUNTED_BYTES_MIN = 64 * 1024  # of JSON, from which its elements are counted before they are read
BLANKS_MAX = 64  # after a number
RANK_MAX = 16  # ONNX Runtime and Triton run nothing near it
SIZE_MAX = 2**40  # of one dimension: the product of RANK_MAX of them is still a number that costs nothing
_BF16_INFINITE = np.uint16(0x7F80)  # an exponent of ones: infinite, or no number
OUT_OF_RANGE = "Number out of range"  # as msgspec says of 1e999
_NOT_FINITE = (b"NaN", b"Infinity")
_NOTHING = memoryview(b"")
_LENGTH = struct.Struct("<I")  # before each element of BYTES


class TensorError(ValueError):
    """A tensor is not what was expected; `place` says where in it: `.data`, `.data[3]`, `.shape` or nothing."""

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(message)
        self.place = place


class NumberError(TensorError):
    """A number is infinite, or none, or becomes so in the type that was expected."""


class Layout:
    """How the tensor of a port is written. `datatype` is its name on the wire, `kind` its type in JSON."""

    def __init__(self, port: Port, datatype: str = "") -> None:
        """Raises ValueError for a port whose type the protocol does not have, or which has no rows."""
        self.port = port
        self.datatype = datatype or DATATYPES.get(port.dtype, "")
        if DTYPES.get(self.datatype) != port.dtype:
            raise ValueError(f"{port.name!r} is a tensor of {port.dtype}, which the protocol has no name for")
        if not 1 <= len(port.shape) <= RANK_MAX:
            raise ValueError(f"{port.name!r} has no rows" if not port.shape else f"{port.name!r} has a rank too high")
        self._sizes = [size if isinstance(size, int) else None for size in port.shape]
        self._is_text = port.dtype == STRING
        self._dtype = np.dtype(object) if self._is_text else np.dtype(port.dtype)
        self._wire = self._dtype.newbyteorder("<")
        # element size on the wire; texts have a length each
        self._item_bytes = 0 if self._is_text else 2 if self.datatype == BF16 else self._dtype.itemsize
        self.kind: type = str if self._is_text else {"b": bool, "f": float}.get(self._dtype.kind, int)
        kind: Any = self.kind
        self._flat = msgspec.json.Decoder(list[kind])
        for _ in port.shape:
            kind = list[kind]
        self._nested = msgspec.json.Decoder(kind)

    def check(self, datatype: str, shape: Sequence[int]) -> None:
        """Raise TensorError unless both are as the port says."""
        if datatype != self.datatype:
            raise TensorError(f"its datatype is {datatype[:20]!r}, expected {self.datatype}", ".datatype")
        fits = len(shape) == len(self._sizes)
        for want, got in zip(self._sizes, shape, strict=False):
            if want is not None and want != got:
                fits = False
        if not fits:
            expected = "×".join("any" if size is None else str(size) for size in self._sizes)
            shown = "×".join(map(str, shape[:RANK_MAX])) or "none"
            raise TensorError(f"its shape is {shown[:100]}, expected {expected}", ".shape")

    def read_json(self, data: msgspec.Raw, shape: Sequence[int]) -> NDArray[Any]:
        """The array of a checked `shape`, from a flat list or lists in lists. Raises TensorError."""
        text = bytes(data)
        if len(text) > COUNTED_BYTES_MIN and not self._is_text and (count := text.count(b",") + 1) != prod(shape):
            # before memory is taken: a list in a list may be two bytes, of which 16 MiB take seconds and gigabytes
            raise TensorError(f"it has {count} elements, its shape says {prod(shape)}", ".data")
        nested = len(shape) > 1 and text.lstrip()[1:].lstrip()[:1] == b"["
        try:
            values = (self._nested if nested else self._flat).decode(text)
        except msgspec.ValidationError as error:
            reason, _, path = str(error).partition(" - at `$")
            kind = NumberError if reason.startswith(OUT_OF_RANGE) else TensorError
            raise kind(_lower(reason), f".data{path.rstrip('`')}") from None
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise TensorError(f"it is not JSON: {error}", ".data") from None
        return self._array(values, shape, nested=nested)

    def read_flat(self, values: Sequence[Any], shape: Sequence[int]) -> NDArray[Any]:
        """The array of a checked `shape`, from all its elements, which are of `kind`. Raises TensorError."""
        if len(values) == prod(shape) and self.datatype != BF16:
            array = packed_flat(values, self.port.dtype, shape)
            if array is not None and is_finite(array):
                return array
        return self._array(values, shape, nested=False)  # which finds what is wrong, if anything

    def _array(self, values: Sequence[Any], shape: Sequence[int], *, nested: bool) -> NDArray[Any]:
        if not nested and len(values) != prod(shape):
            raise TensorError(f"it has {len(values)} elements, its shape says {prod(shape)}", ".data")
        try:
            array = packed(values, self.port.dtype, len(shape) if nested else 1)
            if array is None:
                with np.errstate(over="ignore"):
                    array = np.array(values, self._dtype)
        except (ValueError, OverflowError) as error:
            ragged = "inhomogeneous" in str(error)
            sentence = "its rows do not have the same shape" if ragged else f"a number does not fit {self.datatype}"
            raise TensorError(sentence, ".data") from None
        if nested and array.shape != tuple(shape):
            raise TensorError(f"its shape is {'×'.join(map(str, array.shape))}, not as stated", ".data")
        if self.datatype == BF16:
            array = _from_bf16(_to_bf16(array))
        return self._finite(array.reshape(shape), flat=not nested)

    def read_binary(self, data: bytes, shape: Sequence[int]) -> NDArray[Any]:
        """The array of a checked `shape`, from bytes. Raises TensorError."""
        count = prod(shape)
        if self._is_text:
            return _read_texts(data, count).reshape(shape)
        if len(data) != count * self._item_bytes:
            raise TensorError(f"it has {len(data)} bytes, its shape says {count * self._item_bytes}", ".data")
        if self.datatype == BF16:
            return self._finite(_from_bf16(np.frombuffer(data, "<u2")).reshape(shape), flat=True)
        if self.datatype == "BOOL":
            raw = np.frombuffer(data, np.uint8)
            if (raw > 1).any():
                raise TensorError("a byte is neither 0 nor 1", ".data")
            return raw.astype(np.bool_).reshape(shape)
        # a copy: aligned, writable, and without the rest of the body
        array = np.frombuffer(data, self._wire).astype(self._dtype)
        return self._finite(array.reshape(shape), flat=True)

    def write_json(self, array: NDArray[Any]) -> list[Any]:
        """The elements, row by row, as the reference servers send them."""
        values: list[Any] = array.reshape(-1).tolist()
        return values

    def write_binary(self, array: NDArray[Any]) -> bytes:
        """The elements, row by row, little end first. Raises ValueError for a number that does not fit."""
        if self._is_text:
            encoded = [str(text).encode() for text in array.reshape(-1).tolist()]
            return b"".join(part for text in encoded for part in (_LENGTH.pack(len(text)), text))
        if self.datatype == BF16:
            return _to_bf16(array).astype("<u2").tobytes()
        if array.dtype == self._wire:
            return array.tobytes()
        with np.errstate(over="ignore"):
            return array.astype(self._wire).tobytes()

    def _finite(self, array: NDArray[Any], *, flat: bool) -> NDArray[Any]:
        if not is_finite(array):
            faults = ~np.isfinite(array.reshape(-1) if flat else array)
            place = "][".join(map(str, np.argwhere(faults)[0]))
            raise NumberError(f"a number does not fit {self.datatype}", f".data[{place}]")
        return array


def split_body(body: bytes, length: bytes | None) -> tuple[bytes, memoryview]:
    """The JSON of a body and what follows it; `length` is what `HEADER_LENGTH` says. Raises TensorError."""
    if length is None:
        return body, _NOTHING
    if not length.isdigit() or len(length) > LENGTH_DIGITS_MAX or int(length) > len(body):
        raise TensorError(f"the header {HEADER_LENGTH.decode()} is no length of this body's JSON")
    return body[: int(length)], memoryview(body)[int(length) :]


def says_not_finite(text: bytes) -> bool:
    """Whether something that is no JSON has a number as Python's servers write what JSON has no word for."""
    for word in _NOT_FINITE:
        place = text.find(word)  # of the first alone: it is an answer that can be long
        after = text[place + len(word) : place + len(word) + BLANKS_MAX].lstrip()[:1]
        if place >= 0 and after and after in b",]}":
            return True
    return False


class Sections:
    """The binary tensors after the JSON, to be taken in their order."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._taken = 0

    def take(self, size: int) -> bytes:
        """The next tensor. Raises TensorError where less is left."""
        left = len(self._data) - self._taken
        if not 0 <= size <= left:
            raise TensorError(f"it has {size} bytes of binary data, and {left} are left", ".parameters")
        self._taken += size
        return bytes(self._data[self._taken - size : self._taken])

    def end(self) -> None:
        """Raise TensorError unless all was taken."""
        if self._taken != len(self._data):
            raise TensorError(f"{len(self._data) - self._taken} bytes of binary data belong to no tensor")


def shown_shape(port: Port) -> list[int]:
    """A port's shape as the protocol's metadata has it."""
    return [size if isinstance(size, int) else -1 for size in port.shape]


def _read_texts(data: bytes, count: int) -> NDArray[Any]:
    if count * _LENGTH.size > len(data):  # before memory is taken for them
        raise TensorError(f"it has {len(data)} bytes, too few for {count} texts", ".data")
    texts = np.empty(count, object)
    place = 0
    for number in range(count):
        start = place + _LENGTH.size
        end = start + (_LENGTH.unpack_from(data, place)[0] if start <= len(data) else 0)
        if max(start, end) > len(data):
            raise TensorError("it is longer than its binary data", f".data[{number}]")
        try:
            texts[number] = data[start:end].decode()
        except UnicodeDecodeError:
            raise TensorError("it is not UTF-8 text", f".data[{number}]") from None
        place = end
    if place != len(data):
        raise TensorError(f"{len(data) - place} bytes follow its last text", ".data")
    return texts


def _to_bf16(array: NDArray[Any]) -> NDArray[np.uint16]:
    """The upper halves of float32, rounded to the nearest, halves to even, as processors do."""
    bits = np.ascontiguousarray(array, np.float32).reshape(-1).view(np.uint32).astype(np.uint64)
    halves = ((bits + 0x7FFF + (bits >> np.uint64(16) & np.uint64(1))) >> np.uint64(16)).astype(np.uint16)
    if (halves & _BF16_INFINITE == _BF16_INFINITE).any():
        raise NumberError(f"a number does not fit {BF16}", ".data")
    return halves


def _from_bf16(halves: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _lower(reason: str) -> str:
    reason = reason.replace("`", "")
    return f"{reason[:1].lower()}{reason[1:]}"
