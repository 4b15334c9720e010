"""Brings a tensor of a suspect into the scale of ours: that of the whole, of columns and rows, and its zero point.

Least squares, in which outliers and weights that were changed a lot have no say; pruned weights are told from small
ones. Looks at the unmarked original alone (why: `palladion.mark.match`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.mark.places import Weights

OUTLIER = 5.0  # times the median: what lies further out has no say in the scale, or one weight could hide all others
CHANGED = 4.0  # times the lower quartile of errors: what is further from ours has no say in the scale either
SCALE_NUMBERS_MIN = 16  # in a row or column that gets a scale of its own: each costs the evidence of one number
# The scales of rows disturb those of columns, each time ten times less or so. Then weights that turn out to have been
# changed a lot are left out, each time fewer.
ROUNDS, ROUNDS_WITH_ALL = 5, 2
PRUNED_ERROR = 2.0  # times that of other weights: zeros that are as near to ours as those are the middle of a grid
WILD = 1e6  # times the median; what is further out is as wild
BLOCK_NUMBERS = 32_768  # what is done to a block of rows stays in the processor's cache

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Sample:
    """Numbers of a tensor at some (flat) positions: around `centre`, in units of `spread`, with outliers drawn in.

    `shifted` says that 0 may lie anywhere among them; the centre is 0 otherwise.
    """

    positions: NDArray[np.intp]
    shifted: bool
    centre: float
    spread: float
    numbers: Floats

    @classmethod
    def of(cls, values: NDArray[Any], positions: NDArray[np.intp], *, shifted: bool) -> "Sample":
        """The sample whose numbers are `values`; what is not finite counts for nothing."""
        known = np.isfinite(values)
        finite = values[known].astype(np.float64)
        centre = _quantile(finite, 0.5) if shifted else 0.0
        deviations = np.abs(finite - centre)
        # not of the zeros: more than half of the weights may have been pruned
        spread = _quantile(deviations[deviations > 0], 0.5) or 1.0
        numbers = np.zeros(len(values), np.float32)
        with np.errstate(over="ignore"):
            numbers[known] = np.clip((finite - centre) / spread, -OUTLIER, OUTLIER)
        return cls(positions, shifted, centre, spread, numbers)

    @property
    def direction(self) -> Floats:
        """The numbers at length one, so that the product of two is their correlation; zeros if all are zero."""
        length = float(np.linalg.norm(self.numbers))
        return self.numbers / np.float32(length) if length else self.numbers


@dataclass(frozen=True, eq=False)
class Aligned:
    """A suspect's weights (rows, columns) in our scale, how like ours they are, and which of them say something."""

    weights: Floats
    correlation: float
    telling: NDArray[np.bool_]


def align(ours: Weights, theirs: NDArray[Any], our_sample: Sample, their_sample: Sample) -> Aligned:
    """Bring `theirs` nearest to `ours` (rows, columns). Neither sample is all zero, and both are of these.

    Takes the memory of three copies in float32, one of which is what it returns.
    """
    # 1. roughly, by the samples, and in units of our spread, whose squares are no trouble
    weights = _roughly(theirs, our_sample, their_sample)
    telling = np.isfinite(weights)
    weights[~telling] = 0
    np.clip(weights, -WILD, WILD, out=weights)
    zero = weights == 0
    target = ours.astype(np.float32)
    target -= our_sample.centre
    target /= our_sample.spread
    # 2. exactly
    fit = _Fit(weights, target, telling)
    correlation = fit.correlation
    for number in range(ROUNDS):
        changed = CHANGED * smallest(fit.errors(our_sample.positions))
        fit.improve(np.inf if number < ROUNDS_WITH_ALL else changed, shifted=their_sample.shifted)
    # 3. what was pruned says nothing
    if _pruned(zero.reshape(-1)[our_sample.positions], fit.errors(our_sample.positions)):
        telling &= ~zero
    fit.apply()
    weights *= our_sample.spread
    weights += our_sample.centre
    return Aligned(weights, correlation, telling)


def smallest(sizes: Floats) -> float:
    """The lower quartile of sizes that are not zero: those of what is nearest to ours, even if that is the minority."""
    return _quantile(sizes[sizes > 0], 0.25)


