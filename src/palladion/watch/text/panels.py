"""The two statistics of a client of a language model, each of which gets a threshold of its own.

`whole` is the statistic of random effects over all scores (`suspicion`). It sees a client whose texts are not those of
honest ones. It hardly sees a harvest over everything that honest clients ask, whose mean is the middle of theirs: what
tells that one is that its texts have nothing in common with each other, and of that too little is unusual and too much
is not. `leaning` weighs this one score, on one side. Neither is made comparable with the other: each has the largest
values of honest clients beside it, and of the two p-values the smaller one counts, doubled (`calibration`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from palladion.watch.rows import Rows
from palladion.watch.suspicion import CLIENTS_MIN, CORRELATION, RIDGE, RandomEffects
from palladion.watch.text.features import COHESION

STATISTICS = 2  # `Panels.statistics` in their order: whole, leaning
SETTLED = 16  # queries; before that a client's cohesion is more chance than habit
_UNSETTLED = -1 / RIDGE  # below whatever a client reaches who asked enough


@dataclass(frozen=True, eq=False)
class Leaning:
    """How far the mean of one score lies below that of honest clients, in deviations of these after so many queries.

    Arrays: `centre` and `width` (horizon,) of honest clients' means after 1, 2, … queries.
    """

    centre: Rows
    width: Rows

    @classmethod
    def fit(cls, clients: Sequence[Rows]) -> "Leaning":
        """Fit to that score (queries,) of honest clients. Raises ValueError on fewer than `CLIENTS_MIN`."""
        if len(clients) < CLIENTS_MIN:
            raise ValueError(f"{len(clients)} clients, at least {CLIENTS_MIN} are needed")
        horizon = max(len(scores) for scores in clients)
        means = np.full((len(clients), horizon), np.nan)
        for row, scores in zip(means, clients, strict=True):
            row[: len(scores)] = np.cumsum(scores) / np.arange(1, len(scores) + 1)
        enough = (~np.isnan(means)).sum(axis=0) >= CLIENTS_MIN  # from the first query up to some later one
        means = means[:, enough]
        width = np.sqrt(np.square(np.nanstd(means, axis=0)) + np.square(RIDGE))
        return cls(np.nanmean(means, axis=0), width)

    def statistic(self, sums: Rows, counts: NDArray[np.int64], concentration: Rows | None = None) -> Rows:
        """Of summed scores (n,) over `counts` (n,) queries; the parameters are those of `RandomEffects.statistic`."""
        place = np.minimum(counts, len(self.centre)) - 1
        width = self.width[place]
        if concentration is not None:
            width = width * np.sqrt(CORRELATION + (1 - CORRELATION) * concentration)
        found: Rows = (self.centre[place] - sums / counts) / width
        return np.where(counts >= SETTLED, found, _UNSETTLED)


@dataclass(frozen=True, eq=False)
class Panels:
    """Both statistics, as fitted."""

    whole: RandomEffects
    leaning: Leaning

    @classmethod
    def fit(cls, clients: Sequence[Rows]) -> "Panels":
        """Fit to the scores (queries, scores) of honest clients. Raises ValueError where too few asked enough."""
        clients = [scores for scores in clients if len(scores) >= SETTLED]
        if len(clients) < CLIENTS_MIN:
            raise ValueError(f"{len(clients)} clients with {SETTLED} queries, at least {CLIENTS_MIN} are needed")
        return cls(
            RandomEffects.fit([np.delete(scores, COHESION, axis=1) for scores in clients]),
            Leaning.fit([scores[:, COHESION] for scores in clients]),
        )

    def statistics(self, sums: Rows, counts: NDArray[np.int64], concentration: Rows | None = None) -> Rows:
        """The statistics (n, STATISTICS) of summed scores (n, scores) over `counts` (n,) queries, 1 or more each.

        `concentration` (n,) is that of `RandomEffects.statistic`: of a group the sum of squares of its members' shares.
        """
        whole = self.whole.statistic(sums.take(self._others, axis=1), counts, concentration)
        return np.stack([whole, self.leaning.statistic(sums[:, COHESION], counts, concentration)], axis=1)

    def statistic(self, sums: Rows, counts: NDArray[np.int64]) -> Rows:
        """The first of them alone (n,): it is known from the first query on, and few values of it tie."""
        return self.whole.statistic(sums.take(self._others, axis=1), counts)

    def deviations(self, sums: Rows, count: int) -> Rows:
        """How many standard deviations of an honest client each mean score (scores,) is off; for explanations."""
        others = self.whole.deviations(sums.take(self._others), count)
        lean = self.leaning.statistic(sums[COHESION : COHESION + 1], np.array([count]))[0] if count >= SETTLED else 0.0
        return np.insert(others, COHESION, -lean)

    @cached_property
    def _others(self) -> NDArray[np.int64]:
        return np.delete(np.arange(len(self.whole.mean) + 1), COHESION)
