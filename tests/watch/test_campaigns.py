"""Campaigns: who is linked with whom in whatever order it shows, and what linked accounts give away together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palladion.watch import campaigns, coverage
from palladion.watch.campaigns import Group, Turn
from palladion.watch.client import ClientState
from palladion.watch.instruments import Episode

from . import factories
from .factories import GROUP_HORIZON, HORIZON

SEED = 83
CALIBRATION = factories.calibration()
RATE = 0.02  # of 149 organisations and two tests, 2 / 150 is the smallest there is


def members(share: float, count: int = 10, queries: int = GROUP_HORIZON, seed: int = SEED) -> list[Episode]:
    generator = np.random.default_rng(seed)
    return [factories.mixing(generator, queries, share) for _ in range(count)]


def group_of(count: int) -> Group:
    group = Group(CALIBRATION.instruments.shares)
    for name in range(count):
        group.join(str(name), CALIBRATION.new_state())
    return group


def ask(group: Group, name: str, episode: Episode, part: slice = slice(None)) -> None:
    state = group.states[name]
    reading = state.read(CALIBRATION.instruments, episode.inputs[part], episode.scores[part], horizon=HORIZON)
    group.read(name, reading, CALIBRATION, rate=RATE)


def ask_in_turns(episodes: list[Episode], at_once: int = 1) -> Group:
    group = group_of(len(episodes))
    for turn in range(0, len(episodes[0].inputs), at_once):
        for name, episode in enumerate(episodes):
            ask(group, str(name), episode, slice(turn, turn + at_once))
    return group


def figures(group: Group) -> tuple[object, ...]:
    return (group.sums.tolist(), group.count, group.squares, group.suspected, group.bitmap.tobytes())


def rejoined(group: Group) -> Group:
    """The group made anew from its members' saved states, as after a restart."""
    again = Group(CALIBRATION.instruments.shares)
    for name, state in group.states.items():
        again.join(name, ClientState.from_bytes(state.to_bytes()))
    return again


def test_members_and_their_names_are_collected_again_only_when_somebody_joins() -> None:
    group = group_of(3)
    members, names = group.members, group.names
    assert members == set(names)
    assert list(names) == ["0", "1", "2"]
    group.leave_memory("1")
    assert group.members is members
    assert group.names is names
    group.join("00", CALIBRATION.new_state())
    assert group.members == set(group.names)
    assert list(group.names) == ["0", "00", "1", "2"]
    other = Group(CALIBRATION.instruments.shares)
    other.join("9", CALIBRATION.new_state())
    group.absorb(other)
    assert group.members == set(group.names)
    assert list(group.names) == ["0", "00", "1", "2", "9"]


@pytest.mark.slow
def test_a_ring_is_caught_together_where_its_members_are_not() -> None:
    rings = [ask_in_turns(members(0.25, seed=SEED + index), at_once=3) for index in range(8)]

    together = [ring.p_value for ring in rings]
    alone = [CALIBRATION.clients.p_value(state.supremum) for ring in rings for state in ring.states.values()]
    assert np.mean(np.array(together) <= RATE) >= 0.75, f"seed {SEED}: {together}"
    assert np.mean(np.array(alone) <= CALIBRATION.clients.rate_min) <= 0.1, f"seed {SEED}"


def test_a_ring_can_be_caught_though_every_member_stays_below() -> None:
    ring = ask_in_turns(members(0.15, seed=SEED + 11), at_once=3)

    alone = [CALIBRATION.clients.p_value(state.supremum) for state in ring.states.values()]
    assert ring.p_value <= RATE < min(alone), f"seed {SEED + 11}: {alone}"


@pytest.mark.slow
def test_honest_organisations_are_rarely_caught() -> None:
    generator = np.random.default_rng(SEED)

    p_values = [ask_in_turns(factories.organisation(generator), at_once=3).p_value for _ in range(20)]

    assert np.mean(np.array(p_values) <= RATE) <= 0.1, f"seed {SEED}"


def test_a_group_of_which_one_member_asks_is_judged_as_that_member_alone() -> None:
    group = group_of(5)
    ask(group, "0", factories.noise(np.random.default_rng(SEED), 30))

    assert group.p_value == group.latest == 1
    assert group.suspected == 0


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 59), max_size=6), seed=st.integers(0, 99))
def test_cutting_a_members_queries_differently_changes_nothing_for_the_group(cuts: list[int], seed: int) -> None:
    first, second = members(0.4, count=2, queries=60, seed=seed)  # two epochs and a half
    whole, cut = group_of(2), group_of(2)

    for group, parts in ((whole, [slice(None)]), (cut, factories.pieces(60, cuts))):
        ask(group, "0", first, slice(0, 9))
        for part in parts:
            ask(group, "1", second, part)

    assert figures(cut) == figures(whole)
    assert cut.p_value == whole.p_value


