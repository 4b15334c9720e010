"""Tensors as every format is read into them: a name, an element type, a shape, and a read-only view of the numbers.

Element types have one name across formats, so that the same weights have the same digest wherever they are stored.
Types narrower than a byte stay packed, least significant bits first, as ONNX and safetensors store them. So do the
quantised types of GGUF, whose numbers come in blocks that share a scale (`palladion.model.blocks` unpacks them).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from palladion import canonical
from palladion.errors import FormatError

RANK_MAX = 64  # what NumPy can hold; no model comes near
DIMENSION_MAX = canonical.INTEGER_MAX  # a version's shapes are registered as canonical JSON
SIZE_MAX_BITS = 2**63 - 1  # NumPy computes strides in signed 64-bit; also with the zero dimensions left out
NAME_BYTES_MAX = 2048  # as in the registry; exporters write paths of modules, some 200 bytes


@dataclass(frozen=True)
class DType:
    """An element type: its name, its width, and the NumPy type of `Tensor.data` (uint8 where elements are packed).

    `bits` is the width of an element, or of `block` consecutive elements of a row where these are stored together.
    """

    name: str
    bits: int
    carrier: np.dtype[Any]
    block: int = 1

    @property
    def packed(self) -> bool:
        """Whether an element is not a whole number of bytes, so that `Tensor.data` is a flat array of packed bytes."""
        return self.block > 1 or self.bits % 8 != 0

    def byte_count(self, shape: tuple[int, ...]) -> int:
        """Bytes that a tensor of `shape` takes, whose rows are whole blocks; packed types fill up their last byte."""
        return (prod(shape) // self.block * self.bits + 7) // 8


# Elements and bytes of a block, by the names of ggml (ggml-common.h) in lower case. All that exist, also those whose
# numbers nobody here unpacks: a file that holds some of them can still be sealed and compared.
_BLOCKS: Mapping[str, tuple[int, int]] = {
    "q4_0": (32, 18),
    "q4_1": (32, 20),
    "q5_0": (32, 22),
    "q5_1": (32, 24),
    "q8_0": (32, 34),
    "q8_1": (32, 40),
    "q2_k": (256, 84),
    "q3_k": (256, 110),
    "q4_k": (256, 144),
    "q5_k": (256, 176),
    "q6_k": (256, 210),
    "q8_k": (256, 292),
    "iq2_xxs": (256, 66),
    "iq2_xs": (256, 74),
    "iq3_xxs": (256, 98),
    "iq1_s": (256, 50),
    "iq4_nl": (32, 18),
    "iq3_s": (256, 110),
    "iq2_s": (256, 82),
    "iq4_xs": (256, 136),
    "iq1_m": (256, 56),
    "tq1_0": (256, 54),
    "tq2_0": (256, 66),
    "mxfp4": (32, 17),
    "nvfp4": (64, 36),
    "q1_0": (128, 18),
}


def _table() -> Mapping[str, DType]:
    native = {"bool": "?", "int8": "i1", "uint8": "u1"}
    wide = {f"{kind}{bits}": f"<{kind[0]}{bits // 8}" for kind in ("int", "uint") for bits in (16, 32, 64)}
    floats = {"float16": "<f2", "float32": "<f4", "float64": "<f8", "complex64": "<c8", "complex128": "<c16"}
    carriers: dict[str, np.dtype[Any]] = {
        name: np.dtype(code) for name, code in {**native, **wide, **floats}.items()
    } | {
        "bfloat16": np.dtype(ml_dtypes.bfloat16),
        "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
        "float8_e4m3fnuz": np.dtype(ml_dtypes.float8_e4m3fnuz),
        "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
        "float8_e5m2fnuz": np.dtype(ml_dtypes.float8_e5m2fnuz),
        "float8_e8m0fnu": np.dtype(ml_dtypes.float8_e8m0fnu),
    }
    packed = {"int2": 2, "uint2": 2, "int4": 4, "uint4": 4, "float4_e2m1fn": 4, "float6_e2m3fn": 6, "float6_e3m2fn": 6}
    types = [DType(name, carrier.itemsize * 8, carrier) for name, carrier in carriers.items()]
    types += [DType(name, bits, np.dtype(np.uint8)) for name, bits in packed.items()]
    types += [DType(name, 8 * size, np.dtype(np.uint8), elements) for name, (elements, size) in _BLOCKS.items()]
    return MappingProxyType({dtype.name: dtype for dtype in types})


DTYPES: Mapping[str, DType] = _table()


@dataclass(frozen=True, eq=False)
class Tensor:
    """A named tensor. `data` has `shape`, or is flat packed bytes where `dtype.packed`; it cannot be written to.

    `data` may be an unaligned or strided view into the bytes of a file.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    data: NDArray[Any]

    def __post_init__(self) -> None:
        if self.data.dtype != self.dtype.carrier:
            raise ValueError(f"{self.dtype.name} is carried by {self.dtype.carrier}, not by {self.data.dtype}")
        expected = (self.dtype.byte_count(self.shape),) if self.dtype.packed else self.shape
        if self.data.shape != expected:
            raise ValueError(f"tensor {self.name!r} has data of shape {self.data.shape}, expected {expected}")
        if self.data.flags.writeable:
            view = self.data.view()
            view.flags.writeable = False
            object.__setattr__(self, "data", view)

    @property
    def element_count(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)

    @property
    def byte_count(self) -> int:
        """Bytes of its numbers."""
        return self.dtype.byte_count(self.shape)


