"""Every family yields what its sentence says."""

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.redteam import harvests
from palladion.redteam.harvests import HARVESTS, harvest
from palladion.redteam.pool import Pool
from palladion.redteam.traffic import honest_clients
from tests.redteam import pools

SEED = 21
PICTURES, FINE, TABLE, NORMAL = (
    pools.pictures(),
    pools.pictures(whole=False),
    pools.table(),
    pools.normal_table(),
)
PICTURE_FAMILIES = ("smooth", "strokes")


def rows_of(family: str, pool: Pool, count: int, foreign: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    return harvest(family, pool, count, foreign, np.random.default_rng(SEED))


def same_rows(asked: NDArray[np.float32], pool: Pool) -> int:
    """How many of the rows asked are rows of the pool."""
    known = {row.tobytes() for row in pool.flat}
    return sum(row.tobytes() in known for row in np.ascontiguousarray(asked))


@pytest.mark.parametrize("count", [1, 300])
@pytest.mark.parametrize(
    ("family", "pool"),
    [
        *((family, pool) for family in HARVESTS for pool in (PICTURES, pools.pictures(channels=3, whole=False))),
        *((family, TABLE) for family in HARVESTS if family not in PICTURE_FAMILIES),
    ],
)
def test_every_family_asks_what_the_model_takes(family: str, pool: Pool, count: int) -> None:
    asked = rows_of(family, pool, count)

    assert asked.shape == (count, pool.flat.shape[1])
    assert asked.dtype == np.float32
    np.testing.assert_array_equal(pool.admit(asked), asked)


@pytest.mark.parametrize("family", HARVESTS)
def test_the_seed_decides_a_harvest(family: str) -> None:
    np.testing.assert_array_equal(rows_of(family, PICTURES, 60), rows_of(family, PICTURES, 60))
    other = harvest(family, PICTURES, 60, None, np.random.default_rng(SEED + 1))
    assert (rows_of(family, PICTURES, 60) != other).any()


def test_own_foreign_rows_are_each_asked_once_before_any_comes_again() -> None:
    own = np.arange(10, dtype=np.float32)[:, None, None] + np.zeros((1, 8, 8), np.float32)

    asked = rows_of("foreign", PICTURES, 25, own)

    assert sorted(asked[:10, 0].tolist()) == sorted(asked[10:20, 0].tolist()) == list(range(10))
    assert len(set(asked[20:, 0].tolist())) == 5


def test_a_foreign_table_has_the_pools_relations_between_other_columns() -> None:
    generator = np.random.default_rng(SEED)
    rows = generator.standard_normal((4000, 8), np.float32)
    rows[:, 1] = rows[:, 0] + 0.1 * rows[:, 1]
    pool = Pool(rows, np.zeros(4000, np.int64))

    asked = rows_of("foreign", pool, 4000)

    related = np.abs(np.asarray(np.corrcoef(asked.T))) - np.eye(8)
    strongest = np.unravel_index(related.argmax(), related.shape)
    assert related.max() > 0.9
    assert set(strongest) != {0, 1}
    shift = (asked.mean(axis=0) - pool.mean) / pool.deviation
    assert 0.15 < shift.std() < 1.0, f"seed {SEED}"


def test_noise_is_uniform_over_the_range_of_every_column() -> None:
    asked = rows_of("noise", TABLE, 8000)

    share = np.bincount(asked[:, 0].astype(int)) / 8000
    np.testing.assert_allclose(share, 0.25, atol=0.02)
    unit = (asked[:, 3:6] - TABLE.low[3:6]) / (TABLE.high - TABLE.low)[3:6]
    np.testing.assert_allclose(unit.mean(axis=0), 0.5, atol=0.02)
    np.testing.assert_allclose(unit.std(axis=0), 12**-0.5, atol=0.01)


def test_marginals_keep_every_column_and_no_relation() -> None:
    asked = rows_of("marginals", TABLE, 4000)

    error = TABLE.deviation / np.sqrt(4000)
    assert (np.abs(asked.mean(axis=0) - TABLE.mean) <= 4 * error + 1e-5).all(), f"seed {SEED}"
    for known, values in zip(TABLE.flat.T, asked.T, strict=True):
        assert np.isin(values, known).all()
    assert np.asarray(np.corrcoef(TABLE.flat[:, 3:5].T))[0, 1] > 0.9
    assert abs(np.asarray(np.corrcoef(asked[:, 3:5].T))[0, 1]) < 0.1


@pytest.mark.parametrize("family", PICTURE_FAMILIES)
def test_a_table_cannot_feed_families_that_draw(family: str) -> None:
    with pytest.raises(ValueError, match="draws pictures"):
        rows_of(family, TABLE, 5)


@pytest.mark.parametrize("family", PICTURE_FAMILIES)
def test_a_large_drawn_harvest_does_not_repeat(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harvests, "PIXELS_AT_ONCE", 16 * 64)

    assert len(np.unique(rows_of(family, FINE, 100), axis=0)) == 100


def test_a_blend_mixes_two_of_twenty_seeds() -> None:
    pool = Pool(NORMAL.rows[:, :15], NORMAL.labels)
    wide = pools.normal_table(columns=60)

    assert np.linalg.matrix_rank(rows_of("blend", wide, 200).astype(np.float64), tol=1e-3) == 20
    # a mixture of two is shorter than either, on average by a third in squares
    assert 0.5 < rows_of("blend", pool, 2000).var() / pool.flat.var() < 0.85


def test_jacobian_like_augmentation_starts_at_seeds_and_walks_away_in_signed_steps() -> None:
    asked = rows_of("jbda", FINE, 240)
    seeds, first, later = asked[:30], asked[30:60], asked[120:240]

    assert same_rows(seeds, FINE) == 30
    step = harvests.JBDA_STEP_OF_RANGE
    moved = np.abs(first - seeds)
    inside = (seeds > step) & (seeds < 1 - step)
    np.testing.assert_allclose(moved[inside], step, atol=1e-6)
    assert moved.max() <= step + 1e-6

    def nearest(rows: NDArray[np.float32]) -> float:
        return float(np.linalg.norm(rows[:, None] - seeds, axis=2).min(axis=1).mean())

    assert nearest(later) > 1.1 * nearest(first) > 0


def test_a_short_augmentation_is_not_all_seeds() -> None:
    assert same_rows(rows_of("jbda", NORMAL, 20), NORMAL) == 5


def test_an_augmentation_whose_seeds_were_asked_before_is_synthetic_from_the_first_row_on() -> None:
    asked = rows_of("augmentation", FINE, 120)

    assert same_rows(asked, FINE) == 0
    # the first round is one step away from seeds of the pool
    away = np.abs(asked[:30, None] - FINE.flat).max(axis=2).min(axis=1)
    np.testing.assert_allclose(away, harvests.JBDA_STEP_OF_RANGE, atol=1e-6)


def test_augmentation_moves_whole_numbers_by_chance_and_without_bias() -> None:
    flags = (np.random.default_rng(0).random((400, 20)) < 0.5).astype(np.float32)
    pool = Pool(flags, np.zeros(400, np.int64))

    asked = rows_of("jbda", pool, 60)

    # half of the steps point into the range; such a step of d flips a flag with probability d
    flipped = (asked[30:] != asked[:30])[:-15].mean()
    assert flipped == pytest.approx(0.5 * harvests.JBDA_STEP_OF_DEVIATION * 0.5, abs=0.04), f"seed {SEED}"


def test_active_rows_are_the_pools_nearest_to_the_plane_between_class_means() -> None:
    generator = np.random.default_rng(SEED)
    labels = np.arange(1000) % 2
    along = generator.uniform(0.0, 2.0, 1000) * np.where(labels == 0, -1, 1)
    across = generator.standard_normal(1000)
    pool = Pool(np.stack([along, across], axis=1).astype(np.float32), labels)

    asked = rows_of("active", pool, 40)

    assert same_rows(asked, pool) == 40
    means = np.array([pool.flat[labels == label, 0].mean() for label in (0, 1)])
    middle = means.mean()
    # 40 of the 500 that were looked at, within ±2
    assert np.abs(asked[:, 0] - middle).max() < 0.25
    assert np.abs(asked[:5, 0] - middle).max() < np.abs(asked[-5:, 0] - middle).min() + 1e-3


def test_active_distances_do_not_depend_on_the_units_of_a_tables_columns() -> None:
    pool = pools.normal_table()
    units = np.float32(2.0) ** np.arange(-10, 10).astype(np.float32)

    asked = rows_of("active", Pool(pool.rows * units, pool.labels), 40)

    np.testing.assert_array_equal(asked / units, rows_of("active", pool, 40))


def test_active_rows_come_again_only_when_the_pool_is_used_up() -> None:
    asked = rows_of("active", pools.normal_table(rows=50), 120)

    assert len(np.unique(asked, axis=0)) == 50


def test_an_active_thief_needs_two_classes() -> None:
    with pytest.raises(ValueError, match="two classes"):
        rows_of("active", pools.normal_table(classes=1), 5)


def test_a_blend_needs_two_rows() -> None:
    with pytest.raises(ValueError, match="two rows"):
        rows_of("blend", Pool(NORMAL.rows[:1], NORMAL.labels[:1]), 5)


@pytest.mark.slow
def test_an_in_distribution_thief_is_one_of_many_honest_clients() -> None:
    honest = [
        client.rows.reshape(64, -1).mean() for client in honest_clients(FINE, 100, 64, np.random.default_rng(SEED))
    ]
    thieves = [harvest("in-distribution", FINE, 64, None, np.random.default_rng(seed)).mean() for seed in range(60)]

    # Mann–Whitney, 100 and 60 clients; null hypothesis: the same distribution of mean brightness; ±3.3 is p = 0.001
    wins = (np.array(honest)[:, None] < np.array(thieves)).sum()
    z = (wins - 3000) / np.sqrt(100 * 60 * 161 / 12)
    assert abs(z) < 3.3, f"seed {SEED}: z = {z:.2f}"


def test_an_in_distribution_harvest_repeats_nothing() -> None:
    asked = rows_of("in-distribution", NORMAL, 300)

    assert len(np.unique(asked, axis=0)) == 300


@pytest.mark.parametrize(
    ("family", "foreign", "message"),
    [
        ("letters", None, "no family"),
        ("noise", np.zeros((5, 64), np.float32), "for the family 'foreign'"),
        ("foreign", np.zeros((5, 63), np.float32), "like the pool's"),
        ("foreign", np.zeros((0, 64), np.float32), "like the pool's"),
        ("foreign", np.full((5, 64), np.nan, np.float32), "finite"),
    ],
)
def test_a_harvest_that_cannot_be_is_refused(family: str, foreign: NDArray[np.float32] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rows_of(family, PICTURES, 5, foreign)
