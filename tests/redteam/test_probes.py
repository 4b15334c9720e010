"""Thieves who probe: each walk does what its sentence says, by the classes that the model names and nothing else."""

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.redteam import probes
from palladion.redteam.harvests import harvest
from palladion.redteam.pool import Pool
from palladion.redteam.probes import PROBES, Labels
from tests.redteam import pools

SEED = 67
PICTURES, FINE, TABLE = pools.pictures(), pools.pictures(whole=False), pools.table()


class Model:
    """Names a class by one column, and remembers what it was asked."""

    def __init__(self, limit: float, column: int = 0) -> None:
        self.limit, self.column = limit, column
        self.asked: list[NDArray[np.float32]] = []

    def __call__(self, rows: NDArray[np.float32]) -> NDArray[np.int64]:
        self.asked.append(rows)
        return (rows[:, self.column] > self.limit).astype(np.int64)


def rows_of(family: str, pool: Pool, count: int, labels: Labels | None = None, seed: int = SEED) -> NDArray[np.float32]:
    return harvest(family, pool, count, None, np.random.default_rng(seed), labels=labels)


def line() -> Pool:
    """Four measured columns of which the first says the class."""
    rows = np.random.default_rng(5).standard_normal((300, 4), np.float32)
    return Pool(rows, (rows[:, 0] > 0).astype(np.int64))


@pytest.mark.parametrize("count", [1, 250])
@pytest.mark.parametrize("pool", [PICTURES, pools.pictures(channels=3, whole=False), TABLE])
@pytest.mark.parametrize("family", PROBES)
def test_every_walk_asks_what_the_model_takes(family: str, pool: Pool, count: int) -> None:
    asked = rows_of(family, pool, count)

    assert asked.shape == (count, pool.flat.shape[1])
    assert asked.dtype == np.float32
    np.testing.assert_array_equal(pool.admit(asked), asked)


@pytest.mark.parametrize("family", PROBES)
def test_the_seed_decides_a_walk(family: str) -> None:
    np.testing.assert_array_equal(rows_of(family, PICTURES, 90), rows_of(family, PICTURES, 90))
    assert (rows_of(family, PICTURES, 90) != rows_of(family, PICTURES, 90, seed=SEED + 1)).any()


@pytest.mark.parametrize("family", PROBES)
def test_the_model_is_asked_what_the_harvest_holds_and_no_more(family: str) -> None:
    model = Model(0.5)

    asked = rows_of(family, FINE, 200, model)

    answered = np.concatenate(model.asked)
    np.testing.assert_array_equal(answered, asked[: len(answered)])
    assert 200 - len(answered) <= 1 + max(probes.MEMBERSHIP_COPIES)  # only what came last needs no answer


@pytest.mark.parametrize("family", ["boundary", "inversion"])
def test_what_is_asked_next_depends_on_what_the_model_named(family: str) -> None:
    one, other = (rows_of(family, line(), 150, Model(limit)) for limit in (0.0, 0.4))

    assert (one != other).any()


@pytest.mark.parametrize("family", PROBES)
def test_a_model_that_names_one_class_alone_ends_no_walk_early(family: str) -> None:
    assert len(rows_of(family, line(), 300, Model(100.0))) == 300


def test_a_boundary_walk_comes_to_lie_on_the_boundary() -> None:
    pool = line()

    asked = rows_of("boundary", pool, 400, Model(0.3))

    # where a line was halved, the last row lies within a 256th part of its length from the boundary
    near = np.abs(asked[:, 0] - 0.3) < 0.03
    assert near.mean() > 0.25
    assert (np.abs(pool.flat[:, 0] - 0.3) < 0.03).mean() < 0.05


