"""P-values as log10: right where they can be compared, ordered and finite beyond, and never smaller than the truth."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from palladion.mark.carriers import normals
from palladion.mark.stats import best_of, log10_normal_tail, log10_p_binomial, log10_p_signs, log10_p_subgaussian

LEVELS = np.unique(normals(bytes(32), 100_000)).astype(np.float64)  # the 256 values of a nearly normal carrier

weights = st.floats(-1e3, 1e3, allow_subnormal=False)


@given(st.floats(-40, 19.99))
def test_the_normal_tail_is_that_of_the_error_function(t: float) -> None:
    assert log10_normal_tail(t) == pytest.approx(math.log10(math.erfc(t / math.sqrt(2)) / 2), abs=1e-12)


@pytest.mark.parametrize(
    ("t", "published"),  # -log Q(x) of Abramowitz and Stegun, table 26.2
    [
        (5, 6.54265),
        (10, 23.11805),
        (15, 50.43522),
        (20, 88.56010),
        (25, 137.51475),
        (30, 197.30921),
        (35, 267.94888),
        (40, 349.43701),
        (50, 544.96634),
        (100, 2173.87154),
        (200, 8688.58977),
        (500, 54289.90830),
    ],
)
def test_the_normal_tail_has_the_published_values(t: float, published: float) -> None:
    assert -log10_normal_tail(t) == pytest.approx(published, abs=6e-6)


@given(st.floats(20, 1e6))
def test_the_far_tail_lies_between_the_bounds_of_mills_ratio(t: float) -> None:
    # phi(t) / t * (1 - 1/t^2) < Q(t) < phi(t) / t
    upper = (-t * t / 2 - math.log(t * math.sqrt(2 * math.pi))) / math.log(10)
    slack = 1e-12 * abs(upper)
    assert upper + math.log10(1 - 1 / t**2) - slack <= log10_normal_tail(t) <= upper + slack


@pytest.mark.parametrize("p_of", [log10_normal_tail, log10_p_signs, log10_p_subgaussian])
@given(st.floats(-1e7, 1e7), st.floats(0, 1e3))
def test_a_larger_statistic_never_has_a_larger_p_value(p_of: Callable[[float], float], t: float, step: float) -> None:
    assert p_of(t + step) <= p_of(t) <= 0


def test_nothing_jumps_where_the_series_takes_over() -> None:
    before, after = log10_normal_tail(math.nextafter(20, 0)), log10_normal_tail(20)
    assert after == pytest.approx(before, abs=1e-8)


@pytest.mark.parametrize("t", [1e6, 1e100, 1e300, math.inf])
def test_no_statistic_is_too_large(t: float) -> None:
    for p_of in (log10_normal_tail, log10_p_signs, log10_p_subgaussian):
        assert p_of(t) < -1e11


@pytest.mark.parametrize("t", [0.0, -1e-300, -5.0, -1e6, -math.inf, math.nan])
def test_what_is_no_evidence_has_the_p_value_one(t: float) -> None:
    assert log10_p_signs(t) == log10_p_subgaussian(t) == 0


def test_the_tail_from_no_number_on_is_refused() -> None:
    with pytest.raises(ValueError, match="nan"):
        log10_normal_tail(math.nan)


@given(st.lists(weights, min_size=1, max_size=9))
@example([1.0, 1.0])  # the bound is attained
def test_no_vector_of_weights_breaks_the_bound_for_signs(vector: list[float]) -> None:
    x = np.array(vector)
    length = float(np.linalg.norm(x))
    if not length:
        return
    # every pattern of signs, so these are exact probabilities; a hair below t, for what rounding does to equal sums
    sums = np.sort(np.array(list(itertools.product((-1.0, 1.0), repeat=len(x)))) @ (x / length))
    for t in np.unique(sums[sums > 0]):
        probability = np.mean(sums >= t - 1e-9)
        assert math.log10(probability) <= log10_p_signs(float(t)) + 1e-8, (vector, t)


@given(st.floats(0, math.tau))
def test_no_pair_of_weights_breaks_the_bound_for_nearly_normal_numbers(angle: float) -> None:
    sums = np.sort(np.add.outer(math.cos(angle) * LEVELS, math.sin(angle) * LEVELS).ravel())
    for t in np.linspace(0.05, sums[-1], 60):
        probability = 1 - np.searchsorted(sums, t) / len(sums)
        if probability > 0:
            assert math.log10(probability) <= log10_p_subgaussian(t), (angle, t)


@given(st.lists(st.floats(-1e4, 0), min_size=1, max_size=20))
def test_the_best_of_several_pays_for_all_of_them(log10_ps: list[float]) -> None:
    assert best_of(log10_ps) == min(0.0, min(log10_ps) + math.log10(len(log10_ps)))
    assert min(log10_ps) <= best_of(log10_ps) <= best_of(log10_ps, 100) <= 0


def test_the_best_of_none_is_no_evidence() -> None:
    assert best_of([]) == 0
    assert best_of([], 7) == 0


@pytest.mark.parametrize(("matches", "trials", "choices"), [(20, 100, 10), (64, 64, 10), (13, 64, 1000), (40, 60, 2)])
def test_the_binomial_tail_is_exact(matches: int, trials: int, choices: int) -> None:
    ways = sum(math.comb(trials, count) * (choices - 1) ** (trials - count) for count in range(matches, trials + 1))
    exact = math.log10(ways) - trials * math.log10(choices)
    assert log10_p_binomial(matches, trials, choices) == pytest.approx(exact, abs=1e-10)


def test_the_binomial_tail_does_not_underflow() -> None:
    assert log10_p_binomial(60_000, 60_000, 1000) == pytest.approx(-180_000)


def test_no_more_matches_than_guesses_have_are_no_evidence() -> None:
    assert [log10_p_binomial(matches, 100, 10) for matches in (0, 9, 10)] == [0, 0, 0]
    assert log10_p_binomial(0, 0, 10) == 0


@pytest.mark.parametrize("arguments", [(-1, 5, 10), (6, 5, 10), (1, 5, 1)])
def test_impossible_numbers_of_matches_are_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="matches"):
        log10_p_binomial(*arguments)
