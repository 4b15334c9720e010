"""GCRA against a bucket that is counted by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.access.limits import Rate, admit

NOW = 1_700_000_000.0


def admitted(rate: Rate, moments: list[float], units: float = 1) -> int:
    state, count = 0.0, 0
    for moment in moments:
        verdict = admit(rate, state, moment, units)
        state = verdict.state
        count += verdict.admitted
    return count


def test_a_burst_is_admitted_at_once_and_nothing_beyond_it() -> None:
    assert admitted(Rate(10, 25), [NOW] * 100) == 25


def test_a_steady_client_at_the_rate_is_never_refused() -> None:
    assert admitted(Rate(4, 1), [NOW + index / 4 for index in range(400)]) == 400


def test_the_wait_that_is_named_is_enough_and_not_too_long() -> None:
    rate = Rate(2, 3)
    state = NOW
    for _ in range(3):
        state = admit(rate, state, NOW, 1).state
    refused = admit(rate, state, NOW, 1)
    assert not refused.admitted
    assert refused.wait_seconds == pytest.approx(0.5)
    assert admit(rate, refused.state, NOW + refused.wait_seconds, 1).admitted
    assert not admit(rate, refused.state, NOW + refused.wait_seconds - 0.01, 1).admitted


def test_a_refusal_spends_nothing() -> None:
    rate = Rate(1, 5)
    state = admit(rate, NOW, NOW, 4).state
    for _ in range(50):
        state = admit(rate, state, NOW, 2).state
    assert admit(rate, state, NOW, 1).admitted


def test_more_than_the_burst_is_never_admitted() -> None:
    assert admit(Rate(10, 5), 0, NOW, 6).wait_seconds == math.inf


def test_a_clock_set_back_locks_nobody_out_for_longer_than_a_refill() -> None:
    rate = Rate(1, 5)
    state = admit(rate, NOW, NOW, 5).state
    verdict = admit(rate, state, NOW - 86_400, 1)
    assert verdict.wait_seconds <= 5


def test_a_divided_rate_admits_a_quarter() -> None:
    moments = [NOW + index / 100 for index in range(4000)]
    full, quarter = (admitted(rate, moments) for rate in (Rate(20, 20), Rate(20, 20).divided(4)))
    assert quarter == pytest.approx(full / 4, rel=0.02)
    assert Rate(1, 2).divided(100).burst == 1


@given(
    st.lists(st.tuples(st.floats(0, 3), st.integers(1, 7)), max_size=60),
    st.integers(1, 20),
    st.integers(1, 20),
)
def test_no_window_admits_more_than_rate_and_burst_allow(
    steps: list[tuple[float, int]], per_second: int, burst: int
) -> None:
    rate, state, now, spent = Rate(per_second, burst), 0.0, NOW, []
    for gap, units in steps:
        now += gap
        verdict = admit(rate, state, now, units)
        state = verdict.state
        if verdict.admitted:
            spent.append((now, units))
    for index, (start, _) in enumerate(spent):
        total = 0
        for moment, units in spent[index:]:
            total += units
            assert total <= burst + (moment - start) * per_second + 1e-3


@pytest.mark.parametrize("numbers", [(0, 1), (1, 0), (-1, 1), (math.nan, 1), (1, math.inf)])
def test_a_rate_that_is_none_is_refused(numbers: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="two positive numbers"):
        Rate(*numbers)


def test_spending_nothing_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="cannot be spent"):
        admit(Rate(1, 1), 0, NOW, 0)
