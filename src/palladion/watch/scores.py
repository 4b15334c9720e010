"""Turns features into scores that can be compared: the quantile among honest rows, as a standard normal deviate.

Clipped, so that a few odd rows of an honest client cannot raise an alarm: each query has bounded influence.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from palladion.watch.rows import Rows, constant

CLIP = 3.0  # one honest row in 370 reaches it; 3 % of junk then shifts a client's mean by 0.09
KNOTS = 257  # quantiles kept of each feature
STEPS = 2**20  # scores come in steps of one in so many: their sums are exact, in whatever order they are added up
_LOWEST, _HIGHEST, _STEPS = constant(-CLIP), constant(CLIP), constant(STEPS)


@dataclass(frozen=True, eq=False)
class NormalScores:
    """Quantile tables (features, KNOTS) of honest rows."""

    quantiles: Rows

    @classmethod
    def fit(cls, features: Rows) -> "NormalScores":
        """Fit to the features (rows, features) of honest rows; NaN is left out."""
        table = np.nanquantile(features, np.linspace(0, 1, KNOTS), axis=0).T
        return cls(np.ascontiguousarray(table))

    def score(self, features: Rows) -> Rows:
        """Scores (rows, features) from -CLIP to CLIP; 0 for NaN, and for the value that all honest rows share.

        Features are finite or NaN.
        """
        curves = self._curves
        keys = np.empty(features.shape, np.complex128)
        keys.real, keys.imag = curves.columns, features
        pieces = curves.pieces.take(curves.keys.searchsorted(keys, side="right"), axis=0)
        scores: Rows = features - pieces[..., 0]
        scores *= pieces[..., 1]
        scores += pieces[..., 2]
        np.minimum(np.maximum(scores, _LOWEST, out=scores), _HIGHEST, out=scores)
        scores *= _STEPS
        np.rint(scores, out=scores)
        scores /= _STEPS
        if math.isnan(np.add.reduce(scores, axis=None)):
            scores[np.isnan(scores)] = 0.0
        return scores

    def score_one(self, features: Sequence[float]) -> list[float]:
        """The scores of one query (features,), to the last bit those of `score`: arrays take ten times as long."""
        return [
            0.0 if math.isnan(value) else self._score_one(value, *curve)
            for value, curve in zip(features, self._one_by_one, strict=True)
        ]

    @staticmethod
    def _score_one(value: float, starts: list[float], pieces: list[tuple[float, float, float]]) -> float:
        known, slope, deviate = pieces[bisect_right(starts, value) - 1]
        score = (value - known) * slope + deviate
        return 0.0 if math.isnan(score) else round(min(max(score, -CLIP), CLIP) * STEPS) / STEPS

    @cached_property
    def _one_by_one(self) -> list[tuple[list[float], list[tuple[float, float, float]]]]:
        """Of each feature the values from which pieces of its curve count, and these."""
        curves = self._curves
        found = []
        for column in curves.columns.tolist():
            of_column = curves.keys.real == column
            pieces = [(known, slope, deviate) for known, slope, deviate in curves.pieces[1:][of_column].tolist()]
            found.append((curves.keys.imag[of_column].tolist(), pieces))
        return found

    @cached_property
    def _curves(self) -> "_Curves":
        """The curve of each feature, from the values that honest rows take, ascending, and the deviate of each."""
        keys, pieces = [], []
        for column, table in enumerate(self.quantiles):
            values, first, counts = np.unique(table, return_index=True, return_counts=True)
            # the middle of the ranks that share a value: ties (no value outside the range, say) score near 0
            deviates = _DEVIATES[2 * first + counts - 1]
            with np.errstate(over="ignore"):
                slopes = np.diff(deviates) / np.diff(values)
            slopes[np.isinf(slopes)] = 0.0  # no number lies between
            # below the smallest value, and above the largest, everything scores the most there is
            starts = np.concatenate([[-np.inf], values, [np.nextafter(values[-1], np.inf)]])
            keys.append(np.array([complex(column, start) for start in starts.tolist()]))
            pieces.append(
                np.stack(
                    [
                        np.concatenate([[0.0], values, [0.0]]),
                        np.concatenate([[0.0], slopes, [0.0, 0.0]]),
                        np.concatenate([[-CLIP], deviates, [CLIP]]),
                    ],
                    axis=1,
                )
            )
        # a search counts the keys up to a value, and so finds the place behind the last of them
        table = np.concatenate([np.zeros((1, 3)), *pieces])
        return _Curves(np.arange(len(keys), dtype=np.float64), np.concatenate(keys), table)


@dataclass(frozen=True, eq=False)
class _Curves:
    """Straight pieces of all features in one table, so that one search finds those of all.

    `keys` (pieces,) are complex numbers, which NumPy sorts by the real part first: the feature, then the value from
    which a piece counts. `pieces` (1 + pieces, 3): a value, the slope, and the deviate at that value; the first is
    none. `columns` (features,).
    """

    columns: Rows
    keys: NDArray[np.complex128]
    pieces: Rows


def _deviates() -> Rows:
    """Normal deviates by twice the rank among the knots: of 0, 1/2, 1, … of KNOTS - 1."""
    normal = NormalDist()
    shares = np.linspace(0, 1, 2 * KNOTS - 1).clip(1e-4, 1 - 1e-4)  # the ends lie beyond CLIP, and not at infinity
    return np.array([normal.inv_cdf(share) for share in shares.tolist()])


_DEVIATES = _deviates()
