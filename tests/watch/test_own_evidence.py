"""A client's own evidence where real clients are few: both tests, the running watch, and what a person is told."""

from dataclasses import replace

import numpy as np
import pytest

from palladion.policy import WatchPolicy
from palladion.watch.client import ClientState, Past, statistics
from palladion.watch.conformal import Conformal
from palladion.watch.features import SCORES
from palladion.watch.instruments import Episode
from palladion.watch.own_evidence import OwnEvidence
from palladion.watch.own_past import OwnPast, together
from palladion.watch.response import FEW, SPENT, Evidence, judge
from palladion.watch.spending import spent_weight
from palladion.watch.watch import Asker, Observation, Watch

from . import factories, few
from .factories import HORIZON

SEED = 103
CALIBRATION = few.calibration()
ASKER = Asker("c1", "acme")


def watching(**settings: object) -> Watch:
    watch = Watch(WatchPolicy(**settings))  # type: ignore[arg-type]
    watch.watch_model("fraud", CALIBRATION, {})
    return watch


def ask(watch: Watch, episode: Episode, size: int = 1000) -> Observation:
    """Ask all of it, in requests of a size; what is said of the last one."""
    starts = range(0, len(episode.inputs), size)
    said = [
        watch.observe(
            ASKER, "fraud", episode.inputs[start : start + size], episode.scores[start : start + size], now=9.0
        )
        for start in starts
    ]
    return said[-1]


def test_an_account_that_is_taken_over_is_watched_by_its_own_past() -> None:
    watch = watching()
    observation = ask(watch, few.taken_over(np.random.default_rng(SEED)))

    smallest = 2 / (len(CALIBRATION.clients.suprema) + 1)
    assert observation.evidence.p_value == observation.evidence.rate_min == smallest
    assert (observation.verdict.standing, observation.verdict.cause) == ("watched", "client")
    assert FEW in observation.verdict.reason
    assert observation.quiet_hours == 0
    (explanation,) = watch.explain("c1")
    assert any(reason.startswith("own earlier queries, ") for reason in explanation.reasons)
    assert explanation.reasons[-1] == (
        "beyond all of the few calibration clients, as at most 0.05 of honest ones are: a person should look"
    )


def test_in_the_first_epoch_the_smallest_p_value_is_half_of_that() -> None:
    observation = ask(watching(), factories.noise(np.random.default_rng(SEED), HORIZON))

    assert observation.evidence.p_value == observation.evidence.rate_min == 1 / 40
    assert observation.verdict.standing == "watched"


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3, 17, HORIZON, 1000])
def test_how_queries_are_cut_into_requests_changes_nothing(size: int) -> None:
    episode = few.taken_over(np.random.default_rng(SEED), 4)
    whole, cut = watching(), watching()

    one, many = ask(whole, episode), ask(cut, episode, size)

    assert many.evidence == one.evidence
    assert cut.changes("fraud") == whole.changes("fraud")


def test_after_a_restart_the_past_goes_on() -> None:
    episode = few.taken_over(np.random.default_rng(SEED))
    half = Episode(episode.inputs[: 2 * HORIZON + 3], episode.scores[: 2 * HORIZON + 3])
    rest = Episode(episode.inputs[2 * HORIZON + 3 :], episode.scores[2 * HORIZON + 3 :])
    before, after = watching(), watching()
    ask(before, half)
    after.watch_model("fraud", CALIBRATION, before.changes("fraud"))

    assert ask(after, rest).evidence == ask(before, rest).evidence


def test_whose_standing_was_raised_has_no_past_any_more() -> None:
    watch = watching()
    ask(watch, few.taken_over(np.random.default_rng(SEED)))
    watch.forgive("c1")

    observation = ask(watch, factories.honest(np.random.default_rng(SEED), 9))

    assert observation.evidence.rate_min == 1 / 40
    assert observation.verdict.standing == "trusted"


def test_queries_count_as_suspicious_by_either_test_and_once() -> None:
    alpha = 0.05
    tests, state = OwnEvidence(CALIBRATION, alpha), CALIBRATION.new_state()
    episode = few.taken_over(np.random.default_rng(SEED), 2)
    ((scores, *_),) = CALIBRATION.measure([(state, episode)])
    stretches = tests.advance(state, scores, len(scores))
    own = np.array(statistics(CALIBRATION, stretches))

    tests.weigh(state, stretches, own.tolist())

    assert CALIBRATION.past is not None
    beside = np.array(CALIBRATION.past.statistics(stretches))
    either = (own > CALIBRATION.threshold(alpha / 2)) | (beside > CALIBRATION.past.threshold(alpha / 2))
    assert state.suspected == either.sum() > 0
    assert tests.p_value(state) == together(
        CALIBRATION.p_value(state.supremum), CALIBRATION.past.p_value(state.past_supremum)
    )