def test_a_group_is_weighed_after_every_query_and_its_smallest_p_value_kept() -> None:
    episodes = members(0.5, count=3)
    group, seen = group_of(3), []
    for turn in range(GROUP_HORIZON):
        for name, episode in enumerate(episodes):
            ask(group, str(name), episode, slice(turn, turn + 1))
            seen.append(group.latest)

    assert group.p_value == min(seen) < seen[0] == 1
    assert group.suspected == sum(value <= RATE for value in seen)


def test_a_group_is_weighed_after_every_query_of_a_batch_too() -> None:
    generator = np.random.default_rng(SEED)
    stolen, calm = factories.noise(generator, 6).inputs, factories.honest_rows(generator, 17)
    group = group_of(2)

    ask(group, "0", factories.asked(stolen[:3]))
    ask(group, "1", factories.asked(np.concatenate([stolen[3:], calm])))
    assert group.p_value == group.latest == 2 / 150
    assert 0 < group.suspected < 17

    ask(group, "0", factories.honest(generator, 1))
    assert group.p_value == 2 / 150 < group.latest


def test_a_batch_over_the_end_of_an_epoch_is_as_suspicious_as_its_worst_query() -> None:
    generator = np.random.default_rng(SEED)
    group = group_of(2)
    ask(group, "0", factories.noise(generator, 11))

    stolen = factories.noise(generator, 2 * GROUP_HORIZON - 11).inputs
    ask(group, "1", factories.asked(np.concatenate([stolen, factories.honest_rows(generator, 3)])))

    assert (group.count, group.p_value) == (3, 1)  # a new epoch has begun
    assert group.latest == 2 / 150


def test_the_union_of_groups_keeps_sums() -> None:
    one, other = ask_in_turns(members(0.3, count=3)), ask_in_turns(members(0.0, count=2, seed=SEED + 1))
    union = Group(CALIBRATION.instruments.shares)
    for prefix, group in (("a", one), ("b", other)):
        for name, state in group.states.items():
            union.join(prefix + name, state)

    assert union.sums.tolist() == (one.sums + other.sums).tolist()
    assert union.count == one.count + other.count
    assert union.squares == sum(state.pooled_count**2 for state in union.states.values())
    assert union.suspected == one.suspected + other.suspected
    np.testing.assert_array_equal(union.bitmap, one.bitmap | other.bitmap)


def test_a_group_made_anew_from_saved_states_continues_exactly() -> None:
    group = ask_in_turns(members(0.4, count=4))
    again = rejoined(group)
    more = members(0.4, count=4, seed=SEED + 1)

    assert figures(again) == figures(group)
    for name, episode in enumerate(more):
        ask(group, str(name), episode)
        ask(again, str(name), episode)
    assert figures(again) == figures(group)
    assert again.latest == group.latest


def test_members_join_in_any_order() -> None:
    group = ask_in_turns(members(0.3, count=4))
    backwards = Group(CALIBRATION.instruments.shares)
    for name, state in reversed(group.states.items()):
        backwards.join(name, state)

    assert figures(backwards) == figures(group)


def test_who_joins_brings_no_verdict_along() -> None:
    group = ask_in_turns(members(0.8, count=3))
    assert group.p_value <= RATE

    group.join("new", CALIBRATION.new_state())

    assert group.p_value == group.latest == 1


def test_a_full_epoch_begins_evidence_anew_and_forgets_nothing_else() -> None:
    group = ask_in_turns(members(0.8, count=3))
    suspected, buckets = group.suspected, coverage.count(group.bitmap)
    assert group.count == 3 * GROUP_HORIZON

    ask(group, "1", factories.honest(np.random.default_rng(SEED), 1))

    assert (group.count, group.squares) == (1, 1)
    assert [state.pooled_count for state in group.states.values()] == [0, 1, 0]
    assert not group.states["0"].pooled_sums.any()
    np.testing.assert_array_equal(group.sums, group.states["1"].pooled_sums)
    assert group.p_value == group.latest == 1
    assert group.suspected == suspected > 0
    assert coverage.count(group.bitmap) >= buckets


def asked_together(episodes: list[Episode]) -> Group:
    """A group as it is when it was part of a larger one: all that its members asked is in one epoch."""
    group = Group(CALIBRATION.shares)
    for name, scores in enumerate(CALIBRATION.instruments.score(episodes)):
        group.join(str(name), ClientState(pooled_sums=scores.sum(axis=0), pooled_count=len(scores)))
    return group


