"""Measured pictures that simulated clients sample from, so that tens of thousands of clients can be judged.

A row of the bank is one picture in one style, measured once by the features of a calibration; only the distance to a
client's own earlier queries is measured for each client (`repeats`). Clients of one style share its rows, so intervals
are taken over styles.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from palladion.redteam.learners import fit
from palladion.redteam.people import Person, ask, draw, stranger
from palladion.redteam.pool import Pool
from palladion.redteam.styles import apply_style, segment_weights
from palladion.watch.features import REPEATS, Features
from palladion.watch.memory import DIGESTS, Memory

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
JUNK_ROWS = 2000
RING_ROWS = 128  # whose distances are measured at once: more only take more memory
Rows = NDArray[np.float64]


class Victim(Protocol):
    """What is stolen."""

    def answers(self, rows: Rows) -> Rows:
        """The class probabilities (rows, classes) of flat rows (rows, inputs)."""
        ...


@dataclass(frozen=True, eq=False)
class World:
    """A victim, the rows that honest clients draw from, and rows of another kind that a thief holds."""

    victim: Victim
    pool: Pool
    foreign: NDArray[np.float32]

    def answers(self, rows: NDArray[np.float32]) -> Rows:
        """The victim's class probabilities (rows, classes)."""
        return self.victim.answers(rows.reshape(len(rows), -1).astype(np.float64))

    def labels(self, rows: NDArray[np.float32]) -> NDArray[np.int64]:
        """The classes (rows,) that the victim names."""
        return np.asarray(self.answers(rows).argmax(axis=1), np.int64)


def make_world(generator: np.random.Generator, *, rows: int) -> World:
    """A network that reads MNIST digits; honest clients draw other digits, thieves grey photographs (CIFAR-10).

    Raises FileNotFoundError where the data are not at hand.
    """
    with np.load(DATA / "mnist_train_20k.npz") as data:
        pictures, labels = data["x"].astype(np.float32), data["y"].astype(np.int64)
    with np.load(DATA / "cifar10_train_20k.npz") as data:
        foreign = data["x"][:, 2:30, 2:30].astype(np.float32).mean(axis=3)
    order = generator.permutation(len(pictures))
    taught, held = order[: len(order) // 2], order[len(order) // 2 :][:rows]
    flat = pictures[taught].reshape(len(taught), -1).astype(np.float64)
    victim = fit(flat, np.eye(10)[labels[taught]], "probabilities", generator)
    return World(victim, Pool(pictures[held], labels[held], image=(28, 28)), np.rint(foreign))


@dataclass(frozen=True, eq=False)
class Bank:
    """For each style the measured rows of the pool, and of junk; `weights` say which rows a style prefers."""

    features: NDArray[np.float32]  # (styles, rows, features)
    coordinates: NDArray[np.float32]  # (styles, rows, kept)
    junk: tuple[NDArray[np.float32], NDArray[np.float32]]  # features and coordinates (junk, …)
    pool: Pool
    weights: Sequence[NDArray[np.float32]]

    @classmethod
    def measure(cls, world: World, features: Features, styles: int, generator: np.random.Generator) -> "Bank":
        """Every row of the pool in each of some new styles."""
        found: list[NDArray[np.float32]] = []
        coordinates: list[NDArray[np.float32]] = []
        weights: list[NDArray[np.float32]] = []
        for _ in range(styles):
            style = stranger(world.pool, generator).style
            rows = world.pool.admit(apply_style(world.pool, world.pool.flat, style, generator))
            measured = features.measure(rows.astype(np.float64), world.answers(rows))
            found.append(measured[0].astype(np.float32))
            coordinates.append(measured[1].astype(np.float32))
            weights.append(segment_weights(world.pool, style))
        junk = ask(world.pool, replace(stranger(world.pool, generator), junk=1.0, duplicates=0.0), JUNK_ROWS, generator)
        odd = features.measure(junk.rows.astype(np.float64), world.answers(junk.rows))
        kept = odd[0].astype(np.float32), odd[1].astype(np.float32)
        return cls(np.stack(found), np.stack(coordinates), kept, world.pool, weights)

    @property
    def styles(self) -> int:
        """How many there are."""
        return len(self.features)

    def clients(self, count: int, queries: int, generator: np.random.Generator) -> Iterator[tuple[int, Rows]]:
        """For each of `count` honest clients its style and the features (distinct, features) of what it asks."""
        for _ in range(count):
            style = int(generator.integers(self.styles))
            yield style, self.client(style, stranger(self.pool, generator), queries, generator)

    def client(self, style: int, person: Person, queries: int, generator: np.random.Generator) -> Rows:
        """The features (distinct, features) of what a person of some style asks."""
        found, coordinates = self.asked(style, person, queries, generator)
        found[:, REPEATS] = nearness(coordinates)
        return found

    def asked(self, style: int, person: Person, queries: int, generator: np.random.Generator) -> tuple[Rows, Rows]:
        """The features and coordinates (distinct, …) of what a person asks; `REPEATS` is not measured yet."""
        chosen = draw(self.pool, person.class_shares, self.weights[style], queries, generator)
        repeated = np.zeros(queries, np.bool_)
        repeated[1 + generator.permutation(queries - 1)[: int(person.duplicates * queries)]] = True
        originals = np.flatnonzero(~repeated)
        earlier = np.cumsum(~repeated)[repeated]
        chosen[repeated] = chosen[originals[(generator.random(len(earlier)) * earlier).astype(np.intp)]]
        junk = generator.permutation(queries)[: int(person.junk * queries)]
        chosen[junk] = -1 - generator.integers(0, len(self.junk[0]), len(junk))
        chosen = chosen[_distinct(chosen)]
        odd = chosen < 0
        plain = np.maximum(chosen, 0)
        found, coordinates = self.features[style, plain], self.coordinates[style, plain]
        found[odd], coordinates[odd] = self.junk[0][-1 - chosen[odd]], self.junk[1][-1 - chosen[odd]]
        return found.astype(np.float64), coordinates.astype(np.float64)


def nearness(coordinates: Rows) -> Rows:
    """How far each query (queries, kept) lies from those before it, as the watch measures it."""
    memory, starts = Memory(), range(0, len(coordinates), RING_ROWS)
    return np.concatenate([memory.nearness(coordinates[start : start + RING_ROWS]) for start in starts])


def _distinct(chosen: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which queries are no repeat of one of the last `DIGESTS`."""
    last: dict[int, int] = {}
    fresh = np.empty(len(chosen), np.bool_)
    for place, row in enumerate(chosen.tolist()):
        fresh[place] = place - last.get(row, -DIGESTS - 1) > DIGESTS
        last[row] = place
    return fresh
