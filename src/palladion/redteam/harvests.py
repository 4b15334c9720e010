"""What thieves ask: one function per family, from a pool to the rows of a harvest (docs/traffic.md).

Every function takes the pool, the number of rows, the thief's own rows (only `foreign` reads them) and a generator, and
returns flat rows (count, columns) in the order of asking, as the model's interface would take them. Families whose next
query depends on the last answer are in `probes`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from palladion.redteam import pictures
from palladion.redteam.people import ask, stranger
from palladion.redteam.pool import Pool
from palladion.redteam.probes import PROBES, Labels, probe

Rows = NDArray[np.float32]

PIXELS_AT_ONCE = 2**18  # 2 MiB: drawing holds a dozen copies, and a harvest may be large

FOREIGN_SHIFT = 0.5  # standard deviation of the columns' shifts, in the pool's deviations
BLEND_SEEDS = 20
JBDA_SEEDS_MAX = 30  # as many as in the measurements that the detection bars come from
JBDA_SEED_SHARE = 0.25  # a short harvest has fewer seeds, or it would be nothing but them
JBDA_STEP_OF_RANGE = 0.1  # λ of Papernot et al. 2017, arXiv:1602.02697
JBDA_STEP_OF_DEVIATION = 0.25  # tabular rows: a tenth of the range of ±1.25 deviations; ranges hang on single outliers
ACTIVE_CANDIDATES = 20  # rows looked at for each one asked, but no more than half the pool: thieves hold different data


@dataclass(frozen=True)
class Family:
    """A way to choose queries: what it is, and the rows it yields."""

    sentence: str
    rows: Callable[[Pool, int, NDArray[np.float32] | None, np.random.Generator], Rows]


def harvest(
    family: str,
    pool: Pool,
    count: int,
    foreign: NDArray[np.float32] | None,
    generator: np.random.Generator,
    *,
    labels: Labels | None = None,
) -> Rows:
    """The rows (count, columns), flat, that a thief of `family` asks.

    `labels` is what the model names, for families that probe (`probes`). Raises ValueError for an unknown family, one
    that this pool cannot feed, or `foreign` rows that do not fit.
    """
    if family not in FAMILIES:
        raise ValueError(f"no family of thieves is called {family!r}; there are {', '.join(FAMILIES)}")
    if foreign is not None:
        if family != "foreign":
            raise ValueError(f"foreign rows are for the family 'foreign', not for {family!r}")
        if not len(foreign) or foreign[0].size != pool.flat.shape[1] or not np.isfinite(foreign).all():
            raise ValueError(f"foreign rows {foreign.shape} must be finite and like the pool's {pool.rows.shape}")
    if family in PROBES:
        return probe(family, pool, count, labels, generator)
    return pool.admit(HARVESTS[family].rows(pool, count, foreign, generator))


def _foreign(pool: Pool, count: int, foreign: Rows | None, generator: np.random.Generator) -> Rows:
    if foreign is not None:
        flat = foreign.reshape(len(foreign), -1).astype(np.float32)
        # every row once before any comes again
        rounds = [generator.permutation(len(flat)) for _ in range(-(-count // len(flat)))]
        return flat[np.concatenate(rounds)[:count]]
    if pool.picture is not None:
        return _drawn(pictures.shapes, pool, count, generator)
    columns = pool.flat.shape[1]
    standardised = pool.standardised[generator.integers(0, len(pool.flat), count)]
    shift = FOREIGN_SHIFT * generator.standard_normal(columns)
    moved = pool.mean + pool.deviation * (standardised[:, generator.permutation(columns)] + shift)
    return np.asarray(moved, np.float32)


def _noise(pool: Pool, count: int, _: Rows | None, generator: np.random.Generator) -> Rows:
    # half a step beyond the range, so that after rounding the outermost steps are as likely as the others
    low, high = pool.low - pool.step / 2, pool.high + pool.step / 2
    return generator.uniform(low, high, (count, pool.flat.shape[1])).astype(np.float32)


def _smooth(pool: Pool, count: int, _: Rows | None, generator: np.random.Generator) -> Rows:
    return _drawn(pictures.smooth, pool, count, generator)


def _marginals(pool: Pool, count: int, _: Rows | None, generator: np.random.Generator) -> Rows:
    columns = pool.flat.shape[1]
    return pool.flat[generator.integers(0, len(pool.flat), (count, columns)), np.arange(columns)]


def _strokes(pool: Pool, count: int, _: Rows | None, generator: np.random.Generator) -> Rows:
    return _drawn(pictures.strokes, pool, count, generator)


def _blend(pool: Pool, count: int, _: Rows | None, generator: np.random.Generator) -> Rows:
    seeds = pool.flat[generator.permutation(len(pool.flat))[:BLEND_SEEDS]]
    if len(seeds) < 2:
        raise ValueError("a blend needs a pool of at least two rows")
    first = generator.integers(0, len(seeds), count)
    second = (first + generator.integers(1, len(seeds), count)) % len(seeds)
    share = generator.random((count, 1), np.float32)
    mixed: Rows = share * seeds[first] + (1 - share) * seeds[second]
    return mixed


def _jbda(pool: Pool, count: int, _: Rows | None, generator: np.random.Generator) -> Rows:
    return _walked(pool, min(JBDA_SEEDS_MAX, max(1, int(JBDA_SEED_SHARE * count))), count, generator)


def _augmentation(pool: Pool, count: int, _: Rows | None, generator: np.random.Generator) -> Rows:
    seeds = min(JBDA_SEEDS_MAX, len(pool.flat))
    return _walked(pool, seeds, seeds + count, generator)[seeds:]


def _walked(pool: Pool, seeds: int, count: int, generator: np.random.Generator) -> Rows:
    """That many rows of the pool, and rows that walk away from them: (count, columns) in all."""
    rows = pool.flat[generator.permutation(len(pool.flat))[:seeds]]
    of_range, of_deviation = JBDA_STEP_OF_RANGE * (pool.high - pool.low), JBDA_STEP_OF_DEVIATION * pool.deviation
    step = of_deviation if pool.image is None else of_range
    while len(rows) < count:
        # one round: every row so far takes one more step, so that later rounds lie further from the seeds
        walking = rows[: count - len(rows)]
        stepped = walking + step * generator.choice(np.array([-1, 1], np.float32), walking.shape)
        if pool.image is None:
            # rounding at random keeps the mean step of whole-number columns, which rounding to the nearest would undo
            whole = np.floor(stepped + generator.random(walking.shape, np.float32))
            stepped = np.where(pool.step > 0, whole, stepped)
        rows = np.concatenate([rows, pool.admit(stepped)])
    return rows


def _active(pool: Pool, count: int, _: Rows | None, generator: np.random.Generator) -> Rows:
    if len(pool.classes) < 2:
        raise ValueError("rows near class boundaries need a pool of at least two classes")
    means = pool.class_means
    looked_at = min(ACTIVE_CANDIDATES * count, max(count, len(pool.flat) // 2))
    candidates = generator.permutation(len(pool.flat))[:looked_at]
    # squared distances but for the row's own norm, which is the same to every mean
    squared = (means**2).sum(axis=1) - 2 * pool.comparable[candidates] @ means.T
    order = np.argsort(squared, axis=1)[:, :2]
    gap = np.diff(np.take_along_axis(squared, order, axis=1), axis=1)[:, 0]
    # halved and divided by the distance of the two means, the gap is the distance to the plane between them
    apart = np.linalg.norm(means[order[:, 0]] - means[order[:, 1]], axis=1)
    nearest = candidates[np.argsort(gap / np.maximum(apart, 1e-12))]
    return pool.flat[np.resize(nearest, count)]


def _in_distribution(pool: Pool, count: int, _: Rows | None, generator: np.random.Generator) -> Rows:
    even = pool.class_weights / pool.class_weights.sum()
    person = replace(stranger(pool, generator), class_shares=even, junk=0.0, duplicates=0.0)
    return ask(pool, person, count, generator).rows


def _drawn(
    program: Callable[[pictures.Size, int, np.random.Generator], NDArray[np.float32]],
    pool: Pool,
    count: int,
    generator: np.random.Generator,
) -> Rows:
    if pool.picture is None:
        raise ValueError(f"{program.__name__!r} draws pictures, and this pool holds tabular rows (`image` is None)")
    at_once = max(1, PIXELS_AT_ONCE // (pool.picture[0] * pool.picture[1]))
    parts = [program(pool.picture, min(at_once, count - start), generator) for start in range(0, count, at_once)]
    return pictures.like(pool, np.concatenate(parts))


HARVESTS = {
    "foreign": Family(
        "Rows of another distribution: the thief's own, or drawn shapes and textures; for tables the pool's rows with "
        "their columns exchanged and shifted (Knockoff Nets, CVPR 2019).",
        _foreign,
    ),
    "noise": Family("Every value uniform over its range.", _noise),
    "smooth": Family("Pictures of low-frequency noise.", _smooth),
    "marginals": Family(
        "Every column drawn on its own from the pool: right values, no relation between them.", _marginals
    ),
    "strokes": Family("Curved pen strokes drawn by a program: data-free, near to handwriting.", _strokes),
    "blend": Family(f"Mixtures of pairs among {BLEND_SEEDS} rows of the pool (mixup).", _blend),
    "jbda": Family(
        "Rows of the pool, then rows that walk away from them in signed steps of random direction: the gradient-free "
        "form of Jacobian-based augmentation (T-RND of PRADA, EuroS&P 2019).",
        _jbda,
    ),
    "augmentation": Family(
        "The same without its seeds, as of a client who has asked those before: synthetic rows from the first on.",
        _augmentation,
    ),
    "active": Family(
        "Rows of the pool nearest to the planes between class means, hardest first: pool-based, without the model.",
        _active,
    ),
    "in-distribution": Family(
        "Rows of the pool through one style, as an honest client sends them: not to be told by content, on purpose.",
        _in_distribution,
    ),
}
FAMILIES = {name: family.sentence for name, family in (HARVESTS | PROBES).items()}
