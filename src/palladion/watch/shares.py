"""How many atypical queries the members of a group send: a test that one odd member cannot decide.

Each member counts by how far its share of atypical queries (`atypical`) lies from that of honest clients, in deviations
of a client who asked as much, and by no more than `CLIP`. An honest account with junk or a rare style stays one;
accounts that share out a harvest all lie on one side. O(1) for each query of a member.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palladion.watch.rows import Rows
from palladion.watch.scores import STEPS
from palladion.watch.suspicion import CORRELATION

# Deviations. With 2, where one honest client in forty is, a ring of ten that hides a tenth of photographs could be no
# further out than the most unusual of 950 honest organisations; with 4 and more, single odd members carry these along.
CLIP = 3.0
BETWEEN_MIN = 1e-3  # of a unit variance: clients who happen to be alike must not make every later one suspicious


@dataclass(frozen=True)
class Shares:
    """The mean atypical score of honest clients, its variance between them, and that of queries within them."""

    mean: float
    between: float
    within: float

    @classmethod
    def fit(cls, clients: Sequence[Rows]) -> "Shares":
        """Fit to the atypical scores (queries,) of honest clients, two clients with two queries at least."""
        clients = [scores for scores in clients if len(scores) >= 2]
        if len(clients) < 2:
            raise ValueError(f"{len(clients)} clients with two queries or more, at least 2 are needed")
        means = np.array([scores.mean() for scores in clients])
        within = float(np.mean([scores.var(ddof=1) for scores in clients]))
        noise = within * float(np.mean([1 / len(scores) for scores in clients]))
        return cls(float(np.median(means)), max(float(means.var(ddof=1)) - noise, BETWEEN_MIN), within)

    def parts(self, sums: Rows, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """What members add to their group (n, 3): their atypical scores sum up to `sums` (n,) over `counts` queries.

        In whole `STEPS`, so that sums are exact in any order: what the deviation counts, and the squares and fourth
        powers of the weight that it has. Who has not asked adds nothing.
        """
        each = np.maximum(counts, 1)
        variance = self.between + self.within / each
        deviations = np.clip((sums / each - self.mean) / np.sqrt(variance), -CLIP, CLIP)
        weights = np.where(counts > 0, np.sqrt(self.between / variance), 0.0)
        squares = np.square(weights)
        added = np.stack([weights * deviations, squares, np.square(squares)], axis=-1)
        return np.asarray(np.rint(added * STEPS), np.int64)

    def part(self, total: float, count: int) -> tuple[int, int, int]:
        """`parts` of one member, to the last bit: a query in a group asks for two, and arrays take 20 times as long."""
        if not count:
            return 0, 0, 0
        variance = self.between + self.within / count
        deviation = min(max((total / count - self.mean) / math.sqrt(variance), -CLIP), CLIP)
        weight = math.sqrt(self.between / variance)
        square = weight * weight
        # `round` is what `rint` is: to the even one of two that are as near
        return round(weight * deviation * STEPS), round(square * STEPS), round(square * square * STEPS)

    def statistic(self, totals: NDArray[np.int64]) -> Rows:
        """The statistic (n,) of groups whose members' parts sum up to `totals` (n, 3).

        About standard normal for honest groups, and large where members send more that is atypical; 0 for nobody.
        """
        weighed, squares, fourths = np.moveaxis(totals / STEPS, -1, 0)
        # what members have in common does not average out
        variance = squares + CORRELATION * (np.square(squares) - fourths)
        return np.asarray(weighed / np.sqrt(np.maximum(variance, 1 / STEPS)))
