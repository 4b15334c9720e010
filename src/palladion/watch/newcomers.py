"""All newcomers together: a ring of accounts that nothing links, each of which hides among honest queries.

Each client counts once, by the mean scores of its first queries, as in the drift test (`drift`), and one of those that
are linked. So many in a row are a *block*, weighed after each of them: how far their mean lies from that of calibration
clients, and how many atypical queries they send. A block that calibration clients do not make is shown to a person,
with who contributes most; nobody's standing depends on it. Derivation and promise: docs/watch.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from palladion.watch.conformal import Conformal
from palladion.watch.rows import Rows

BLOCK_MAX = 256  # newcomers: of a third that hides a tenth of its queries, fewer do not show (bench/newcomers.py)
BLOCK_MIN = 16  # fewer newcomers are not weighed: one of them would decide
CLIENTS_MIN = 200  # calibration clients: of fewer too little is known of how their scores vary together
DRAWN = 999  # blocks of calibration clients
RIDGE = 0.1 / 32  # of a unit score variance, in the mean of as many queries: as `suspicion.RIDGE`
# Of calibration clients, who counts as far out as the last of these at most: one odd newcomer must not decide. And of
# atypical queries as many deviations, as in groups (`shares.CLIP`).
WITHIN, CLIP = 0.95, 3.0
NAMED = 10  # of those who contribute most
SHOWN = 3
ID_MAX = 256  # characters of an id that is kept: of logs, whoever writes them chooses it
# By how much newcomers may vary more than calibration clients: without it 6 instead of 5 % of honest blocks were beyond
# what 300 calibration clients with long tails say of 5 % (simulated, development seeds 1 and 2).
MARGIN = 1.1
NOTEWORTHY = 3.0  # deviations of a block's mean; below, a score explains nothing
_VARIANCE_MIN = 1e-6  # of the share of atypical queries: clients who send none are no reason to suspect who sends one
_DRAW_SEED = 1  # which blocks are drawn has no part in what is promised


class _Looks(NamedTuple):
    """What newcomers contribute: how they lie (n, scores but the last), and how much is atypical (n,)."""

    pooled: Rows
    shares: Rows


@dataclass(frozen=True, eq=False)
class NewcomersReference:
    """What calibration clients are like after their first queries, and what blocks of them come to.

    `mean` (scores,) and `deviations` (scores,) of their mean scores; `whitening` (scores - 1, scores - 1) of all but
    the last; `limit`, how far out one counts at most; `centre` (scores,), the mean of what they contribute. `pooled`
    and `shares` (blocks,), ascending, are the largest statistics of blocks of `size` of all `clients`.
    """

    clients: int
    mean: Rows
    deviations: Rows
    whitening: Rows
    limit: float
    centre: Rows
    pooled: Rows
    shares: Rows

    @classmethod
    def fit(cls, means: Rows) -> "NewcomersReference | None":
        """From the mean scores (clients, scores) of calibration clients; None with fewer than `CLIENTS_MIN`."""
        count, width = means.shape
        if count < CLIENTS_MIN:
            return None
        covariance = np.cov(means[:, :-1], rowvar=False) + RIDGE * np.eye(width - 1)
        values, vectors = np.linalg.eigh(covariance)
        whitening = vectors / np.sqrt(values)
        deviations = np.sqrt(np.maximum(means.var(axis=0, ddof=1), _VARIANCE_MIN))
        mean = means.mean(axis=0)
        distances = np.linalg.norm((means - mean)[:, :-1] @ whitening, axis=1)
        limit, none = float(np.quantile(distances, WITHIN)), np.zeros(0)
        plain = cls(count, mean, deviations, whitening, limit, np.zeros(width), none, none)
        looks = plain.look(means)
        centre = np.append(looks.pooled.mean(axis=0), looks.shares.mean())
        fitted = cls(count, mean, deviations, whitening, limit, centre, none, none)
        looks, generator = fitted.look(means), np.random.default_rng(_DRAW_SEED)
        found = []
        for _ in range(DRAWN):
            drawn = generator.permutation(count)[: fitted.size]
            pooled, shares = fitted._statistics(looks.pooled[drawn], looks.shares[drawn], among=True)
            found.append((pooled.max(), shares.max()))
        pooled, shares = np.sort(np.array(found), axis=0).T
        return cls(count, mean, deviations, whitening, limit, centre, pooled.copy(), shares.copy())

    @property
    def size(self) -> int:
        """How many newcomers are a block."""
        return min(BLOCK_MAX, self.clients // 4)

    def look(self, means: Rows) -> _Looks:
        """What clients with these mean scores (n, scores) contribute."""
        off = means - self.mean
        pooled = off[:, :-1] @ self.whitening
        pooled *= np.minimum(1, self.limit / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12))
        shares = np.clip(off[:, -1] / self.deviations[-1], -CLIP, CLIP)
        return _Looks(pooled - self.centre[:-1], shares - self.centre[-1])

    def p_value(self, pooled: float, shares: float) -> float:
        """The p-value of a block whose statistics were at most those so far: of two the smaller one, doubled."""
        smaller = min(Conformal(self.pooled).p_value(pooled), Conformal(self.shares).p_value(shares))
        return min(1.0, 2 * smaller)

    @property
    def rate_min(self) -> float:
        """The smallest p-value that a block can have."""
        return 2 / (len(self.pooled) + 1)

    def weigh(self, looks: _Looks) -> tuple[float, float]:
        """The largest statistics of a block of newcomers so far, by what each contributed; at least `BLOCK_MIN`."""
        pooled, shares = self._statistics(looks.pooled, looks.shares, among=False)
        return float(pooled.max()), float(shares.max())

    def _statistics(self, pooled: Rows, shares: Rows, *, among: bool) -> tuple[Rows, Rows]:
        """Both statistics after each of some clients from the `BLOCK_MIN`-th on.

        Newcomers lie around the true mean, and what they are held against is that of so many `clients`: the variance
        of k of them is larger by a share of k / clients, and that of k `among` these clients smaller by as much. And a
        covariance of so many clients, inverted, is too large for others (Anderson, Multivariate Analysis, 7.7).
        """
        counts = np.arange(1, len(shares) + 1)
        variance = counts * (1 - counts / self.clients) if among else MARGIN * counts * (1 + counts / self.clients)
        excess = 1.0 if among else (self.clients - 1) / (self.clients - pooled.shape[1] - 2)
        distances = np.square(np.cumsum(pooled, axis=0)).sum(axis=1) / (variance * excess)
        scaled = np.cumsum(shares) / np.sqrt(variance)
        return distances[BLOCK_MIN - 1 :], scaled[BLOCK_MIN - 1 :]


class Alarm(NamedTuple):
    """A block of newcomers that is unlike calibration clients: its p-value, how many they are, and since when.

    `named` are those who contribute most, the first most of all. `unlike` are the scores whose means over the block lie
    furthest from those of calibration clients, by column, in deviations of one client.
    """

    p_value: float
    newcomers: int
    since: float
    until: float
    named: tuple[str, ...]
    unlike: tuple[tuple[int, float], ...]

    def moved(self, words: Mapping[str, str]) -> list[str]:
        """What has moved most, for people; `words` are the scores in order by name, and what each means."""
        names = list(words.items())
        return [
            f"{name} {value:+.2f} of a client's deviation: {meaning}"
            for column, value in self.unlike
            for name, meaning in names[column : column + 1]
        ]


@dataclass(eq=False)
class Newcomers:
    """The block that is being filled, and what is to be told of the one before.

    `clients` are the newcomers in it by id, `means` (clients, scores) their mean scores; `since` and `until` when the
    first and the last came, in seconds since 1970. `told` says that people know of this block.
    """

    reference: NewcomersReference
    clients: list[str] = field(default_factory=list)
    means: list[NDArray[np.float32]] = field(default_factory=list)
    since: float = 0.0
    until: float = 0.0
    told: bool = False
    finished: Alarm | None = None

    def take(self, client: str, means: Rows, *, now: float) -> None:
        """Take in a newcomer by the mean scores (scores,) of its first queries."""
        if len(self.clients) >= self.reference.size:
            self._begin()
        if not self.clients:
            self.since = now
        self.until = now
        self.clients.append(client[:ID_MAX])
        # in single precision before anything is computed from them: what is saved is what was used
        self.means.append(means.astype(np.float32))

    @property
    def p_value(self) -> float:
        """That of this block so far; 1 before `BLOCK_MIN` newcomers."""
        if len(self.clients) < BLOCK_MIN:
            return 1.0
        return self.reference.p_value(*self.reference.weigh(self._looks()))

    def alarm(self, rate: float) -> Alarm | None:
        """What is to be told: of the block before, or of this one, if its p-value is at most `rate` and nobody knows.

        `rate` is at least `reference.rate_min`, or nothing ever is.
        """
        if self.finished is not None and self.finished.p_value <= rate:
            return self.finished
        if self.told or self.p_value > rate:
            return None
        return self._alarm()

    def tell(self, alarm: Alarm) -> None:
        """Take note that people were told."""
        if alarm is self.finished:
            self.finished = None
        else:
            self.told = True

    def _begin(self) -> None:
        # of a block that nobody was told of: whether it is to be is for whoever knows the rate
        self.finished = None if self.told else self._alarm()
        self.clients, self.means, self.told = [], [], False

    def _looks(self) -> _Looks:
        return self.reference.look(np.array(self.means, np.float64))

    def _alarm(self) -> Alarm:
        looks = self._looks()
        along = looks.pooled.sum(axis=0)
        contributed = looks.pooled @ along / max(float(np.linalg.norm(along)), 1e-12) + looks.shares
        order = np.argsort(-contributed)[:NAMED].tolist()
        named = tuple(self.clients[place] for place in order if contributed[place] > 0)
        return Alarm(self.p_value, len(self.clients), self.since, self.until, named, self._unlike())

    def _unlike(self) -> tuple[tuple[int, float], ...]:
        off = (np.mean(self.means, axis=0) - self.reference.mean) / self.reference.deviations
        chance = np.sqrt(1 / len(self.means) + 1 / self.reference.clients)
        order = np.argsort(-np.abs(off))[:SHOWN].tolist()
        return tuple((column, float(off[column])) for column in order if abs(off[column]) >= NOTEWORTHY * chance)
