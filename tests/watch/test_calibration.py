"""Calibrations: what they count, that they measure what the watch measures, and that their promise holds."""

import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palladion.watch.calibration import (
    MEMBER_SIZES,
    QUERIES_OF_CLIENT_MIN,
    Calibration,
    calibrate,
    client_supremum,
    group_p_values,
    group_suprema,
)
from palladion.watch.calibration_file import encode_calibration
from palladion.watch.campaigns import Group
from palladion.watch.client import QUERIES_MIN
from palladion.watch.instruments import Episode

from . import factories
from .factories import ABOUT, GROUP_HORIZON, HORIZON
from .test_conformal import binomial_bound

SEED = 67
CALIBRATION = factories.calibration()
INSTRUMENTS = CALIBRATION.instruments
NOTHING_ODD = np.zeros((1, 3), np.int64)


def small(
    clients: Iterable[Episode] | None = None, organisations: Iterable[list[Episode]] | None = None, seed: int = SEED
) -> Calibration:
    generator = np.random.default_rng(seed)
    fitting = [factories.honest(generator) for _ in range(25)]
    if clients is None:
        clients = [factories.honest(generator) for _ in range(9)]
    groups = [factories.organisation(generator) for _ in range(4)] if organisations is None else organisations
    return calibrate(ABOUT, fitting, clients, groups, generator)


def caught_at(episode: Episode, rate: float) -> int:
    """After how many queries the client is at or below that p-value; one more than it asked if it never is."""
    scores = INSTRUMENTS.score([episode])[0][:HORIZON]
    above = np.flatnonzero(INSTRUMENTS.path(scores)[QUERIES_MIN - 1 :] > CALIBRATION.clients.threshold(rate))
    return int(above[0]) + QUERIES_MIN if len(above) else len(episode.inputs) + 1


def ask_in_turns(members: list[Episode]) -> Group:
    """The group of clients who ask one query each in turns, as the gate would have it."""
    group, states = Group(INSTRUMENTS.shares), [CALIBRATION.new_state() for _ in members]
    for name, state in enumerate(states):
        group.join(str(name), state)
    for turn in range(len(members[0].inputs)):
        for name, (state, member) in enumerate(zip(states, members, strict=True)):
            reading = state.read(
                INSTRUMENTS, member.inputs[turn : turn + 1], member.scores[turn : turn + 1], horizon=HORIZON
            )
            group.read(str(name), reading, CALIBRATION, rate=0.05)
    return group


def test_counts_are_of_those_who_were_used() -> None:
    about = small().about

    assert (about.fitted, about.clients, about.organisations) == (25, 9, 4)
    assert replace(about, fitted=0, clients=0, organisations=0) == ABOUT
    assert CALIBRATION.clients.rate_min == 1 / 300
    sizes = {size: len(group.pooled.suprema) for size, group in CALIBRATION.groups.items()}
    assert sizes == dict.fromkeys(MEMBER_SIZES, 149)


@pytest.mark.slow
def test_clients_and_generator_decide_every_byte() -> None:
    assert encode_calibration(small()) == encode_calibration(small())
    assert encode_calibration(small()) != encode_calibration(small(seed=SEED + 1))


def test_a_client_counts_by_what_the_watch_would_have_found() -> None:
    generator = np.random.default_rng(SEED)
    for episode in [factories.honest(generator, 60), factories.mixing(generator, 30, 0.5)]:
        state, largest = factories.calibration().new_state(), float("-inf")
        for index in range(min(HORIZON, len(episode.inputs))):
            state.read(
                INSTRUMENTS, episode.inputs[index : index + 1], episode.scores[index : index + 1], horizon=HORIZON
            )
            largest = max(largest, state.supremum)

        assert client_supremum(INSTRUMENTS, INSTRUMENTS.score([episode])[0], HORIZON) == largest


def test_what_a_client_asks_after_its_epoch_does_not_count() -> None:
    generator = np.random.default_rng(SEED)
    calm = factories.honest(generator)
    then_stealing = factories.asked(np.concatenate([calm.inputs, factories.noise(generator, 200).inputs]))

    first, both = (INSTRUMENTS.score([episode])[0] for episode in (calm, then_stealing))

    assert client_supremum(INSTRUMENTS, both, HORIZON) == client_supremum(INSTRUMENTS, first, HORIZON)
    assert client_supremum(INSTRUMENTS, both, 10 * HORIZON) > client_supremum(INSTRUMENTS, first, HORIZON)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("size", MEMBER_SIZES)
