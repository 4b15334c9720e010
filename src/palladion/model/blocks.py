"""Numbers of packed tensors: unpacked to float32, and rounded again onto the grid that their blocks already have.

How each type lays out its blocks is `palladion.model.block_layouts`'.
"""

from collections.abc import Iterator
from math import prod

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from palladion.model.block_layouts import LAYOUTS, BlockLayout, Bytes, Floats, Grid
from palladion.model.tensors import DTYPES

CHUNK_WEIGHTS = 65_536  # at a time, so that what is done to them stays in the processor's cache
CHANCES = 65_536  # that a number is rounded up is told in 16 bits
# Types narrower than a byte that ONNX and safetensors have: each element is a number of its own.
_NARROW = ("int2", "uint2", "int4", "uint4", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn")
BLOCK_TYPES = frozenset(LAYOUTS)
PACKED_TYPES = BLOCK_TYPES | frozenset(_NARROW)


def decode(dtype_name: str, data: Bytes, shape: tuple[int, ...]) -> Floats:
    """The numbers, of `shape`, of a packed tensor whose bytes are `data`. Costs their memory as float32.

    Raises ValueError for a type that is not one of `PACKED_TYPES`. Of a broken file they may be infinite or nan.
    """
    if dtype_name in _NARROW:
        return _narrow(dtype_name, data, prod(shape)).reshape(shape)
    layout = _layout(dtype_name)
    weights = np.empty(prod(shape), np.float32)
    for blocks, part in _chunks(dtype_name, data):
        codes = layout.unpack(blocks)
        _numbers(layout, codes, *_grid(layout, blocks), weights[part].reshape(codes.shape))
    return weights.reshape(shape)


def encode_like(dtype_name: str, weights: NDArray[np.floating], data: Bytes, dither: NDArray[np.uint16]) -> Bytes:
    """The bytes of a tensor of a block type for other `weights`, on the scales and minima of `data`.

    A weight that lies between two numbers of its group's grid becomes one of them by chance, such that its mean is the
    weight: `dither` holds a uniform number for each. One that is unchanged stays bit for bit what it was; one that
    leaves the grid becomes its end. Raises ValueError for a type that is not one of `BLOCK_TYPES`.
    """
    layout = _layout(dtype_name)
    wanted, chances = weights.reshape(-1), dither.reshape(-1)
    encoded = data.copy()
    for blocks, part in _chunks(dtype_name, encoded):
        codes = layout.unpack(blocks)
        steps, minima = _grid(layout, blocks)
        change = _numbers(layout, codes, steps, minima, np.empty(codes.shape, np.float32))
        np.subtract(wanted[part].reshape(codes.shape), change, out=change, casting="same_kind")
        groups = change.reshape(*steps.shape, -1)
        # a group without a grid has one number only
        groups *= np.divide(1, steps, out=np.zeros_like(steps), where=steps != 0)[:, :, None]
        layout.pack(nearby(codes, change, chances[part].reshape(codes.shape), layout.lowest, layout.highest), blocks)
    return encoded


def mean_step(dtype_name: str, data: Bytes) -> float:
    """How far apart neighbouring numbers of a tensor of a block type are, in the mean; 0 for an empty one."""
    layout = _layout(dtype_name)
    sums = [(float(np.abs(steps).sum()), steps.size) for steps in _steps(layout, dtype_name, data)]
    return sum(total for total, _ in sums) / max(1, sum(count for _, count in sums))


def _steps(layout: BlockLayout, dtype_name: str, data: Bytes) -> Iterator[Floats]:
    return (_grid(layout, blocks)[0] for blocks, _ in _chunks(dtype_name, data))


def nearby(
    codes: NDArray[np.integer], change: NDArray[np.floating], dither: NDArray[np.uint16], lowest: int, highest: int
) -> Bytes:
    """Codes moved by `change` steps, rounded up or down by chance, and kept between `lowest` and `highest`.

    A code that is out of these bounds already goes no further. Uses `change` up.
    """
    change += (dither + np.float32(0.5)) * np.float32(1 / CHANCES)
    np.floor(change, out=change)
    change += codes
    np.clip(change, np.minimum(codes, lowest), np.maximum(codes, highest), out=change)
    return change.astype(codes.dtype)


def _layout(dtype_name: str) -> BlockLayout:
    if dtype_name not in LAYOUTS:
        raise ValueError(f"the numbers of {dtype_name} cannot be unpacked")
    return LAYOUTS[dtype_name]


def _block(dtype_name: str) -> tuple[int, int]:
    dtype = DTYPES[dtype_name]
    return dtype.block, dtype.bits // 8


def _chunks(dtype_name: str, data: Bytes) -> Iterator[tuple[Bytes, slice]]:
    """Views of some blocks (n, bytes), and which of the flat weights they hold."""
    block, size = _block(dtype_name)
    blocks = data.reshape(-1, size)
    step = CHUNK_WEIGHTS // block
    for start in range(0, len(blocks), step):
        part = blocks[start : start + step]
        yield part, slice(start * block, (start + len(part)) * block)


def _grid(layout: BlockLayout, blocks: Bytes) -> Grid:
    with np.errstate(all="ignore"):
        return layout.grid(blocks)


def _numbers(layout: BlockLayout, codes: Bytes, steps: Floats, minima: Floats | None, weights: Floats) -> Floats:
    """Write the numbers that `codes` stand for into `weights` (n, elements)."""
    np.subtract(codes, np.float32(layout.zero), out=weights, dtype=np.float32)
    groups = weights.reshape(*steps.shape, -1)
    with np.errstate(all="ignore"):
        groups *= steps[:, :, None]
        if minima is not None:
            groups += minima[:, :, None]
    return weights


def _narrow(dtype_name: str, data: Bytes, count: int) -> Floats:
    bits = DTYPES[dtype_name].bits
    if bits == 4:
        codes = np.stack([data & 15, data >> 4], axis=1).reshape(-1)[:count]
    else:
        flat = np.unpackbits(data, bitorder="little", count=count * bits)
        codes = np.packbits(flat.reshape(count, bits), axis=1, bitorder="little")[:, 0]
    values = np.arange(2**bits, dtype=np.uint8).view(getattr(ml_dtypes, dtype_name)).astype(np.float32)
    numbers: Floats = values[codes]
    return numbers
