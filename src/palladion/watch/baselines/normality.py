"""The Shapiro–Wilk statistic W in the approximation of Royston: how straight ordered values lie on normal ones.

J. P. Royston, "Approximating the Shapiro-Wilk W-test for non-normality", Statistics and Computing 2 (1992); algorithm
AS R94, Applied Statistics 44 (1995). No p-value: thresholds are taken from honest clients.
"""

from functools import lru_cache
from statistics import NormalDist

import numpy as np

from palladion.watch.rows import Rows

COUNT_MIN, COUNT_MAX = 3, 5000  # between which the approximation was fitted
_KEPT = 1024  # sizes whose weights are kept: 4 MiB at most, for clients of up to as many distances
# Coefficients of Royston's polynomials in 1 / sqrt(count), from the fifth power down to the first.
_LAST = (-2.706056, 4.434685, -2.071190, -0.147981, 0.221157)
_LAST_BUT_ONE = (-3.582633, 5.682633, -1.752461, -0.293762, 0.042981)


def shapiro_wilk(values: Rows) -> float:
    """W of values (n,), up to 1 for a perfectly normal sample; 1 where all are alike, which tells nothing.

    Raises ValueError for fewer than `COUNT_MIN` or more than `COUNT_MAX`.
    """
    if not COUNT_MIN <= len(values) <= COUNT_MAX:
        raise ValueError(f"{len(values)} values, expected {COUNT_MIN} to {COUNT_MAX}")
    ordered = np.sort(values)
    ordered -= ordered.mean()
    spread = float(ordered @ ordered)
    # what rounding alone leaves of equal values
    if spread <= len(values) * (np.finfo(np.float64).eps * float(np.abs(values).max())) ** 2:
        return 1.0
    return min(1.0, float(_weights(len(values)) @ ordered) ** 2 / spread)


@lru_cache(maxsize=_KEPT)
def _weights(count: int) -> Rows:
    """The weights (count,) of ordered values, antisymmetric and of length 1."""
    if count == COUNT_MIN:
        return np.array([-(0.5**0.5), 0.0, 0.5**0.5])
    normal = NormalDist()
    half = [normal.inv_cdf((count - place - 0.375) / (count + 0.25)) for place in range(count // 2)]
    upper = np.array(half)  # expected normal order statistics, the largest first
    squares = 2 * float(upper @ upper)
    root = count**-0.5
    set_apart = [_polynomial(_LAST, root) + float(upper[0]) / squares**0.5]
    if count > 5:
        set_apart.append(_polynomial(_LAST_BUT_ONE, root) + float(upper[1]) / squares**0.5)
    known = len(set_apart)
    rest = squares - 2 * float(upper[:known] @ upper[:known])
    weights = upper * ((1 - 2 * sum(item * item for item in set_apart)) / rest) ** 0.5
    weights[:known] = set_apart
    middle = np.zeros(count % 2)
    return np.concatenate([-weights, middle, weights[::-1]])


def _polynomial(coefficients: tuple[float, ...], root: float) -> float:
    value = 0.0
    for coefficient in coefficients:
        value = (value + coefficient) * root
    return value