def test_an_organisation_counts_by_what_the_watch_would_have_found(size: int, share: float) -> None:
    generator = np.random.default_rng(SEED)
    members = [factories.mixing(generator, GROUP_HORIZON, share) for _ in range(size)]

    pooled, shares = group_suprema(INSTRUMENTS, INSTRUMENTS.score(members))[size]

    # while not all have asked equally often, the next smaller size counts as well: never a smaller p-value
    group = ask_in_turns(members)
    assert group.p_value >= CALIBRATION.groups[size].p_values(np.array([pooled]), np.array([shares]))[0]
    counts = np.array([size * GROUP_HORIZON])
    scores = INSTRUMENTS.score(members)
    sums = np.concatenate(scores).sum(axis=0)[None]
    last = INSTRUMENTS.pooled.statistic(sums[:, :-1], counts, np.array([1 / size]))
    parts = INSTRUMENTS.shares.parts(
        np.array([own[:, -1].sum() for own in scores]), np.array([len(own) for own in scores])
    )
    odd = INSTRUMENTS.shares.statistic(parts.sum(axis=0)[None])
    assert group.latest == pytest.approx(CALIBRATION.groups[size].p_values(last, odd)[0])


def test_clients_who_hardly_asked_are_left_out() -> None:
    generator = np.random.default_rng(SEED)
    few = factories.honest(generator, QUERIES_OF_CLIENT_MIN - 1)
    the_same = factories.asked(np.tile(few.inputs, (5, 1)))
    enough = factories.honest(generator, QUERIES_OF_CLIENT_MIN)

    assert small([few, the_same, enough]).about.clients == 1


def test_without_clients_there_is_no_threshold() -> None:
    with pytest.raises(ValueError, match="at least one client"):
        small([factories.honest(np.random.default_rng(SEED), 3)])


def test_organisations_give_thresholds_for_the_sizes_that_they_can_form() -> None:
    generator = np.random.default_rng(SEED)
    three = [factories.organisation(generator, members=3, queries=5) for _ in range(2)]
    hardly_any = [factories.organisation(generator, members=2, queries=2)]

    groups = small(organisations=three + hardly_any).groups

    assert {size: len(group.shares.suprema) for size, group in groups.items()} == {2: 2, 3: 2}


def test_only_the_clients_to_fit_to_are_held_at_once() -> None:
    alive: weakref.WeakSet[Episode] = weakref.WeakSet()
    held = []

    def arriving() -> Iterator[Episode]:
        generator = np.random.default_rng(SEED)
        for _ in range(20):
            episode = factories.honest(generator)
            alive.add(episode)
            held.append(len(alive))
            yield episode

    small(arriving(), ([episode] * 2 for episode in arriving()))

    assert len(held) == 40
    assert max(held) <= 3


@pytest.mark.slow
def test_honest_clients_that_were_never_seen_are_suspected_as_rarely_as_promised() -> None:
    generator, clients = np.random.default_rng(SEED), 600
    p_values = np.array(
        [
            CALIBRATION.clients.p_value(client_supremum(INSTRUMENTS, INSTRUMENTS.score([episode])[0], HORIZON))
            for episode in (factories.honest(generator) for _ in range(clients))
        ]
    )

    for rate in (0.01, 0.05, 0.2):
        # the threshold is itself a draw: of n clients, its own rate varies with Beta(r(n+1), …)
        drawn = rate + 3 * (rate * (1 - rate) / len(CALIBRATION.clients.suprema)) ** 0.5
        alarms = np.mean(p_values <= rate)
        assert alarms <= binomial_bound(drawn, clients), f"seed {SEED}: {alarms} at {rate}"


