"""Reads the matrices of a transformer out of its tensors, as (outputs, inputs), and puts them back where they lay.

A thief chooses the numbers: what is not finite is zero here, and what is wild is drawn in.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palladion.mark.align.transformer_layouts import Layout, Norm, Part
from palladion.model.model import Model
from palladion.model.tensors import Tensor

Floats = NDArray[np.float32]

WILD = 1000.0  # times the median; trained weights stay far below, and one wild one would hide all others
GAIN_MIN = 1e-3  # of the largest: what comes through less is noise
SAMPLE = 4096  # numbers by which the median is found


def numbers(tensor: Tensor) -> Floats:
    """The numbers of a tensor, tame. Integers are taken around their median, as quantisation leaves a zero point."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = tensor.data.astype(np.float32)  # a copy
    values[~np.isfinite(values)] = 0
    step = max(1, values.size // SAMPLE)
    sample = values.reshape(-1)[::step]
    if not tensor.dtype.name.startswith(("float", "bfloat")):
        values -= np.median(sample)
    sizes = np.abs(sample[sample != 0])
    if sizes.size:
        limit = np.float32(WILD) * np.median(sizes)
        np.clip(values, -limit, limit, out=values)
    return values


def is_readable(tensor: Tensor) -> bool:
    """Whether a tensor holds numbers that can be compared."""
    return not tensor.dtype.packed and tensor.dtype.name not in {"bool", "complex64", "complex128"}


@dataclass(frozen=True, eq=False)
class Parts:
    """A model and its layout. Every reading costs a copy of the part."""

    model: Model
    layout: Layout

    def has(self, *parts: Part) -> bool:
        """Whether these are matrices that can be read."""
        tensors = self.model.tensors
        return all(is_readable(tensors[part.tensor]) and len(tensors[part.tensor].shape) == 2 for part in parts)

    def span(self, part: Part) -> slice:
        """Which of the outputs of its tensor a part is."""
        if part.places == 1:
            return slice(None)
        total = self._all_outputs(part)
        first = total // part.places if part.beside is None else self.inputs(part.beside)
        rest = (total - first) // (part.places - 1)
        start = 0 if part.place == 0 else first + (part.place - 1) * rest
        return slice(start, start + (first if part.place == 0 else rest))

    def inputs(self, part: Part) -> int:
        """How many inputs the matrix has."""
        return int(self.model.tensors[part.tensor].shape[0 if part.turned else 1])

    def _all_outputs(self, part: Part) -> int:
        return int(self.model.tensors[part.tensor].shape[1 if part.turned else 0])

    def matrix(self, part: Part, norm: Norm | None = None) -> Floats:
        """A part (outputs, inputs), with the gain of the norm before it folded in."""
        values = numbers(self.model.tensors[part.tensor])
        values = (values.T if part.turned else values)[self.span(part)]
        gain = self.gain(norm)
        return values if gain is None or len(gain) != values.shape[1] else values * gain

    def bias(self, part: Part, norm: Norm | None = None) -> Floats | None:
        """The bias of a part (outputs,), with that of the norm before it folded in; None if there is neither."""
        bias = None if part.bias is None else self.vector(part.bias)
        bias = None if bias is None or len(bias) != self._all_outputs(part) else bias[self.span(part)]
        before = None if norm is None or norm.bias is None else self.vector(norm.bias)
        if before is None or len(before) != self.inputs(part):
            return bias
        through: Floats = self.matrix(part) @ before
        return through if bias is None else bias + through

    def gain(self, norm: Norm | None) -> Floats | None:
        """The gain of a norm (inputs,)."""
        return None if norm is None else self.vector(norm.gain)

    def vector(self, name: str) -> Floats | None:
        """A tensor with one dimension; None if it has more, or cannot be read."""
        tensor = self.model.tensors[name]
        return numbers(tensor) if is_readable(tensor) and len(tensor.shape) == 1 else None


def unfolded(matrix: Floats, gain: Floats | None) -> Floats:
    """A matrix (outputs, inputs) with the gain of the norm before it taken out; nan where that is next to nothing."""
    if gain is None:
        return matrix
    made: Floats = np.divide(
        matrix, gain, out=np.full_like(matrix, np.nan), where=np.abs(gain) > GAIN_MIN * np.abs(gain).max()
    )
    return made
