"""What quantised tensors stand for, and how their numbers are stored again: by rounding that a key leaves to chance.

Marked weights lie between the numbers that a grid has. Each becomes one of its two neighbours, such that the mean is
the marked weight; scales, minima and zero points stay as they are. Which tensors of a file are quantised weights, and
by what scales, say `quantised_groups` (safetensors) and `quantised_onnx`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, TypeAlias

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from palladion.mark.carriers import sign_bits
from palladion.model.blocks import BLOCK_TYPES, CHANCES, decode, encode_like, mean_step, nearby
from palladion.model.tensors import Tensor

Floats: TypeAlias = NDArray[np.float32]
Real: TypeAlias = NDArray[np.floating[Any]]
Lazy: TypeAlias = Callable[[], Floats]  # scales of small groups are as large as a tenth of the model

FLOAT8_TYPES = frozenset({"float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"})
INTEGER_TYPES = frozenset({"int8", "uint8", "int4", "uint4"})
CHUNK_NUMBERS = 65_536  # at a time, so that what is done to them stays in the processor's cache


class Quantised(Protocol):
    """Quantised weights: the tensor that holds their codes, the shape of the weights, and both ways between them."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weights, which may be another than that of the tensor."""
        ...

    @property
    def beside(self) -> tuple[str, ...]:
        """The tensors that hold scales and the like, which are no weights themselves."""
        ...

    def read(self) -> Floats:
        """The weights, of `shape`."""
        ...

    def gap(self) -> float:
        """How far apart neighbouring numbers that can be stored are, in the mean."""
        ...

    def encode(self, weights: Real, key: bytes) -> NDArray[Any]:
        """The tensor's `data` for other weights, in rows of any length; `key` is the chance by which they are rounded.

        Weights that did not change stay bit for bit what they were.
        """
        ...


@dataclass(frozen=True, eq=False)
class Blocks:
    """A tensor of one of ggml's block types."""

    tensor: Tensor
    beside: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the tensor."""
        return self.tensor.shape

    def read(self) -> Floats:
        """The weights, of `shape`."""
        return decode(self.tensor.dtype.name, self.tensor.data, self.tensor.shape)

    def gap(self) -> float:
        """The mean step of its blocks."""
        return mean_step(self.tensor.dtype.name, self.tensor.data)

    def encode(self, weights: Real, key: bytes) -> NDArray[Any]:
        """The tensor's bytes for other weights, on the scales that its blocks have."""
        return encode_like(self.tensor.dtype.name, weights, self.tensor.data, dither(key, weights.size))


@dataclass(frozen=True, eq=False)
class Floats8:
    """8-bit floats, times `scale` if there is one, which has a shape that fits theirs."""

    tensor: Tensor
    scale: Lazy | None = None
    beside: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the tensor."""
        return self.tensor.shape

    def read(self) -> Floats:
        """The weights, of `shape`."""
        numbers: Floats = self.tensor.data.astype(np.float32)
        return numbers if self.scale is None else numbers * self.scale()

    def gap(self) -> float:
        """The mean distance between a number and the next, by a sample."""
        levels = _ladder_of(self.tensor.dtype.name)[0].levels
        sample = self.tensor.data.reshape(-1)[:: max(1, self.tensor.element_count // CHUNK_NUMBERS)]
        upper = np.clip(np.searchsorted(levels, sample.astype(np.float32), side="right"), 1, len(levels) - 1)
        gap = float(np.mean(levels[upper] - levels[upper - 1]))
        return gap if self.scale is None else gap * float(np.abs(self.scale()).mean())

    def encode(self, weights: Real, key: bytes) -> NDArray[Any]:
        """The tensor's data for other weights."""
        ladder, codes = _ladder_of(self.tensor.dtype.name)
        wanted = (
            weights.reshape(self.shape) if self.scale is None else unscaled(weights.reshape(self.shape), self.scale())
        )
        found = codes[ladder.either(wanted.reshape(-1), dither(key, weights.size))]
        encoded: NDArray[Any] = found.view(self.tensor.data.dtype).reshape(self.shape)
        return encoded


