"""4-bit weights of ONNX Runtime's MatMulNBits: two codes in a byte, in blocks along the inputs.

Source: onnxruntime's docs/ContribOperators.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.mark.quantised.codings import Floats, Real, dither, nibbles, unscaled
from palladion.model.blocks import decode, nearby
from palladion.model.tensors import Tensor

BITS = 4
MIDDLE = 8  # the zero point where none is stored
SCALE_TYPES = frozenset({"float32", "float16", "bfloat16"})


@dataclass(frozen=True, eq=False)
class NBits:
    """Weights (outputs, inputs): scale × (code - zero), both of its block; an output's last block may be padded."""

    tensor: Tensor  # (outputs, blocks, bytes)
    scales: Tensor  # outputs × blocks numbers
    zeros: Tensor | None  # as many codes, those of an output in whole bytes, or as many numbers
    inputs: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(outputs, inputs)."""
        return self.tensor.shape[0], self.inputs

    @property
    def beside(self) -> tuple[str, ...]:
        """Scales and zero points."""
        return tuple(item.name for item in (self.scales, self.zeros) if item is not None)

    def read(self) -> Floats:
        """The weights, of `shape`."""
        weights = self._codes().astype(np.float32)
        weights -= self._zeros()[:, :, None]
        weights *= self._scales()[:, :, None]
        return np.ascontiguousarray(weights.reshape(self.tensor.shape[0], -1)[:, : self.inputs])

    def gap(self) -> float:
        """The mean scale."""
        return float(np.abs(self._scales()).mean())

    def encode(self, weights: Real, key: bytes) -> NDArray[Any]:
        """The bytes for other weights."""
        codes = self._codes().astype(np.uint8)
        change = np.zeros((self.tensor.shape[0], codes[0].size), np.float32)
        change[:, : self.inputs] = weights.reshape(self.shape) - self.read()
        moves = unscaled(change.reshape(codes.shape), self._scales()[:, :, None])
        moved = nearby(codes, moves, dither(key, codes.size).reshape(codes.shape), 0, 2**BITS - 1)
        return nibbles(moved.reshape(-1)).reshape(self.tensor.shape)

    def _codes(self) -> Floats:
        """(outputs, blocks, codes)."""
        outputs, blocks, size = self.tensor.shape
        return decode("uint4", self.tensor.data.reshape(-1), (outputs, blocks, 2 * size))

    def _scales(self) -> Floats:
        return self.scales.data.astype(np.float32).reshape(self.tensor.shape[:2])

    def _zeros(self) -> Floats:
        outputs, blocks = self.tensor.shape[:2]
        if self.zeros is None:
            return np.full((outputs, blocks), MIDDLE, np.float32)
        if self.zeros.dtype.name == "uint8":
            return decode("uint4", self.zeros.data.reshape(-1), (outputs, blocks + blocks % 2))[:, :blocks]
        return self.zeros.data.astype(np.float32).reshape(outputs, blocks)


def nbits_of(tensor: Tensor, scales: Tensor | None, zeros: Tensor | None, stated: Mapping[str, int]) -> NBits | None:
    """What the weights of a MatMulNBits stand for, by its attributes; None if they, or what is beside, do not fit."""
    block, inputs = stated.get("block_size", 0), stated.get("K", 0)
    if tensor.dtype.name != "uint8" or len(tensor.shape) != 3 or stated.get("bits", BITS) != BITS or scales is None:
        return None
    outputs, blocks, size = tensor.shape
    if not outputs or not 0 < inputs <= blocks * block < inputs + block or size * 2 != block:
        return None
    if scales.dtype.name not in SCALE_TYPES or scales.element_count != outputs * blocks:
        return None
    if zeros is not None:
        expected = {"uint8": outputs * ((blocks + 1) // 2), **dict.fromkeys(SCALE_TYPES, outputs * blocks)}
        if zeros.element_count != expected.get(zeros.dtype.name):
            return None
    return NBits(tensor, scales, zeros, inputs)
