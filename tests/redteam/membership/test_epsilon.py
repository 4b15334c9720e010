"""Lower bounds on ε: exact intervals, bounds that mechanisms of a known ε keep, and one that breaks its promise."""

import numpy as np
import pytest

from palladion.redteam.membership.epsilon import (
    clopper_pearson,
    epsilon_from_one_run,
    epsilon_from_rates,
    epsilon_from_scores,
    p_value_of_one_run,
)

SEED = 77


@pytest.mark.parametrize(
    ("successes", "trials"), [(0, 20), (20, 20), (1, 1000), (37, 100), (500, 1000), (9_990, 10_000)]
)
@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_intervals_are_those_of_clopper_and_pearson(successes: int, trials: int, confidence: float) -> None:
    beta = pytest.importorskip("scipy.stats").beta
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else beta.ppf(tail, successes, trials - successes + 1)
    high = 1.0 if successes == trials else beta.ppf(1 - tail, successes + 1, trials - successes)
    assert clopper_pearson(successes, trials, confidence) == pytest.approx((low, high), abs=1e-9)


def test_a_bound_is_the_formula_of_its_interval_ends() -> None:
    found = epsilon_from_rates(90, 100, 5, 100, delta=0.01)
    tpr, fpr = clopper_pearson(90, 100, 0.95), clopper_pearson(5, 100, 0.95)
    one, other = np.log((tpr[0] - 0.01) / fpr[1]), np.log((1 - fpr[1] - 0.01) / (1 - tpr[0]))
    assert found.epsilon == pytest.approx(max(one, other))
    assert "90 of 100 members and 5 of 100 others" in found.statement


def test_misses_bound_it_as_well_as_hits() -> None:
    assert epsilon_from_rates(100, 100, 60, 100).epsilon == pytest.approx(epsilon_from_rates(40, 100, 0, 100).epsilon)


def test_no_difference_and_no_runs_prove_nothing() -> None:
    assert epsilon_from_rates(50, 100, 50, 100).epsilon == 0.0
    assert epsilon_from_rates(1, 1, 0, 1).epsilon == 0.0
    assert epsilon_from_rates(60, 100, 40, 100, delta=0.9).epsilon == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_randomised_response_keeps_its_epsilon_and_the_bound_comes_near(epsilon: float) -> None:
    generator = np.random.default_rng(SEED)
    truthful = 1 / (1 + np.exp(-epsilon))
    broken, bounds = 0, []
    for _ in range(40):
        hits, false = generator.binomial(1000, truthful), generator.binomial(1000, 1 - truthful)
        bounds.append(epsilon_from_rates(int(hits), 1000, int(false), 1000).epsilon)
        broken += bounds[-1] > epsilon
    assert broken <= 5, broken  # 2 are allowed on average
    assert np.median(bounds) > 0.6 * epsilon


@pytest.mark.slow
def test_a_threshold_is_chosen_on_other_runs_than_it_is_judged_by() -> None:
    generator = np.random.default_rng(SEED)
    member = np.arange(2000) < 1000
    broken = 0
    for _ in range(20):
        noise = generator.standard_normal(2000)
        broken += epsilon_from_scores(noise, member, generator).epsilon > 0
        assert epsilon_from_scores(noise + 3 * member, member, generator).epsilon > 1.5
    assert broken <= 3, broken  # 1 is allowed on average
    # of an odd number the larger half is judged, and nothing else
    assert "of 501 members and" in epsilon_from_scores(np.arange(2001.0), np.arange(2001) > 999, generator).statement
    with pytest.raises(ValueError, match="too few"):
        epsilon_from_scores(noise[:4], member[:4], generator)


def test_one_run_bounds_pure_privacy_as_binomial_guessing() -> None:
    binom = pytest.importorskip("scipy.stats").binom
    for epsilon in (0.0, 0.7, 2.0):
        wanted = binom.sf(79, 100, 1 / (1 + np.exp(-epsilon)))
        assert p_value_of_one_run(1000, 100, 80, epsilon=epsilon, delta=0) == pytest.approx(wanted, rel=1e-9)
    found = epsilon_from_one_run(1000, 100, 80).epsilon
    assert p_value_of_one_run(1000, 100, 80, epsilon=found, delta=0) == pytest.approx(0.05, abs=1e-6)


def test_one_run_pays_for_delta_as_the_theorem_says() -> None:
    binom = pytest.importorskip("scipy.stats").binom
    canaries, guesses, right, epsilon, delta = 500, 60, 50, 1.0, 1e-4
    q = 1 / (1 + np.exp(-epsilon))
    worst = max(
        (binom.cdf(right - 1, guesses, q) - binom.cdf(right - i - 1, guesses, q)) / i for i in range(1, right + 1)
    )
    wanted = binom.sf(right - 1, guesses, q) + 2 * canaries * delta * worst
    found = p_value_of_one_run(canaries, guesses, right, epsilon=epsilon, delta=delta)
    assert found == pytest.approx(wanted, rel=1e-9)
    bounds = [epsilon_from_one_run(canaries, guesses, right, delta=d).epsilon for d in (0.0, 1e-5, 1e-3)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > bounds[2]


def test_one_run_of_perfect_guesses_is_bounded_by_their_number() -> None:
    # at least log(p / (1 - p)) with p^r = 0.05
    share = 0.05 ** (1 / 200)
    assert epsilon_from_one_run(200, 200, 200).epsilon == pytest.approx(np.log(share / (1 - share)), abs=1e-6)
    assert epsilon_from_one_run(200, 200, 100).epsilon == 0.0


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="not a count"):
        clopper_pearson(3, 2, 0.95)
    with pytest.raises(ValueError, match="not a count"):
        epsilon_from_rates(0, 0, 0, 10)
    with pytest.raises(ValueError, match="confidence"):
        epsilon_from_rates(1, 2, 1, 2, confidence=0.2)
    with pytest.raises(ValueError, match="δ"):
        epsilon_from_rates(1, 2, 1, 2, delta=1.0)
    with pytest.raises(ValueError, match="guesses"):
        epsilon_from_one_run(10, 11, 5)
