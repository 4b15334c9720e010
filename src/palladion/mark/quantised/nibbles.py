"""bitsandbytes' 4-bit weights (nf4, fp4): two codes in a byte, and what they mean in `weight.quant_map` and others."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from palladion.mark.quantised.codings import Floats, Ladder, Lazy, Real, dither, unscaled
from palladion.model.tensors import DIMENSION_MAX, Tensor

STATE_BYTES_MAX = 65_536  # bitsandbytes writes some hundred
BLOCK_MAX = 4096  # the largest that bitsandbytes has
_FLOATS = frozenset({"float32", "float16", "bfloat16"})
_KINDS = ("nf4", "fp4")


@dataclass(frozen=True, eq=False)
class Nibbles:
    """bitsandbytes' 4-bit weights: two in a byte, the first one highest; each is a level times that of its block."""

    tensor: Tensor
    shape: tuple[int, ...]
    levels: Tensor  # (16,)
    largest: Lazy
    block: int
    beside: tuple[str, ...]

    def read(self) -> Floats:
        """The weights, of `shape`."""
        data = self.tensor.data.reshape(-1)
        codes = np.stack([data >> 4, data & 15], axis=1).reshape(-1)[: prod(self.shape)]
        weights: Floats = self.levels.data.astype(np.float32)[codes]
        return (weights * self._scale()).reshape(self.shape)

    def gap(self) -> float:
        """The mean distance between levels, times the mean size of a block."""
        levels = np.unique(self.levels.data.astype(np.float32))
        return float((levels[-1] - levels[0]) / max(1, len(levels) - 1) * np.abs(self.largest()).mean())

    def encode(self, weights: Real, key: bytes) -> NDArray[Any]:
        """The bytes for other weights."""
        levels = self.levels.data.astype(np.float32)
        rising = np.unique(levels, return_index=True)
        wanted = unscaled(weights.reshape(-1), self._scale())
        codes = np.zeros(2 * self.tensor.element_count, np.uint8)
        codes[: weights.size] = rising[1][Ladder.of(rising[0]).either(wanted, dither(key, weights.size))]
        encoded: NDArray[Any] = (codes[::2] << 4) | codes[1::2]
        return encoded.reshape(self.tensor.shape)

    def _scale(self) -> Floats:
        return np.repeat(self.largest(), self.block)[: prod(self.shape)]


def nibbles_of(tensor: Tensor, tensors: Mapping[str, Tensor]) -> Nibbles | None:
    """What the bytes of a tensor with a `quant_map` stand for; None if what is beside it does not fit."""
    levels, largest = tensors[f"{tensor.name}.quant_map"], tensors.get(f"{tensor.name}.absmax")
    state = _state(tensors, tensor.name)
    if state is None or largest is None or largest.element_count != state.blocks or not _are_levels(levels, 16):
        return None
    if (prod(state.shape) + 1) // 2 != tensor.element_count:
        return None
    if largest.dtype.name in _FLOATS:
        return Nibbles(tensor, state.shape, levels, partial(_plain, largest), state.block, (levels.name, largest.name))
    sizes, map_ = (tensors.get(f"{tensor.name}.{name}") for name in ("nested_absmax", "nested_quant_map"))
    if largest.dtype.name != "uint8" or sizes is None or map_ is None or not _are_levels(map_, 256):
        return None
    if sizes.dtype.name not in _FLOATS or sizes.element_count * state.nested < state.blocks:
        return None
    read = partial(_nested, largest, sizes, map_, state.nested, state.offset)
    return Nibbles(tensor, state.shape, levels, read, state.block, (levels.name, largest.name, sizes.name, map_.name))


@dataclass(frozen=True)
class _State:
    shape: tuple[int, ...]
    block: int
    nested: int
    offset: float

    @property
    def blocks(self) -> int:
        return -(-prod(self.shape) // self.block)


def _plain(largest: Tensor) -> Floats:
    """The largest weight of each block."""
    return largest.data.reshape(-1).astype(np.float32)


def _nested(codes: Tensor, sizes: Tensor, levels: Tensor, block: int, offset: float) -> Floats:
    """The same where it is quantised itself."""
    data = codes.data.reshape(-1)
    wide = np.repeat(sizes.data.reshape(-1).astype(np.float32), block)[: len(data)]
    found: Floats = levels.data.astype(np.float32)[data] * wide + np.float32(offset)
    return found


def _state(tensors: Mapping[str, Tensor], name: str) -> _State | None:
    held = next(
        (tensors[key] for kind in _KINDS if (key := f"{name}.quant_state.bitsandbytes__{kind}") in tensors), None
    )
    if held is None or held.dtype.name != "uint8" or held.element_count > STATE_BYTES_MAX:
        return None
    try:
        found = json.loads(held.data.tobytes())
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    shape, block = found.get("shape"), found.get("blocksize")
    nested, offset = found.get("nested_blocksize", 1), found.get("nested_offset", 0.0)
    if not isinstance(shape, list) or not 0 < len(shape) <= 8 or not all(_up_to(size, DIMENSION_MAX) for size in shape):
        return None
    if _up_to(block, BLOCK_MAX) and _up_to(nested, BLOCK_MAX) and isinstance(offset, float):
        return _State(tuple(shape), block, nested, offset)
    return None


def _are_levels(tensor: Tensor, count: int) -> bool:
    """Whether a tensor holds `count` numbers, not all the same."""
    if tensor.dtype.name not in _FLOATS or tensor.shape != (count,):
        return False
    levels = tensor.data.astype(np.float32)
    return bool(np.isfinite(levels).all() and np.ptp(levels) > 0)


def _up_to(value: Any, most: int) -> TypeGuard[int]:
    return type(value) is int and 0 < value <= most
