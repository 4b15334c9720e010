"""What is fitted on honest traffic to measure queries with: features, scores, random effects, coverage.

An `Episode` is one client's queries in order of asking with the model's answers, however they were come by: recorded,
simulated, or arriving now.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, compress
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from palladion.watch.atypical import Atypical
from palladion.watch.coverage import Coverage
from palladion.watch.features import ATYPICAL, REPEATS, SCORES, Features
from palladion.watch.manner import Manners, MannerTest, hours_of, look_back, no_hours, rarity_of
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
    `at` is when each was asked (queries,), in seconds since 1970; None where that is not known.
    """

    inputs: NDArray[np.float64]
    scores: NDArray[np.float64]
    at: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.at is not None and self.at.shape != (len(self.inputs),):
            raise ValueError(f"{len(self.inputs)} queries cannot have moments of the shape {self.at.shape}")
        if self.inputs.ndim != 2 or self.scores.ndim != 2 or len(self.inputs) != len(self.scores):
            raise ValueError(f"inputs {self.inputs.shape} and scores {self.scores.shape} are not an episode")


@dataclass(frozen=True, eq=False)
class Instruments:
    """The fitted measuring chain of one model version.

    A query's scores are those of its features, and last whether it is atypical. `effects` weighs them all for a client.
    `own` has further tests of a client, that of its manner among them; calibrations that were made without any weigh by
    `effects` alone.
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
        not all are fitted to (`of_scores`). Where all clients have moments, their manner is fitted to as well; hours
        only of `recorded` ones, because simulated ones live in no time zone.
        """
        rows = np.concatenate([client.inputs for client in clients])
        answers = np.concatenate([client.scores for client in clients])
        chosen = _some(len(rows), generator)
        features = Features.fit(rows[chosen], answers[chosen], layers)
        measured = [_measure(features, [client])[0] for client in clients]
        every = np.concatenate(measured)
        scores = NormalScores.fit(every[_some(len(every), generator)])
        coverage = Coverage.draw(features.directions.shape[1], generator)
        manners = _manners(features, clients, hours_known=recorded)
        return cls.of_scores(features, scores, coverage, measured, recorded=recorded, manners=manners)

    @classmethod
    def of_scores(
        cls,
        features: Features,
        scores: NormalScores,
        coverage: Coverage,
        clients: Sequence[Rows],
        *,
        recorded: bool = False,
        manners: Manners | None = None,
    ) -> "Instruments":
        """Fit the rest to the features (distinct, features) of the queries of honest clients. Raises as `fit` does.

        Of `recorded` clients, among whom thieves may be, those who are far from all others are left out. `manners` are
        those of the same clients, where they have moments.
        """
        plain = [scores.score(found) for found in clients]
        if recorded:
            kept = _usual(plain)
            plain = list(compress(plain, kept))
            manners = manners and manners._replace(clients=list(compress(manners.clients, kept)))
        every = np.concatenate(plain)
        atypical = Atypical.fit(every[:: max(1, len(every) // REFERENCE_ROWS_MAX)])
        odd = [atypical.score(found) for found in plain]
        whole = [np.column_stack(pair) for pair in zip(plain, odd, strict=True)]
        effects, pooled = RandomEffects.fit(whole, between_share=BETWEEN_SHARE), RandomEffects.fit(plain)
        manner = None if manners is None else MannerTest.fit(manners)
        scored = [] if manner is None or manners is None else list(map(manner.scores.score, manners.clients))
        own = OwnTests.fit(effects, whole, manner, scored)
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

    def path(self, scores: Rows, manners: Rows | None = None) -> Rows:
        """The statistic (queries,) after each query of one epoch, of its scores (queries, scores), and `manners`."""
        return self.weigh(run_of(scores, manners))

    @property
    def manner(self) -> MannerTest | None:
        """How the manner of a client is looked at; None where nothing is known of honest clients' manners."""
        return None if self.own is None else self.own.manner

    def manners(self, client: Episode) -> Rows | None:
        """The scores (distinct, manners) of a client's manner, as the watch sees it; None without `manner`."""
        if self.manner is None:
            return None
        return self.manner.scores.score(_manners_of(self.features, client, self.manner.rarity))

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


def _usual(clients: Sequence[Rows]) -> NDArray[np.bool_]:
    """Which clients (clients,) are to be fitted to, by their scores."""
    every = np.concatenate(clients)
    atypical = Atypical.fit(every[:: max(1, len(every) // REFERENCE_ROWS_MAX)])
    return usual([np.column_stack((scores, atypical.score(scores))) for scores in clients])


def _manners(features: Features, clients: Sequence[Episode], *, hours_known: bool) -> Manners | None:
    """Those of clients; None unless all have moments."""
    moments = [client.at for client in clients if client.at is not None]
    if len(moments) < len(clients):
        return None
    hours = hours_of(moments) if hours_known else no_hours()
    return Manners(hours, [_manners_of(features, client, rarity_of(hours)) for client in clients])


def _manners_of(features: Features, client: Episode, rarity: Sequence[float]) -> Rows:
    at = np.full(len(client.inputs), np.nan) if client.at is None else client.at
    return look_back(rarity, at, features.named(client.scores), Memory().fresh(client.inputs))


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
