"""The tests of a client on its own, and the one number that they come to: the largest of four, or of five.

By all that it did in an epoch, and by what it did lately (`recent`): how far its mean scores lie from those of honest
clients (`suspicion`), and how often it asks near its own earlier queries. And where the clients fitted to have moments,
in which manner it asks (`manner`). Each is put on the scale of the clients fitted to, and the largest counts. The
promise needs no more than that this is one number (`conformal`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from palladion.watch.features import REPEATS
from palladion.watch.manner import MannerTest
from palladion.watch.recent import NEAR_RATE, NEAR_SCORE, Run, run_of
from palladion.watch.rows import Rows, constant
from palladion.watch.shares import Shares
from palladion.watch.suspicion import QUERIES_MIN, RandomEffects

WHOLE, LATELY, NEAR, NEAR_LATELY, MANNER = range(5)
TESTS = 4  # that are always there
WORDS = (
    "",  # the scores say it themselves
    "what it asked lately is more unusual than what it asked before",
    "asks again and again near its own earlier queries",
    "lately asks again and again near its own earlier queries",
    "the manner in which it asks is more unusual than what it asks",
)
# What a test counts for beside the first, so that its tail among honest clients is not what decides the threshold.
# Near queries over an epoch have the longest: with 1 for them pen strokes are seen in 52 instead of 93 of 100 at 0.05 %
# over epochs of 1,000, with 0.7 in 92 (development seed 7); with 0.5 boundary walks mixed half with honest queries are
# seen in a third of what 1 sees at 0.1 %. With 0.8 for the second, augmentation after honest use is seen in 73 instead
# of 100 of 100 at 0.1 % (seeds 5 and 31; docs/watch.md). That of manner has the shortest tail: of thieves who ask
# honest rows evenly 0.3 sees none at 1 %, 1 all, and 1.5 costs 3 points of who mixes in a quarter of foreign rows
# (seed 5, bench/manner.py).
WEIGHTS = np.array([1.0, 0.9, 0.7, 0.8, 1.0])
_LEAST = constant(2)  # below what a statistic, which is a square on its scale, ever is
# Of the largest values of the clients fitted to, those between which the mean is taken: the upper hundredth is left
# out, because thieves may be among them.
_TAIL = (0.9, 0.99)
_SCALE_MIN = 0.25  # tests that say the same of every client fitted to are no reason to suspect others
_ZERO = constant(0)
_NEAR_UNIT = (NEAR_RATE * (1 - NEAR_RATE)) ** 0.5


@dataclass(frozen=True, eq=False)
class OwnTests:
    """Honest clients' shares of near queries, and by test (tests, 2) what is subtracted from it and divided by.

    Tests are `TESTS`, and one more where there is a `manner`.
    """

    near: Shares
    scales: Rows
    manner: MannerTest | None = None

    @classmethod
    def fit(
        cls,
        effects: RandomEffects,
        clients: Sequence[Rows],
        manner: MannerTest | None = None,
        manners: Sequence[Rows] = (),
    ) -> "OwnTests":
        """Fit to the scores (queries, scores) of honest clients, two with two queries at least.

        With a `manner`, `manners` are theirs (queries, manners), scored by it.
        """
        near = Shares.fit([(scores[:, REPEATS] <= NEAR_SCORE) / _NEAR_UNIT for scores in clients])
        tests = TESTS + (manner is not None)
        plain = cls(near, np.stack([np.zeros(tests), np.ones(tests)], axis=1), manner)
        runs = map(run_of, clients) if manner is None else map(run_of, clients, manners)
        found = [plain.each(effects, run)[QUERIES_MIN - 1 :] for run in runs]
        suprema = np.sort([values.max(axis=0) for values in found if len(values)], axis=0)
        if not len(suprema):
            return plain
        start, end = int(_TAIL[0] * len(suprema)), max(int(_TAIL[1] * len(suprema)), 1)
        middle = np.median(suprema, axis=0)
        spread = np.maximum(suprema[min(start, end - 1) : end].mean(axis=0) - middle, _SCALE_MIN)
        return cls(near, np.stack([middle, spread / WEIGHTS[:tests]], axis=1), manner)

    def each(self, effects: RandomEffects, run: Run) -> Rows:
        """The values (n, tests) of all tests, each on the scale of the clients fitted to.

        Of a run that says nothing of its manner, `TESTS` of them.
        """
        asked, queries = self.manner is not None and run.manners is not None, len(run.counts) // 2
        found = np.empty((TESTS + asked, queries))
        distances, shares = found[:NEAR].reshape(-1), found[NEAR:TESTS].reshape(-1)
        np.add(effects.statistic(run.sums, run.counts), _LEAST, out=distances)
        np.sqrt(np.maximum(distances, _ZERO, out=distances), out=distances)
        # random effects of one score, to one side: who never comes near itself is no reason for suspicion
        each = 1 / run.counts
        np.multiply(run.near, each, out=shares)
        shares /= _NEAR_UNIT
        shares -= self.near.mean
        shares /= np.sqrt(self.near.between + self.near.within * each)
        if self.manner is not None and run.manners is not None:
            distances = self.manner.effects.statistic(run.manners, run.counts[:queries])
            found[MANNER] = np.sqrt(np.maximum(distances + _LEAST, _ZERO))
        found -= self.scales[: len(found), :1]
        found /= self.scales[: len(found), 1:]
        return found.T

    def statistic(self, effects: RandomEffects, run: Run) -> Rows:
        """The largest (n,) of them."""
        return np.asarray(np.maximum.reduce(self.each(effects, run), axis=1))
