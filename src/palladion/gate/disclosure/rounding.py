"""Numbers made coarse: to decimals, to significant digits, to bands, and always on their side of a threshold.

A number that rounding would carry over the threshold gets the nearest of the coarse ones on its own side, so that the
decision seen from the disclosed number is that of the true one.
"""

import math
from decimal import ROUND_CEILING, ROUND_DOWN, Context, Decimal
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

DECIMALS_ALL = 17  # a policy that says so leaves scores as they are: no double has more
DOUBLE_DIGITS = 15  # significant ones that every double holds

Numbers = NDArray[np.float64]


class Sides(NamedTuple):
    """A threshold with the coarse numbers next to it: the lowest that is not below, the highest that is."""

    threshold: float
    above: float
    below: float

    def kept(self, shown: NDArray[Any], truth: NDArray[Any]) -> NDArray[Any]:
        """`shown`, each on the side of its `truth`; what is no number has none."""
        if math.isinf(self.threshold):
            return shown
        threshold = np.float64(self.threshold)  # or NumPy would compare in the precision of the numbers
        reach = truth >= threshold
        wrong = (shown >= threshold) != reach
        return np.where(wrong, np.where(reach, self.above, self.below), shown) if wrong.any() else shown


def to_decimals(values: NDArray[Any], decimals: int) -> NDArray[Any]:
    """`values` to some decimals, as doubles; untouched for `DECIMALS_ALL`."""
    if decimals >= DECIMALS_ALL:
        return values
    # in double precision: 0.1 as a float32 prints as 0.10000000149, which tells what it was rounded from
    unit = 10.0**decimals
    if values.dtype == np.float64:
        with np.errstate(over="ignore"):
            shown = values * unit
        huge = np.isinf(shown)
        np.rint(shown, out=shown)
        shown /= unit
        if huge.any():  # they have no decimals
            shown[huge] = values[huge]
    else:
        shown = values.astype(np.float64)
        shown *= unit
        np.rint(shown, out=shown)
        shown /= unit
    shown += 0.0  # without a negative zero, which is no score
    return shown


def to_digits(values: NDArray[Any], digits: int) -> Numbers:
    """`values` to some significant digits, as doubles."""
    form = f".{digits}g"
    flat = [_or_below(float(format(value, form)), value, digits) for value in values.reshape(-1).tolist()]
    return finite_or(np.array(flat, np.float64).reshape(values.shape), values)


def _or_below(shown: float, value: float, digits: int) -> float:
    """`shown`, or the next number of so many digits towards 0 where that left the range of doubles."""
    if math.isinf(shown) and math.isfinite(value):
        return float(Context(prec=digits, rounding=ROUND_DOWN).plus(Decimal(value)))
    return shown


def to_bands(values: Numbers, width: float) -> Numbers:
    """The lower end of the band of each value; what is no finite number stays."""
    with np.errstate(over="ignore", invalid="ignore"):
        ends: Numbers = np.floor(values / width) * width + 0.0
    return finite_or(ends, values)


def finite_or(shown: Numbers, values: NDArray[Any]) -> Numbers:
    """`shown`, but of `values` where it left the range of doubles: no protocol can say that."""
    finite = np.isfinite(shown)
    return shown if np.logical_and.reduce(finite, axis=None) else np.where(finite, shown, values)


def in_type(values: NDArray[Any], dtype: np.dtype[Any], threshold: float = math.inf) -> NDArray[Any]:
    """`values` in a narrower type: finite ones stay finite, and each stays on its side of a threshold."""
    with np.errstate(over="ignore"):
        shown: NDArray[Any] = values.astype(dtype)
    if not np.logical_and.reduce(np.isfinite(shown), axis=None):
        largest = np.finfo(dtype).max
        shown = np.where(np.isfinite(values), np.clip(shown, -largest, largest), shown)
    if math.isinf(threshold):
        return shown
    _, above, below = typed_sides(threshold, dtype)
    reach = values >= np.float64(threshold)
    return np.asarray(np.where(reach, np.maximum(shown, dtype.type(above)), np.minimum(shown, dtype.type(below))))


def just_below(threshold: float) -> float:
    """The highest number below a threshold that stays there in single precision, as many clients compute."""
    with np.errstate(over="ignore"):
        below = float(np.nextafter(np.float32(threshold), np.float32(-np.inf)))
    return below if math.isfinite(below) else math.nextafter(threshold, -math.inf)


@lru_cache(256)
def decimal_sides(threshold: float, decimals: int) -> Sides:
    """A threshold among the numbers with so many decimals."""
    if decimals >= DECIMALS_ALL or abs(threshold) >= 10.0 ** max(0, DOUBLE_DIGITS - decimals):
        return Sides(threshold, threshold, just_below(threshold))  # they are finer than a double there
    step = Decimal(1).scaleb(-decimals)
    above = Decimal(repr(threshold)).quantize(step, ROUND_CEILING)
    return Sides(threshold, float(above), float(above - step))


@lru_cache(256)
def digit_sides(threshold: float, digits: int) -> Sides:
    """A threshold among the numbers with so many significant digits."""
    exact = Decimal(repr(threshold))
    above = Context(prec=digits, rounding=ROUND_CEILING).plus(exact)
    below = float(Context(prec=digits).next_minus(exact))
    return _finite_sides(threshold, float(above), below)


def band_sides(threshold: float, width: float) -> Sides:
    """A threshold among bands: in its own one it is shown where it is reached."""
    return _finite_sides(threshold, threshold, float(to_bands(np.array([threshold]), width)[0]))


@lru_cache(256)
def typed_sides(threshold: float, dtype: np.dtype[Any]) -> Sides:
    """A threshold among the numbers of a type, for clients that compare in double precision and for those that do not.

    `above` reaches the threshold itself, `below` reaches neither it nor what it is in this type.
    """
    with np.errstate(over="ignore"):
        near = dtype.type(threshold)
        above = near if float(near) >= threshold else np.nextafter(near, dtype.type(np.inf))
        return Sides(threshold, float(above), float(np.nextafter(near, dtype.type(-np.inf))))


def _finite_sides(threshold: float, above: float, below: float) -> Sides:
    least = just_below(threshold)
    return Sides(
        threshold, above if math.isfinite(above) else threshold, min(below, least) if math.isfinite(below) else least
    )
