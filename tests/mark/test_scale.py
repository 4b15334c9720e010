"""A suspect's weights come back into our scale, whatever scale they were given; other changes stay."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palladion.mark.places import blocks
from palladion.mark.scale import SCALE_NUMBERS_MIN, Aligned, Sample, align

from .suspects import Array, Numbers, matrix, noisy, pruned, quantised, rescaled, rounded

OURS = matrix(96, 64)
EVERYWHERE = np.arange(OURS.size)


def _sample(numbers: Array, *, shifted: bool = False) -> Sample:
    return Sample.of(numbers.reshape(-1), EVERYWHERE[: numbers.size], shifted=shifted)


def _aligned(theirs: Array, ours: Array = OURS) -> Aligned:
    shifted = theirs.dtype.kind in "iu"
    return align(ours, theirs, _sample(ours, shifted=shifted), _sample(theirs, shifted=shifted))


def _align(theirs: Array, ours: Array = OURS) -> Numbers:
    """The weights in our scale; nan where they say nothing."""
    aligned = _aligned(theirs, ours)
    weights = np.empty(ours.shape, np.float32)
    for block in blocks(ours.shape):
        aligned.read(block, weights[block])
    everywhere = aligned.at(np.arange(ours.size)).reshape(ours.shape)
    assert np.allclose(everywhere, weights, rtol=1e-5, atol=1e-6 * ours.std(), equal_nan=True)
    return np.where(np.isfinite(weights), weights, np.float32(np.nan))


def _error(weights: Array, ours: Array = OURS) -> float:
    """How far the weights that say something are from ours, beside ours."""
    return float(np.nanstd(weights - ours) / ours.std())


def test_the_same_weights_stay_as_they_are() -> None:
    assert np.allclose(_align(OURS), OURS, rtol=1e-5, atol=1e-7)
    assert _aligned(OURS).correlation == pytest.approx(1)


@pytest.mark.slow
@given(st.floats(-30, 30), st.sampled_from(["float32", "float64"]))
@settings(max_examples=30)
def test_a_scale_of_the_whole_is_undone(exponent: float, dtype: str) -> None:
    assert _error(_align((OURS * 10.0**exponent).astype(dtype))) < 1e-5


@pytest.mark.parametrize("axis", [0, 1])
def test_scales_of_rows_or_columns_are_undone(axis: int) -> None:
    assert _error(_align(rescaled(axis)(OURS))) < 1e-3


def test_scales_of_rows_and_columns_together_are_undone() -> None:
    assert _error(_align(rescaled(0)(rescaled(1)(OURS)))) < 2e-3


def test_a_row_or_column_with_few_numbers_gets_no_scale_of_its_own() -> None:
    # with one, a column of a single number would always fit, and the mark in it would be gone
    ours = matrix(1, 512)
    changed = noisy(0.1)(ours)
    assert _error(_align(changed, ours), ours) == pytest.approx(0.1, rel=0.2)
    narrow = matrix(64, SCALE_NUMBERS_MIN - 1)
    assert _error(_align(noisy(0.1)(narrow), narrow), narrow) > 0.09


@pytest.mark.slow
@given(st.integers(-128, 128), st.sampled_from([-1, 0, 1]))
@settings(max_examples=30)
def test_a_zero_point_is_undone(zero_point: int, axis: int) -> None:
    change = quantised("int16", zero_point=zero_point, axis=axis if axis >= 0 else None)
    assert _error(_align(change(OURS))) < 0.03


def test_a_zero_point_is_undone_where_the_weights_are_not_around_zero() -> None:
    ours = OURS + np.float32(1)
    theirs = np.round((ours - ours.min()) / (ours.max() - ours.min()) * 255).astype(np.uint8)
    weights = _align(theirs, ours)
    assert (weights - ours).std() / OURS.std() < 0.03
    assert abs(float((weights - ours).mean())) < 1e-3 * OURS.std()


@pytest.mark.parametrize("value", [1e9, -1e30, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("share", [1e-4, 0.01, 0.1])
def test_a_few_wild_numbers_have_no_say_in_the_scale_of_the_others(value: float, share: float) -> None:
    theirs = 3 * OURS
    wild = np.random.default_rng(5).random(OURS.shape) < share
    theirs[wild] = value
    weights = _align(theirs)
    assert _aligned(theirs).correlation > 0.99
    assert np.allclose(weights[~wild], OURS[~wild], rtol=1e-4, atol=1e-6)
    assert (np.isfinite(weights[wild]) == np.isfinite(value)).all()


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_weights_that_were_changed_a_lot_have_no_say_in_the_scale_of_the_others(share: float) -> None:
    theirs = 3 * OURS
    changed = np.random.default_rng(6).random(OURS.shape) < share
    theirs[changed] += 3 * matrix(seed=50)[changed]
    # less than half of what a mark moves a weight; a row of which most was changed may be off by more
    assert float(np.median(np.abs(_align(theirs) - OURS)[~changed]) / OURS.std()) < 0.005


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_pruned_weights_say_nothing_and_the_others_are_not_stretched(share: float) -> None:
    theirs = pruned(share)(OURS)
    weights = _align(theirs)
    assert np.array_equal(np.isfinite(weights), theirs != 0)
    assert _error(weights) < 1e-5


def test_the_spread_is_that_of_the_weights_that_are_left() -> None:
    assert _sample(pruned(0.9)(OURS)).spread > 2 * _sample(OURS).spread
    assert _sample(np.eye(64, dtype=np.float32) * 7).spread == 7


@pytest.mark.parametrize("bits", [8, 4])
def test_the_zeros_of_a_grid_say_as_much_as_its_other_numbers(bits: int) -> None:
    theirs = rounded(bits, 32)(OURS)
    assert (theirs == 0).any()
    assert np.isfinite(_align(theirs)).all()


def test_zeros_that_are_ours_say_that_they_are() -> None:
    ours = pruned(0.5)(OURS)
    assert np.isfinite(_align(noisy(0.0)(ours), ours)).all()


@pytest.mark.parametrize(
    "values", [np.zeros(8), np.full(8, np.nan), np.full(8, np.inf), np.empty(0), np.full(8, 1e308), np.full(8, 5e-324)]
)
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.filterwarnings("error")
def test_a_sample_without_numbers_has_no_direction(values: Array, shifted: bool) -> None:
    sample = Sample.of(values, np.arange(len(values)), shifted=shifted)
    assert np.isfinite([sample.centre, sample.spread]).all()
    assert np.isfinite(sample.direction).all()
    length: Any = np.linalg.norm(sample.direction)
    constant = values.size and np.isfinite(values).all() and values[0] != 0 and not shifted
    assert length == pytest.approx(1 if constant else 0)


@pytest.mark.parametrize(("dtype", "zero_point"), [("int8", 0), ("uint8", 128)])
@pytest.mark.parametrize(("loudness", "middle"), [(0.3, 0.0), (0.3, 0.4), (1.0, 0.4)])
def test_a_zero_point_under_scales_of_rows_leaves_nothing_but_rounding(
    dtype: str, zero_point: int, loudness: float, middle: float
) -> None:
    # each row has its own scale, and none has its weights around zero
    generator = np.random.default_rng(1)
    rows = 0.05 * np.exp(loudness * generator.standard_normal((96, 1)))
    ours = (rows * (generator.standard_normal((96, 64)) + middle)).astype(np.float32)
    step = np.abs(ours).max(axis=1, keepdims=True) / 127
    rounding = _error(np.round(ours / step) * step, ours)
    assert _error(_align(np.asarray(np.round(ours / step) + zero_point, dtype), ours), ours) < 1.15 * rounding
