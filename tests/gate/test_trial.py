"""Who is chosen for a version on trial, and when that is found to fail."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.gate.trial import (
    ALPHA,
    LOOKS,
    REQUESTS_MIN,
    Count,
    Trial,
    binomial,
    fisher,
    is_chosen,
)

KEY = bytes(32)
CLIENTS = [f"{number:016x}" for number in range(20_000)]


def _run(trial: Trial, outcomes: list[tuple[str, bool, bool]]) -> list[int]:
    """The places at which something was found."""
    found = [trial.count(client, on_trial=on_trial, failed=failed) for client, on_trial, failed in outcomes]
    return [place for place, finding in enumerate(found) if finding is not None]


# --- who


@pytest.mark.parametrize("percent", [1, 5, 50])
def test_the_share_is_what_was_asked_for(percent: int) -> None:
    chosen = sum(is_chosen(KEY, client, "fraud", 2, percent) for client in CLIENTS)
    # five standard deviations of a binomial share
    assert abs(chosen / len(CLIENTS) - percent / 100) < 5 * np.sqrt(percent / 100 / len(CLIENTS))


def test_whoever_is_in_a_share_is_in_every_larger_one() -> None:
    small = {client for client in CLIENTS if is_chosen(KEY, client, "fraud", 2, 5)}
    assert small < {client for client in CLIENTS if is_chosen(KEY, client, "fraud", 2, 10)}


@pytest.mark.slow
@pytest.mark.parametrize(("key", "model", "number"), [(b"\1" * 32, "fraud", 2), (KEY, "spam", 2), (KEY, "fraud", 3)])
def test_each_key_model_and_version_has_clients_of_its_own(key: bytes, model: str, number: int) -> None:
    one = {client for client in CLIENTS if is_chosen(KEY, client, "fraud", 2, 10)}
    other = {client for client in CLIENTS if is_chosen(key, client, model, number, 10)}
    assert len(one & other) < len(one) / 5


# --- how likely


@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 60), st.integers(0, 60))
def test_fisher_is_the_sum_of_all_tables_that_are_worse(mine: int, bad: int, beside: int, other: int) -> None:
    bad, other = min(bad, mine), min(other, beside)
    failed, total = bad + other, mine + beside
    tables = [comb(failed, k) * comb(total - failed, mine - k) for k in range(bad, min(failed, mine) + 1)]
    found = fisher(Count(mine, bad), Count(beside, other))
    if bad * total <= failed * mine:
        assert found == 1
    else:
        assert found == pytest.approx(sum(tables) / comb(total, mine), rel=1e-9)


@given(st.integers(1, 60), st.integers(0, 60))
def test_binomial_is_the_sum_of_all_counts_that_are_worse(requests: int, failed: int) -> None:
    failed = min(failed, requests)
    exact = sum(comb(requests, k) * 0.1**k * 0.9 ** (requests - k) for k in range(failed, requests + 1))
    assert binomial(Count(requests, failed), 0.1) == (pytest.approx(exact) if failed > requests / 10 else 1)


def test_counts_of_many_requests_neither_overflow_nor_vanish() -> None:
    assert fisher(Count(40_960, 40_960), Count(1_000_000, 0)) < 1e-100
    assert fisher(Count(40_960, 0), Count(1_000_000, 500_000)) == 1


# --- when


def test_a_version_that_always_fails_is_found_at_the_first_look() -> None:
    trial = Trial()
    beside = [("beside", False, False)] * 100
    assert _run(trial, beside + [("a", True, True), ("b", True, True)] * REQUESTS_MIN)[0] == 100 + REQUESTS_MIN - 1


def test_nothing_is_found_before_there_is_enough_to_look_at() -> None:
    trial = Trial()
    assert _run(trial, [("beside", False, False)] * 100 + [("a", True, True)] * (REQUESTS_MIN - 1)) == []


def test_a_version_that_fails_as_often_as_the_one_beside_it_stays() -> None:
    trial = Trial()
    every = [(str(n % 7), n % 2 == 0, n % 10 < 2) for n in range(4000)]
    assert _run(trial, every) == []


def test_one_client_alone_ends_no_trial_where_others_ask_too() -> None:
    trial = Trial()
    beside = [("beside", False, False)] * 500
    assert _run(trial, beside + [("hostile", True, True), ("honest", True, False)] * 200) == []


def test_the_only_client_of_a_version_counts() -> None:
    trial = Trial()
    assert _run(trial, [("beside", False, False)] * 100 + [("a", True, True)] * REQUESTS_MIN) != []


def test_without_anybody_beside_it_a_version_may_not_fail_every_tenth_request() -> None:
    assert _run(Trial(), [("a", True, True)] * REQUESTS_MIN) != []
    assert _run(Trial(), [("a", True, n % 10 == 0) for n in range(2000)]) == []


def test_a_sure_and_tiny_difference_is_left_to_people() -> None:
    trial = Trial()
    beside = [(str(n % 9), False, False) for n in range(100_000)]
    assert _run(trial, beside + [(str(n % 9), True, n % 200 == 0) for n in range(20_000)]) == []


def test_counts_begin_anew_after_the_last_look() -> None:
    trial = Trial()
    last = REQUESTS_MIN << (LOOKS - 1)
    _run(trial, [("a", True, False)] * (last - 1))
    assert trial.total.requests == last - 1
    _run(trial, [("a", True, False)])
    assert trial.total.requests == 0


def test_a_finding_says_what_it_rests_on() -> None:
    trial = Trial()
    _run(trial, [("beside", False, False)] * 100 + [("a", True, True)] * 12 + [("b", True, True)] * 7)
    finding = trial.count("b", on_trial=True, failed=True)
    assert finding is not None
    figures = finding.figures()
    # the client that failed most is left out
    assert (figures["requests"], figures["failed"], figures["left_out"]) == (8, 8, 12)
    assert (figures["standing_requests"], figures["standing_failed"]) == (100, 0)
    assert finding.p_value <= finding.alpha == ALPHA / 2


@pytest.mark.slow
def test_sound_versions_are_rolled_back_as_rarely_as_promised() -> None:
    """Null: both versions fail 5 % of requests. 3,000 trials of up to 640 requests, seed 1."""
    generator = np.random.default_rng(1)
    wrong = 0
    for _ in range(3000):
        trial = Trial()
        fails = generator.random((640, 2)) < 0.05
        wrong += any(
            (
                trial.count("beside", on_trial=False, failed=bool(row[0])),
                trial.count("a", on_trial=True, failed=bool(row[1])),
            )[1]
            is not None
            for row in fails
        )
    # the bound is 3 of 3,000; six would be reached once in twelve by a rate at the bound
    assert wrong / 3000 <= 2 * ALPHA