def test_an_epoch_that_is_not_full_and_that_of_one_alone_go_on_as_its_group_is_parted() -> None:
    for group in (asked_together(members(0.9, queries=GROUP_HORIZON - 1)), asked_together(members(0.9, 1, 99))):
        before = figures(group)

        assert not group.end_epoch(CALIBRATION)

        assert figures(group) == before
        assert group.p_value == 1


def test_a_ring_that_asked_more_than_an_epoch_as_part_of_a_larger_group_is_caught_as_it_is_parted() -> None:
    group = asked_together(members(0.4, 5, 3 * GROUP_HORIZON))

    assert group.end_epoch(CALIBRATION)

    assert group.p_value <= RATE
    assert (group.count, group.squares) == (0, 0)
    assert not group.sums.any()
    group.join("late", CALIBRATION.new_state())
    assert group.p_value <= RATE
    whole = asked_together(members(0.0))
    whole.absorb(group)
    assert whole.p_value <= RATE
    whole.forgive()
    whole.join("later", CALIBRATION.new_state())
    assert whole.p_value == 1


def test_more_than_an_epoch_is_weighed_as_the_same_means_over_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    group = asked_together(members(0.4, 5, 3 * GROUP_HORIZON))
    sums, count, shares = group.sums, group.count, group.shares
    seen: list[Turn] = []

    def weighed(calibration: object, turns: list[Turn]) -> list[float]:
        seen.extend(turns)
        return [0.25]

    monkeypatch.setattr(campaigns, "p_values", weighed)
    assert group.end_epoch(CALIBRATION)

    (turn,) = seen
    horizon = 5 * GROUP_HORIZON
    assert list(turn.counts) == [horizon]
    np.testing.assert_allclose(turn.sums, [sums * horizon / count])
    assert abs(horizon**2 / turn.squares[0] - 5) < 0.1
    np.testing.assert_array_equal(turn.shares, [shares])
    assert (group.p_value, group.latest, group.carried) == (0.25, 0.25, 0.25)


@pytest.mark.slow
def test_honest_organisations_are_rarely_caught_as_their_group_is_parted_however_much_they_asked() -> None:
    generator = np.random.default_rng(SEED)
    caught = 0
    for number in range(60):
        group = asked_together(factories.organisation(generator, 5, (1 + number % 4) * GROUP_HORIZON))
        assert group.end_epoch(CALIBRATION)
        caught += group.p_value <= 0.1
    assert caught <= 6


def test_no_batch_carries_a_group_beyond_its_epoch() -> None:
    group = group_of(2)

    ask(group, "0", factories.honest(np.random.default_rng(SEED), 7))
    ask(group, "1", factories.honest(np.random.default_rng(SEED + 1), 200))

    assert group.count == (7 + 200) % (2 * GROUP_HORIZON)


def test_forgiving_begins_anew_for_all_members() -> None:
    group = ask_in_turns(members(0.8, count=3))

    group.forgive()

    assert (group.count, group.squares, group.suspected, group.p_value) == (0, 0, 0, 1)
    assert not group.sums.any()
    assert figures(rejoined(group)) == figures(group)


def test_coverage_of_a_group_is_that_of_all_its_members() -> None:
    group = ask_in_turns(members(0.5, count=3))

    union = coverage.empty_bitmap()
    for state in group.states.values():
        union |= state.bitmap
    np.testing.assert_array_equal(group.bitmap, union)


def test_a_member_who_asks_marks_the_group_and_not_the_others() -> None:
    group = group_of(1)
    ask(group, "0", factories.honest(np.random.default_rng(SEED), 5))
    group.join("1", CALIBRATION.new_state())
    alone = group.states["0"].bitmap.copy()

    ask(group, "1", factories.honest(np.random.default_rng(SEED + 1), 5))

    np.testing.assert_array_equal(group.states["0"].bitmap, alone)
    np.testing.assert_array_equal(group.bitmap, alone | group.states["1"].bitmap)
    assert group.covered == coverage.count(group.bitmap)


def test_a_client_alone_that_asks_query_by_query_brings_the_same_part_as_one_that_asks_at_once() -> None:
    episode = factories.honest(np.random.default_rng(SEED), GROUP_HORIZON + 4)
    singly, at_once = group_of(1), group_of(1)

    for turn in range(len(episode.inputs)):
        ask(singly, "0", episode, slice(turn, turn + 1))
    ask(at_once, "0", episode)

    assert figures(singly) == figures(at_once)
    assert singly.squares == singly.count**2 == 16
    assert singly.states["0"].to_bytes() == at_once.states["0"].to_bytes()