def test_enough_real_clients_and_simulated_ones_state_no_coarse_rate() -> None:
    state = ClientState()
    simulated = replace(CALIBRATION, about=replace(CALIBRATION.about, simulated=True))
    enough = replace(CALIBRATION, about=replace(CALIBRATION.about, clients=999))

    assert OwnEvidence(CALIBRATION, 0.001).rate_min(state) == 1 / 40
    assert OwnEvidence(simulated, 0.001).rate_min(state) == OwnEvidence(enough, 0.001).rate_min(state) == 0


def unlike(own: int, past: int) -> tuple[OwnEvidence, ClientState]:
    """Tests by 150 clients of whom 19 have a past, and a client that so many of either were at least as unusual as."""
    assert CALIBRATION.past is not None
    beside = replace(CALIBRATION.past, clients=Conformal(np.arange(19.0)))
    tests = OwnEvidence(replace(CALIBRATION, clients=Conformal(np.arange(150.0)), past=beside), 0.001)
    state = ClientState(past=Past(np.zeros(len(SCORES)), HORIZON))
    state.supremum, state.past_supremum = 149.5 - own, 18.5 - past
    return tests, state


@pytest.mark.parametrize(
    ("own", "past", "beyond"),
    [
        (0, 10, True),
        (10, 0, True),
        # a p-value of 0.093 is below twice what the 19 support, as that of one honest client in ten may be
        (6, 10, False),
        (1, 1, False),
    ],
)
def test_where_one_test_has_fewer_clients_nobody_is_beyond_all_for_being_within_its_rate(
    *, own: int, past: int, beyond: bool
) -> None:
    tests, state = unlike(own, past)
    p_value = together((1 + own) / 151, (1 + past) / 20)
    evidence = Evidence(p_value, simulated=False, rate_min=tests.rate_min(state), beyond=tests.is_beyond(state))

    assert tests.p_value(state) == p_value
    assert tests.rate_min(state) == pytest.approx(1 / 151 + 1 / 20)
    assert tests.is_beyond(state) == beyond
    assert judge(evidence, WatchPolicy()).standing == ("watched" if beyond else "trusted")
    assert any("a person should look" in reason for reason in tests.reasons(state)) == beyond


