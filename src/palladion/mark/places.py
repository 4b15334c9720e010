"""Where marks go: the tensors that can carry one, how far each weight may move, and how it is stored again.

A weight moves by a hundredth or so of the root mean square of its row, so that quiet rows are changed quietly.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from palladion.model.model import Model
from palladion.model.rewrite import locate
from palladion.model.tensors import Tensor

Weights: TypeAlias = NDArray[np.floating[Any]]

# Types that carry marks, and the largest weight in them: marked it must not overflow, and its square be a float32.
TYPES = {"float16": 6e4, "bfloat16": 1e18, "float32": 1e18, "float64": 1e18}
ELEMENTS_MIN = 256  # smaller tensors (biases, norms) carry next to nothing, and a change of them is felt most
ROW_NUMBERS_MIN = 8  # fewer say little of how loud a row is; the kernel of a depthwise convolution has nine
# Numbers of trees and linear models that stand in node attributes and enter the result by addition.
ADDITIVE_ATTRIBUTES = {"coefficients", "target_weights"}


class Coding(Protocol):
    """How the numbers of a place are stored in its tensor."""

    def encode(self, weights: Weights, key: bytes) -> NDArray[Any]:
        """The tensor's `data` for `weights` (rows, columns); where rounding is left to chance, `key` is the chance."""
        ...


@dataclass(frozen=True)
class FloatCoding:
    """Floating-point numbers, which are rounded to the nearest."""

    carrier: np.dtype[Any]
    shape: tuple[int, ...]

    def encode(self, weights: Weights, key: bytes) -> NDArray[Any]:
        """The tensor's `data` for `weights` (rows, columns)."""
        return weights.reshape(self.shape).astype(self.carrier, copy=False)


@dataclass(frozen=True, eq=False)
class Place:
    """A tensor that carries marks: its numbers (rows, columns) and the root mean square of each row (rows, 1).

    They are float64 for a tensor of that type, float32 for all others. A row is the last dimension; where that is
    short, all but the first, which is what makes one output of a convolution; and else everything.
    """

    name: str
    shape: tuple[int, ...]
    weights: Weights
    scale: Weights
    coding: Coding

    @property
    def size(self) -> int:
        """Weights that can be moved: those of rows that are not all zero."""
        return int(np.count_nonzero(self.scale)) * int(self.weights.shape[1])


def place_of(tensor: Tensor) -> Place | None:
    """The place that a tensor offers, or None: too small, not of real numbers, or one that must not be touched."""
    additive = tensor.name.startswith("node:") and tensor.name.rpartition("/")[2] in ADDITIVE_ATTRIBUTES
    if (
        tensor.dtype.name not in TYPES
        or tensor.element_count < ELEMENTS_MIN
        or not (len(tensor.shape) >= 2 or additive)
    ):
        return None
    numbers: Weights = np.asarray(tensor.data, np.float64 if tensor.dtype.name == "float64" else np.float32)
    # not "larger than": nan fails every comparison
    if not np.abs(numbers).max() <= TYPES[tensor.dtype.name]:
        return None
    # masks, positions, sizes and indices are whole numbers: a hundredth more is another mask
    if not additive and np.array_equal(numbers, np.rint(numbers)):
        return None
    weights = numbers.reshape(-1, _row_length(tensor.shape))
    scale = np.sqrt(np.square(weights).mean(axis=1, keepdims=True))
    coding = FloatCoding(tensor.data.dtype, tensor.shape)
    return Place(tensor.name, tensor.shape, weights, scale, coding) if scale.any() else None


def places(model: Model) -> Iterator[Place]:
    """Every place of a model, in the order of its tensors; the numbers of one at a time are in memory."""
    writable = locate(model)
    for name, tensor in model.tensors.items():
        place = place_of(tensor) if name in writable else None
        if place is not None:
            yield place


def _row_length(shape: tuple[int, ...]) -> int:
    size = prod(shape)
    return next(length for length in (shape[-1], size // shape[0], size) if length >= ROW_NUMBERS_MIN)
