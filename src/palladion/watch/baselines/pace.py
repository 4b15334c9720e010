"""A published statistic beside that of honest clients who have asked as much: so that it can be looked at early.

Counts only grow, and a kernel statistic of few queries is noisy: a threshold for the largest value over a whole epoch
is then blind in its first queries. Less the mean and over the deviation that honest clients have after as many queries,
each baseline gets what our own statistic gets; the papers do not do that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from palladion.watch.rows import Rows

CLIENTS_MIN = 20  # fewer give no deviation: later queries then count as the last that has one
WIDTH_MIN = 0.1  # of the median deviation: where honest clients are all alike, one odd query must not decide


@dataclass(frozen=True, eq=False)
class Pace:
    """Mean and deviation (horizon,) of honest clients after 1, 2, … queries; NaN before there is a statistic."""

    centre: Rows
    width: Rows

    @classmethod
    def fit(cls, curves: Sequence[Rows]) -> "Pace":
        """From the statistics (queries,) of honest clients after each query.

        Raises ValueError where no query has the statistics of `CLIENTS_MIN` of them.
        """
        table = np.full((len(curves), max(map(len, curves), default=0)), np.nan)
        for row, curve in zip(table, curves, strict=True):
            row[: len(curve)] = np.where(np.isfinite(curve), curve, np.nan)
        enough = np.isfinite(table).sum(axis=0) >= CLIENTS_MIN
        if not enough.any():
            raise ValueError(f"{len(curves)} honest clients, at least {CLIENTS_MIN} with a statistic are needed")
        last = int(np.flatnonzero(enough)[-1]) + 1
        centre, width = np.full(last, np.nan), np.full(last, np.nan)
        centre[enough[:last]] = np.nanmean(table[:, enough], axis=0)
        width[enough[:last]] = np.nanstd(table[:, enough], axis=0)
        least = WIDTH_MIN * float(np.nanmedian(width))
        return cls(centre, np.maximum(width, max(least, float(np.finfo(np.float64).tiny))))

    def statistic(self, curve: Rows) -> Rows:
        """How many deviations a client's statistic (queries,) lies above that of honest ones; -inf where there is none.

        `curve` begins with the client's first query.
        """
        place = np.minimum(np.arange(len(curve)), len(self.centre) - 1)
        centre, width = self.centre[place], self.width[place]
        known = np.isfinite(curve) & np.isfinite(centre)
        found = np.full(len(curve), -np.inf)
        found[known] = (curve[known] - centre[known]) / width[known]
        return found
