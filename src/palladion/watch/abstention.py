"""Which queries are so unlike honest ones that a model had better not answer them: the strangest in a thousand.

A query is measured by itself (`Instruments.distance`): who asks it, and what was asked before, change nothing, so that
asking again, from another account or in other company, gets the same. How strange is too strange is taken from queries
of calibration clients, none of whom the distance was fitted to.
"""

import math
from dataclasses import dataclass

import numpy as np

from palladion.watch.rows import Rows

STEPS = 10_000  # shares come in steps of one in so many
SHARE_MAX = 0.01  # beyond it, honest clients would notice
LIMITS = round(SHARE_MAX * STEPS)
ROWS_OF_CLIENT_MAX = 1000  # of each calibration client: whoever asked more does not decide by that alone


@dataclass(frozen=True, eq=False)
class Abstention:
    """`limits` (LIMITS,): the squared distances that no more than 1, 2, … `LIMITS` of `STEPS` honest queries exceed.

    Of `rows` honest queries. Where these are too few for a share, its limit is the largest distance there was.
    """

    limits: Rows
    rows: int

    @classmethod
    def fit(cls, distances: Rows) -> "Abstention":
        """From the squared distances (rows,) of honest queries, one at least.

        The k-th smallest of n is passed by one more query, exchangeable with them, with a probability of at most
        1 - k / (n + 1): split conformal prediction (Vovk, Gammerman and Shafer 2005).
        """
        ascending, count = np.sort(distances), len(distances)
        ranks = np.array([_rank(count, step / STEPS) for step in range(1, LIMITS + 1)])
        return cls(ascending[np.minimum(ranks, count) - 1], count)

    @property
    def share_min(self) -> float:
        """The smallest share that so many queries support."""
        return max(1, math.ceil(STEPS / (self.rows + 1))) / STEPS

    def limit(self, share: float) -> float:
        """The squared distance beyond which no more than that share of honest queries lies.

        Raises ValueError for a share above `SHARE_MAX`, or below `share_min`.
        """
        step = math.floor(share * STEPS + 1e-6)  # 0.0007 is a little less than seven steps
        if step > LIMITS or step / STEPS < self.share_min:
            raise ValueError(f"a share of {share:g} is not from {self.share_min:g} to {SHARE_MAX:g}")
        return float(self.limits[step - 1])


NO_ROWS = Abstention(np.zeros(LIMITS), 0)  # supports no share


def _rank(count: int, share: float) -> int:
    return math.ceil((count + 1) * (1 - share) - 1e-6)
