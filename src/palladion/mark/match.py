"""Finds the tensors of a suspect that come from ours, and how they differ; looks at the unmarked original alone.

Everything here is a function of suspect and original, never of a marked copy or a key: only then does the suspect stay
independent of the key under the null hypothesis, and the p-value valid. Undone are other names, another shape of the
same numbers, transposition, and what `scale` undoes. Permutations are `realign`'s (`palladion.mark.align`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import shake_256

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from palladion.mark.places import Place, Rows, blocks, places
from palladion.mark.quantised.readable import readable
from palladion.mark.scale import Aligned, Floats, Sample, align, smallest
from palladion.model.model import Model
from palladion.model.tensors import Tensor

# Of weights that are ours; unrelated ones of 256 numbers reach it once in a million pairs, and are no evidence then.
CORRELATION_MIN = 0.3
SAMPLE = 1024  # numbers by which tensors of one size are told apart; unrelated ones correlate by a 30th or so
ALIKE, SURE = 5e-4, 4.0  # tensors whose correlations with ours are so near, or as many standard errors, are as like it
CANDIDATES = 3  # tensors that are compared in full: the nearest by the sample, where layers look alike
# Times the lower quartile of residuals: weights that were changed a lot must not drown the others, not even if they
# are the majority. In noise it costs 1 % of the statistic, after int4 6 %.
CLIP = 4.0

NOISE_MIN = 0.01  # of a row, as large as a mark: what is the unmarked original must not count for everything
# Of a row, far below any mark: where weights have few bits, most of them are as they were, but for the fit's rounding.
UNCHANGED = 1e-4
ROW_PRIOR = 32  # numbers of the tensor that the noise of a row is taken from besides its own

Reference = Callable[[Place], Rows]


@dataclass(frozen=True, eq=False)
class Match:
    """A place and the suspect's tensor for it, and what is left of it.

    The residual is the suspect's weights, in our scale, less the reference's, in units of the row's root mean square,
    times `variance` over the noise of the row; zero where there is nothing to be learnt. So, of several tensors,
    residual / variance counts every row as it should.
    """

    place: Place
    suspect: str
    correlation: float
    variance: float
    _aligned: Aligned
    _reference: Rows
    _limit: float

    def blocks(self) -> Iterator[tuple[slice, Floats]]:
        """The residual in blocks of rows (rows, columns), one after the other; each is valid until the next one."""
        loudness = _loudness(self.place)
        space = np.empty((0, 0), np.float32)
        for block in blocks(self._reference.shape):
            space = space if len(space) else np.empty((block.stop, self._reference.shape[1]), np.float32)
            there = space[: block.stop - block.start]
            self._aligned.read(block, there)
            with np.errstate(over="ignore", invalid="ignore"):
                there -= self._reference[block].astype(np.float32, copy=False)
                there *= loudness[block]
                np.clip(there, -self._limit, self._limit, out=there)
            squares = np.vecdot(there, there)
            if np.isnan(squares).any():
                there[np.isnan(there)] = 0
                squares = np.vecdot(there, there)
            # rounding or noise of one size for a whole tensor is most to its quiet rows
            count = np.count_nonzero(there, axis=1) if self._aligned.pruned else there.shape[1]
            noise = (squares + ROW_PRIOR * self.variance) / (count + ROW_PRIOR)
            there *= (self.variance / np.maximum(noise, NOISE_MIN**2))[:, None].astype(np.float32)
            yield block, there

    @cached_property
    def residual(self) -> Floats:
        """The residual (rows, columns), as large as the tensor."""
        residual = np.empty(self._reference.shape, np.float32)
        for block, there in self.blocks():
            residual[block] = there
        return residual

    @cached_property
    def squares(self) -> float:
        """The sum of the squares of the residual."""
        return float(np.vdot(self.residual, self.residual))


def matches(
    original: Model, suspect: Model, reference: Reference = lambda place: place.numbers, *, only: str | None = None
) -> Iterator[tuple[Place, Match | None]]:
    """For every place of `original`, one after the other: the suspect's best tensor, if one correlates with it.

    `only` is the name of the one place that is looked at, where not all are. `reference` says what to subtract: the
    original's own weights, or those of a version of it that does not depend on the key that will be tested. A few
    copies of one tensor are in memory.
    """
    shortlists: dict[tuple[int, ...], _Shortlist] = {}
    suspect = readable(suspect)
    for place in places(original):
        if only not in {None, place.name}:
            continue
        # the same numbers may come in another shape; only a matrix can be transposed
        kind = place.shape if len(place.shape) == 2 else (place.numbers.size,)
        if kind not in shortlists:
            shortlists[kind] = _Shortlist(place, suspect)
        yield place, shortlists[kind].match(place, reference)


def sizes(model: Model) -> set[int]:
    """How many numbers the tensors have that can be compared at all."""
    return {tensor.element_count for tensor in readable(model).tensors.values() if is_numeric(tensor)}


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
            if is_numeric(tensor) and tensor.element_count == place.numbers.size
            for transposed in (False, True)
            if not transposed or (len(place.shape) == 2 and tensor.shape == place.shape[::-1])
        ]
        self._directions = np.array([item.sample.direction for item in self._candidates])  # (candidates, sample)

    def match(self, place: Place, reference: Reference) -> Match | None:
        """The match with the tensor that is most like `place`, if one is like it at all."""
        values = place.numbers[np.unravel_index(self._positions, place.numbers.shape)]
        ours = {shifted: Sample.of(values, self._positions, shifted=shifted) for shifted in (False, True)}
        aligned = [
            (self._align(place, candidate, ours[candidate.sample.shifted]), candidate.tensor.name)
            for candidate in self._nearest(ours)
        ]
        best = max((item.correlation for item, _ in aligned), default=0.0)
        if best < CORRELATION_MIN:
            return None
        # equal tensors (tied weights that are stored twice) may carry marks of their own: the name decides
        alike = [(item, name) for item, name in aligned if item.correlation >= best - SURE * item.precision - ALIKE]
        found, name = max(alike, key=lambda pair: (pair[1] == place.name, pair[0].correlation))
        subtracted = reference(place)
        sizes = self._sizes(place, found, subtracted)
        changed = sizes > UNCHANGED
        # where most weights are as they were, the others moved by whole steps, and how far says nothing
        mostly = changed.any() and 2 * changed.sum() >= len(sizes)
        limit = CLIP * smallest(sizes[changed]) if mostly else NOISE_MIN
        noise = float(np.square(np.minimum(sizes, limit)).mean()) if sizes.size else 0.0
        variance = max(noise, NOISE_MIN**2)
        return Match(place, name, found.correlation, variance, found, subtracted, limit)

    def _nearest(self, ours: dict[bool, Sample]) -> list[_Candidate]:
        if not self._candidates:
            return []
        likeness = {shifted: self._directions @ sample.direction for shifted, sample in ours.items()}
        # a tensor that was negated is as much ours
        alike = np.abs([likeness[item.sample.shifted][at] for at, item in enumerate(self._candidates)])
        nearest = np.argsort(-alike, kind="stable")[:CANDIDATES]
        return [self._candidates[at] for at in nearest if alike[at] >= CORRELATION_MIN / 2]

    def _sizes(self, place: Place, aligned: Aligned, reference: Rows) -> Floats:
        """How large the residual is at the positions of the sample, without those that say nothing."""
        row, column = np.unravel_index(self._positions, reference.shape)
        with np.errstate(over="ignore", invalid="ignore"):
            ours = reference[row, column]
            left = aligned.at(self._positions) - ours.astype(np.result_type(ours, np.float32))
            sizes: Floats = np.abs(left * _loudness(place)[row, 0]).astype(np.float32)
        return sizes[np.isfinite(sizes)]

    def _sample(self, tensor: Tensor, place: Place, *, transposed: bool) -> Sample:
        where = np.unravel_index(self._positions, place.shape if transposed else tensor.shape)
        values = tensor.data[where[::-1] if transposed else where].astype(np.float64)
        # quantisation leaves integers with a zero point
        return Sample.of(values, self._positions, shifted=tensor.dtype.name.startswith(("int", "uint")))

    @staticmethod
    def _align(place: Place, candidate: _Candidate, ours: Sample) -> Aligned:
        numbers = candidate.tensor.data.T if candidate.transposed else candidate.tensor.data
        theirs = numbers.reshape(place.numbers.shape)
        return align(place.numbers, theirs, ours, candidate.sample, correlation_min=CORRELATION_MIN)


def _loudness(place: Place) -> Floats:
    """One over the root mean square of each row (rows, 1); 0 for rows that carry nothing."""
    with np.errstate(over="ignore", divide="ignore"):
        loudness: Floats = (1 / place.scale).astype(np.float32)
    loudness[~np.isfinite(loudness)] = 0
    return loudness


def _positions(place: Place) -> NDArray[np.intp]:
    """Where to take samples: nobody without the original knows, and so nobody can change just those numbers."""
    count = place.numbers.size
    if count <= SAMPLE:
        return np.arange(count)
    hasher = blake3()
    for block in blocks(place.numbers.shape):
        hasher.update(np.ascontiguousarray(place.read(block)).view(np.uint8).data)
    digest = hasher.digest()
    return (np.frombuffer(shake_256(digest).digest(8 * SAMPLE), "<u8") % np.uint64(count)).astype(np.intp)


def is_numeric(tensor: Tensor) -> bool:
    """Whether a tensor holds numbers that can be compared with ours as they are stored."""
    return not tensor.dtype.packed and tensor.dtype.name not in {"bool", "complex64", "complex128"}