def check_shape(shape: tuple[int, ...], dtype: DType, *, what: str) -> None:
    """Raise FormatError, naming `what`, unless a tensor of `shape` can exist at all, and be registered."""
    # first: what follows takes time and quotes text in proportion
    if len(shape) > RANK_MAX:
        raise FormatError(f"{what} has {len(shape)} dimensions, more than the {RANK_MAX} allowed")
    if any(size < 0 for size in shape):
        raise FormatError(f"{what} has a negative dimension in its shape {list(shape)}")
    if max(shape, default=0) > DIMENSION_MAX or prod(size for size in shape if size) * dtype.bits > SIZE_MAX_BITS:
        raise FormatError(f"{what} has the shape {list(shape)}, which no memory can hold")
    if prod(shape[-1:]) % dtype.block:
        raise FormatError(f"{what} has rows of {prod(shape[-1:])} numbers, expected whole blocks of {dtype.block}")


def tensor_from_bytes(name: str, dtype: DType, shape: tuple[int, ...], data: memoryview, *, what: str) -> Tensor:
    """The tensor whose little-endian bytes are `data`, without a copy. Raises FormatError, naming `what`."""
    check_shape(shape, dtype, what=what)
    expected = dtype.byte_count(shape)
    if data.nbytes != expected:
        raise FormatError(
            f"{what} holds {data.nbytes} bytes, expected {expected} for {dtype.name} of shape {list(shape)}"
        )
    numbers = np.frombuffer(data, np.uint8) if expected else np.empty(0, np.uint8)
    return tensor_from_array(name, dtype, shape, numbers, what=what)


def tensor_from_array(name: str, dtype: DType, shape: tuple[int, ...], numbers: NDArray[Any], *, what: str) -> Tensor:
    """The tensor of a flat array that holds its elements, or their bytes, in row-major order. Raises FormatError."""
    name_bytes = len(name.encode())
    if name_bytes > NAME_BYTES_MAX:
        raise FormatError(
            f"the name {name[:80]!r}… of a tensor has {name_bytes} bytes, at most {NAME_BYTES_MAX} allowed"
        )
    if dtype.name == "bool" and numbers.size and numbers.view(np.uint8).max() > 1:
        # readers disagree on what a 2 means
        raise FormatError(f"{what} is bool and holds a byte other than 0 and 1")
    elements = numbers if numbers.dtype == dtype.carrier else numbers.view(dtype.carrier)
    return Tensor(name, dtype, shape, elements if dtype.packed else elements.reshape(shape))