@pytest.mark.parametrize(("own", "past"), [(149.5, 0.0), (0.0, 18.5), (143.5, 8.5)], ids=["own", "past", "neither"])
def test_queries_are_beyond_all_by_themselves_if_they_alone_leave_one_test_there(
    own: float, past: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests, state = unlike(40, 10)
    monkeypatch.setattr(OwnPast, "statistics", lambda *_: [past])
    stretches = tests.advance(state, np.zeros((1, len(SCORES))), 1)

    assert tests.weigh(state, stretches, [own]).beyond == tests.is_beyond(state) == (own > 149 or past > 18)
    assert tests.weigh(state, stretches, [-1.0]).beyond == (past > 18)


def test_a_calibration_without_a_past_keeps_none() -> None:
    watch = Watch(WatchPolicy())
    watch.watch_model("fraud", factories.calibration(), {})
    ask(watch, few.whole(np.random.default_rng(SEED)))
    assert ClientState.from_bytes(watch.changes("fraud")["c1"]).past is None


@pytest.mark.slow
def test_the_stated_rates_hold_in_every_epoch_of_unseen_clients() -> None:
    generator = np.random.default_rng(SEED)
    seen = {1: 0, 2: 0, 3: 0}
    clients = 200
    for _ in range(clients):
        episode, state = few.whole(generator), CALIBRATION.new_state()
        tests = OwnEvidence(CALIBRATION, 0.001)
        ((scores, *_),) = CALIBRATION.measure([(state, episode)])
        for epoch in seen:
            part = scores[(epoch - 1) * HORIZON : epoch * HORIZON]
            stretches = tests.advance(state, part, len(part))
            tests.weigh(state, stretches, statistics(CALIBRATION, stretches))
            seen[epoch] += tests.is_beyond(state)

    # one calibration's rate is a draw itself: Beta(1, 39) for each test, of which 99.9 % are below 0.163
    assert seen[1] / clients <= 0.163
    assert seen[2] / clients <= 2 * 0.163
    assert seen[3] / clients <= 2 * 0.163


MANY = replace(CALIBRATION, about=replace(CALIBRATION.about, clients=1999), past=None)


def in_epoch(tests: OwnEvidence, epoch: int, supremum: float) -> tuple[float, bool]:
    state = ClientState(epoch=epoch, supremum=supremum)
    return tests.p_value(state), tests.is_beyond(state)


@pytest.mark.slow
def test_over_all_epochs_together_honest_clients_are_suspected_as_rarely_as_promised() -> None:
    generator, rate, epochs, times = np.random.default_rng(SEED), 0.1, 12, 1500
    ever = {"epoch": 0, "lifetime": 0}
    for _ in range(times):
        suprema = generator.standard_normal(99 + epochs)  # one client's epochs, exchangeable with the others'
        known = replace(MANY, clients=Conformal.fit(suprema[epochs:]))
        for spent in ever:
            tests = OwnEvidence(known, rate, lifetime=spent == "lifetime")
            found = [in_epoch(tests, epoch, suprema[epoch])[0] <= rate for epoch in range(epochs)]
            ever[spent] += any(found)

    assert ever["lifetime"] <= (rate + 3 * np.sqrt(rate * (1 - rate) / times)) * times
    assert ever["lifetime"] > 0.05 * times
    assert ever["epoch"] > 0.5 * times


def test_in_the_first_epoch_less_than_the_whole_rate_is_spent_and_later_ever_less() -> None:
    known = replace(MANY, clients=Conformal(np.arange(1999.0)))
    tests = OwnEvidence(known, 0.001, lifetime=True)

    assert in_epoch(tests, 0, 1998.5) == (spent_weight(0) / 2000, False)
    # the second smallest p-value is half as good as the smallest, which is not enough in the second epoch
    assert in_epoch(tests, 0, 1997.5)[0] > 0.001
    assert in_epoch(tests, 1, 1998.5) == (spent_weight(1) / 2000, True)
    assert in_epoch(tests, 1, 1997.5) == (2 * spent_weight(1) / 2000, False)
    assert in_epoch(tests, 1000, 0.0) == (1.0, False)
    tests.renew(0.001)
    assert in_epoch(tests, 1, 1998.5) == (1 / 2000, False)


def test_who_is_beyond_all_where_nothing_is_left_is_shown_to_a_person_and_not_throttled() -> None:
    tests, state = OwnEvidence(replace(MANY, clients=Conformal(np.arange(1999.0))), 0.001, lifetime=True), ClientState()
    state.epoch, state.supremum, state.count = 40, 5000.0, 9
    p_value, beyond = tests.p_value(state), tests.is_beyond(state)
    evidence = Evidence(p_value, 30, simulated=False, rate_min=tests.rate_min(state), beyond=beyond)

    verdict = judge(evidence, WatchPolicy())

    assert (verdict.standing, verdict.cause) == ("watched", "client")
    assert SPENT in verdict.reason
    assert tests.rate_min(state) == 0
    said = tests.reasons(state)
    assert said[0] == "beyond all calibration clients, as at most 0.0005 of honest ones are: a person should look"
    assert said[1].startswith("in its epoch 41 a p-value of 0.0005 counts 2.77e+03 times as much")
    assert tests.unlike(state).test == "clients"


@pytest.mark.parametrize(("epoch", "counted"), [(0, 3), (3, 0)])
def test_queries_count_as_suspicious_by_what_is_spent_in_their_epoch(epoch: int, counted: int) -> None:
    known = replace(MANY, clients=Conformal(np.arange(1999.0)))
    tests, state = OwnEvidence(known, 0.001, lifetime=True), known.new_state()
    state.epoch = epoch
    stretches = tests.advance(state, np.zeros((4, len(SCORES))), 4)

    weighed = tests.weigh(state, stretches, [1998.5, 1999.5, 5.0, 2e9])

    assert state.suspected == counted
    assert weighed.p_value == tests.p_value(state)
    assert weighed.beyond == (epoch > 0)


def test_the_running_watch_spends_as_its_policy_says_from_the_next_request_on() -> None:
    settings = {"alpha_watched": 0.2, "alpha_suspected": 0.05}
    watch, episode = watching(**settings), few.whole(np.random.default_rng(SEED))
    each = ask(watch, episode).evidence.p_value
    epoch = ClientState.from_bytes(watch.changes("fraud")[ASKER.client]).epoch

    watch.renew(WatchPolicy(**settings, alpha_spent="lifetime"))  # type: ignore[arg-type]
    spent = watch.explain(ASKER.client)[0].p_value

    assert epoch > 0
    assert spent == min(1.0, each * spent_weight(epoch)) > each
    fresh = watching(**settings, alpha_spent="lifetime")
    assert ask(fresh, episode).evidence.p_value == spent
