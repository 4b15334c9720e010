"""A calibration: what honest traffic on one model version looks like, and how unusual honest clients ever get.

Made from whole honest clients, recorded or simulated; states how many there were and which false-alarm rate so many
support. How it is written to a file is in `calibration_file`.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import compress, islice
from typing import Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from palladion.watch.abstention import NO_ROWS, ROWS_OF_CLIENT_MAX, Abstention
from palladion.watch.client import QUERIES_MIN, ClientState, Scored, Weighs
from palladion.watch.conformal import Conformal
from palladion.watch.drift import DRIFT_QUERIES, Reference
from palladion.watch.instruments import Episode, Instruments, parts
from palladion.watch.memory import Memory, measure
from palladion.watch.newcomers import NewcomersReference
from palladion.watch.own_past import OwnPast
from palladion.watch.recent import Run
from palladion.watch.rows import Rows
from palladion.watch.scores import STEPS
from palladion.watch.shares import Shares

REAL_CLIENTS_MIN = 999  # fewer real clients support no rate of 0.1 %
HORIZON_MAX = 100_000  # queries of one epoch; longer ones need calibration clients who asked as many
MEMBER_SIZES = (2, 3, 5, 10)  # sizes of the honest organisations that thresholds of groups are calibrated on
Kind = Literal["simulated", "few real", "real"]
QUERIES_OF_CLIENT_MIN = 8  # a calibration client who asked less says nothing of how far an honest one can drift


@dataclass(frozen=True)
class About:
    """What a calibration is of and from. `content` is the digest of the model version; counts are of honest clients.

    `fitted` clients were fitted to, `fitted_recorded` of them real; the disjoint `clients` and `organisations` gave the
    thresholds. The clients were real unless `simulated`; the organisations never are. `horizon` is the length of a
    client's epoch in distinct queries, `group_horizon` that of a group for each member.
    """

    model: str
    version: int
    content: str
    simulated: bool
    horizon: int
    group_horizon: int
    seed: int
    created: datetime
    fitted: int = 0
    clients: int = 0
    organisations: int = 0
    fitted_recorded: int = 0

    @property
    def kind(self) -> Kind:
        """Whose thresholds they are: of simulated clients, of few real ones, or of `REAL_CLIENTS_MIN` or more."""
        if self.simulated:
            return "simulated"
        return "few real" if self.clients < REAL_CLIENTS_MIN else "real"

    @property
    def recorded(self) -> int:
        """How many real clients it was made from."""
        return self.fitted_recorded + (0 if self.simulated else self.clients)


@dataclass(frozen=True, eq=False)
class Organisations:
    """The largest statistics of honest organisations of one size: by all scores pooled, and by atypical shares."""

    pooled: Conformal
    shares: Conformal

    @property
    def rate_min(self) -> float:
        """The smallest false-alarm rate that so many organisations support."""
        return 2 * self.pooled.rate_min

    def p_values(self, pooled: Rows, shares: Rows) -> Rows:
        """The p-value of groups with these statistics (n,): of two tests the smaller one, doubled."""
        smaller = np.minimum(self.pooled.p_values(pooled), self.shares.p_values(shares))
        return np.asarray(np.minimum(2 * smaller, 1.0))


class Asked(Protocol):
    """What is asked in one request, and what the model says to it."""

    @property
    def inputs(self) -> Rows:
        """The queries (queries, inputs)."""
        ...

    @property
    def scores(self) -> Rows:
        """Class scores (queries, classes); no columns without classes."""
        ...


@dataclass(frozen=True, eq=False)
class Calibration:
    """Instruments, and the largest statistics of honest clients and of honest organisations by size.

    `abstention` says how far the strangest honest queries lie out. Of what is asked in numbers; satisfies
    `kinds.AnyCalibration`.
    """

    about: About
    instruments: Instruments
    clients: Conformal
    groups: Mapping[int, Organisations]
    abstention: Abstention = NO_ROWS
    drift: Reference | None = None
    past: OwnPast | None = None

    @property
    def words(self) -> Mapping[str, str]:
        """The scores in order by name, and what an unusual one means to a person who asks why."""
        return self.instruments.words

    @property
    def shares(self) -> Shares:
        """The test of a group that looks at each member."""
        return self.instruments.shares

    @property
    def beginnings(self) -> Weighs:
        """What weighs a client's first queries, for the drift test: the first of its tests."""
        return self.instruments.effects

    def new_state(self) -> ClientState:
        """The state of a client that never asked."""
        return ClientState.of(self.instruments)

    def fits(self, state: ClientState) -> bool:
        """Whether a saved state is one of this calibration, as far as its sizes tell."""
        if state.memory.mark != Memory.mark or len(state.sums) != len(self.words):
            return False
        if (state.recent is None) != (self.instruments.own is None):
            return False
        _, queries, kept = state.memory.shape
        if (state.habits is None) != (self.instruments.manner is None):
            return False
        return not queries or kept == self.instruments.features.directions.shape[1]

    def measure(self, requests: Sequence[tuple[ClientState, Asked]]) -> list[Scored]:
        """Measure requests, in order, each with the state of who asked, whose memory remembers them."""
        instruments = self.instruments
        measured = measure(
            instruments.features,
            [(cast("Memory", state.memory), asked.inputs, asked.scores) for state, asked in requests],
        )
        scores = parts(instruments.score_features(measured.features), measured.sizes)
        buckets = iter(instruments.coverage.buckets(measured.coordinates))
        named: Sequence[Sequence[int]] = [()] * len(scores)
        if instruments.manner is not None:
            classes = (instruments.features.named(asked.scores) for _, asked in requests)
            named = [list(compress(*found)) for found in zip(classes, measured.fresh, strict=True)]
        return [Scored(own, list(islice(buckets, len(own))), labels) for own, labels in zip(scores, named, strict=True)]

    def statistic(self, sums: Rows, counts: NDArray[np.int64]) -> Rows:
        """The statistic (n,) of the summed scores (n, scores) of clients over `counts` (n,) queries.

        Of the first test alone: what the drift test holds against calibration clients.
        """
        return self.instruments.statistic(sums, counts)

    def weigh(self, run: Run) -> Rows:
        """The statistic (n,) of clients on their own, by all tests: what has a p-value."""
        return self.instruments.weigh(run)

    def p_value(self, statistic: float) -> float:
        """The p-value of a client whose statistic has been at most that."""
        return self.clients.p_value(statistic)

    @property
    def rate_min(self) -> float:
        """The smallest p-value that a client can have."""
        return self.clients.rate_min

    def threshold(self, alpha: float) -> float:
        """What the statistic of so small a share of honest clients is ever larger than."""
        return self.clients.threshold(alpha)

    def group_p_values(
        self, sums: Rows, counts: NDArray[np.int64], squares: NDArray[np.int64], shares: NDArray[np.int64]
    ) -> Rows:
        """`group_p_values` by this calibration."""
        return group_p_values(self, sums, counts, squares, shares)

    def unlike(self, inputs: Rows, scores: Rows, share: float) -> NDArray[np.bool_]:
        """Which queries (queries,) are further from honest ones than all but that share of these.

        Given are `inputs` (queries, inputs) and the model's class scores (queries, classes). Nothing is remembered.
        Raises ValueError for a share that is not supported (`Abstention.limit`).
        """
        found, _ = self.instruments.features.measure(inputs, scores)
        distances = self.instruments.distance(self.instruments.scores.score(found))
        return np.asarray(distances > self.abstention.limit(share))

    def deviations(self, sums: Rows, count: int) -> Rows:
        """How many standard deviations of an honest client each mean score (scores,) is off; for explanations."""
        return self.instruments.effects.deviations(sums, count)


