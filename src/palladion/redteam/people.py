"""Who an honest client is: all that is drawn once for it, and the rows that it then asks (docs/traffic.md)."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palladion.redteam import hours
from palladion.redteam.pool import Pool
from palladion.redteam.styles import apply_style, latent_size, segment_weights

# Dirichlet concentrations of class mixes: specialists, anything, as the pool. A third of the clients each.
CONCENTRATIONS = (0.3, 1.0, 100.0)
NO_CLASS = -1  # of a row that is no picture, or no record, of anything
JUNK_CLIENTS = 0.15
JUNK_MAX = 0.05
DUPLICATE_CLIENTS = 0.25
DUPLICATES_MAX = 0.40
# People at work, nightly batches; the rest are steady services.
OFFICE_CLIENTS = 0.6
NIGHTLY_CLIENTS = 0.2
TRAITS = 5


@dataclass(frozen=True, eq=False)
class Person:
    """One honest client's constants."""

    style: NDArray[np.float64]  # (latents,)
    class_shares: NDArray[np.float64]  # (classes,), sums to 1
    junk: float  # share of the queries
    duplicates: float  # share of the queries
    schedule: float  # in [0, 1): which kind of hours it keeps
    pace: float  # standard normal

    def times(self, queries: int, generator: np.random.Generator) -> NDArray[np.float64]:
        """When this client asks (queries,), ascending seconds."""
        if self.schedule < OFFICE_CLIENTS:
            return hours.office(queries, self.pace, generator)
        if self.schedule < OFFICE_CLIENTS + NIGHTLY_CLIENTS:
            return hours.nightly(queries, self.pace, generator)
        return hours.steady(queries, self.pace, generator)


class Organisation:
    """What its members have in common: the part `correlation` of the variance of all that makes a person.

    One alone, with any correlation, is an honest client like any other: the marginal distributions do not change.
    """

    def __init__(self, pool: Pool, correlation: float, generator: np.random.Generator) -> None:
        self._pool = pool
        self._correlation = correlation
        self._generator = generator
        self._normals = generator.standard_normal(latent_size(pool) + TRAITS)
        # A gamma process, read at every concentration: what members share of their class mixes. Shapes add up, so that
        # shared + own is exactly Gamma(concentration), and the two of two members correlate as asked.
        increments = correlation * np.diff(CONCENTRATIONS, prepend=0.0)
        self._gammas = np.cumsum(generator.gamma(np.outer(increments, pool.class_weights)), axis=0)

    def member(self) -> Person:
        """One more member."""
        own = self._generator.standard_normal(len(self._normals))
        normals = math.sqrt(self._correlation) * self._normals + math.sqrt(1 - self._correlation) * own
        *style, concentration, junk, duplicates, schedule, pace = normals.tolist()
        level = int(_uniform(concentration) * len(CONCENTRATIONS))
        shape = (1 - self._correlation) * CONCENTRATIONS[level] * self._pool.class_weights
        gammas = self._gammas[level] + self._generator.gamma(shape)
        return Person(
            style=np.array(style),
            class_shares=gammas / gammas.sum(),
            junk=JUNK_MAX * _top_share(junk, JUNK_CLIENTS),
            duplicates=DUPLICATES_MAX * _top_share(duplicates, DUPLICATE_CLIENTS),
            schedule=_uniform(schedule),
            pace=pace,
        )


def stranger(pool: Pool, generator: np.random.Generator) -> Person:
    """An honest client that has nothing in common with any other."""
    return Organisation(pool, 0.0, generator).member()


@dataclass(frozen=True, eq=False)
class Asked:
    """Flat rows (queries, columns) in order, and the true class of each (queries,); `NO_CLASS` for junk."""

    rows: NDArray[np.float32]
    labels: NDArray[np.int64]


def ask(pool: Pool, person: Person, queries: int, generator: np.random.Generator) -> Asked:
    """What `person` asks: styled, with its junk and its duplicates."""
    chosen = draw(pool, person.class_shares, segment_weights(pool, person.style), queries, generator)
    rows, labels = apply_style(pool, pool.flat[chosen], person.style, generator), pool.labels[chosen]
    # the first query cannot repeat an earlier one
    repeated = np.zeros(queries, np.bool_)
    repeated[1 + generator.permutation(queries - 1)[: int(person.duplicates * queries)]] = True
    originals = np.flatnonzero(~repeated)
    earlier = np.cumsum(~repeated)[repeated]
    source = originals[(generator.random(len(earlier)) * earlier).astype(np.intp)]
    rows[repeated], labels[repeated] = rows[source], labels[source]
    # junk comes last, so that no repetition carries it beyond its share
    junk = generator.permutation(queries)[: int(person.junk * queries)]
    rows[junk], labels[junk] = _junk(pool, rows[junk], generator), NO_CLASS
    return Asked(rows, labels)


def draw(
    pool: Pool,
    class_shares: NDArray[np.float64],
    weights: NDArray[np.float32],
    count: int,
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """Indices (count,) of rows: classes by their shares, rows within a class by log-weights (n,); in random order.

    No row comes twice before its class is used up: a small pool shall not make honest clients repeat themselves.
    """
    chosen = []
    wanted = generator.multinomial(count, class_shares)
    for members, amount in zip(pool.classes, wanted.tolist(), strict=True):
        for start in range(0, amount, len(members)):
            part = min(len(members), amount - start)
            # the largest of log-weight + Gumbel noise are a weighted sample without replacement
            keys = weights[members] + generator.gumbel(size=len(members))
            chosen.append(members[np.argpartition(-keys, part - 1)[:part]])
    return generator.permutation(np.concatenate(chosen))


def _junk(pool: Pool, rows: NDArray[np.float32], generator: np.random.Generator) -> NDArray[np.float32]:
    """What came instead of `rows` (k, columns): half of them blank, half corrupt."""
    blank = generator.random(len(rows)) < 0.5
    if pool.image is None:
        # an empty form, and a line whose fields slipped by one
        empty, corrupt = np.zeros_like(rows), np.roll(rows, 1, axis=1)
    else:
        # a covered lens or an empty page, and a file of which the end is garbage
        noise = generator.uniform(pool.low, pool.high, rows.shape).astype(np.float32)
        empty = np.broadcast_to(generator.uniform(pool.low, pool.high, (len(rows), 1)), rows.shape).astype(np.float32)
        intact = generator.uniform(0, rows.shape[1], (len(rows), 1))
        corrupt = np.where(np.arange(rows.shape[1]) < intact, rows, noise)
    return pool.admit(np.where(blank[:, None], empty, corrupt))


def _uniform(normal: float) -> float:
    """The standard normal number's quantile, in [0, 1)."""
    return min(0.5 * (1 + math.erf(normal / math.sqrt(2))), math.nextafter(1, 0))


def _top_share(normal: float, clients: float) -> float:
    """0 for all but the part `clients` of the clients, and evenly spread over (0, 1) among these."""
    return max(0.0, 1 - (1 - _uniform(normal)) / clients)
