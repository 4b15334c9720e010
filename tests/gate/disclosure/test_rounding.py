"""Rounding: numbers land on the grid that was declared, and never on the other side of a threshold."""

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from palladion.gate.disclosure.rounding import (
    band_sides,
    decimal_sides,
    digit_sides,
    in_type,
    just_below,
    to_bands,
    to_decimals,
    to_digits,
    typed_sides,
)

ANY = st.floats(allow_nan=True, allow_infinity=True)
USUAL = st.floats(-1000, 1000)


@given(st.lists(USUAL, min_size=1, max_size=5), st.integers(0, 12))
def test_decimals_are_as_many_as_were_asked_for(values: list[float], decimals: int) -> None:
    shown = to_decimals(np.array(values), decimals)
    assert all(round(value, decimals) == value for value in shown.tolist())
    assert np.abs(shown - values).max() <= 0.5 * 10.0**-decimals + 1e-12


@given(st.lists(ANY, min_size=1, max_size=5), st.integers(0, 17))
def test_numbers_that_have_no_decimals_stay(values: list[float], decimals: int) -> None:
    shown = to_decimals(np.array(values), decimals).tolist()
    for before, after in zip(values, shown, strict=True):
        assert math.isnan(after) if math.isnan(before) else math.isinf(after) == math.isinf(before)


def test_single_and_double_precision_are_rounded_alike() -> None:
    values = np.array([[0.1, 0.25, 1e30, -0.04]], np.float32)
    assert to_decimals(values, 1).tolist() == to_decimals(values.astype(np.float64), 1).tolist()
    assert str(to_decimals(values, 1)[0, 3]) == "0.0"


def test_all_decimals_are_the_array_itself() -> None:
    values = np.array([0.1])
    assert to_decimals(values, 17) is values


@example(1.5e308, 1)
@given(ANY, st.integers(1, 3))
def test_digits_are_as_many_as_were_asked_for(value: float, digits: int) -> None:
    (shown,) = to_digits(np.array([value]), digits).tolist()
    if math.isfinite(shown):
        assert len(Decimal(repr(shown)).normalize().as_tuple().digits) <= digits


@given(USUAL, st.floats(0.01, 100))
def test_a_band_begins_at_or_below_its_number(value: float, width: float) -> None:
    (shown,) = to_bands(np.array([value]), width).tolist()
    assert value - width - 1e-9 <= shown <= value + 1e-9


def test_what_is_no_finite_number_has_no_band() -> None:
    shown = to_bands(np.array([np.nan, np.inf, 1e308]), 1e-9).tolist()
    assert math.isnan(shown[0])
    assert shown[1:] == [math.inf, 1e308]


@given(USUAL, st.integers(0, 17))
@example(0.1, 1)
@example(0.7, 1)
@example(-0.3, 0)
def test_the_numbers_beside_a_threshold_are_on_its_sides(threshold: float, decimals: int) -> None:
    sides = decimal_sides(threshold, decimals)
    assert sides.below < threshold <= sides.above
    if decimals <= 9:
        step = 10.0**-decimals
        assert sides.above - threshold < step * 1.000001
        assert threshold - sides.below <= step * 1.000001


@given(st.one_of(USUAL, st.floats(-1e30, 1e30)), st.integers(1, 3))
def test_the_same_holds_for_digits_and_for_bands(threshold: float, digits: int) -> None:
    for sides in (digit_sides(threshold, digits), band_sides(threshold, 10.0)):
        assert sides.below < threshold <= sides.above


@given(st.lists(USUAL, min_size=1, max_size=6), st.floats(-10, 10), st.integers(0, 6))
def test_no_rounding_turns_a_decision(values: list[float], threshold: float, decimals: int) -> None:
    truth = np.array(values)
    shown = decimal_sides(threshold, decimals).kept(to_decimals(truth, decimals), truth)
    assert ((shown >= threshold) == (truth >= threshold)).all()


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.1, -3.0, 0.0, 1e-30])
def test_just_below_holds_in_single_precision_too(threshold: float) -> None:
    below = just_below(threshold)
    assert below < threshold
    assert np.float32(below) < np.float32(threshold)


LARGEST = float(np.finfo(np.float64).max)
TYPES = st.sampled_from([np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)])


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 3))
@example(1.79e308, 2)
@example(-LARGEST, 1)
def test_a_number_that_is_finite_has_finite_digits(value: float, digits: int) -> None:
    (shown,) = to_digits(np.array([value]), digits).tolist()
    assert math.isfinite(shown)


@pytest.mark.parametrize("threshold", [1.76e308, -1.76e308, 1e300])
def test_a_threshold_near_the_end_of_doubles_has_finite_numbers_beside_it(threshold: float) -> None:
    for sides in (digit_sides(threshold, 2), digit_sides(threshold, 1), band_sides(threshold, 1e-9)):
        assert -LARGEST <= sides.below < threshold <= sides.above <= LARGEST


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5), TYPES)
@example([65520.0], np.dtype(np.float16))
@example([-3.5e38], np.dtype(np.float32))
def test_a_number_that_is_finite_is_so_in_every_type(values: list[float], dtype: "np.dtype[np.floating]") -> None:
    shown = in_type(np.array(values), dtype)
    assert shown.dtype == dtype
    assert np.isfinite(shown).all()


@given(st.lists(USUAL, min_size=1, max_size=6), st.one_of(USUAL, st.sampled_from([0.7, 0.1, 0.45])), TYPES)
@example([0.7], 0.7, np.dtype(np.float32))
@example([0.69999999], 0.7, np.dtype(np.float32))
def test_no_type_turns_a_decision_however_it_is_compared(
    values: list[float], threshold: float, dtype: "np.dtype[np.floating]"
) -> None:
    truth = np.array(values)
    shown = in_type(truth, dtype, threshold)
    assert ((shown >= np.float64(threshold)) == (truth >= threshold)).all()
    assert ((shown >= dtype.type(threshold)) == (truth >= threshold)).all()


@pytest.mark.parametrize("threshold", [1e30, -1e30])
def test_a_threshold_beyond_a_type_is_on_one_side_of_all_of_it(threshold: float) -> None:
    values = np.array([-65504.0, 0.0, 65504.0])
    assert typed_sides(threshold, np.dtype(np.float16)).threshold == threshold
    assert in_type(values, np.dtype(np.float16), threshold).tolist() == values.tolist()