def calibrate(
    about: About,
    fitting: Sequence[Episode],
    clients: Iterable[Episode],
    organisations: Iterable[Sequence[Episode]],
    generator: "np.random.Generator",
    *,
    instruments: Instruments | None = None,
) -> Calibration:
    """Fit to the clients in `fitting` and take thresholds from whole `clients` and `organisations`, all disjoint.

    Clients with fewer than `QUERIES_OF_CLIENT_MIN` distinct queries are left out. Raises ValueError where too few
    remain. The counts of `about` are set here. Only `fitting` is held at once. With `instruments`, these were fitted to
    it already.
    """
    instruments = instruments or Instruments.fit(fitting, generator, recorded=not about.simulated)
    suprema: list[float] = []
    distances: list[Rows] = []
    beginnings: list[Rows] = []
    for client in clients:
        scores = instruments.score([client])[0]
        if len(scores) >= QUERIES_OF_CLIENT_MIN:
            suprema.append(client_supremum(instruments, scores, about.horizon, instruments.manners(client)))
            distances.append(instruments.distance(scores[:ROWS_OF_CLIENT_MAX, :-1]))
        if min(len(scores), about.horizon) >= DRIFT_QUERIES:
            beginnings.append(scores[:DRIFT_QUERIES].sum(axis=0))
    by_size: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)
    asked = 0
    for members in organisations:
        asked += 1
        for size, supremum in group_suprema(instruments, instruments.score(members)).items():
            by_size[size].append(supremum)
    groups = {
        size: Organisations(*(Conformal.fit(np.array(found)) for found in zip(*suprema_of, strict=True)))
        for size, suprema_of in by_size.items()
    }
    counted = replace(about, fitted=len(fitting), clients=len(suprema), organisations=asked)
    thresholds = Conformal.fit(np.array(suprema))
    drift = Reference.of(beginnings, instruments.effects)
    if drift is not None:
        drift = replace(drift, newcomers=NewcomersReference.fit(np.stack(beginnings) / DRIFT_QUERIES))
    return Calibration(counted, instruments, thresholds, groups, Abstention.fit(np.concatenate(distances)), drift)


