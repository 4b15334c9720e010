"""Split-conformal p-values: valid for every client that is exchangeable with those of the calibration."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from palladion.watch.conformal import Conformal

SEED = 17
FINITE = st.floats(-1e6, 1e6, allow_nan=False)
RATES = st.floats(1e-6, 0.5, exclude_min=True)


def binomial_bound(rate: float, trials: int) -> float:
    """A share that a frequency of probability `rate` exceeds once in a thousand times."""
    return float(rate + 3.1 * np.sqrt(rate * (1 - rate) / trials) + 1 / trials)


@pytest.mark.parametrize("clients", [19, 99])
def test_p_values_of_exchangeable_clients_are_never_too_small_too_often(clients: int) -> None:
    generator, rounds = np.random.default_rng(SEED), 3000
    # calibration and client drawn anew every time: that is what the promise speaks of
    p_values = []
    for _ in range(rounds):
        suprema = generator.gamma(2, 3, clients + 1)
        p_values.append(Conformal.fit(suprema[:-1]).p_value(float(suprema[-1])))

    for rate in (1 / (clients + 1), 0.05, 0.2, 0.5):
        assert np.mean(np.array(p_values) <= rate) <= binomial_bound(rate, rounds), f"seed {SEED}, rate {rate}"
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.05), f"seed {SEED}"


@pytest.mark.slow
def test_p_values_stay_valid_where_many_clients_share_one_value() -> None:
    generator, rounds = np.random.default_rng(SEED), 4000
    alarms = 0
    for _ in range(rounds):
        suprema = generator.integers(0, 3, 50).astype(np.float64)
        alarms += Conformal.fit(suprema[:-1]).p_value(float(suprema[-1])) <= 0.1

    assert alarms / rounds <= binomial_bound(0.1, rounds), f"seed {SEED}"


@settings(max_examples=50)
@given(suprema=st.lists(FINITE, min_size=1, max_size=40), rate=RATES, value=FINITE)
def test_a_value_is_above_the_threshold_exactly_if_its_p_value_is_at_most_the_rate(
    suprema: list[float], rate: float, value: float
) -> None:
    conformal = Conformal.fit(np.array(suprema))

    for candidate in (value, *suprema):
        assert (candidate > conformal.threshold(rate)) == (conformal.p_value(candidate) <= rate)


@settings(max_examples=50)
@given(clients=st.integers(1, 3000), rank=st.integers(1, 3000))
def test_threshold_and_p_value_agree_at_rates_that_are_no_round_numbers(clients: int, rank: int) -> None:
    assume(rank <= clients)
    conformal = Conformal(np.arange(clients, dtype=np.float64))
    exact = rank / (clients + 1)

    for rate in (exact, np.nextafter(exact, 0), np.nextafter(exact, 1)):
        threshold = conformal.threshold(float(rate))
        above = np.nextafter(threshold, np.inf) if np.isfinite(threshold) else threshold
        assert threshold == np.inf or conformal.p_value(float(above)) <= rate
        assert conformal.p_value(threshold if np.isfinite(threshold) else 1e9) > rate


@settings(max_examples=50)
@given(suprema=st.lists(FINITE, min_size=1, max_size=30), values=st.lists(FINITE, min_size=1, max_size=5))
def test_p_values_of_several_are_those_of_each(suprema: list[float], values: list[float]) -> None:
    conformal = Conformal.fit(np.array(suprema))

    assert conformal.p_values(np.array(values)).tolist() == [conformal.p_value(value) for value in values]


def test_so_few_clients_support_no_smaller_rate() -> None:
    conformal = Conformal.fit(np.arange(99.0))

    assert conformal.rate_min == 0.01
    assert conformal.p_value(1e9) == 0.01
    assert conformal.threshold(0.01) == 98
    assert conformal.threshold(0.0099) == float("inf")


def test_a_client_that_was_never_weighed_has_the_p_value_one() -> None:
    assert Conformal.fit(np.arange(5.0)).p_value(float("-inf")) == 1


@pytest.mark.parametrize("suprema", [[], [1.0, float("nan")]], ids=["none", "not a number"])
def test_a_threshold_needs_a_number_for_at_least_one_client(suprema: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one client, and a number for each"):
        Conformal.fit(np.array(suprema))


def test_a_statistic_that_is_no_number_is_as_unusual_as_can_be() -> None:
    assert Conformal.fit(np.arange(99.0)).p_value(float("nan")) == 0.01
