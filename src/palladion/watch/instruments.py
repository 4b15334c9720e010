"""What is fitted on honest traffic to measure queries with: features, scores, random effects, coverage.

An `Episode` is one client's queries in order of asking with the model's answers, however they were come by: recorded,
simulated, or arriving now.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from palladion.watch.atypical import Atypical
from palladion.watch.coverage import Coverage
from palladion.watch.features import ATYPICAL, REPEATS, SCORES, Features
from palladion.watch.memory import Memory, measure
from palladion.watch.outliers import usual
from palladion.watch.own_tests import OwnTests
from palladion.watch.recent import Run, run_of
from palladion.watch.rows import Rows
from palladion.watch.scores import NormalScores
from palladion.watch.shares import Shares
from palladion.watch.suspicion import BETWEEN_SHARE, RandomEffects

REFERENCE_ROWS_MAX = 20_000  # drawn for features and quantiles: more rows move a quantile by less than its noise


@dataclass(frozen=True, eq=False)
class Episode:
    """One client's queries: `inputs` (queries, inputs) and the model's class scores for them (queries, classes).

    `scores` has no columns for a model that names no classes. What layers show follows them, where that is looked at.
    """

    inputs: NDArray[np.float64]
    scores: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.inputs.ndim != 2 or self.scores.ndim != 2 or len(self.inputs) != len(self.scores):
            raise ValueError(f"inputs {self.inputs.shape} and scores {self.scores.shape} are not an episode")


@dataclass(frozen=True, eq=False)
class Instruments:
    """The fitted measuring chain of one model version.

    A query's scores are those of its features, and last whether it is atypical. `effects` weighs them all for a client.
    `own` has further tests of a client; calibrations that were made without any weigh by `effects` alone.
    A group is weighed twice: `pooled` without that last score, which one odd member would decide, and `shares` by it
    alone, member by member.
    """

    features: Features
    scores: NormalScores
    atypical: Atypical
    effects: RandomEffects
    pooled: RandomEffects
    shares: Shares
    coverage: Coverage
    own: OwnTests | None = None

    @classmethod
    def fit(
        cls,
        clients: Sequence[Episode],
        generator: "np.random.Generator",
        *,
        layers: Sequence[str] = (),
        recorded: bool = False,
    ) -> "Instruments":
        """Fit to whole honest clients. Raises ValueError where they are too few (`features`, `suspicion`).

        `layers` are the names of those whose digests follow the class scores of these clients. Of `recorded` clients,
        not all are fitted to (`of_scores`).
        """
        rows = np.concatenate([client.inputs for client in clients])
        answers = np.concatenate([client.scores for client in clients])
        chosen = _some(len(rows), generator)
        features = Features.fit(rows[chosen], answers[chosen], layers)
        measured = [_measure(features, [client])[0] for client in clients]
        every = np.concatenate(measured)
        scores = NormalScores.fit(every[_some(len(every), generator)])
        coverage = Coverage.draw(features.directions.shape[1], generator)
        return cls.of_scores(features, scores, coverage, measured, recorded=recorded)

    @classmethod
    def of_scores(
        cls,
        features: Features,
        scores: NormalScores,
        coverage: Coverage,
        clients: Sequence[Rows],
        *,
        recorded: bool = False,
    ) -> "Instruments":
        """Fit the rest to the features (distinct, features) of the queries of honest clients. Raises as `fit` does.

        Of `recorded` clients, among whom thieves may be, those who are far from all others are left out.
        """
        plain = [scores.score(found) for found in clients]
        if recorded:
            plain = _usual(plain)
        every = np.concatenate(plain)
        atypical = Atypical.fit(every[:: max(1, len(every) // REFERENCE_ROWS_MAX)])
        odd = [atypical.score(found) for found in plain]
        whole = [np.column_stack(pair) for pair in zip(plain, odd, strict=True)]
        effects, pooled = RandomEffects.fit(whole, between_share=BETWEEN_SHARE), RandomEffects.fit(plain)
        own = OwnTests.fit(effects, whole)
        return cls(features, scores, atypical, effects, pooled, Shares.fit(odd), coverage, own)

    def statistic(self, sums: Rows, counts: NDArray[np.int64]) -> Rows:
        """The statistic (n,) of summed scores (n, scores) over `counts` (n,) queries, by the first test alone."""
        return self.effects.statistic(sums, counts)

    def weigh(self, run: Run) -> Rows:
        """The statistic (n,) of clients on their own, by all tests."""
        if self.own is None:
            whole = slice(len(run.counts) // 2)
            return self.effects.statistic(run.sums[whole], run.counts[whole])
        return self.own.statistic(self.effects, run)

    def path(self, scores: Rows) -> Rows:
        """The statistic (queries,) after each query of one epoch, of its scores (queries, scores)."""
        return self.weigh(run_of(scores))

    @cached_property
    def words(self) -> Mapping[str, str]:
        """The scores by name, in order, and what an unusual one means to a person who asks why."""
        return MappingProxyType({**self.features.words, ATYPICAL: SCORES[ATYPICAL]})

    def score_features(self, features: Rows) -> Rows:
        """The scores (rows, scores) of features (rows, features)."""
        scores = self.scores.score(features)
        return np.column_stack((scores, self.atypical.score(scores)))

    def distance(self, scores: Rows) -> Rows:
        """How far queries (rows,) lie from the middle of honest ones, squared, by their scores (rows, features).

        Without `repeats`: by nothing but the query itself and its answer, whoever asks it and after whatever.
        """
        return self._by_itself.distance(np.delete(scores, REPEATS, axis=1))

    @cached_property
    def _by_itself(self) -> Atypical:
        return self.atypical.without(REPEATS)

    def score(self, clients: Sequence[Episode]) -> list[Rows]:
        """For each of some clients the scores (distinct, scores) of its distinct queries, as the watch sees them."""
        measured = _measure(self.features, clients)
        scores = self.score_features(np.concatenate(measured))
        return parts(scores, [len(found) for found in measured])


def _usual(clients: Sequence[Rows]) -> list[Rows]:
    """The scores of those clients that are to be fitted to."""
    every = np.concatenate(clients)
    atypical = Atypical.fit(every[:: max(1, len(every) // REFERENCE_ROWS_MAX)])
    kept = usual([np.column_stack((scores, atypical.score(scores))) for scores in clients])
    return [scores for scores, keep in zip(clients, kept, strict=True) if keep]


def _measure(features: Features, clients: Sequence[Episode]) -> list[Rows]:
    """The features (distinct, features) of the distinct queries of each client."""
    measured = measure(features, [(Memory(), client.inputs, client.scores) for client in clients])
    return parts(measured.features, measured.sizes)


def parts(rows: Rows, sizes: Sequence[int]) -> list[Rows]:
    """Rows cut into parts of these sizes; views."""
    ends = list(accumulate(sizes))
    return [rows[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def _some(count: int, generator: "np.random.Generator") -> NDArray[np.int64]:
    if count <= REFERENCE_ROWS_MAX:
        return np.arange(count)
    return np.sort(generator.choice(count, REFERENCE_ROWS_MAX, replace=False))