def test_a_boundary_walk_gets_closer_to_the_row_it_started_from() -> None:
    """The nearest row of the other class to a row is straight across the boundary: the walk finds its way there."""
    pool, shorter = line(), []
    for seed in range(20):
        asked = rows_of("boundary", pool, 130, Model(0.0), seed)
        distinct = np.flatnonzero((asked[0:129:2, 0] > 0) != (asked[1:130:2, 0] > 0))[0] * 2
        start, other = asked[distinct], asked[distinct + 1]
        beyond = asked[distinct + 2 :][(asked[distinct + 2 :, 0] > 0) != (start[0] > 0)]
        first = np.linalg.norm(other - start) * abs(start[0]) / abs(other[0] - start[0])  # along the line
        shorter.append(np.linalg.norm(beyond - start, axis=1).min() / first)

    assert np.median(shorter) < 0.75, f"seeds 0 to 19: {np.round(shorter, 2)}"


def test_an_inversion_moves_away_from_other_classes() -> None:
    pool, moved = line(), []
    for seed in range(20):
        asked = rows_of("inversion", pool, 1 + 12 * 17, Model(0.0), seed)
        # samples lie around where the row is: at first, and after the last step of the first row
        first, last = np.abs(asked[1:17, 0].mean()), np.abs(asked[-40:, 0].mean())
        moved.append(last - first)

    assert np.mean(moved) > 0.1, f"seeds 0 to 19: {np.round(moved, 2)}"


def test_an_inversion_takes_no_step_that_leaves_the_class() -> None:
    def narrow(rows: NDArray[np.float32]) -> NDArray[np.int64]:
        asked.append(rows)
        return (np.abs(rows[:, 0]) < 0.15).astype(np.int64)

    for seed in range(60):
        asked: list[NDArray[np.float32]] = []
        rows_of("inversion", line(), 1 + probes.INVERSION_TURNS * (1 + probes.INVERSION_SAMPLES), narrow, seed)
        if abs(asked[0][0, 0]) >= 0.15:
            continue
        clouds = [rows[:, 0].mean() for rows in asked if len(rows) == probes.INVERSION_SAMPLES]
        assert np.abs(clouds[: probes.INVERSION_TURNS]).max() < 0.4, f"seed {seed}: {np.round(clouds, 2)}"


def test_a_membership_probe_asks_a_row_and_noisy_copies_of_it() -> None:
    asked = rows_of("membership", FINE, 400)

    known = {row.tobytes() for row in FINE.flat}
    places = [at for at, row in enumerate(asked) if row.tobytes() in known]
    copies = np.diff(places) - 1
    assert places[0] == 0
    assert copies.min() >= probes.MEMBERSHIP_COPIES[0]
    assert copies.max() <= probes.MEMBERSHIP_COPIES[1]
    inside = (asked[0] > 0.3) & (asked[0] < 0.7)  # where the range cuts nothing off
    noise = (asked[1 : places[1]] - asked[0])[:, inside]
    assert noise.std() == pytest.approx(probes.MEMBERSHIP_JITTER, rel=0.3)


def test_noise_flips_flags_of_a_table_by_chance() -> None:
    flags = (np.random.default_rng(0).random((400, 20)) < 0.5).astype(np.float32)
    pool, fewest = Pool(flags, np.zeros(400, np.int64)), min(probes.MEMBERSHIP_COPIES)
    walks = [rows_of("membership", pool, 1 + fewest, seed=seed) for seed in range(60)]

    # half of the moves point into the range; such a one of d flips a flag with probability d, 0.8 deviations on average
    flipped = np.mean([asked[1:] != asked[0] for asked in walks])
    assert flipped == pytest.approx(0.5 * 0.8 * 0.5 * probes.MEMBERSHIP_JITTER_OF_DEVIATION, abs=0.01)


@pytest.mark.parametrize("pool", [FINE, TABLE], ids=["pictures", "table"])
def test_where_no_model_answers_the_nearest_class_mean_does(pool: Pool) -> None:
    named = probes._stand_in(pool)(pool.flat)

    assert set(named.tolist()) <= set(range(len(pool.classes)))
    assert (named == pool.labels).mean() > 0.6
