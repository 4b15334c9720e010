"""Finds the tensors of a suspect that come from ours, and how they differ; looks at the unmarked original alone.

Everything here is a function of suspect and original, never of a marked copy or a key: only then does the suspect stay
independent of the key under the null hypothesis, and the p-value valid. Undone are other names, another shape of the
same numbers, transposition, and what `scale` undoes. Permutations are `realign`'s (`palladion.mark.align`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256, shake_256

import numpy as np
from numpy.typing import NDArray

from palladion.mark.places import Place, Weights, places
from palladion.mark.scale import Aligned, Floats, Sample, align, smallest
from palladion.model.model import Model
from palladion.model.tensors import Tensor

# Of weights that are ours; unrelated ones of 256 numbers reach it once in a million pairs, and are no evidence then.
CORRELATION_MIN = 0.3
SAMPLE = 1024  # numbers by which tensors of one size are told apart; unrelated ones correlate by a 30th or so
CANDIDATES = 3  # tensors that are compared in full: the nearest by the sample, where layers look alike
# Times the lower quartile of residuals: weights that were changed a lot must not drown the others, not even if they
# are the majority. In noise it costs 1 % of the statistic, after int4 6 %.
CLIP = 4.0

Reference = Callable[[Place], Weights]


@dataclass(frozen=True, eq=False)
class Match:
    """A place and the suspect's tensor for it: `residual` (rows, columns) is the suspect's weights, in our scale, less
    the reference's, in units of the row's root mean square; zero where there is nothing to be learnt.
    """

    place: Place
    suspect: str
    correlation: float
    residual: Floats

    @cached_property
    def squares(self) -> float:
        """The sum of the squares of the residual."""
        return float(np.vdot(self.residual, self.residual))

    @cached_property
    def variance(self) -> float:
        """The mean square of the residual where there is one."""
        return self.squares / max(1, int(np.count_nonzero(self.residual)))


def matches(
    original: Model, suspect: Model, reference: Reference = lambda place: place.weights
) -> Iterator[tuple[Place, Match | None]]:
    """For every place of `original`, one after the other: the suspect's best tensor, if one correlates with it.

    `reference` says what to subtract: the original's own weights, or those of a version of it that does not depend on
    the key that will be tested. A few copies of one tensor are in memory.
    """
    shortlists: dict[tuple[int, ...], _Shortlist] = {}
    for place in places(original):
        # the same numbers may come in another shape; only a matrix can be transposed
        kind = place.shape if len(place.shape) == 2 else (place.weights.size,)
        if kind not in shortlists:
            shortlists[kind] = _Shortlist(place, suspect)
        yield place, shortlists[kind].match(place, reference)


def sizes(model: Model) -> set[int]:
    """How many numbers the tensors have that can be compared at all."""
    return {tensor.element_count for tensor in model.tensors.values() if _is_numeric(tensor)}


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A tensor of the suspect, as it is or transposed."""

    tensor: Tensor
    transposed: bool
    sample: Sample


class _Shortlist:
    """The suspect's tensors that have as many numbers as a place, told apart by a sample of these.

    In full, every place with every tensor of its size would take minutes for a hundred equal layers.
    """

    def __init__(self, place: Place, suspect: Model) -> None:
        self._positions = _positions(place)
        self._candidates = [
            _Candidate(tensor, transposed, self._sample(tensor, place, transposed=transposed))
            for tensor in suspect.tensors.values()
            if _is_numeric(tensor) and tensor.element_count == place.weights.size
            for transposed in (False, True)
            if not transposed or (len(place.shape) == 2 and tensor.shape == place.shape[::-1])
        ]
        self._directions = np.array([item.sample.direction for item in self._candidates])  # (candidates, sample)

    def match(self, place: Place, reference: Reference) -> Match | None:
        """The match with the tensor that is most like `place`, if one is like it at all."""
        values = place.weights.reshape(-1)[self._positions]
        ours = {shifted: Sample.of(values, self._positions, shifted=shifted) for shifted in (False, True)}
        best: tuple[Aligned, Tensor] | None = None
        for candidate in self._nearest(ours):
            aligned = self._align(place, candidate, ours[candidate.sample.shifted])
            if best is None or _rank(place, aligned, candidate.tensor) > _rank(place, *best):
                best = aligned, candidate.tensor
        if best is None or best[0].correlation < CORRELATION_MIN:
            return None
        aligned, tensor = best
        return Match(place, tensor.name, aligned.correlation, self._residual(place, aligned, reference(place)))

    def _nearest(self, ours: dict[bool, Sample]) -> list[_Candidate]:
        if not self._candidates:
            return []
        likeness = {shifted: self._directions @ sample.direction for shifted, sample in ours.items()}
        # a tensor that was negated is as much ours
        alike = np.abs([likeness[item.sample.shifted][at] for at, item in enumerate(self._candidates)])
        nearest = np.argsort(-alike, kind="stable")[:CANDIDATES]
        return [self._candidates[at] for at in nearest if alike[at] >= CORRELATION_MIN / 2]

    def _residual(self, place: Place, aligned: Aligned, reference: Weights) -> Floats:
        carrying = place.scale > 0
        residual = aligned.weights  # used up: a tensor may take gigabytes
        residual -= reference.astype(np.float32, copy=False)
        residual /= np.where(carrying, place.scale, 1).astype(np.float32)
        residual *= carrying & aligned.telling
        size = np.abs(residual.reshape(-1)[self._positions])
        if size.any():
            limit = CLIP * smallest(size)
            np.clip(residual, -limit, limit, out=residual)
        return residual

    def _sample(self, tensor: Tensor, place: Place, *, transposed: bool) -> Sample:
        where = np.unravel_index(self._positions, place.shape if transposed else tensor.shape)
        values = tensor.data[where[::-1] if transposed else where].astype(np.float64)
        # quantisation leaves integers with a zero point
        return Sample.of(values, self._positions, shifted=tensor.dtype.name.startswith(("int", "uint")))

    @staticmethod
    def _align(place: Place, candidate: _Candidate, ours: Sample) -> Aligned:
        numbers = candidate.tensor.data.T if candidate.transposed else candidate.tensor.data
        return align(place.weights, numbers.reshape(place.weights.shape), ours, candidate.sample)


def _rank(place: Place, aligned: Aligned, tensor: Tensor) -> tuple[float, bool]:
    # equal tensors (tied weights that are stored twice) carry marks of their own: the name decides
    return round(aligned.correlation, 3), tensor.name == place.name


def _positions(place: Place) -> NDArray[np.intp]:
    """Where to take samples: nobody without the original knows, and so nobody can change just those numbers."""
    count = place.weights.size
    if count <= SAMPLE:
        return np.arange(count)
    digest = sha256(place.weights.tobytes()).digest()
    return (np.frombuffer(shake_256(digest).digest(8 * SAMPLE), "<u8") % np.uint64(count)).astype(np.intp)


def _is_numeric(tensor: Tensor) -> bool:
    return not tensor.dtype.packed and tensor.dtype.name not in {"bool", "complex64", "complex128"}