def client_supremum(instruments: Instruments, scores: Rows, horizon: int, manners: Rows | None = None) -> float:
    """The largest statistic of a client in its first epoch; `scores` (distinct, features) of its distinct queries.

    And their `manners` (distinct, manners), where these are weighed.
    """
    behaved = None if manners is None else manners[:horizon]
    return float(instruments.path(scores[:horizon], behaved)[QUERIES_MIN - 1 :].max())


def group_suprema(instruments: Instruments, members: Sequence[Rows]) -> dict[int, tuple[float, float]]:
    """The largest statistics of an organisation whose members ask in turns, for each size that it can form.

    That of all scores pooled, and that of atypical shares. Its members are given by the scores (distinct, scores) of
    their distinct queries.
    """
    return {size: _group_suprema(instruments, scores, who, size) for size, scores, who in in_turns(members)}


def in_turns(members: Sequence[Rows]) -> Iterator[tuple[int, Rows, NDArray[np.int64]]]:
    """For each size that an organisation can form, its scores (queries, scores) in turns, and whose they are."""
    scores = np.concatenate(members)
    turns = np.concatenate([np.arange(len(found)) for found in members])
    who = np.repeat(np.arange(len(members)), [len(found) for found in members])
    order = np.lexsort((who, turns))
    scores, who = scores[order], who[order]
    for size in MEMBER_SIZES:
        if size <= len(members) and (who < size).sum() >= max(QUERIES_MIN, size):
            yield size, scores[who < size], who[who < size]


def group_p_values(
    calibration: Calibration,
    sums: Rows,
    counts: NDArray[np.int64],
    squares: NDArray[np.int64],
    shares: NDArray[np.int64],
) -> Rows:
    """The p-value of a group after each of several queries (n,).

    Given are the pooled sums of scores (n, scores), how many queries they are of, the sum of squares of how many each
    member has asked, and the sums of what members add to `shares` (n, 3). Of two tests the smaller p-value counts,
    doubled; each is 1 for groups of one, before enough was asked, and where no organisations were calibrated:

    - The pooled scores, with as many members as asked by weight: one with a single query among hundreds hardly counts.
      Groups larger than every calibrated organisation are not held against them: the statistic grows with the number
      of queries, and honest companies of forty stood out among those of ten.
    - The shares of atypical queries, with as many members as there are by the weight that each has there. A member who
      asks nearly everything cannot end it, and beyond the largest organisations it is held against those.
    """
    enough = counts >= QUERIES_MIN
    if not calibration.groups or not enough.any():
        return np.ones(len(counts))
    instruments, largest = calibration.instruments, max(calibration.groups)
    concentration = squares / np.square(counts)
    members = np.where(enough, np.rint(1 / concentration), 1).astype(np.int64)
    weights = shares[:, 1].astype(np.float64)
    weighing = np.where(enough, np.rint(np.square(weights) / np.maximum(shares[:, 2] * float(STEPS), 1)), 1)
    pooled = instruments.pooled.statistic(sums[:, :-1], counts, concentration)
    found = against(
        {size: group.pooled for size, group in calibration.groups.items()},
        pooled,
        np.where(members > largest, 1, members),
    )
    odd = against(
        {size: group.shares for size, group in calibration.groups.items()},
        instruments.shares.statistic(shares),
        weighing.astype(np.int64),
    )
    return np.asarray(np.minimum(2 * np.minimum(found, odd), 1.0))


class Thresholds(Protocol):
    """The largest statistics of honest organisations of one size."""

    def p_values(self, statistics: Rows, /) -> Rows:
        """The p-value (n,) of each of several statistics."""
        ...


def against(thresholds: Mapping[int, Thresholds], statistics: Rows, sizes: NDArray[np.int64]) -> Rows:
    """The larger p-value (n,) of those against organisations just below and just above each size; 1 below two."""
    p_values = np.ones(len(statistics))
    for size in set(sizes[sizes >= 2].tolist()):
        below = max((known for known in thresholds if known <= size), default=min(thresholds))
        above = min((known for known in thresholds if known >= size), default=max(thresholds))
        these = sizes == size
        p_values[these] = np.maximum(*(thresholds[known].p_values(statistics[these]) for known in (below, above)))
    return p_values


def _group_suprema(instruments: Instruments, scores: Rows, who: NDArray[np.int64], size: int) -> tuple[float, float]:
    counts = np.arange(1, len(scores) + 1)
    asking = who[:, None] == np.arange(size)  # (queries, members)
    asked = np.cumsum(asking, axis=0)
    concentration = np.square(asked).sum(axis=1) / np.square(counts)
    pooled = instruments.pooled.statistic(np.cumsum(scores[:, :-1], axis=0), counts, concentration)
    atypical = np.cumsum(asking * scores[:, -1:], axis=0)
    shares = instruments.shares.statistic(instruments.shares.parts(atypical, asked).sum(axis=1))
    first = max(QUERIES_MIN, size) - 1
    return float(pooled[first:].max()), float(shares[first:].max())