@pytest.mark.slow
def test_over_many_calibrations_honest_clients_are_suspected_as_rarely_as_promised() -> None:
    rounds, each, rate = 40, 25, 0.05
    alarms = 0
    for seed in range(rounds):
        generator = np.random.default_rng([SEED, seed])
        calibration = calibrate(
            ABOUT,
            [factories.honest(generator) for _ in range(40)],
            (factories.honest(generator) for _ in range(99)),
            [],
            generator,
        )
        for _ in range(each):
            scores = calibration.instruments.score([factories.honest(generator)])[0]
            supremum = client_supremum(calibration.instruments, scores, HORIZON)
            alarms += calibration.clients.p_value(supremum) <= rate

    assert alarms / (rounds * each) <= binomial_bound(rate, rounds * each), f"seed {SEED}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("thief", "queries"), [(factories.noise, 6), (factories.foreign, 16)], ids=["noise", "foreign rows"]
)
def test_thieves_with_rows_of_another_kind_are_caught_at_once(
    thief: Callable[[np.random.Generator], Episode], queries: int
) -> None:
    generator = np.random.default_rng(SEED)

    caught = [caught_at(thief(generator), 0.005) for _ in range(100)]

    assert np.quantile(caught, 0.98) <= queries, f"seed {SEED}"


@pytest.mark.slow
def test_a_thief_with_honest_rows_is_not_told_apart() -> None:
    generator = np.random.default_rng(SEED)

    caught = [caught_at(factories.honest(generator), 0.005) <= HORIZON for _ in range(200)]

    assert np.mean(caught) <= binomial_bound(0.02, 200), f"seed {SEED}"


@settings(max_examples=30, deadline=None)
@given(size=st.integers(2, 14), value=st.floats(-0.5, 2.5))
def test_a_group_is_held_against_organisations_just_smaller_and_just_larger(size: int, value: float) -> None:
    effects = INSTRUMENTS.pooled
    sums = np.append(size * 3 * (effects.mean + value * effects.spread), 0.0)[None]
    counts, squares = np.array([3 * size]), np.array([9 * size])
    pooled = effects.statistic(sums[:, :-1], counts, squares / counts**2)
    shares = size * INSTRUMENTS.shares.parts(np.array([value]), np.array([3]))
    odd = INSTRUMENTS.shares.statistic(shares)

    p_value = group_p_values(CALIBRATION, sums, counts, squares, shares)[0]

    below = max(known for known in MEMBER_SIZES if known <= size)
    above = min((known for known in MEMBER_SIZES if known >= size), default=10)
    by_pooled = max(CALIBRATION.groups[known].pooled.p_values(pooled)[0] for known in (below, above))
    by_shares = max(CALIBRATION.groups[known].shares.p_values(odd)[0] for known in (below, above))
    # larger groups than were calibrated are held against them by shares alone
    assert p_value == min(1, 2 * min(by_shares, by_pooled if size <= 10 else 1))


def test_a_member_who_asks_nearly_everything_does_not_end_the_test_of_shares() -> None:
    own = np.array([1000, *[20] * 9])
    atypical = np.array([1000 * INSTRUMENTS.shares.mean, *[20 * 3.0] * 9])
    shares = INSTRUMENTS.shares.parts(atypical, own).sum(axis=0)[None]
    counts, squares = np.array([own.sum()]), np.array([np.square(own).sum()])
    sums = np.append(own.sum() * INSTRUMENTS.pooled.mean, atypical.sum())[None]
    assert np.rint(counts**2 / squares) == 1

    assert group_p_values(CALIBRATION, sums, counts, squares, shares)[0] == 2 / 150


@pytest.mark.parametrize(
    ("counts", "squares"),
    [(30, 900), (30, 29**2 + 1), (4, 8)],
    ids=["one asks", "one asks nearly all", "fewer than five queries"],
)
def test_what_is_no_group_yet_is_not_weighed(counts: int, squares: int) -> None:
    odd = counts * (INSTRUMENTS.effects.mean + 3)[None]

    assert group_p_values(CALIBRATION, odd, np.array([counts]), np.array([squares]), NOTHING_ODD)[0] == 1
    assert group_p_values(CALIBRATION, 30 * odd / counts, np.array([30]), np.array([450]), NOTHING_ODD)[0] == 2 / 150


def test_without_calibrated_organisations_no_group_is_weighed() -> None:
    sums = 30 * (INSTRUMENTS.effects.mean + 3)[None]

    bare = replace(CALIBRATION, groups={})
    assert group_p_values(bare, sums, np.array([30]), np.array([300]), NOTHING_ODD)[0] == 1
