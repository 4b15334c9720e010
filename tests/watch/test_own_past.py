"""A client beside its own past: what it says of one who changes, of one who does not, and how it is come by."""

import numpy as np
import pytest

from palladion.watch.client import PAST_EPOCHS, QUERIES_MIN, ClientState, Past, Stretch
from palladion.watch.features import FEATURES, REPEATS, SCORES
from palladion.watch.instruments import Episode
from palladion.watch.own_past import CLIENTS_MIN, KEPT, OwnPast, changes, rate_together, together
from palladion.watch.rows import Rows

from . import factories, few
from .factories import HORIZON

SEED = 83
CALIBRATION = few.calibration()


def beside() -> OwnPast:
    assert CALIBRATION.past is not None
    return CALIBRATION.past


def scores(episode: Episode) -> Rows:
    return CALIBRATION.instruments.score([episode])[0]


def past_of(found: Rows) -> Past:
    return Past(found.sum(axis=0), len(found))


def last(episode: Episode) -> float:
    """The largest statistic of the last epoch beside the ones before."""
    found = scores(episode)
    before, after = found[:-HORIZON], found[-HORIZON:]
    counts = np.arange(1, HORIZON + 1)
    return float(beside().statistic(past_of(before), np.cumsum(after, axis=0), counts)[QUERIES_MIN - 1 :].max())


@pytest.mark.slow
def test_who_stays_as_it_was_is_usual_and_who_is_taken_over_is_not() -> None:
    generator = np.random.default_rng(SEED)

    same = [last(few.whole(generator)) for _ in range(40)]
    taken = [last(few.taken_over(generator)) for _ in range(40)]

    threshold = beside().threshold(0.05)
    assert np.mean(np.array(same) > threshold) <= 0.1
    assert np.mean(np.array(taken) > threshold) >= 0.9


def test_beside_honest_clients_alone_the_same_takeover_is_hardly_seen() -> None:
    generator = np.random.default_rng(SEED)
    found = [scores(few.taken_over(generator))[-HORIZON:] for _ in range(40)]

    suprema = [CALIBRATION.instruments.path(own)[QUERIES_MIN - 1 :].max() for own in found]

    assert np.mean([CALIBRATION.p_value(float(value)) <= 0.05 for value in suprema]) <= 0.6


@pytest.mark.slow
def test_the_stated_rate_holds_for_clients_whom_no_calibration_saw() -> None:
    generator = np.random.default_rng(SEED)
    rates = []
    for seed in range(8):
        past = few.calibration(clients=19, seed=100 + seed).past
        assert past is not None
        instruments = few.calibration(clients=19, seed=100 + seed).instruments
        clients = instruments.score([few.whole(generator) for _ in range(30)])
        suprema = [past.supremum(found, HORIZON) for found in clients]
        rates.append(np.mean([past.p_value(value) <= past.rate_min for value in suprema]))

    # 240 clients of 8 calibrations at 1 in 20; three standard errors of draws that depend on each other in thirties
    assert np.mean(rates) <= 0.05 + 3 * np.std(rates) / np.sqrt(len(rates))
    assert np.mean(rates) > 0.005


@pytest.mark.parametrize("queries", [1, 4, 40])
def test_what_a_client_did_counts_the_more_the_more_it_did(queries: int) -> None:
    effects = beside().effects
    place = int(effects.between.argmax())
    away = np.zeros(len(SCORES))
    away[KEPT] = np.linalg.inv(effects.basis)[
        place
    ]  # one deviation of a query, in the direction in which they differ most
    middle = np.zeros(len(SCORES))
    middle[KEPT] = effects.mean
    past = Past((middle + away) * queries, queries)
    shares = np.linspace(0, 1, 201)

    found = beside().statistic(past, (middle + shares[:, None] * away) * 40, np.full(len(shares), 40))

    # least unusual is what is shrunk towards honest clients as a whole: James and Stein's weight, B / (B + W / t)
    assert shares[found.argmin()] == pytest.approx(
        effects.between[place] / (effects.between[place] + 1 / queries), abs=0.005
    )


def test_a_past_of_many_queries_is_believed() -> None:
    effects, own = beside().effects, np.zeros(len(SCORES))
    # four deviations off, wherever honest clients differ at all
    own[KEPT] = effects.mean + 4 * np.sqrt(effects.between) @ np.linalg.inv(effects.basis)

    (figure,) = beside().statistic(Past(own * 10**9, 10**9), (own * HORIZON)[None], np.array([HORIZON]))

    # who does exactly what it always did is nearer to that than anybody is by chance
    assert figure == pytest.approx(-effects.centre[-1] / effects.width[-1], abs=1e-3)
    assert CALIBRATION.p_value(float(CALIBRATION.statistic((own * HORIZON)[None], np.array([HORIZON]))[0])) < 0.05


