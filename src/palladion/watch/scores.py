"""Turns features into scores that can be compared: the quantile among honest rows, as a standard normal deviate.

Clipped, so that a few odd rows of an honest client cannot raise an alarm: each query has bounded influence.
"""

from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np

from palladion.watch.rows import Rows

CLIP = 3.0  # one honest row in 370 reaches it; 3 % of junk then shifts a client's mean by 0.09
KNOTS = 257  # quantiles kept of each feature
STEPS = 2**20  # scores come in steps of one in so many: their sums are exact, in whatever order they are added up


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
        """Scores (rows, features) from -CLIP to CLIP; 0 for NaN, and for the value that all honest rows share."""
        scores = np.empty(features.shape)
        for column, (values, deviates) in enumerate(self._curves):
            scores[:, column] = np.interp(features[:, column], values, deviates, left=-CLIP, right=CLIP)
        scores[np.isnan(scores)] = 0.0
        return np.asarray(np.rint(np.minimum(np.maximum(scores, -CLIP), CLIP) * STEPS) / STEPS)

    @cached_property
    def _curves(self) -> list[tuple[Rows, Rows]]:
        """For each feature the values that honest rows take, ascending, and the deviate of each."""
        curves = []
        for table in self.quantiles:
            values, first, counts = np.unique(table, return_index=True, return_counts=True)
            # the middle of the ranks that share a value: ties (no value outside the range, say) score near 0
            curves.append((values, _DEVIATES[2 * first + counts - 1]))
        return curves


def _deviates() -> Rows:
    """Normal deviates by twice the rank among the knots: of 0, 1/2, 1, … of KNOTS - 1."""
    normal = NormalDist()
    shares = np.linspace(0, 1, 2 * KNOTS - 1).clip(1e-4, 1 - 1e-4)  # the ends lie beyond CLIP, and not at infinity
    return np.array([normal.inv_cdf(share) for share in shares.tolist()])


_DEVIATES = _deviates()
