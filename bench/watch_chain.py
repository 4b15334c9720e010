"""A world whose honest clients were measured: instruments fitted to them, thresholds, and what accounts come to.

For benchmarks that judge accounts in several worlds. Every honest client has a style of its own. As the watch does,
it counts no exact repeats.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bench.detection import statistic
from bench.watch_bank import World, nearness
from palladion.redteam.people import ask, stranger
from palladion.redteam.traffic import SimulatedClient
from palladion.watch.client import QUERIES_MIN
from palladion.watch.conformal import Conformal
from palladion.watch.coverage import Coverage
from palladion.watch.features import REPEATS, SCORES, Features
from palladion.watch.instruments import Instruments
from palladion.watch.memory import Memory
from palladion.watch.scores import NormalScores

FIRST_QUERIES = 50  # of a client that features are fitted to
NEVER = np.iinfo(np.int64).max
Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Sizes:
    """How many clients are fitted to, from how many others thresholds come, and how much each asks."""

    fitted: int
    clients: int
    horizon: int


@dataclass(frozen=True, eq=False)
class Chain:
    """A world, and what is fitted to its honest clients."""

    world: World
    instruments: Instruments
    calibrated: Conformal
    horizon: int

    @classmethod
    def simulate(cls, world: World, sizes: Sizes, generator: np.random.Generator) -> "Chain":
        """Fit to new honest clients."""
        fitted = [ask_honestly(world, sizes.horizon, generator) for _ in range(sizes.fitted)]
        others = (ask_honestly(world, sizes.horizon, generator) for _ in range(sizes.clients))
        return cls.fit(world, fitted, others, sizes.horizon, generator)

    @classmethod
    def fit(
        cls,
        world: World,
        fitted: Sequence[NDArray[np.float32]],
        others: Iterable[NDArray[np.float32]],
        horizon: int,
        generator: np.random.Generator,
    ) -> "Chain":
        """Fit to the flat rows (queries, inputs) of some clients, and take thresholds from those of others."""
        rows = np.concatenate([one[:FIRST_QUERIES] for one in fitted])
        features = Features.fit(rows.astype(np.float64), world.answers(rows))
        measured = [seen(world, features, one)[1] for one in fitted]
        instruments = Instruments.of_scores(
            features,
            NormalScores.fit(np.concatenate(measured)),
            Coverage.draw(features.directions.shape[1], generator),
            measured,
        )
        suprema = [supremum(instruments, seen(world, features, one)[1]) for one in others]
        return cls(world, instruments, Conformal.fit(np.array(suprema)), horizon)

    def threshold(self, rate: float) -> float:
        """The threshold of that rate; of the smallest rate that so many clients support, if that is larger."""
        return self.calibrated.threshold(self.rate(rate))

    def rate(self, rate: float) -> float:
        """The rate that `threshold` is of."""
        return max(rate, self.calibrated.rate_min)

    def honest(self, count: int, generator: np.random.Generator, *, stretched: float = 1.0) -> Rows:
        """The largest statistics (count,) of other honest clients; styles lie `stretched` times as far out."""
        asked = (ask_honestly(self.world, self.horizon, generator, stretched=stretched) for _ in range(count))
        features = self.instruments.features
        return np.array([supremum(self.instruments, seen(self.world, features, one)[1]) for one in asked])

    def scores(self, account: SimulatedClient) -> tuple[NDArray[np.int64], Rows]:
        """Which queries (distinct,) of an account are no exact repeats, and their scores (distinct, scores)."""
        places, measured = seen(self.world, self.instruments.features, flat(account))
        return places, self.instruments.score_features(measured)

    def first(self, places: NDArray[np.int64], scores: Rows, threshold: float) -> int:
        """The place of the query, from 0 on, that first leaves the statistic beyond a threshold; or `NEVER`.

        Of an account's distinct queries at `places` with these `scores`.
        """
        reached = statistic(self.instruments, scores) >= threshold
        return int(places[reached.argmax()]) if reached.any() else NEVER

    def unlike(self, scored: Sequence[Rows], count: int = 3) -> str:
        """The scores by which some accounts are furthest from honest ones, in deviations of an honest client."""
        effects = self.instruments.effects
        means = np.mean([effects.deviations(scores.sum(axis=0), len(scores)) for scores in scored], axis=0)
        return ", ".join(f"{list(SCORES)[at]} {means[at]:+.1f}" for at in np.argsort(-np.abs(means))[:count])


def ask_honestly(
    world: World, queries: int, generator: np.random.Generator, *, stretched: float = 1.0
) -> NDArray[np.float32]:
    """The flat rows (queries, inputs) of a new honest client."""
    person = stranger(world.pool, generator)
    return ask(world.pool, replace(person, style=stretched * person.style), queries, generator).rows


def seen(world: World, features: Features, rows: NDArray[np.float32]) -> tuple[NDArray[np.int64], Rows]:
    """Which of an account's flat rows (distinct,) are no exact repeats, and their features (distinct, features)."""
    places = np.flatnonzero(Memory().fresh(rows.astype(np.float64)))
    found, coordinates = features.measure(rows[places].astype(np.float64), world.answers(rows[places]))
    found[:, REPEATS] = nearness(coordinates)
    return places, found


def supremum(instruments: Instruments, measured: Rows) -> float:
    """The largest statistic of a client, from the features (distinct, features) of its queries."""
    if len(measured) < QUERIES_MIN:
        return -np.inf
    return float(statistic(instruments, instruments.score_features(measured)).max())


def flat(account: SimulatedClient) -> NDArray[np.float32]:
    """The rows (queries, inputs) of an account."""
    return account.rows.reshape(len(account.rows), -1)