def test_repeats_and_atypical_shares_are_left_out() -> None:
    assert [list(SCORES)[place] for place in KEPT] == [name for name in FEATURES if name != list(FEATURES)[REPEATS]]
    sums, past = np.zeros((1, len(SCORES))), Past(np.zeros(len(SCORES)), 40)
    other = sums.copy()
    other[0, [REPEATS, len(SCORES) - 1]] = 1e6

    counts = np.array([40])
    assert beside().statistic(past, other, counts) == beside().statistic(past, sums, counts)
    assert not changes(past, other[0], 40).any()


def test_changes_are_told_in_deviations_of_what_chance_would_change() -> None:
    past, sums = Past(np.zeros(len(SCORES)), 100), np.zeros(len(SCORES))
    sums[0] = 100.0

    assert changes(past, sums, 100)[0] == pytest.approx(1 / np.sqrt(0.02))


def test_the_largest_value_of_a_calibration_client_is_what_the_running_watch_would_have_seen() -> None:
    found = scores(few.whole(np.random.default_rng(SEED), 4))
    state, largest = ClientState(), -np.inf
    for cut in range(0, len(found), 7):
        stretches = state.advance(found[cut : cut + 7], 7, horizon=HORIZON, remember=True)
        largest = max(largest, state.weigh_past(stretches, beside().statistics(stretches)))

    assert beside().supremum(found, HORIZON) == largest == pytest.approx(largest)
    assert largest > -np.inf


def test_of_a_calibration_client_as_many_epochs_count_as_the_past_holds() -> None:
    found = scores(few.whole(np.random.default_rng(SEED), PAST_EPOCHS + 3))
    other = found.copy()
    other[(PAST_EPOCHS + 1) * HORIZON :] += 9

    assert beside().supremum(other, HORIZON) == beside().supremum(found, HORIZON)
    other[(PAST_EPOCHS + 1) * HORIZON - 1] += 1000
    assert beside().supremum(other, HORIZON) != beside().supremum(found, HORIZON)


def test_epochs_that_were_not_finished_do_not_count() -> None:
    found = scores(few.whole(np.random.default_rng(SEED)))

    assert beside().supremum(found[: 3 * HORIZON - 1], HORIZON) == beside().supremum(found[: 2 * HORIZON], HORIZON)


def test_nothing_is_said_without_a_past_or_of_the_first_queries() -> None:
    sums = np.ones((QUERIES_MIN, len(SCORES)))
    past = Past(np.zeros(len(SCORES)), HORIZON)

    without = beside().statistics([Stretch(sums.ravel(), 1, QUERIES_MIN, True)])
    after = beside().statistics([Stretch(sums.ravel(), 1, QUERIES_MIN, True, past)])

    assert without == [-np.inf] * QUERIES_MIN
    assert after[:-1] == [-np.inf] * (QUERIES_MIN - 1)
    assert np.isfinite(after[-1])


def test_too_few_clients_with_a_past_make_no_test() -> None:
    generator = np.random.default_rng(SEED)
    fitting = [scores(factories.honest(generator)) for _ in range(40)]
    lived = [scores(few.whole(generator, 2)) for _ in range(CLIENTS_MIN)]
    short = [scores(factories.honest(generator)) for _ in range(50)]

    assert OwnPast.fit(fitting, [*lived[:-1], *short], HORIZON) is None
    made = OwnPast.fit(fitting, [*lived, *short], HORIZON)
    assert made is not None
    assert made.rate_min == 1 / (CLIENTS_MIN + 1) == made.p_value(float("inf"))


def test_clients_who_cannot_be_cut_in_two_make_no_test() -> None:
    generator = np.random.default_rng(SEED)
    fitting = [scores(factories.honest(generator, 2 * QUERIES_MIN - 1)) for _ in range(40)]

    assert OwnPast.fit(fitting, [scores(few.whole(generator)) for _ in range(30)], HORIZON) is None


@pytest.mark.parametrize(
    ("own", "past", "both"), [(0.01, 0.3, 0.02), (0.3, 0.02, 0.04), (0.7, 0.6, 1.0), (1.0, 1.0, 1.0)]
)
def test_of_two_tests_the_smaller_p_value_counts_twice(own: float, past: float, both: float) -> None:
    assert together(own, past) == both


def test_the_rates_of_two_tests_add_up() -> None:
    assert rate_together(1 / 151, 1 / 20) == pytest.approx(0.0566, abs=1e-4)
    assert rate_together(0.6, 0.7) == 1.0


def test_the_past_fades_by_halves() -> None:
    past, one = None, np.ones(len(SCORES))
    counts = []
    for _ in range(8):
        past = Past.after(past, one * HORIZON, HORIZON, horizon=HORIZON)
        counts.append(past.count // HORIZON)
        np.testing.assert_array_equal(past.sums, one * past.count)

    assert counts == [1, 2, 3, 4, 3, 4, 3, 4]
