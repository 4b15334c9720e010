"""Split-conformal p-values on whole honest clients: the promise of the watch, and its condition.

If a client is exchangeable with the calibration clients (honest, and no different as a kind), then over its whole
horizon P(p <= a) <= a for every a, whatever the statistic and however often one looks: each client counts once, by the
largest value that its statistic ever takes (Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World, 2005).
"""

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from palladion.watch.rows import Rows


@dataclass(frozen=True, eq=False)
class Conformal:
    """The largest statistic of each calibration client, ascending (clients,)."""

    suprema: Rows

    @classmethod
    def fit(cls, suprema: Rows) -> "Conformal":
        """From the largest statistic of each calibration client. Raises ValueError if there is none, or a NaN."""
        if not len(suprema) or np.isnan(suprema).any():
            raise ValueError("a threshold needs at least one client, and a number for each")
        return cls(np.sort(suprema))

    @property
    def rate_min(self) -> float:
        """The smallest false-alarm rate that so few clients support: 1 / (clients + 1)."""
        return 1 / (len(self.suprema) + 1)

    def p_value(self, supremum: float) -> float:
        """The p-value of a client whose statistic has been at most `supremum` so far; never below `rate_min`."""
        if math.isnan(supremum):
            return self.rate_min  # what cannot be weighed is as unusual as can be
        # in a list, because that finds one value in a tenth of the time that an array takes
        above = len(self._ascending) - bisect_left(self._ascending, supremum)
        return (1 + above) / (len(self._ascending) + 1)

    def p_values(self, suprema: Rows) -> Rows:
        """The p-value of each of several."""
        above = len(self.suprema) - self.suprema.searchsorted(suprema, side="left")
        p_values: Rows = (1 + above) / (len(self.suprema) + 1)
        return p_values

    @cached_property
    def _ascending(self) -> list[float]:
        ascending: list[float] = self.suprema.tolist()
        return ascending

    def threshold(self, rate: float) -> float:
        """The value above which `p_value` is at most `rate`; infinite where the clients do not support that rate."""
        possible = len(self.suprema) + 1
        # p-values are n / possible; the product is off by a rounding error, and `p_value` must never disagree
        guess = int(rate * possible)
        rank = max(n for n in (guess - 1, guess, guess + 1) if n / possible <= rate)
        if rank < 1:
            return float("inf")
        return float("-inf") if rank >= possible else float(self.suprema[-rank])
