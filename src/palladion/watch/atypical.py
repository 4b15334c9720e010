"""Which queries are unlike nearly all honest ones: one more score, for what no single feature shows.

A row's scores are compared with those of honest rows together (Mahalanobis); what lies further out than all but one
honest row in fifty is atypical. Honest clients send few of these each; a harvest is full of them, also where honest
queries hide it: their share tells more of a mixture than any mean does.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from palladion.watch.rows import Rows, constant, product
from palladion.watch.scores import STEPS

RATE = 0.02  # of honest rows; of 5, 3, 2, 1 and 0.3 % it left most to be seen of thieves who mix (seeds 1 and 2)
RIDGE = 0.05  # of a unit variance: two scores that nearly always agree say nothing by a difference of a thousandth
_SPREAD = math.sqrt(RATE * (1 - RATE))


@dataclass(frozen=True, eq=False)
class Atypical:
    """What honest rows' scores look like together: `mean` (scores,), `whitening` (scores, scores), and the limit."""

    mean: Rows
    whitening: Rows
    limit: float

    @classmethod
    def fit(cls, scores: Rows) -> "Atypical":
        """Fit to the scores (rows, scores) of honest rows, two at least."""
        mean = scores.mean(axis=0)
        covariance = np.atleast_2d(np.cov(scores, rowvar=False)) + RIDGE * np.eye(scores.shape[1])
        whitening = np.ascontiguousarray(np.linalg.inv(np.linalg.cholesky(covariance)).T)
        unlimited = cls(mean, whitening, math.inf)
        return cls(mean, whitening, float(np.quantile(unlimited.distance(scores), 1 - RATE)))

    def without(self, column: int) -> "Atypical":
        """The same for rows without one of the scores; without a limit, as that would be another."""
        covariance = np.linalg.inv(self.whitening @ self.whitening.T)
        others = np.delete(np.delete(covariance, column, axis=0), column, axis=1)
        whitening = np.ascontiguousarray(np.linalg.inv(np.linalg.cholesky(others)).T)
        return Atypical(np.delete(self.mean, column), whitening, math.inf)

    def distance(self, scores: Rows) -> Rows:
        """How far each row (rows,) lies from the middle of honest ones, squared."""
        whitened = product(scores - self.mean, self.whitening)
        return np.asarray(np.add.reduce(np.square(whitened, out=whitened), axis=1))

    def score(self, scores: Rows) -> Rows:
        """The score (rows,) of each row: one value for all that are typical, one for the others, in `STEPS`.

        Of mean 0 and variance 1 among honest rows.
        """
        return np.where(self.distance(scores) > self._limit, BEYOND, _WITHIN)

    @cached_property
    def _limit(self) -> Rows:
        return constant(self.limit)


_WITHIN = round(-RATE / _SPREAD * STEPS) / STEPS
BEYOND = round((1 - RATE) / _SPREAD * STEPS) / STEPS  # the largest score that a query can have
