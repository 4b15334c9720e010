"""In which manner a client asks: what is said of times and classes, that it is bounded, and whom it tells apart."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palladion.errors import FormatError
from palladion.policy import WatchPolicy
from palladion.redteam import hours
from palladion.redteam.people import NIGHTLY_CLIENTS, OFFICE_CLIENTS
from palladion.watch.calibration import Calibration, calibrate, client_supremum
from palladion.watch.calibration_file import decode_calibration, encode_calibration
from palladion.watch.client import STATE_BYTES_MAX, ClientState
from palladion.watch.instruments import Episode, Instruments
from palladion.watch.manner import (
    BALANCE_MIN,
    GAP_S_MAX,
    GAP_S_MIN,
    HABITS_BYTES,
    LAST,
    MANNERS,
    Habits,
    hours_of,
    look_back,
    no_hours,
    rarity_of,
)
from palladion.watch.merging import merged
from palladion.watch.own_tests import MANNER, TESTS, WORDS
from palladion.watch.recent import run_of
from palladion.watch.suspicion import QUERIES_MIN
from palladion.watch.text.features import HOURS, hour_of_week
from palladion.watch.watch import Asker, Watch
from palladion.watch.why import words_of

from . import factories

SEED = 97
MONDAY = 4 * 86_400.0
PACE, REGULARITY, HOUR, RUN, BALANCE = range(len(MANNERS))
NO_HOURS = rarity_of(no_hours())


def timed(episode: Episode, generator: np.random.Generator) -> Episode:
    """The same at hours that an honest client keeps (`people.Person.times`)."""
    kind, pace = generator.random(), generator.standard_normal()
    if kind < OFFICE_CLIENTS:
        at = hours.office(len(episode.inputs), pace, generator)
    elif kind < OFFICE_CLIENTS + NIGHTLY_CLIENTS:
        at = hours.nightly(len(episode.inputs), pace, generator)
    else:
        at = hours.steady(len(episode.inputs), pace, generator)
    return replace(episode, at=MONDAY + at)


def honest(generator: np.random.Generator) -> Episode:
    """One honest client."""
    return timed(factories.honest(generator), generator)


def evenly(generator: np.random.Generator) -> Episode:
    """A thief with honest rows, whose program asks them at nearly the same distance."""
    episode = factories.honest(generator)
    return replace(episode, at=MONDAY + hours.patient(len(episode.inputs), 0.0, generator))


@cache
def calibration() -> Calibration:
    """A calibration of clients with moments."""
    generator = np.random.default_rng(SEED)
    fitting = [honest(generator) for _ in range(80)]
    instruments = Instruments.fit(fitting, generator, recorded=True)
    clients = [honest(generator) for _ in range(199)]
    groups = [factories.organisation(generator) for _ in range(20)]
    return calibrate(factories.ABOUT, fitting, clients, groups, generator, instruments=instruments)


def supremum(episode: Episode) -> float:
    """The largest statistic of a client."""
    instruments = calibration().instruments
    manners = instruments.manners(episode)
    return client_supremum(instruments, instruments.score([episode])[0], factories.HORIZON, manners)


def watched() -> Watch:
    """A watch by that calibration."""
    watch = Watch(WatchPolicy(alpha_suspected=0.005, alpha_watched=0.05))
    watch.watch_model("fraud", calibration(), {})
    return watch


# 1. what is said


def test_gaps_count_in_logarithms_and_regularity_is_how_unlike_two_are() -> None:
    habits = Habits()
    found = [habits.look(NO_HOURS, [0], at)[0] for at in (MONDAY, MONDAY + 10, MONDAY + 40)]

    assert np.isnan([found[0][PACE], found[0][REGULARITY], found[1][REGULARITY]]).all()
    np.testing.assert_allclose([found[1][PACE], found[2][PACE]], np.log([10, 30]))
    assert found[2][REGULARITY] == pytest.approx(math.log(3))


def test_of_a_request_the_first_query_alone_says_when_it_came() -> None:
    habits = Habits()
    habits.look(NO_HOURS, [0], MONDAY)
    first, *others = habits.look(NO_HOURS, [1, 1, 2], MONDAY + 5)

    assert first[PACE] == pytest.approx(math.log(5))
    assert np.isnan([other[:RUN] for other in others]).all()
    assert [first[RUN], *(other[RUN] for other in others)] == [0, 1, 0]


def test_a_request_of_repeats_alone_is_a_moment_too() -> None:
    habits = Habits()
    for at, named in ((0, [0]), (10, []), (20, [0])):
        found = habits.look(NO_HOURS, named, MONDAY + at)

    assert found[0][PACE] == pytest.approx(math.log(10))
    assert found[0][REGULARITY] == 0


@pytest.mark.parametrize("jump", [-3600.0, -1e-9, GAP_S_MAX + 1, 1e12], ids=str)
def test_a_clock_that_was_set_says_nothing_of_the_client(jump: float) -> None:
    habits = Habits()
    for at in (0.0, 10.0, 20.0):
        habits.look(NO_HOURS, [0], MONDAY + at)
    jumped, after, later = (habits.look(NO_HOURS, [0], MONDAY + 20 + jump + more)[0] for more in (0.0, 10.0, 20.0))

    assert np.isnan([jumped[PACE], jumped[REGULARITY], after[REGULARITY]]).all()
    assert after[PACE] == pytest.approx(math.log(10), rel=1e-3)
    assert later[REGULARITY] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("at", [math.nan, math.inf, -math.inf])
def test_a_moment_that_is_none_says_nothing_and_changes_nothing(at: float) -> None:
    habits = Habits()
    habits.look(NO_HOURS, [0], MONDAY)
    assert np.isnan(habits.look(NO_HOURS, [0], at)[0][:RUN]).all()
    assert habits.look(NO_HOURS, [0], MONDAY + 10)[0][PACE] == pytest.approx(math.log(10))


def test_a_burst_has_no_gap_below_the_least() -> None:
    habits = Habits()
    habits.look(NO_HOURS, [0], MONDAY)
    assert habits.look(NO_HOURS, [0], MONDAY + 1e-6)[0][PACE] == math.log(GAP_S_MIN)


def test_balance_is_the_share_of_the_last_answers_with_the_same_class() -> None:
    habits = Habits()
    for label in [0] * BALANCE_MIN + [1] * LAST:
        found = habits.look(NO_HOURS, [label], math.nan)[0]

    assert found[BALANCE] == (LAST - 1) / LAST
    assert habits.look(NO_HOURS, [0], math.nan)[0][BALANCE] == 0


def test_a_model_that_names_no_class_says_nothing_of_classes() -> None:
    assert np.isnan(Habits().look(NO_HOURS, [-1], MONDAY)[0][RUN:]).all()


def test_hours_at_which_nobody_asks_are_rarer_than_others() -> None:
    office = [MONDAY + hours.office(200, 0.0, np.random.default_rng(seed)) for seed in range(5)]
    shares = hours_of(office)

    assert shares.shape == (HOURS,)
    assert shares.sum() == pytest.approx(1)
    assert shares.min() > 0
    night, noon = (shares[hour_of_week(MONDAY + hour * 3600)] for hour in (3, 12))
    assert noon > 5 * night


# 2. that it is bounded, and kept


@settings(max_examples=40, deadline=None)
@given(
    moments=st.lists(st.floats(-1e9, 1e12) | st.just(math.nan), min_size=1, max_size=30),
    labels=st.lists(st.integers(-1, 2**40), min_size=30, max_size=30),
)
def test_habits_are_bounded_and_kept_to_the_last_bit(moments: list[float], labels: list[int]) -> None:
    habits = Habits()
    for at, label in zip(moments, labels, strict=False):
        found = habits.look(NO_HOURS, [label, label], at)
        assert not np.isinf(found).any()
        habits.add(np.nan_to_num(found).clip(-3, 3))
    data = habits.to_bytes()

    assert len(data) == HABITS_BYTES
    again = Habits.of_bytes(data)
    assert again.to_bytes() == data
    np.testing.assert_equal(again.look(NO_HOURS, [1], MONDAY), habits.look(NO_HOURS, [1], MONDAY))


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, math.inf), (1, -1.0), (1, 0.0), (1, math.inf), (2, math.nan)],
    ids=["no moment", "a gap below none", "no gap", "endless", "no sum"],
)
def test_habits_that_nobody_has_are_refused(place: int, value: float) -> None:
    data = bytearray(Habits().to_bytes())
    at = 8 * place if place < 2 else 18
    data[at : at + 8] = np.array(value).tobytes()
    with pytest.raises(FormatError, match="habits"):
        Habits.of_bytes(bytes(data))


@pytest.mark.parametrize("change", [(16, LAST + 1), (HABITS_BYTES - 1, 1)], ids=["too many", "behind the last"])
def test_classes_that_nobody_was_told_are_refused(change: tuple[int, int]) -> None:
    data = bytearray(Habits().to_bytes())
    data[change[0]] = change[1]
    with pytest.raises(FormatError, match="habits"):
        Habits.of_bytes(bytes(data))


@pytest.mark.slow
def test_a_state_with_habits_is_read_again_and_one_without_does_not_fit() -> None:
    state, episode = calibration().new_state(), honest(np.random.default_rng(SEED))
    state.read(calibration().instruments, episode.inputs, episode.scores, horizon=factories.HORIZON)
    state.spoke = MANNER
    again = ClientState.from_bytes(state.to_bytes())

    assert len(state.to_bytes()) <= STATE_BYTES_MAX
    assert again.to_bytes() == state.to_bytes()
    assert again.spoke == MANNER
    assert calibration().fits(again)
    assert not calibration().fits(factories.calibration().new_state())
    assert not factories.calibration().fits(again)


def test_two_places_know_of_one_client_whichever_is_asked() -> None:
    first, second = Habits(), Habits()
    for place, (habits, at) in enumerate(((first, 0.0), (first, 7.0), (second, 3.0))):
        habits.look(NO_HOURS, [place], MONDAY + at)
        habits.add(np.full((1, len(MANNERS)), float(place)))
    whole = first.merge(second)

    assert whole.to_bytes() == second.merge(first).to_bytes()
    np.testing.assert_array_equal(whole.sums, np.full(len(MANNERS), 3.0))
    assert np.isnan(whole.look(NO_HOURS, [1], MONDAY + 9.0)[0][REGULARITY])


def test_merged_states_are_weighed_without_their_manner() -> None:
    episode, states = evenly(np.random.default_rng(SEED)), [calibration().new_state() for _ in range(2)]
    for state, part in zip(states, (slice(0, 20), slice(20, 40)), strict=True):
        inputs, scores = episode.inputs[part], episode.scores[part]
        state.read(calibration().instruments, inputs, scores, horizon=factories.HORIZON)
    whole = merged(calibration(), *states)

    assert calibration().fits(whole)
    assert np.isfinite(whole.supremum)


# 3. whom it tells from others


def test_what_a_client_comes_to_is_the_same_as_it_asks_and_looking_back() -> None:
    generator = np.random.default_rng(SEED)
    for episode in (honest(generator), evenly(generator)):
        watch = watched()
        assert episode.at is not None
        for place, at in enumerate(episode.at.tolist()):
            one = slice(place, place + 1)
            watch.observe(Asker("a", "a"), "fraud", episode.inputs[one], episode.scores[one], now=at)
        state = ClientState.from_bytes(watch.changes("fraud")["a"])
        assert state.supremum == supremum(episode)


@pytest.mark.parametrize("cuts", [(1, 2, 3, 7), (5,), tuple(range(40))])
def test_how_queries_that_come_at_once_are_cut_makes_no_difference(cuts: tuple[int, ...]) -> None:
    episode, found = evenly(np.random.default_rng(SEED)), []
    for parts in ([slice(1, 40)], factories.pieces(40, (1, *cuts))[1:]):
        watch = watched()
        for now, part in ((MONDAY, slice(0, 1)), *((MONDAY + 60, part) for part in parts)):
            watch.observe(Asker("a", "a"), "fraud", episode.inputs[part], episode.scores[part], now=now)
        habits = ClientState.from_bytes(watch.changes("fraud")["a"]).habits
        assert habits is not None
        found.append(habits.to_bytes())

    assert found[0] == found[1]


@pytest.mark.slow
def test_who_asks_honest_rows_evenly_is_told_from_honest_clients() -> None:
    generator, threshold = np.random.default_rng(SEED), calibration().threshold(0.02)
    thieves = np.array([supremum(evenly(generator)) for _ in range(30)])
    clients = np.array([supremum(honest(generator)) for _ in range(100)])

    assert (thieves > threshold).mean() >= 0.9
    assert (clients > threshold).mean() <= 0.06


def test_a_new_epoch_begins_with_its_own_manner() -> None:
    watch, generator = watched(), np.random.default_rng(SEED)
    first, second = factories.honest(generator), factories.honest(generator, 1)
    for place, episode in enumerate((first, second)):
        watch.observe(Asker("a", "a"), "fraud", episode.inputs, episode.scores, now=MONDAY + 60 * place)
    state = ClientState.from_bytes(watch.changes("fraud")["a"])
    manner = calibration().instruments.manner
    assert manner is not None
    assert state.habits is not None

    assert (state.epoch, state.count) == (1, 1)
    pace = manner.scores.score(np.array([[math.log(60), *[math.nan] * 4]]))[0, PACE]
    assert state.habits.sums[PACE] == pace


def test_people_are_told_how_a_client_asks() -> None:
    watch, episode = watched(), evenly(np.random.default_rng(SEED))
    assert episode.at is not None
    for place, at in enumerate(episode.at.tolist()):
        one = slice(place, place + 1)
        watch.observe(Asker("a", "a"), "fraud", episode.inputs[one], episode.scores[one], now=at)
    (explained,) = watch.explain("a")

    assert WORDS[MANNER] in explained.reasons
    assert any("regularity -" in reason and MANNERS["regularity"] in reason for reason in explained.reasons)
    assert explained.unlike.test == "manner"
    assert explained.unlike.features[0][0] in MANNERS
    assert words_of("regularity", "numbers") == MANNERS["regularity"]


def test_clients_without_moments_are_weighed_as_ever() -> None:
    generator = np.random.default_rng(SEED)
    clients = [honest(generator) for _ in range(40)]
    with_moments, without = (
        Instruments.fit(some, np.random.default_rng(1))
        for some in (clients, [replace(client, at=None) for client in clients])
    )
    assert with_moments.own is not None
    assert without.own is not None
    scores = without.score(clients[:1])[0]

    assert without.manner is None
    np.testing.assert_array_equal(with_moments.own.scales[:TESTS], without.own.scales)
    each = with_moments.own.each(with_moments.effects, run_of(scores, with_moments.manners(clients[0])))
    np.testing.assert_array_equal(each[:, :TESTS], without.own.each(without.effects, run_of(scores)))
    assert each.shape[1] == TESTS + 1


@pytest.mark.slow
def test_hours_are_known_of_recorded_clients_alone() -> None:
    generator = np.random.default_rng(SEED)
    simulated = Instruments.fit([honest(generator) for _ in range(40)], generator).manner
    recorded = calibration().instruments.manner
    assert simulated is not None
    assert recorded is not None
    at = np.array([MONDAY + 3 * 3600, MONDAY + 12 * 3600])
    night, noon = (
        test.scores.score(look_back(test.rarity, at, [0, 0], np.ones(2, np.bool_)))[:, HOUR]
        for test in (recorded, simulated)
    )

    assert night[0] > night[1]
    assert (noon == 0).all()


def test_a_calibration_with_a_manner_is_written_and_read_to_the_last_bit() -> None:
    data = encode_calibration(calibration())
    again = decode_calibration(data, what="it")

    assert encode_calibration(again) == data
    episode = evenly(np.random.default_rng(SEED))
    assert again.instruments.manner is not None
    np.testing.assert_array_equal(again.instruments.manners(episode), calibration().instruments.manners(episode))


def test_an_hour_in_which_nobody_asks_is_refused() -> None:
    own = calibration().instruments.own
    assert own is not None
    assert own.manner is not None
    broken = replace(own.manner, hours=np.zeros(HOURS))
    instruments = replace(calibration().instruments, own=replace(own, manner=broken))
    with pytest.raises(FormatError, match="an hour in which nobody asks"):
        decode_calibration(encode_calibration(replace(calibration(), instruments=instruments)), what="it")


def test_moments_are_one_for_each_query() -> None:
    with pytest.raises(ValueError, match="moments of the shape"):
        Episode(np.zeros((3, 2)), np.zeros((3, 0)), np.zeros(2))


def test_nobody_is_weighed_by_its_manner_before_enough_queries() -> None:
    episode = evenly(np.random.default_rng(SEED))
    watch = watched()
    assert episode.at is not None
    for place in range(QUERIES_MIN - 1):
        one = slice(place, place + 1)
        found = watch.observe(
            Asker("a", "a"), "fraud", episode.inputs[one], episode.scores[one], now=float(episode.at[place])
        )
    assert found.evidence.p_value == 1
