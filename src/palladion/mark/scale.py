"""Brings a tensor of a suspect into the scale of ours: that of the whole, of columns and rows, and its zero point.

Least squares, in which outliers and weights that were changed a lot have no say; pruned weights are told from small
ones. Looks at the unmarked original alone (why: `palladion.mark.match`).
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.mark.places import blocks

OUTLIER = 5.0  # times the median: what lies further out has no say in the scale, or one weight could hide all others
CHANGED = 4.0  # times the lower quartile of errors: what is further from ours has no say in the scale either
SCALE_NUMBERS_MIN = 16  # in a row or column that gets a scale of its own: each costs the evidence of one number
# The scales of rows disturb those of columns, each time ten times less or so. Then weights that turn out to have been
# changed a lot are left out, each time fewer.
ROUNDS, ROUNDS_WITH_ALL = 5, 2
# Rows and columns by which it is decided whether lines have scales of their own. Where they have not, to look at all
# numbers five times is spared.
LINES, LINE_NUMBERS = 64, 1024
NEGLIGIBLE = 0.02  # of the noise: what scales of lines add to it and the statistic loses half of
NOISE_MIN = 0.001  # of the weights: less is far below any mark
# Times the error of other weights, and that in units of the median weight: zeros that are as near to ours as other
# weights are the middle of a grid.
PRUNED_ERROR, PRUNED_ERROR_MIN = 2.0, 0.005
FACTOR_MAX = 1e30  # beyond, the product with a float32 may not be one

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
    """How a suspect's numbers (rows, columns) become weights in our scale, and how like ours they are.

    `correlation` is known to `precision`, its standard error. Where they were `pruned`, zeros say nothing.
    """

    correlation: float
    precision: float
    pruned: bool
    _pair: "_Pair"
    _fit: "_Fit"

    def read(self, rows: slice, out: Floats) -> None:
        """Write the weights of some rows to `out`; what says nothing of them is not finite."""
        pair, fit = self._pair, self._fit
        with np.errstate(over="ignore", invalid="ignore"):
            pair.read_theirs(rows, out, 1.0 if fit.shift else fit.slope * pair.spread)
            silent = out == 0 if self.pruned else None
            if fit.shift:
                out += np.float32(fit.shift)
                out *= np.float32(fit.slope * pair.spread)
            if fit.rows is not None:
                out *= fit.rows[rows]
            if fit.columns is not None:
                out *= fit.columns
        if silent is not None:
            out[silent] = np.nan

    def at(self, positions: NDArray[np.intp]) -> Floats:
        """The weights at some (flat) positions, as `read` has them."""
        where = np.unravel_index(positions, self._pair.shape)
        weights = self._pair.theirs_at(where)
        with np.errstate(over="ignore", invalid="ignore"):
            there = self._fit.scaled(weights, where) * np.float32(self._pair.spread)
        if self.pruned:
            there[weights == 0] = np.nan
        return there


def align(
    ours: NDArray[Any], theirs: NDArray[Any], our_sample: Sample, their_sample: Sample, *, correlation_min: float = 0.0
) -> Aligned:
    """Bring `theirs` nearest to `ours` (rows, columns). Neither sample is all zero, and both are of these.

    What correlates by less than `correlation_min` is not worth the search for scales of rows and columns.
    """
    pair = _Pair.of(ours, theirs, our_sample, their_sample)
    positions, shifted = our_sample.positions, their_sample.shifted
    # 1. by some lines, with one scale for all
    lines = pair.lines(positions)
    correlation = lines.correlation(centred=shifted)
    fit = _Fit(lines)
    error_max = fit.run(positions % lines.count, shifted=shifted)
    # 2. where that leaves what scales of lines may explain: by all numbers, with one for each row and column
    if correlation < correlation_min or _uniform(fit, error_max, pair.shape, shifted=shifted):
        fit = fit.of(pair)
    else:
        fit = fit.of(pair).by_lines()
        fit.run(positions, shifted=shifted)
    # 3. what was pruned says nothing
    weights = pair.theirs_at(np.unravel_index(positions, pair.shape))
    pruned = _pruned(weights == 0, fit.errors(positions))
    return Aligned(correlation, (1 - correlation**2) / lines.count**0.5, pruned, pair, fit)


def smallest(sizes: Floats) -> float:
    """The lower quartile of sizes that are not zero: those of what is nearest to ours, even if that is the minority."""
    return _quantile(sizes[sizes > 0], 0.25)


@dataclass(frozen=True, eq=False)
class _Pair:
    """Our weights and a suspect's numbers (rows, columns), in units of our spread; the latter around their centre."""

    ours: NDArray[Any]
    theirs: NDArray[Any]
    spread: float
    their_centre: float
    factor: float

    @classmethod
    def of(cls, ours: NDArray[Any], theirs: NDArray[Any], our_sample: Sample, their_sample: Sample) -> "_Pair":
        """The two, roughly in one scale by their samples."""
        numbers = their_sample.numbers
        slope = float(np.vdot(our_sample.numbers, numbers)) / float(np.vdot(numbers, numbers))
        return cls(ours, theirs, our_sample.spread, their_sample.centre, slope / their_sample.spread)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.ours.shape

    @property
    def count(self) -> int:
        return self.ours.size

    def lines(self, positions: NDArray[np.intp]) -> "_Pair":
        """Those rows in which the first positions lie; of long ones, some columns."""
        length = self.shape[1]
        rows = np.unique(positions[: max(LINES, LINES * LINES * 4 // length)] // length)
        if length <= LINE_NUMBERS:
            return replace(self, ours=self.ours[rows], theirs=self.theirs[rows])
        where = np.ix_(rows, np.unique(positions % length))
        return replace(self, ours=self.ours[where], theirs=self.theirs[where])

    def read(self, rows: slice) -> tuple[Floats, Floats]:
        """A suspect's weights in some rows, and ours; both 0 where the former are so far out that they have no say."""
        ours = self.ours[rows]
        weights, target = np.empty(ours.shape, np.float32), np.empty(ours.shape, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            self.read_theirs(rows, weights, 1.0)
            _linear(ours, 0.0, 1 / self.spread, target)
        # the scale may be half off; nan fails every comparison
        if not (weights.min() >= -2 * OUTLIER and weights.max() <= 2 * OUTLIER):
            unheard = ~(np.abs(weights) <= 2 * OUTLIER)
            weights[unheard] = target[unheard] = 0
        return weights, target

    def read_theirs(self, rows: slice, out: Floats, times: float) -> None:
        _linear(self.theirs[rows], self.their_centre, self.factor * times, out)

    def theirs_at(self, where: tuple[NDArray[np.intp], ...]) -> Floats:
        return self._at(self.theirs, where, self.their_centre, self.factor)

    def ours_at(self, where: tuple[NDArray[np.intp], ...]) -> Floats:
        return self._at(self.ours, where, 0.0, 1 / self.spread)

    @staticmethod
    def _at(numbers: NDArray[Any], where: tuple[NDArray[np.intp], ...], centre: float, factor: float) -> Floats:
        values = numbers[where]
        out = np.empty(values.shape, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            _linear(values, centre, factor, out)
        return out

    def correlation(self, *, centred: bool) -> float:
        """That of both; 0 if one of them is nothing but zeros, or, where it is `centred`, of one number."""
        weights, target = self.read(slice(0, self.shape[0]))
        if centred:
            weights -= weights.mean()
            target -= target.mean()
        length = (float(np.vdot(weights, weights)) * float(np.vdot(target, target))) ** 0.5
        return float(np.vdot(weights, target)) / length if length else 0.0


class _Fit:
    """The shift, and then the scale of all, or of each row and column, that bring a suspect's weights nearest to ours.

    A line with too few numbers gets no scale of its own.
    """

    def __init__(self, pair: _Pair, *, slope: float = 1.0, shift: float = 0.0) -> None:
        self.pair = pair
        self.slope, self.shift = slope, shift
        self.rows: Floats | None = None
        self.columns: Floats | None = None

    def of(self, pair: _Pair) -> "_Fit":
        """The same scale and shift for another pair."""
        return _Fit(pair, slope=self.slope, shift=self.shift)

    def by_lines(self) -> "_Fit":
        """With a scale for each row and column from now on."""
        rows, columns = self.pair.shape
        self.rows = np.ones((rows, 1), np.float32) if columns >= SCALE_NUMBERS_MIN else None
        self.columns = np.ones(columns, np.float32) if rows >= SCALE_NUMBERS_MIN else None
        return self

    def run(self, positions: NDArray[np.intp], *, shifted: bool) -> float:
        """Improve it until nothing changes; how far from ours weights may be that had a say in the end."""
        changed = np.inf
        for number in range(ROUNDS):
            changed = CHANGED * smallest(self.errors(positions))
            self._improve(np.inf if number < ROUNDS_WITH_ALL else changed, shifted=shifted)
        return changed

    def scaled(self, weights: Floats, where: tuple[NDArray[np.intp], ...]) -> Floats:
        """The weights at some rows and columns, in our scale."""
        there: Floats = (weights + np.float32(self.shift)) * np.float32(self.slope)
        if self.rows is not None:
            there *= self.rows[where[0], 0]
        if self.columns is not None:
            there *= self.columns[where[1]]
        return there

    def errors(self, positions: NDArray[np.intp]) -> Floats:
        """How far the weights at these (flat) positions are from where they should be; 0 for what is not finite."""
        where = np.unravel_index(positions, self.pair.shape)
        with np.errstate(over="ignore", invalid="ignore"):
            error: Floats = np.abs(self.scaled(self.pair.theirs_at(where), where) - self.pair.ours_at(where))
        error[~np.isfinite(error)] = 0
        return error

    def heard(self, block: slice, error_max: float, *, shifted: bool) -> tuple[Floats, Floats]:
        """The weights in some rows, shifted but not scaled, and what they should become; 0 where they have no say."""
        weights, target = self.pair.read(block)
        if shifted:
            target *= weights != 0
            weights += np.float32(self.shift) * (weights != 0)
        if error_max < np.inf:
            error = weights * np.float32(self.slope)
            if self.rows is not None:
                error *= self.rows[block]
            if self.columns is not None:
                error *= self.columns
            error -= target
            near = np.abs(error, out=error) <= error_max
            weights *= near
            target *= near
        return weights, target

    def _improve(self, error_max: float, *, shifted: bool) -> None:
        """Fit to the weights that are at most `error_max` from where they should be."""
        if self.rows is None and self.columns is None:
            self._improve_slope(error_max, shifted=shifted)
            return
        length = self.pair.shape[1]
        product, squares = np.zeros((2, length))
        missing = power = 0.0
        columns = self.columns if self.columns is not None else np.ones(length, np.float32)
        for block in blocks(self.pair.shape):
            weights, target = self.heard(block, error_max, shifted=shifted)
            products, weight_squares = weights * target, np.square(weights)
            if self.rows is not None:
                scales = _ratio(products @ columns, weight_squares @ np.square(columns)) / self.slope
                self.rows[block, 0] = scales
            rows = self.rows[block, 0] if self.rows is not None else np.ones(len(weights), np.float32)
            product += rows @ products
            squares += np.square(rows) @ weight_squares
            if shifted:
                scale = np.outer(rows, columns) * (weights != 0)
                power += self.slope * float(np.vdot(scale, scale))
                missing += float(np.vdot(scale, target)) - self.slope * float(np.vdot(np.square(scale), weights))
        if self.columns is not None:
            self.columns = (_ratio(product, squares) / self.slope).astype(np.float32)
        if power:
            self.shift += missing / power

    def _improve_slope(self, error_max: float, *, shifted: bool) -> None:
        count = weight_sum = target_sum = product = squares = 0.0
        for block in blocks(self.pair.shape):
            weights, target = self.heard(block, error_max, shifted=shifted)
            product += float(np.vdot(weights, target))
            squares += float(np.vdot(weights, weights))
            if shifted:
                count += np.count_nonzero(weights)
                weight_sum, target_sum = weight_sum + float(weights.sum()), target_sum + float(target.sum())
        if shifted and count:
            product -= weight_sum * target_sum / count
            squares -= weight_sum**2 / count
        if squares > 0 and product:
            self.slope = product / squares
            if shifted and count:
                self.shift += (target_sum / self.slope - weight_sum) / count


def _uniform(fit: _Fit, error_max: float, shape: tuple[int, ...], *, shifted: bool) -> bool:
    """Whether scales of rows and columns of their own would explain next to nothing of what one scale for all leaves.

    Asked of all weights, and of those that were not changed a lot: among many of these, the others would be noise.
    """
    whole = slice(0, fit.pair.shape[0])
    for limit in (np.inf, error_max):
        weights, target = fit.heard(whole, limit, shifted=shifted)
        products, squares = weights * target, np.square(weights)
        errors = np.square(weights * np.float32(fit.slope) - target) * (weights != 0)
        noise = max(float(errors.mean()), NOISE_MIN**2 * float(squares.mean()))
        for axis, other in ((0, 1), (1, 0)):
            # a line of the suspect, not of the sample, must have enough numbers
            if shape[axis] < SCALE_NUMBERS_MIN or fit.pair.shape[other] < 2:
                continue
            power = squares.sum(axis=axis)
            known = power > 0
            scales = _ratio(products.sum(axis=axis), power)
            # of each line by itself, as large weights are rounded more (White 1980)
            by_chance = (squares * errors).sum(axis=axis)[known] / np.square(power[known])
            varying = np.square(scales[known] - fit.slope) - by_chance
            if float(varying.sum()) * float(squares.mean()) > NEGLIGIBLE * noise * len(varying):
                return False
    return True


def _linear(numbers: NDArray[Any], centre: float, factor: float, out: Floats) -> None:
    """Write (numbers - centre) * factor to `out`, whatever type and size they have."""
    exact = np.result_type(numbers.dtype, np.float32) == np.float32 and 1 / FACTOR_MAX < abs(factor) < FACTOR_MAX
    if exact and numbers.dtype == np.float32 and not centre:
        np.multiply(numbers, np.float32(factor), out=out)
    elif exact:
        out[...] = numbers
        if centre:
            out -= np.float32(centre)
        out *= np.float32(factor)
    else:
        out[...] = (numbers.astype(np.float64) - centre) * factor


def _ratio(product: NDArray[Any], squares: NDArray[Any]) -> NDArray[Any]:
    ratio: NDArray[Any] = np.divide(product, squares, out=np.ones_like(squares), where=squares > 0)
    return ratio


def _pruned(zero: NDArray[np.bool_], error: Floats) -> bool:
    """Whether the zeros in a sample of a suspect's weights are further from ours than its other weights."""
    others = max(_quantile(error[~zero], 0.5), PRUNED_ERROR_MIN)
    return not zero.all() and _quantile(error[zero], 0.5) > PRUNED_ERROR * others


def _quantile(values: NDArray[Any], level: float) -> float:
    # one of the values: between two of them lies no zero point, and the sum of the largest has no place in a float
    return float(np.quantile(values, level, method="lower")) if values.size else 0.0