@dataclass(frozen=True, eq=False)
class Integers:
    """8-bit and 4-bit integers: a weight is scale × (code - zero). Both have shapes that fit the weights'."""

    tensor: Tensor
    scale: Lazy
    zero: Lazy
    beside: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the tensor."""
        return self.tensor.shape

    def read(self) -> Floats:
        """The weights, of `shape`."""
        weights = self._codes().astype(np.float32)
        weights -= self.zero()
        weights *= self.scale()
        return weights

    def gap(self) -> float:
        """The mean scale."""
        return float(np.abs(self.scale()).mean())

    def encode(self, weights: Real, key: bytes) -> NDArray[Any]:
        """The tensor's data for other weights; no code is larger or smaller than the tensor had (7 bits, symmetry)."""
        codes = self._codes()
        change = unscaled(weights.reshape(self.shape) - self.read(), self.scale())
        chance = dither(key, weights.size).reshape(self.shape)
        moved = nearby(codes, change, chance, int(codes.min()), int(codes.max()))
        return moved if not self.tensor.dtype.packed else nibbles(moved.reshape(-1))

    def _codes(self) -> NDArray[Any]:
        if not self.tensor.dtype.packed:
            return self.tensor.data
        return decode(self.tensor.dtype.name, self.tensor.data, self.tensor.shape).astype(np.int8)


def quantised_of(tensor: Tensor) -> Quantised | None:
    """What a tensor stands for whose type alone says that it is quantised: ggml's blocks and 8-bit floats."""
    if tensor.dtype.name in BLOCK_TYPES:
        return Blocks(tensor)
    return Floats8(tensor) if tensor.dtype.name in FLOAT8_TYPES else None


def dither(key: bytes, count: int) -> NDArray[np.uint16]:
    """`count` uniform numbers of 16 bits, which nobody knows without the key."""
    drawn: NDArray[np.uint16] = sign_bits(key, 16 * count).view("<u2")
    return drawn


@dataclass(frozen=True, eq=False)
class Ladder:
    """Numbers that can be stored, rising; `starts` has, for the upper half of a float32's bits, the one below it."""

    levels: Floats
    starts: NDArray[np.intp]

    @classmethod
    def of(cls, levels: Floats) -> "Ladder":
        """That of at least two levels, no two of which share their upper half of bits and sign."""
        upper = (np.arange(CHANCES, dtype=np.uint32) << 16).view(np.float32)
        below = np.searchsorted(levels, np.nan_to_num(upper, nan=0), side="right") - 1
        return cls(levels, np.clip(below, 0, len(levels) - 2))

    def either(self, wanted: Real, chance: NDArray[np.uint16]) -> NDArray[np.intp]:
        """The index of one of the two levels that enclose each number (n,), by chance, so that the mean is it."""
        levels, highest = self.levels, len(self.levels) - 2
        gaps = np.diff(levels)
        found = np.empty(len(wanted), np.intp)
        for start in range(0, len(wanted), CHUNK_NUMBERS):
            part = slice(start, start + CHUNK_NUMBERS)
            numbers = np.clip(wanted[part], levels[0], levels[-1]).astype(np.float32)
            # the upper half cuts towards 0, and a level may lie in what was cut
            lower = self.starts[numbers.view(np.uint32) >> 16]
            lower -= (levels[lower] > numbers) & (lower > 0)
            lower += (levels[lower + 1] <= numbers) & (lower < highest)
            share = (numbers - levels[lower]) / gaps[lower]
            found[part] = lower + ((chance[part] + np.float32(0.5)) * np.float32(1 / CHANCES) < share)
        return found


def unscaled(weights: Real, scale: Floats) -> Real:
    """`weights` divided by `scale`; 0 where that is 0, which has no number but 0."""
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    return weights * inverse


def nibbles(codes: NDArray[Any]) -> NDArray[Any]:
    """Codes of 4 bits (n,), two in a byte, the first one lowest."""
    even = np.zeros(len(codes) + len(codes) % 2, np.uint8)
    even[: len(codes)] = codes.astype(np.uint8) & 15
    joined: NDArray[Any] = even[::2] | (even[1::2] << 4)
    return joined


@cache
def _ladder_of(dtype_name: str) -> tuple[Ladder, NDArray[np.uint8]]:
    """The numbers of an 8-bit float, and the code of each."""
    values = np.arange(256, dtype=np.uint8).view(getattr(ml_dtypes, dtype_name)).astype(np.float32)
    finite = np.flatnonzero(np.isfinite(values))
    # of 0 and -0 the first
    levels, first = np.unique(values[finite], return_index=True)
    return Ladder.of(levels), finite[first].astype(np.uint8)
