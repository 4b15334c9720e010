"""Shapiro–Wilk's W against scipy's, and at its ends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.watch.baselines.normality import COUNT_MAX, COUNT_MIN, shapiro_wilk

SEED = 7


@pytest.mark.parametrize("count", [3, 4, 5, 6, 7, 11, 12, 50, 101, 1000])
def test_w_is_that_of_scipy(count: int) -> None:
    stats = pytest.importorskip("scipy.stats", reason="comes with the demo extra")
    generator = np.random.default_rng((SEED, count))
    for values in (generator.standard_normal(count), generator.exponential(size=count), generator.random(count)):
        assert shapiro_wilk(values) == pytest.approx(float(stats.shapiro(values).statistic), abs=2e-6), f"seed {SEED}"


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(COUNT_MIN, 200),
    scale=st.floats(1e-3, 1e3),
    shift=st.floats(-100, 100),
)
def test_w_does_not_change_with_the_unit_the_origin_or_the_order(
    seed: int, count: int, scale: float, shift: float
) -> None:
    values = np.random.default_rng(seed).standard_normal(count)

    assert shapiro_wilk(scale * values[::-1] + scale * shift) == pytest.approx(shapiro_wilk(values), rel=1e-6)
    assert 0 < shapiro_wilk(values) <= 1


def test_skewed_values_are_less_normal_than_normal_ones() -> None:
    generator = np.random.default_rng(SEED)

    assert shapiro_wilk(generator.exponential(size=200)) < 0.9 < 0.97 < shapiro_wilk(generator.standard_normal(200))


def test_values_that_are_all_alike_tell_nothing() -> None:
    assert shapiro_wilk(np.full(20, 0.1)) == 1.0
    assert shapiro_wilk(np.zeros(3)) == 1.0


@pytest.mark.parametrize("count", [0, COUNT_MIN - 1, COUNT_MAX + 1])
def test_too_few_and_too_many_values_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} values, expected 3 to 5000"):
        shapiro_wilk(np.zeros(count))
