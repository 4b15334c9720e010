"""How a network is wired: which axes of which tensors belong to one space of units (hidden neurons, channels).

Found from a graph (`wiring_graph`) or from names and shapes (`wiring_names`). Only weights that lie between two spaces
are wired: biases and norms are too small to be marked.
"""

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

FIXED = 0  # the space of inputs and outputs of the whole: nobody can reorder them
UNITS_MAX = 20_000  # of a space: beyond, a table of likeness takes more than a gigabyte
DENSE_MAX = 2**28  # numbers of a grouped convolution that is written out as a full one


@dataclass(frozen=True)
class Side:
    """A stretch of an axis, from `start` on: `units` of a space, each with `repeat` numbers one after the other."""

    axis: int
    space: int
    start: int
    units: int
    repeat: int = 1

    @property
    def stretch(self) -> slice:
        """The stretch."""
        return slice(self.start, self.start + self.units * self.repeat)


@dataclass(frozen=True)
class Block:
    """Weights from the units `into` to the units `out`: a whole tensor, or a part of one where values are joined.

    A convolution has `groups`. A depthwise one has a single input, which is fixed.
    """

    tensor: str
    out: Side
    into: Side
    groups: int = 1

    def read(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """The weights (out units, into units, kernel and repeats) in the numbers of the tensor."""
        ordered = np.moveaxis(self._ungrouped(numbers), (self.out.axis, self.into.axis), (0, 1))
        part = ordered[self.out.stretch, self.into.stretch]
        sides = (self.out.units, self.out.repeat, self.into.units, self.into.repeat, -1)
        return part.reshape(sides).transpose(0, 2, 1, 3, 4).reshape(self.out.units, self.into.units, -1)

    def write(self, weights: NDArray[Any], target: NDArray[Any]) -> None:
        """Put weights, as `read` gives them, where they belong in an array of the tensor's shape."""
        full = self._ungrouped(target)
        ordered = np.moveaxis(full, (self.out.axis, self.into.axis), (0, 1))
        part = ordered[self.out.stretch, self.into.stretch]
        sides = (self.out.units, self.into.units, self.out.repeat, self.into.repeat, -1)
        part[...] = weights.reshape(sides).transpose(0, 2, 1, 3, 4).reshape(part.shape)
        if self.groups > 1:
            outputs, inputs = self._group(target)
            for group in range(self.groups):
                rows, columns = slice(group * outputs, (group + 1) * outputs), slice(group * inputs, None)
                target[rows] = full[rows, columns][:, :inputs]

    def fitted(self, shape: tuple[int, ...]) -> "Block | None":
        """The same block of a tensor with other numbers of units, or None where it cannot be that."""
        out, into = (self._fitted(side, shape) for side in (self.out, self.into))
        return None if out is None or into is None else replace(self, out=out, into=into)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of this shape holds the block."""
        rank = len(shape)
        if not (2 <= rank <= 5 and prod(shape) > 0 and max(self.out.axis, self.into.axis) < rank):
            return False
        if self.groups > 1 and (prod(shape) * self.groups > DENSE_MAX or shape[0] % self.groups):
            return False
        ends = (self.out.stretch.stop, self.into.stretch.stop)
        sizes = (shape[self.out.axis], shape[self.into.axis] * self.groups)
        return ends[0] <= sizes[0] and ends[1] <= sizes[1] and max(self.out.units, self.into.units) <= UNITS_MAX

    def _fitted(self, side: Side, shape: tuple[int, ...]) -> Side | None:
        if side.axis >= len(shape):
            return None
        size = shape[side.axis] * (self.groups if side is self.into else 1)
        # of a joined axis nobody knows which part has grown
        units = size // side.repeat if side.start == 0 and side.space != FIXED else side.units
        return replace(side, units=units) if size >= side.start + units * side.repeat else None

    def _group(self, numbers: NDArray[Any]) -> tuple[int, int]:
        return numbers.shape[0] // self.groups, numbers.shape[1]

    def _ungrouped(self, numbers: NDArray[Any]) -> NDArray[Any]:
        if self.groups == 1:
            return numbers
        outputs, inputs = self._group(numbers)
        full = np.zeros((numbers.shape[0], inputs * self.groups, *numbers.shape[2:]), numbers.dtype)
        for group in range(self.groups):
            rows = slice(group * outputs, (group + 1) * outputs)
            full[rows, group * inputs : (group + 1) * inputs] = numbers[rows]
        return full
