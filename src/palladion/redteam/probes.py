"""How thieves probe: families whose next query depends on the classes named before, and on nothing else of the answers.

A walk is a generator: it yields rows (n, columns), is sent the class of each, and never ends (docs/traffic.md).
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palladion.redteam.pool import Pool

Rows = NDArray[np.float32]
Named = NDArray[np.int64]
Labels = Callable[[Rows], Named]
"""What a model names: flat rows (n, columns) → the class of each (n,)."""
Walk = Generator[Rows, Named, None]

# Distances are in root mean squares over the columns: of the range for pictures, of deviations for tables.
BOUNDARY_HALVINGS = 8  # of a line between two rows: its 256th part, a grey level between black and white
BOUNDARY_TURNS = 5  # steps along the boundary before two other rows
BOUNDARY_SAMPLES = 20  # around a point of the boundary in the first turn, times √t in turn t, as HopSkipJump does
BOUNDARY_RADIUS = 0.1  # of the way left, that samples lie apart: HopSkipJump's is lost when pixels are rounded
INVERSION_SAMPLES = 16  # around the point, each turn
INVERSION_RADIUS = 0.05  # at first, of the range
INVERSION_RADIUS_OF_DEVIATION = 0.25  # for tables
INVERSION_GROWTH = 1.3  # of the radius, when all samples are of the class
INVERSION_TURNS = 12  # before another class
MEMBERSHIP_COPIES = (5, 50)  # of each candidate; fewer say too little of how robust its class is
MEMBERSHIP_JITTER = 0.05  # of the range: 13 grey levels of 256
MEMBERSHIP_JITTER_OF_DEVIATION = 0.25  # for tables


@dataclass(frozen=True)
class Probe:
    """A way to choose queries by what the model named: what it is, and the walk."""

    sentence: str
    walk: Callable[[Pool, np.random.Generator], Walk]


def probe(family: str, pool: Pool, count: int, labels: Labels | None, generator: np.random.Generator) -> Rows:
    """The rows (count, columns), flat, that a thief of a family of `PROBES` asks, in the model's range and steps.

    Without `labels` the nearest class mean of the pool stands in for the model.
    """
    named = labels if labels is not None else _stand_in(pool)
    walk = PROBES[family].walk(pool, generator)
    asked = [pool.admit(next(walk))]
    so_far = len(asked[0])
    while so_far < count:
        asked.append(pool.admit(walk.send(named(asked[-1]))))
        so_far += len(asked[-1])
    return np.concatenate(asked)[:count]


def _stand_in(pool: Pool) -> Labels:
    varies = pool.deviation > 0
    centre, unit = (pool.mean, np.where(varies, pool.deviation, 1)) if pool.image is None else (0, 1)
    means = pool.class_means

    def named(rows: Rows) -> Named:
        comparable = (rows - centre) / unit
        return np.asarray(((means**2).sum(axis=1) - 2 * comparable @ means.T).argmin(axis=1), np.int64)

    return named


def _boundary(pool: Pool, generator: np.random.Generator) -> Walk:
    unit = _unit(pool)
    while True:
        start, other = pool.flat[generator.integers(0, len(pool.flat), 2)]
        own, theirs = yield np.stack([start, other])
        if own == theirs:
            continue
        # 1. the boundary between the two rows
        near = yield from _halved(start, other, int(own))
        for turn in range(1, BOUNDARY_TURNS + 1):
            # 2. which side of it samples lie on says which way it faces
            left = _length(near - start, unit)
            directions = generator.standard_normal((int(BOUNDARY_SAMPLES * turn**0.5), len(near)), np.float32)
            found = yield _moved(pool, near, BOUNDARY_RADIUS * left * unit * directions, generator)
            beyond = np.where(found != own, 1.0, -1.0)
            facing = (beyond - (0.0 if abs(beyond.mean()) == 1 else beyond.mean())) @ directions
            # 3. a step along that, shorter until it stays beyond, and back to the boundary
            step = left / turn**0.5
            for _ in range(BOUNDARY_HALVINGS):
                stepped = near + np.float32(step) * unit * (facing / max(_length(facing), 1e-12)).astype(np.float32)
                (reached,) = yield stepped[None]
                if reached != own:
                    near = yield from _halved(start, stepped, int(own))
                    break
                step /= 2


def _inversion(pool: Pool, generator: np.random.Generator) -> Walk:
    unit = _unit(pool)
    while True:
        point = pool.flat[generator.integers(0, len(pool.flat))]
        (wanted,) = yield point[None]
        radius = INVERSION_RADIUS if pool.image is not None else INVERSION_RADIUS_OF_DEVIATION
        for _ in range(INVERSION_TURNS):
            directions = generator.standard_normal((INVERSION_SAMPLES, len(point)), np.float32)
            found = yield _moved(pool, point, np.float32(radius) * unit * directions, generator)
            missed = found != wanted
            if not missed.any():
                # the point lies deep in the class: look further
                radius *= INVERSION_GROWTH
                continue
            away = -directions[missed].mean(axis=0)
            stepped = point + np.float32(radius / max(_length(away), 1e-12)) * unit * away
            (reached,) = yield stepped[None]
            if reached == wanted:
                point = pool.admit(stepped[None])[0]


def _membership(pool: Pool, generator: np.random.Generator) -> Walk:
    unit = _unit(pool)
    jitter = np.float32(MEMBERSHIP_JITTER if pool.image is not None else MEMBERSHIP_JITTER_OF_DEVIATION)
    while True:
        for candidate in pool.flat[generator.permutation(len(pool.flat))]:
            copies = int(generator.integers(MEMBERSHIP_COPIES[0], MEMBERSHIP_COPIES[1] + 1))
            moves = jitter * unit * generator.standard_normal((copies, len(candidate)), np.float32)
            yield np.concatenate([candidate[None], _moved(pool, candidate, moves, generator)])


def _halved(start: Rows, beyond: Rows, own: int) -> Generator[Rows, Named, Rows]:
    """The nearest row to `start` on the line from it to `beyond` that was not named its class."""
    low, high = np.float32(0), np.float32(1)
    for _ in range(BOUNDARY_HALVINGS):
        middle = (low + high) / 2
        (reached,) = yield ((1 - middle) * start + middle * beyond)[None]
        low, high = (middle, high) if reached == own else (low, middle)
    return np.asarray((1 - high) * start + high * beyond)


def _unit(pool: Pool) -> Rows:
    """What distances are measured in: (1,) of pictures, (columns,) of tables."""
    return pool.high - pool.low if pool.image is not None else pool.deviation


def _length(difference: NDArray[np.floating], unit: Rows | None = None) -> float:
    """Root mean square over the columns, in units."""
    if unit is not None:
        difference = np.where(unit > 0, difference / np.where(unit > 0, unit, 1), 0)
    return float(np.sqrt(np.square(difference).mean()))


def _moved(pool: Pool, row: Rows, moves: Rows, generator: np.random.Generator) -> Rows:
    """`row` after each of `moves` (n, columns); whole numbers of tables are rounded by chance, or none would change."""
    moved = row + moves
    if pool.image is None:
        moved = np.where(pool.step > 0, np.floor(moved + generator.random(moved.shape, np.float32)), moved)
    return np.asarray(moved, np.float32)


PROBES = {
    "boundary": Probe(
        "Walks along the boundary between two rows of different classes, by labels alone (HopSkipJump, S&P 2020).",
        _boundary,
    ),
    "inversion": Probe(
        "Moves a row deeper into its class by random steps around it: model inversion by labels alone (BREP-MI, CVPR "
        "2022).",
        _inversion,
    ),
    "membership": Probe(
        f"Rows with {MEMBERSHIP_COPIES[0]} to {MEMBERSHIP_COPIES[1]} noisy copies each, whose classes say whether the "
        "model has learned the row (label-only membership inference, ICML 2021).",
        _membership,
    ),
}
