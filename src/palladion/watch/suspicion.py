"""The statistic of a client: how far the mean of its scores lies from where honest clients' means lie.

A random-effects Hotelling statistic: honest clients differ, so their means spread; the spread is part of the null
hypothesis, and what is unusual is a mean that honest clients do not have. Thresholds are not taken from a distribution
but from whole honest clients (`conformal`), so nothing here needs to be exactly normal. Derivation: docs/watch.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from palladion.watch.rows import Rows, constant, product

QUERIES_MIN = 5  # one odd row of an honest client must not decide alone
CLIENTS_MIN = 20  # fewer clients than scores give a between-client covariance of too low rank to invert
CORRELATION = 0.2  # share of the variance that members of one organisation have in common; 0 to 0.3 is plausible
# Of a unit score variance. Two scores that nearly always agree would otherwise make one odd row, in which they do not,
# worth more than a hundred queries: thresholds of ten calibrations spread from 10 to 46 with .01, from 9 to 11 with .1.
RIDGE = 0.1
# Of the mean variance between clients: no direction in which the clients fitted to happen to be alike makes a rare
# style of another one count without limit. Without it one of 4,000 honest clients reached 73 (with it 31), and
# thresholds from 1,050 of them saw 87 instead of 100 % of those who ask foreign rows; with 0.7, active learning on
# tables is seen in 50 instead of 97 % (development seeds 5 and 31).
BETWEEN_SHARE = 0.2
_ONE = constant(1)


@dataclass(frozen=True, eq=False)
class RandomEffects:
    """Between and within variance in the basis that whitens the second and makes the first diagonal.

    Arrays: `mean` (scores,), `basis` (scores, scores), `between` (scores,), `spread` (scores,): standard deviation of
    a client's true mean of each score, for explanations. `centre` and `width` (horizon,): mean and standard deviation
    of the raw statistic after 1, 2, … queries of an honest client.
    """

    mean: Rows
    basis: Rows
    between: Rows
    spread: Rows
    centre: Rows
    width: Rows

    @classmethod
    def fit(cls, clients: Sequence[Rows], *, between_share: float = 0.0) -> "RandomEffects":
        """Fit to the scores (queries, scores) of honest clients. Raises ValueError on fewer than `CLIENTS_MIN`.

        No direction has less than `between_share` of the mean variance between clients.
        """
        clients = [scores for scores in clients if len(scores) >= 2]
        if len(clients) < CLIENTS_MIN:
            raise ValueError(f"{len(clients)} clients with two queries or more, at least {CLIENTS_MIN} are needed")
        means = np.stack([scores.mean(axis=0) for scores in clients])
        sizes = np.array([len(scores) for scores in clients])
        size = means.shape[1]
        within = sum(np.cov(scores, rowvar=False) * (len(scores) - 1) for scores in clients)
        within = within / (sizes.sum() - len(clients)) + RIDGE * np.eye(size)
        # the means of finite clients spread by their own sampling error as well
        between = np.cov(means, rowvar=False) - within * (1 / sizes).mean()
        root = np.linalg.cholesky(within)
        white = np.linalg.solve(root, np.linalg.solve(root, between).T)
        values, vectors = np.linalg.eigh((white + white.T) / 2)
        basis = np.linalg.solve(root.T, vectors)
        spread = np.sqrt(np.maximum(np.diag(between), 0) + RIDGE)
        values = np.maximum(values, 0)
        values = np.maximum(values, between_share * values.mean())
        unscaled = cls(means.mean(axis=0), basis, values, spread, np.zeros(1), np.ones(1))
        return unscaled._with_scale(clients, int(sizes.max()))

    def statistic(self, sums: Rows, counts: NDArray[np.int64], concentration: Rows | None = None) -> Rows:
        """The standardised statistic (n,) of summed scores (n, scores) over `counts` (n,) queries, 1 or more each.

        For a group, `concentration` (n,) is the sum of squares of its members' shares of the queries: 1 for one client,
        1/K for K equal ones. Members' true means average out, but for what they have in common (`CORRELATION`).
        """
        statistic = self.distance(sums, counts, concentration)
        scales = self._scales.take(counts, axis=0, mode="clip")
        statistic -= scales[:, 0]
        statistic /= scales[:, 1]
        return statistic

    def deviations(self, sums: Rows, count: int) -> Rows:
        """How many standard deviations of an honest client each mean score (scores,) is off; for explanations."""
        shown: Rows = (sums / count - self.mean) / np.sqrt(np.square(self.spread) + 1 / count)
        return shown

    def distance(self, sums: Rows, counts: NDArray[np.int64], concentration: Rows | None = None) -> Rows:
        """The statistic (n,) as it is before it is standardised: D_t of docs/watch.md."""
        each = counts[:, None].astype(np.float64)
        means = sums / each
        means -= self.mean
        rotated = product(means, self.basis)
        between = self.between
        if concentration is not None:
            between = between * (CORRELATION + (1 - CORRELATION) * concentration[:, None])
        raw: Rows = np.add.reduce(np.square(rotated, out=rotated) / (between + _ONE / each), axis=1)
        return raw

    @cached_property
    def _scales(self) -> Rows:
        """`centre` and `width` by the number of queries (1 + horizon, 2); of none, nothing."""
        return np.stack([np.append(np.nan, self.centre), np.append(np.nan, self.width)], axis=1)

    def _with_scale(self, clients: Sequence[Rows], horizon: int) -> "RandomEffects":
        total, squares, seen = np.zeros(horizon), np.zeros(horizon), np.zeros(horizon)
        for scores in clients:
            raw = self.distance(np.cumsum(scores, axis=0), np.arange(1, len(scores) + 1))
            total[: len(raw)] += raw
            squares[: len(raw)] += np.square(raw)
            seen[: len(raw)] += 1
        enough = seen >= CLIENTS_MIN
        last = int(np.flatnonzero(enough)[-1]) + 1 if enough.any() else 1
        centre = total[:last] / seen[:last]
        width = np.sqrt(np.maximum(squares[:last] / seen[:last] - np.square(centre), RIDGE))
        return RandomEffects(self.mean, self.basis, self.between, self.spread, centre, width)
