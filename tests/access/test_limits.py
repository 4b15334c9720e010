"""GCRA against a bucket that is counted by hand, and states in bounded memory against a memory without bounds."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.access.limits import SWEEP_SECONDS, SWEEP_SIZE, Rate, States, admit, spent

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


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.integers(1, 50), st.integers(1, 50), st.integers(1, 50))
def test_many_limits_are_asked_by_the_same_rule_as_one(
    state: float, now: float, units: int, per_second: int, burst: int
) -> None:
    rate = Rate(per_second, burst)
    admitted_by_one = admit(rate, state, now, units)
    after = spent(rate, state, now, units)
    assert (after - now <= rate.ahead_max) == admitted_by_one.admitted
    assert not admitted_by_one.admitted or after == admitted_by_one.state


# --- states


def filled(states: States, count: int, until: float, owner: str = "") -> States:
    for index in range(count):
        assert states.wait(f"{owner}{index}", owner, NOW) == 0
        states.put(f"{owner}{index}", owner, until)
    return states


def test_what_does_not_count_any_more_makes_room() -> None:
    states = filled(States(100), 100, NOW + 5)
    assert states.wait("new", "", NOW + 6) == 0
    assert len(states) == 0


def test_where_all_count_newcomers_wait_and_the_known_do_not() -> None:
    states = filled(States(100), 100, NOW + 5)
    assert states.wait("new", "", NOW) == SWEEP_SECONDS
    assert states.wait("7", "", NOW) == 0
    assert len(states) == 100


def test_they_are_looked_through_no_more_than_once_a_second() -> None:
    states = filled(States(100), 100, NOW + 0.5)
    assert states.wait("new", "", NOW) > 0
    assert states.wait("new", "", NOW + 0.75) == pytest.approx(0.25)
    assert states.wait("new", "", NOW + SWEEP_SECONDS) == 0


def test_one_owner_cannot_take_the_room_of_others() -> None:
    states = filled(States(100, 10), 10, NOW + 5, "thief")
    assert states.wait("thief10", "thief", NOW) > 0
    assert states.wait("honest", "honest", NOW) == 0
    assert states.wait("thief10", "thief", NOW + 6) == 0


def test_a_key_counts_for_the_owner_who_brought_it_alone() -> None:
    states = States(100, 2)
    for owner, key in (("one", "a"), ("two", "a"), ("two", "b"), ("two", "c")):
        assert states.wait(key, owner, NOW) == 0
        states.put(key, owner, NOW + 5)
    assert states.wait("d", "two", NOW) > 0
    assert states.wait("d", "one", NOW) == 0


def test_memory_does_not_grow_with_those_who_came_and_went() -> None:
    states = States(1_000_000)
    for index in range(20 * SWEEP_SIZE):
        now = NOW + index / 10
        assert states.wait(str(index), "", now) == 0
        states.put(str(index), "", now + 1)
    assert len(states) <= 2 * SWEEP_SIZE


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 30), st.integers(1, 4)), max_size=80),
    st.integers(1, 6),
    st.integers(1, 3),
)
def test_whoever_is_let_in_would_have_been_let_in_by_an_endless_memory(
    steps: list[tuple[int, int, int]], states_max: int, owned_max: int
) -> None:
    rate, states, endless, now = Rate(1, 4), States(states_max, owned_max), dict[str, float](), NOW
    for gap, who, units in steps:
        now += gap / 4
        key, owner = str(who), str(who % 3)
        expected = admit(rate, endless.get(key, 0.0), now, units)
        if states.wait(key, owner, now):
            continue
        found = admit(rate, states.by_key.get(key, 0.0), now, units)
        assert found.admitted == expected.admitted
        if found.admitted:
            assert found.state == expected.state
            states.put(key, owner, found.state)
            endless[key] = expected.state
        assert len(states) <= states_max