class _Fit:
    """The scales of rows and columns, and the shift, that bring weights nearest to a target (rows, columns)."""

    def __init__(self, weights: Floats, target: Floats, telling: NDArray[np.bool_]) -> None:
        self._weights, self._target = weights, target
        self._rows = np.ones((len(weights), 1), np.float32)
        self._columns = np.ones(weights.shape[1], np.float32)
        self._shift = np.float32(0)
        # outliers are left out, so that they pull the scale nowhere, and put back in the end; the scale may be half off
        self._unheard = np.flatnonzero(~telling | (np.abs(weights) > 2 * OUTLIER))
        self._kept = weights.reshape(-1)[self._unheard]
        weights.reshape(-1)[self._unheard] = 0
        target.reshape(-1)[self._unheard] = 0

    @property
    def correlation(self) -> float:
        """That of weights and target, as they are; 0 if one of them is nothing but zeros."""
        squares = float(np.vdot(self._weights, self._weights)) * float(np.vdot(self._target, self._target))
        return float(np.vdot(self._weights, self._target)) / squares**0.5 if squares else 0.0

    def improve(self, error_max: float, *, shifted: bool) -> None:
        """Fit to the weights that are at most `error_max` from where they should be.

        A line with too few numbers gets no scale of its own.
        """
        by_columns, by_rows = (size >= SCALE_NUMBERS_MIN for size in self._weights.shape)
        product, squares = np.zeros((2, self._weights.shape[1]))
        missing = count = 0.0
        for block in self._blocks():
            target = self._target[block] - self._shift if shifted else self._target[block]
            heard = self._heard(block, target, error_max)
            products, heard_squares = heard * target, np.square(heard)
            if by_rows:
                self._rows[block, 0] = _ratio(products @ self._columns, heard_squares @ np.square(self._columns))
            rows = self._rows[block, 0]
            product += rows @ products
            squares += np.square(rows) @ heard_squares
            if shifted:
                count += np.count_nonzero(heard)
                missing += float(target[heard != 0].sum()) - float((rows @ heard) @ self._columns)
        if by_columns:
            self._columns = _ratio(product, squares).astype(np.float32)
        if count:
            self._shift += np.float32(missing / count)

    def errors(self, positions: NDArray[np.intp]) -> Floats:
        """How far the weights at these (flat) positions are from where they should be."""
        row, column = np.unravel_index(positions, self._weights.shape)
        there = self._weights[row, column] * self._rows[row, 0] * self._columns[column] + self._shift
        error: Floats = np.abs(there - self._target[row, column])
        return error

    def apply(self) -> None:
        """Change the weights, in place, outliers as well."""
        self._weights.reshape(-1)[self._unheard] = self._kept
        for block in self._blocks():
            weights = self._weights[block]
            weights *= self._rows[block]
            weights *= self._columns
            weights += self._shift

    def _blocks(self) -> Iterator[slice]:
        count, length = self._weights.shape
        step = max(1, BLOCK_NUMBERS // length)
        return (slice(start, start + step) for start in range(0, count, step))

    def _heard(self, block: slice, target: Floats, error_max: float) -> Floats:
        """The weights in some rows, 0 where they have no say."""
        weights: Floats = self._weights[block]
        if error_max == np.inf:
            return weights
        error = weights * self._rows[block]
        error *= self._columns
        error -= target
        heard: Floats = weights * (np.abs(error, out=error) <= error_max)
        return heard


def _roughly(theirs: NDArray[Any], our_sample: Sample, their_sample: Sample) -> Floats:
    numbers = their_sample.numbers
    slope = float(np.vdot(our_sample.numbers, numbers)) / float(np.vdot(numbers, numbers))
    with np.errstate(over="ignore", invalid="ignore"):
        centred = theirs.astype(np.result_type(theirs.dtype, np.float32), order="C")
        centred -= their_sample.centre
        centred *= slope / their_sample.spread
        return centred.astype(np.float32, copy=False)


def _ratio(product: NDArray[Any], squares: NDArray[Any]) -> NDArray[Any]:
    ratio: NDArray[Any] = np.divide(product, squares, out=np.ones_like(squares), where=squares > 0)
    return ratio


def _pruned(zero: NDArray[np.bool_], error: Floats) -> bool:
    """Whether the zeros in a sample of a suspect's weights are further from ours than its other weights."""
    return not zero.all() and _quantile(error[zero], 0.5) > PRUNED_ERROR * _quantile(error[~zero], 0.5)


def _quantile(values: NDArray[Any], level: float) -> float:
    # one of the values: between two of them lies no zero point, and the sum of the largest has no place in a float
    return float(np.quantile(values, level, method="lower")) if values.size else 0.0
