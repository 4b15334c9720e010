"""What each number of a style does to pictures and tables, by the amount that docs/traffic.md states."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.redteam import styles
from palladion.redteam.pool import Pool
from tests.redteam import pools

NAMES = ("rotation", "scale", "shear", "shift_y", "shift_x", "gamma", "blur", "noise")


def latent(**numbers: float) -> NDArray[np.float64]:
    """A picture style with as little blur and noise as there is, but for the named numbers."""
    quiet = {"blur": -3.0, "noise": -3.0, **numbers}
    return np.array([quiet.get(name, 0.0) for name in NAMES])


def spot_pool(*centres: tuple[float, float]) -> Pool:
    rows = pools.spots(*centres)
    return Pool(rows, np.zeros(len(rows), np.int64), (28, 28))


def moved(pool: Pool, style: NDArray[np.float64]) -> NDArray[np.float64]:
    """From where to where the spots' centroids went, (k, 2)."""
    rows = styles.apply_style(pool, pool.flat, style, np.random.default_rng(0))
    return pools.centroids(rows.reshape(-1, 28, 28))


def test_a_picture_without_style_stays_nearly_as_it_is() -> None:
    pool = pools.pictures(whole=False)

    rows = styles.apply_style(pool, pool.flat, latent(), np.random.default_rng(0))

    np.testing.assert_allclose(rows, pool.flat, atol=0.06)


def test_a_shift_moves_by_a_share_of_the_side() -> None:
    after = moved(spot_pool((0, 0)), latent(shift_y=2.0, shift_x=-1.0))

    np.testing.assert_allclose(after, [[2 * 28 * styles.SHIFT_OF_SIDE, -28 * styles.SHIFT_OF_SIDE]], atol=0.05)


def test_a_scale_moves_away_from_the_middle() -> None:
    after = moved(spot_pool((6, -4)), latent(scale=3.0))

    np.testing.assert_allclose(after, math.exp(3 * styles.SCALE_LOG) * np.array([[6, -4]]), atol=0.1)


def test_a_rotation_keeps_the_distance_and_turns_by_its_angle() -> None:
    (after,) = moved(spot_pool((0, 8)), latent(rotation=3.0))

    assert math.hypot(*after) == pytest.approx(8, abs=0.1)
    assert abs(math.degrees(math.atan2(after[0], after[1]))) == pytest.approx(3 * styles.ROTATION_DEG, abs=0.7)


def test_a_shear_moves_sideways_in_proportion_to_the_height() -> None:
    after = moved(spot_pool((6, 0), (-6, 0)), latent(shear=3.0))

    np.testing.assert_allclose(np.abs(after[:, 1]), 6 * 3 * styles.SHEAR, atol=0.1)
    np.testing.assert_allclose(after[:, 0], [6, -6], atol=0.1)


def test_gamma_bends_the_greys_and_leaves_black_and_white() -> None:
    greys = np.repeat(np.array([[0], [0.25], [1]], np.float32), 64, axis=1)
    pool = Pool(greys, np.arange(3), (8, 8))

    rows = styles.apply_style(pool, greys, latent(gamma=2.0), np.random.default_rng(0))

    expected = [0, 0.25 ** math.exp(2 * styles.GAMMA_LOG), 1]
    np.testing.assert_allclose(rows.mean(axis=1), expected, atol=0.003)


def test_blur_spreads_and_keeps_the_sum() -> None:
    pool = spot_pool((0, 0))
    sharp, soft = (
        styles.apply_style(pool, pool.flat, latent(blur=blur), np.random.default_rng(0)) for blur in (-3.0, 3.0)
    )

    assert soft.max() < 0.9 * sharp.max()
    assert soft.sum() == pytest.approx(sharp.sum(), rel=0.02)


@pytest.mark.parametrize("number", [-1.0, 0.0, 2.0])
def test_noise_has_the_stated_deviation(number: float) -> None:
    greys = np.full((50, 64), 0.5, np.float32)
    pool = Pool(
        np.concatenate([greys, np.zeros((1, 64), np.float32), np.ones((1, 64), np.float32)]), np.zeros(52, int), (8, 8)
    )

    rows = styles.apply_style(pool, greys, latent(noise=number), np.random.default_rng(0))

    # 3,200 values: the estimate's own deviation is 1.3 %
    assert rows.std() == pytest.approx(styles.NOISE_MEDIAN * math.exp(styles.NOISE_LOG * number), rel=0.06)


def test_colours_do_not_mix() -> None:
    rows = np.zeros((4, 8, 8, 3), np.float32)
    rows[..., 0] = 1
    pool = Pool(rows, np.zeros(4, np.int64), (8, 8, 3))

    styled = styles.apply_style(pool, pool.flat, latent(rotation=2, blur=2), np.random.default_rng(0))

    np.testing.assert_allclose(styled.reshape(rows.shape), rows, atol=0.03)


def test_pictures_stay_in_range_and_in_whole_steps() -> None:
    pool = pools.pictures()

    rows = styles.apply_style(pool, pool.flat, latent(noise=3), np.random.default_rng(0))

    assert set(np.unique(rows)) <= set(range(17))


