"""One client at two places: sums, buckets and near queries are those of the whole, and honest clients stay honest."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palladion.watch import coverage
from palladion.watch.calibration import client_supremum
from palladion.watch.client import QUERIES_MIN, STATE_BYTES_MAX, ClientState, Past
from palladion.watch.instruments import Episode
from palladion.watch.merging import merged, together
from palladion.watch.own_evidence import OwnEvidence
from palladion.watch.own_tests import NEAR, WHOLE
from palladion.watch.recent import run_of
from palladion.watch.rows import Rows

from . import factories
from .factories import HORIZON

SEED = 89
CALIBRATION = factories.calibration()
INSTRUMENTS = CALIBRATION.instruments
TESTS = OwnEvidence(CALIBRATION, 0.01)


def dealt(scores: Rows, whose: Sequence[int], places: int = 2) -> list[ClientState]:
    """The states of each place, of which each got some queries of these scores, and a bucket each."""
    states = [CALIBRATION.new_state() for _ in range(places)]
    for number, (row, place) in enumerate(zip(scores, whose, strict=True)):
        TESTS.advance(states[place], row[None], 1)
        coverage.mark(states[place].bitmap, [number * 31 % coverage.BUCKETS])
    return states


def scored(episode: Episode) -> Rows:
    return INSTRUMENTS.score([episode])[0]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 99), whose=st.lists(st.integers(0, 1), min_size=1, max_size=HORIZON))
def test_of_an_epoch_that_was_dealt_to_two_places_the_whole_is_known(seed: int, whose: list[int]) -> None:
    scores = scored(factories.mixing(np.random.default_rng(seed), HORIZON, 0.3))[: len(whose)]
    whole, (first, second) = dealt(scores, [0] * len(scores), 1)[0], dealt(scores, whose[: len(scores)])

    found = merged(CALIBRATION, first, second)

    np.testing.assert_array_equal(found.sums, whole.sums)
    np.testing.assert_array_equal(found.bitmap, whole.bitmap)
    assert (found.count, found.queries) == (whole.count, whole.queries) == (len(scores), len(scores))
    assert found.recent is not None
    assert whole.recent is not None
    assert found.recent.near == whole.recent.near
    if len(scores) < QUERIES_MIN:
        assert found.statistic == -np.inf
        return
    assert INSTRUMENTS.own is not None
    each = INSTRUMENTS.own.each(INSTRUMENTS.effects, run_of(scores))[-1]
    assert found.statistic == found.supremum == pytest.approx(max(each[WHOLE], each[NEAR]), rel=1e-12)
    # and so it is never more unusual than the whole was
    assert found.supremum <= client_supremum(INSTRUMENTS, scores, HORIZON) + 1e-9


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), cut=st.integers(0, 80), third=st.integers(0, 20))
def test_it_makes_no_difference_which_comes_first_and_which_are_joined_before(seed: int, cut: int, third: int) -> None:
    generator, states = np.random.default_rng(seed), []
    for count in (cut, 80 - cut, third):
        state = CALIBRATION.new_state()
        episode = factories.asked(factories.honest_rows(generator, count))
        if count:
            state.read(INSTRUMENTS, episode.inputs, episode.scores, horizon=HORIZON)
        states.append(state)

    orders = {merged(CALIBRATION, *pair).to_bytes() for pair in itertools.permutations(states[:2])}
    one, other = (
        merged(CALIBRATION, merged(CALIBRATION, states[a], states[b]), states[c]) for a, b, c in ((0, 1, 2), (2, 1, 0))
    )

    assert len(orders) == 1
    np.testing.assert_array_equal(one.sums, other.sums)
    np.testing.assert_array_equal(one.bitmap, other.bitmap)
    assert (one.count, one.epoch, one.statistic) == (other.count, other.epoch, other.statistic)
    assert ClientState.from_bytes(one.to_bytes()).to_bytes() == one.to_bytes()


def test_full_states_fit_when_they_are_merged_and_neither_of_them_changes() -> None:
    generator, states = np.random.default_rng(SEED), []
    for _ in range(2):
        state, episode = CALIBRATION.new_state(), factories.foreign(generator, 400)
        state.read(INSTRUMENTS, episode.inputs, episode.scores, horizon=HORIZON, threshold=0.0)
        state.bitmap[:] |= generator.integers(0, 256, len(state.bitmap), dtype=np.uint8)
        state.past = Past(state.sums * 4, 4 * HORIZON)
        state.alarmed_at, state.pooled_sums, state.pooled_count = 7.0, state.sums * 2, 90
        states.append(state)
    before = [state.to_bytes() for state in states]
    states[1].alarmed_at = 9.0

    found = merged(CALIBRATION, *states)

    assert len(found.to_bytes()) <= STATE_BYTES_MAX
    assert CALIBRATION.fits(ClientState.from_bytes(found.to_bytes()))
    assert found.suspected == states[0].suspected + states[1].suspected > 0
    assert (found.epoch, found.alarmed_at, found.pooled_count) == (18, 9.0, 180)
    assert found.past is not None
    assert found.past.count == 8 * HORIZON
    states[1].alarmed_at = 7.0
    assert [state.to_bytes() for state in states] == before


def test_more_than_an_epoch_counts_as_one_with_the_same_mean() -> None:
    scores = scored(factories.mixing(np.random.default_rng(SEED), 2 * HORIZON, 0.4))
    first, second = dealt(scores, [0, 1] * (len(scores) // 2))

    found = merged(CALIBRATION, first, second)

    assert found.count == 2 * HORIZON
    assert INSTRUMENTS.own is not None
    as_one = INSTRUMENTS.own.each(INSTRUMENTS.effects, run_of(np.tile(scores.mean(axis=0), (HORIZON, 1))))[-1]
    assert found.statistic >= as_one[WHOLE] - 1e-9
    longer = INSTRUMENTS.own.each(INSTRUMENTS.effects, run_of(scores))[-1]
    assert found.statistic < max(longer[WHOLE], longer[NEAR])
    # the next query begins an epoch
    stretches = TESTS.advance(found, scores[:1], 1)
    assert (stretches[0].begins, found.count) == (True, 1)


def test_it_goes_on_and_what_was_done_lately_is_filled_up_by_the_mean_of_all() -> None:
    scores = scored(factories.honest(np.random.default_rng(SEED), HORIZON - 2))
    found = merged(CALIBRATION, *dealt(scores[:-1], [number % 2 for number in range(len(scores) - 1)]))

    (stretch,) = TESTS.advance(found, scores[-1:], 1)

    assert stretch.lately is not None
    last = found.count - 16 * ((found.count - 1) // 16 - 1)
    expected = scores[:-1].mean(axis=0) * (last - 1) + scores[-1]
    np.testing.assert_allclose(stretch.lately.sums, expected, atol=1e-4)


@pytest.mark.slow
def test_honest_clients_who_ask_at_two_places_are_taken_for_others_no_more_often_than_promised() -> None:
    generator, alpha, clients = np.random.default_rng(SEED), 0.05, 400
    beyond = 0
    for _ in range(clients):
        episode = factories.honest(generator, int(generator.integers(10, 2 * HORIZON)))
        states = [CALIBRATION.new_state(), CALIBRATION.new_state()]
        for place, state in enumerate(states):
            state.read(INSTRUMENTS, episode.inputs[place::2], episode.scores[place::2], horizon=HORIZON)
        beyond += CALIBRATION.p_value(merged(CALIBRATION, *states).supremum) <= alpha

    assert beyond <= clients * alpha + 3 * (clients * alpha * (1 - alpha)) ** 0.5


def test_who_stays_below_at_each_place_is_seen_by_what_both_saw() -> None:
    generator = np.random.default_rng(SEED)
    halves, whole = [], []
    for _ in range(20):
        episode = factories.mixing(generator, 30, 0.5)
        states = [CALIBRATION.new_state(), CALIBRATION.new_state()]
        for place, state in enumerate(states):
            state.read(INSTRUMENTS, episode.inputs[place::2], episode.scores[place::2], horizon=HORIZON)
            halves.append(CALIBRATION.p_value(state.statistic))
        (found,) = together(CALIBRATION, {"a": states[0], "b": states[0]}, {"a": states[1], "c": states[1]})
        assert found.client == "a"
        assert found.queries == 30
        assert max(found.buckets) <= found.united <= sum(found.buckets)
        whole.append(found.p_value)

    assert np.median(whole) < np.median(halves) / 2


def test_states_of_another_calibration_are_refused() -> None:
    state, other = CALIBRATION.new_state(), ClientState(np.zeros(3), pooled_sums=np.zeros(3))

    for pair in ((state, other), (other, state)):
        with pytest.raises(ValueError, match="only states of this calibration"):
            merged(CALIBRATION, *pair)
    plain = replace(CALIBRATION, instruments=replace(INSTRUMENTS, own=None))
    with pytest.raises(ValueError, match="only states of this calibration"):
        merged(plain, state, state)