def test_all_rows_of_a_long_client_go_through_one_style(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(styles, "VALUES_AT_ONCE", 16 * 64)
    pool = pools.pictures(whole=False)
    same = np.repeat(pool.flat[:1], 40, axis=0)

    rows = styles.apply_style(pool, same, latent(rotation=2, shift_x=3, gamma=-2), np.random.default_rng(0))

    assert rows.shape == same.shape
    np.testing.assert_allclose(rows, np.broadcast_to(rows[0], rows.shape), atol=0.03)


def test_numbers_beyond_the_limit_do_no_more_than_at_it() -> None:
    pool = pools.pictures()
    at, beyond = (
        styles.apply_style(pool, pool.flat, np.full(8, number), np.random.default_rng(0))
        for number in (styles.LATENT_MAX, 50.0)
    )

    np.testing.assert_array_equal(at, beyond)


def test_a_table_column_drifts_by_what_lies_beyond_the_threshold() -> None:
    pool = pools.normal_table(columns=3)
    style = np.zeros(styles.latent_size(pool))
    style[:3] = [0.9, 2.0, -3.0]
    style[-2:] = [-3, 3]  # as little noise and as many digits as there are
    inner = np.clip(pool.flat, -1, 1)  # far from the clipped ends

    rows = styles.apply_style(pool, inner, style, np.random.default_rng(0))

    shift = (rows - inner).mean(axis=0) / pool.deviation
    np.testing.assert_allclose(shift, [0, styles.OFFSET, -2 * styles.OFFSET], atol=0.002)


def test_a_table_column_is_stretched_around_its_mean() -> None:
    pool = pools.normal_table(columns=2)
    style = np.zeros(styles.latent_size(pool))
    style[2:4] = [0.5, 3.0]
    style[-2:] = [-3, 3]
    inner = np.clip(pool.flat, -1, 1)

    rows = styles.apply_style(pool, inner, style, np.random.default_rng(0))

    np.testing.assert_allclose(
        rows.std(axis=0) / inner.std(axis=0), [1, math.exp(2 * styles.COLUMN_SCALE_LOG)], rtol=0.005
    )


def test_a_third_of_the_columns_drift() -> None:
    pool = pools.normal_table(columns=2000, rows=50)
    style = np.random.default_rng(5).standard_normal(styles.latent_size(pool))
    style[2000:4000] = 0
    style[-2:] = [-3, 3]
    inner = np.clip(pool.flat, -1, 1)

    rows = styles.apply_style(pool, inner, style, np.random.default_rng(0))

    drifting = (np.abs((rows - inner).mean(axis=0)) > 0.005).mean()
    # binomial: 0.317 ± 3 × 0.0104, less what drifts by under 0.005
    assert 0.27 < drifting < 0.35, f"seed 5: {drifting:.3f}"


def test_whole_number_columns_stay_whole_and_within_range() -> None:
    pool = pools.table()
    style = 3 * np.sign(np.random.default_rng(0).standard_normal(styles.latent_size(pool)))

    rows = styles.apply_style(pool, pool.flat, style, np.random.default_rng(0))

    assert (rows[:, :3] == np.rint(rows[:, :3])).all()
    assert ((rows >= pool.low) & (rows <= pool.high)).all()
    assert (rows[:, 6] == np.float32(0.1)).all()


@pytest.mark.parametrize(("number", "unit"), [(-1.0, 0.1), (0.0, 0.01), (1.0, 0.001)])
def test_measured_columns_have_the_clients_precision(number: float, unit: float) -> None:
    # the deviation is just above 1, so the order of magnitude is that of units
    rows = 1.2 * pools.normal_table().rows
    pool = Pool(rows, np.zeros(len(rows), np.int64))
    style = np.zeros(styles.latent_size(pool))
    style[-1] = number

    recorded = styles.apply_style(pool, pool.flat, style, np.random.default_rng(0))

    inside = (recorded > pool.low) & (recorded < pool.high)
    in_units = recorded[inside] / unit
    np.testing.assert_allclose(in_units, np.rint(in_units), atol=1e-2)
    assert (np.abs(in_units / 10 - np.rint(in_units / 10)) > 0.05).any()


def test_a_segment_lies_where_the_style_points() -> None:
    pool = pools.normal_table(rows=5000, columns=4)
    style = np.zeros(styles.latent_size(pool))
    style[8:12] = [2.0, 0, 0, -2.0]

    weights = np.exp(styles.segment_weights(pool, style))

    centre = (weights[:, None] * pool.flat).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(centre, styles.TILT * np.array([1.0, 0, 0, -1.0]), atol=0.08)


def test_a_heavy_tail_does_not_take_a_segment_over() -> None:
    rows = pools.normal_table(columns=1).rows.copy()
    rows[0] = 1e6
    pool = Pool(rows, np.zeros(len(rows), np.int64))
    style = np.full(styles.latent_size(pool), 3.0)

    weights = styles.segment_weights(pool, style)

    assert np.abs(weights).max() <= styles.TILT * styles.TILT_REACH


def test_pictures_have_no_segments() -> None:
    pool = pools.pictures()

    assert not styles.segment_weights(pool, np.ones(8)).any()
