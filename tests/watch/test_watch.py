"""The watch as the gate uses it: evidence, groups, budget, restart, explanations, and beginning anew."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palladion.errors import FormatError
from palladion.policy import WatchPolicy
from palladion.watch import coverage
from palladion.watch.calibration import Calibration
from palladion.watch.client import ClientState
from palladion.watch.features import SCORES
from palladion.watch.instruments import Episode
from palladion.watch.links import ACCOUNTS_PER_ADDRESS_MAX
from palladion.watch.memory import Memory
from palladion.watch.own_tests import WORDS
from palladion.watch.response import Prior
from palladion.watch.watch import Asker, Observation, Watch

from . import factories
from .factories import CLASSES, GROUP_HORIZON, HORIZON, INPUTS
from .shelves import Shelved

SEED = 97
NOW = 1_780_000_000.0
HOUR = 3600.0
CALIBRATION = factories.calibration()
REAL = replace(CALIBRATION, about=replace(CALIBRATION.about, simulated=False))
SETTINGS: dict[str, Any] = {"alpha_watched": 0.05, "alpha_suspected": 0.004, "alpha_campaign": 0.02}


def make(calibration: Calibration = REAL, saved: Mapping[str, bytes] | None = None, **settings: Any) -> Watch:
    watch = Watch(WatchPolicy(**{**SETTINGS, **settings}))
    watch.watch_model("fraud", calibration, saved or {})
    return watch


def asker(
    client: str = "c1",
    organisation: str | None = None,
    address: str | None = None,
    payment: str | None = None,
    device: str | None = None,
) -> Asker:
    return Asker(client, organisation or f"organisation of {client}", address, payment, device)


def ask(watch: Watch, who: Asker, episode: Episode, cuts: tuple[int, ...] = (), *, now: float = NOW) -> Observation:
    """What the watch says after the last of the requests that the queries are cut into."""
    for part in factories.pieces(len(episode.inputs), cuts):
        observation = watch.observe(who, "fraud", episode.inputs[part], episode.scores[part], now=now)
    return observation


def honest(seed: int = SEED, queries: int = HORIZON) -> Episode:
    return factories.honest(np.random.default_rng(seed), queries)


def stolen(seed: int = SEED, queries: int = HORIZON) -> Episode:
    return factories.foreign(np.random.default_rng(seed), queries)


def ask_as_ring(watch: Watch, **shown: str) -> Observation:
    """Ten accounts that ask three queries each in turns, all showing the same, until three quarters of their epoch."""
    generator = np.random.default_rng(SEED)
    episodes = [factories.mixing(generator, GROUP_HORIZON, 0.4) for _ in range(10)]
    for start in range(0, GROUP_HORIZON - 3, 3):
        for name, episode in enumerate(episodes):
            part = Episode(episode.inputs[start : start + 3], episode.scores[start : start + 3])
            observation = ask(watch, asker(f"member-{name}", **shown), part)
    return observation


def test_a_model_without_a_calibration_is_not_watched() -> None:
    watch = Watch(WatchPolicy())
    watch.watch_model("fraud", None, {})

    observation = ask(watch, asker(), stolen())

    assert not watch.calibrated("fraud")
    assert not observation.calibrated
    assert observation.p_value is None
    assert observation.verdict.standing == "trusted"
    assert observation.distinct == HORIZON
    assert watch.explain("c1") == []
    assert watch.changes("fraud") == {}
    assert list(watch.members("c1", "fraud")) == []


def test_an_honest_client_stays_trusted() -> None:
    observation = ask(make(), asker(), honest())

    assert observation.verdict.standing == "trusted"
    assert observation.p_value is not None
    assert observation.p_value > 0.05
    assert observation.quiet_hours == float("inf")
    assert observation.distinct == HORIZON
    assert observation.new_buckets > 1


def test_a_thief_falls_from_standing_to_standing_as_it_goes_on() -> None:
    watch, standings = make(), []
    episode = factories.noise(np.random.default_rng(SEED), 30)

    for index in range(30):
        observation = ask(watch, asker(), Episode(episode.inputs[index : index + 1], episode.scores[index : index + 1]))
        standings.append(observation.verdict.standing)

    assert standings == ["trusted"] * 4 + ["throttled"] * 7 + ["degraded"] * 8 + ["suspended"] * 11
    assert observation.evidence.suspected == 26
    assert observation.p_value == REAL.clients.rate_min


def test_a_simulated_calibration_lets_the_same_thief_be_watched_alone() -> None:
    assert ask(make(CALIBRATION), asker(), stolen()).verdict.standing == "watched"
    assert ask(make(CALIBRATION, simulated_may_enforce=True), asker(), stolen()).verdict.standing == "suspended"


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(1, 59), max_size=5), thief=st.booleans())
def test_cutting_queries_into_requests_differently_changes_nothing(cuts: list[int], thief: bool) -> None:
    episode = stolen(queries=60) if thief else honest(queries=60)
    whole, cut = make(), make()

    at_once, in_parts = ask(whole, asker(), episode), ask(cut, asker(), episode, tuple(cuts))

    assert in_parts.evidence == at_once.evidence
    assert in_parts.verdict == at_once.verdict
    assert cut.explain("c1") == whole.explain("c1")
    assert cut.changes("fraud") == whole.changes("fraud")


def test_after_a_restart_a_client_goes_on_where_it_was() -> None:
    episode = stolen()
    first, rest = Episode(episode.inputs[:20], episode.scores[:20]), Episode(episode.inputs[20:], episode.scores[20:])
    running = make()
    ask(running, asker(), first)

    restarted = make(saved=running.changes("fraud"))

    assert restarted.explain("c1") == running.explain("c1")
    assert ask(restarted, asker(), rest) == ask(running, asker(), rest)
    assert restarted.changes("fraud") == running.changes("fraud")


def test_after_a_restart_a_ring_goes_on_when_its_members_ask_again() -> None:
    running = make()
    ask_as_ring(running, organisation="acme")
    restarted = make(saved=running.changes("fraud"))
    assert len(restarted.members("member-0", "fraud")) == 1

    for name in range(10):
        again, last = (ask(watch, asker(f"member-{name}", "acme"), honest(name, 1)) for watch in (restarted, running))

    assert again.evidence.campaign_p_value <= 0.02
    assert again.evidence.campaign_suspected > 0
    assert again.verdict.standing == last.verdict.standing == "degraded"
    assert restarted.members("member-0", "fraud") == running.members("member-0", "fraud")


def test_where_organisations_are_known_saved_states_are_grouped_at_once() -> None:
    running = make()
    ask_as_ring(running, organisation="acme")
    restarted = Watch(WatchPolicy(**SETTINGS))
    organisations = {f"member-{name}": "acme" for name in range(10)}

    restarted.watch_model("fraud", REAL, Shelved(organisations, running.changes("fraud")))

    assert restarted.members("member-0", "fraud") == running.members("member-0", "fraud")
    first = ask(restarted, asker("member-0", "acme"), honest(1, 1))
    assert first.evidence == ask(running, asker("member-0", "acme"), honest(1, 1)).evidence


def test_another_rate_counts_from_the_next_query_on_and_forgets_nothing() -> None:
    watch, episode = make(alpha_suspected=1e-6), stolen(queries=30)
    before = ask(watch, asker(), Episode(episode.inputs[:20], episode.scores[:20]))
    assert before.evidence.suspected == 0

    watch.renew(WatchPolicy(**SETTINGS))
    after = ask(watch, asker(), Episode(episode.inputs[20:], episode.scores[20:]))

    assert 0 < after.evidence.suspected <= 10
    assert after.evidence.p_value <= before.evidence.p_value
    assert ask(make(), asker(), episode).evidence.suspected > after.evidence.suspected


def test_only_what_changed_is_to_be_saved() -> None:
    watch = make()
    ask(watch, asker("a"), honest(1))
    ask(watch, asker("b"), honest(2))
    assert watch.changes("fraud").keys() == {"a", "b"}

    ask(watch, asker("b"), honest(3))

    assert watch.changes("fraud").keys() == {"b"}
    assert watch.changes("fraud") == {}


def test_a_new_epoch_of_a_group_changes_the_states_of_all_its_members() -> None:
    watch = make()
    for name in "abc":
        ask(watch, asker(name, "acme"), honest(ord(name), GROUP_HORIZON))
    watch.changes("fraud")

    ask(watch, asker("b", "acme"), honest(1, 1))

    saved = watch.changes("fraud")
    assert saved.keys() == {"a", "b", "c"}
    assert [ClientState.from_bytes(saved[name]).pooled_count for name in "abc"] == [0, 1, 0]


def test_a_saved_state_of_another_calibration_is_refused() -> None:
    other = ClientState(memory=Memory(ring=np.zeros((2, 31), np.float32)))

    with pytest.raises(FormatError, match="client c1 belongs to another calibration of fraud"):
        make(saved={"c1": other.to_bytes()})


def test_a_saved_state_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(FormatError, match="not one that the watch wrote"):
        make(saved={"c1": b"something else"})


def test_a_new_calibration_begins_anew_with_everybody() -> None:
    watch = make()
    ask(watch, asker(), stolen())

    watch.watch_model("fraud", CALIBRATION, {})

    assert watch.explain("c1") == []
    assert ask(watch, asker(), honest()).verdict.standing == "trusted"


def test_models_are_watched_each_for_itself() -> None:
    watch = make()
    watch.watch_model("other", REAL, {})
    ask(watch, asker(), stolen())

    observation = watch.observe(asker(), "other", honest().inputs, honest().scores, now=NOW)

    assert observation.verdict.standing == "trusted"
    assert [explanation.model for explanation in watch.explain("c1")] == ["fraud", "other"]


def test_a_model_can_be_watched_no_longer() -> None:
    watch = make()
    ask(watch, asker(), stolen())

    watch.watch_model("fraud", None, {})

    assert not watch.calibrated("fraud")
    assert watch.explain("c1") == []


@pytest.mark.parametrize(
    "shown",
    [{"organisation": "acme"}, {"address": "203.0.113.7"}, {"payment": "card_7f3a"}, {"device": "phone"}],
    ids=["company", "address", "payment", "device"],
)
def test_a_ring_is_caught_by_what_links_it(shown: dict[str, str]) -> None:
    observation = ask_as_ring(make(), **shown)

    assert observation.verdict.cause == "campaign"
    assert observation.verdict.standing == "degraded"
    assert observation.evidence.campaign_p_value < observation.evidence.p_value


def test_the_same_accounts_are_not_caught_where_nothing_links_them() -> None:
    observation = ask_as_ring(make())

    assert observation.evidence.campaign_p_value == 1
    assert observation.verdict.standing in {"trusted", "watched"}


def test_a_ring_that_turns_out_to_be_linked_later_is_judged_by_what_it_did_before() -> None:
    watch = make()
    ask_as_ring(watch)
    for name in range(10):
        watch.link(asker(f"member-{name}", address="203.0.113.7"), now=NOW)

    observation = ask(watch, asker("member-0"), honest(1, 1))

    assert observation.evidence.campaign_p_value <= 0.02
    assert len(watch.members("member-0", "fraud")) == 10


def test_a_tls_fingerprint_links_neighbours_of_one_hour_for_the_watch() -> None:
    watch = make()
    for client, address, hours in (("a", "203.0.113.7", 0), ("b", "203.0.113.8", 0), ("c", "203.0.113.9", 1)):
        who = Asker(client, f"own of {client}", address, tls="t13d1516h2")
        ask(watch, who, honest(), now=NOW + hours * HOUR)

    assert set(watch.members("a", "fraud")) == {"a", "b"}
    assert watch.links_between(["a", "b"]) == {f"tls:t13d1516h2 203.0.113.0/24 {int(NOW // HOUR)}": 2}


def test_a_tls_fingerprint_without_an_address_shows_nothing() -> None:
    assert list(Asker("a", "own of a", tls="t13d1516h2").shown(NOW)) == []


def test_a_crowd_at_one_address_is_parted_again() -> None:
    watch = make()
    ask_as_ring(watch, address="203.0.113.7")
    for index in range(ACCOUNTS_PER_ADDRESS_MAX):
        watch.link(asker(f"passer-by-{index}", address="203.0.113.7"), now=NOW)

    observation = ask(watch, asker("member-0"), honest(1, 1))

    assert list(watch.members("member-0", "fraud")) == ["member-0"]
    assert observation.evidence.campaign_p_value == 1


def test_who_has_not_asked_belongs_to_no_group() -> None:
    watch = make()
    watch.link(asker("silent", "acme"), now=NOW)
    ask(watch, asker("c1", "acme"), honest())

    assert list(watch.members("silent", "fraud")) == []
    assert list(watch.members("c1", "fraud")) == ["c1"]
    assert list(watch.members("c1", "no such model")) == []


def test_the_budget_is_what_a_client_and_those_linked_with_it_had_answered() -> None:
    first, second = honest(1), honest(2)
    unlimited = make()
    ask(unlimited, asker("a", "acme"), first)
    ask(unlimited, asker("b", "acme"), second)
    (explained,) = unlimited.explain("b")
    assert explained.buckets < explained.group_buckets

    for budget, spent in ((explained.group_buckets, False), (explained.group_buckets - 1, True)):
        watch = make(information_budget=budget)
        ask(watch, asker("a", "acme"), first)
        observation = ask(watch, asker("b", "acme"), second)
        assert observation.evidence.budget_spent == spent
        assert (observation.verdict.cause == "budget") == spent


def test_without_a_budget_none_is_spent() -> None:
    watch = make(information_budget=0)

    assert not ask(watch, asker(), factories.noise(np.random.default_rng(SEED), 200)).evidence.budget_spent


def test_a_budget_is_not_forgiven() -> None:
    watch = make(information_budget=1)
    ask(watch, asker(), honest())

    watch.forgive("c1")

    assert ask(watch, asker(), honest(1, 1)).verdict.cause == "budget"


def test_quiet_hours_are_counted_from_the_last_suspicious_query() -> None:
    watch = make()
    assert ask(watch, asker(), stolen(queries=20), now=NOW).quiet_hours == 0
    # the epoch ends, and with it what was suspicious
    assert ask(watch, asker(), honest(queries=HORIZON), now=NOW + HOUR).quiet_hours == 0

    later = [ask(watch, asker(), honest(hours, 1), now=NOW + hours * HOUR) for hours in (3, 31)]

    assert [observation.quiet_hours for observation in later] == [2, 30]
    assert later[1].verdict.standing == "trusted"


def test_honest_queries_at_the_end_of_a_request_do_not_hide_the_others() -> None:
    watch = make()
    both = factories.asked(np.concatenate([stolen(queries=20).inputs, honest(queries=HORIZON).inputs]))

    observation = ask(watch, asker(), both)

    assert watch.explain("c1")[0].p_value > 0.05  # a new epoch has begun within the request
    assert observation.quiet_hours == 0


def test_repeating_oneself_is_not_being_quiet() -> None:
    watch = make()
    ask(watch, asker(), stolen(queries=20), now=NOW)

    assert ask(watch, asker(), stolen(queries=20), now=NOW + 5 * HOUR).quiet_hours == 0


def test_a_member_of_a_ring_that_repeats_itself_is_not_quiet_either() -> None:
    watch = make()
    first = honest(1, 4)
    ask(watch, asker("bystander", "acme"), first)
    ask_as_ring(watch, organisation="acme")

    observation = ask(watch, asker("bystander", "acme"), first, now=NOW + 5 * HOUR)

    assert observation.distinct == 0
    assert observation.quiet_hours == 0


def test_an_honest_member_of_a_ring_is_not_quiet_while_the_ring_is_not() -> None:
    watch = make()
    ask_as_ring(watch, organisation="acme")

    observation = ask(watch, asker("bystander", "acme"), honest(1, 4))

    assert observation.evidence.p_value > 0.05
    assert observation.quiet_hours == 0


def test_a_clock_that_was_set_back_makes_nobody_quiet() -> None:
    watch = make()
    ask(watch, asker(), stolen(queries=20), now=NOW)
    watch.forgive("c1")

    assert ask(watch, asker(), honest(), now=NOW - 50 * HOUR).quiet_hours == -50


def test_forgiving_starts_anew() -> None:
    watch = make()
    assert ask(watch, asker(), stolen()).verdict.standing == "suspended"

    watch.forgive("c1")

    observation = ask(watch, asker(), honest(1, 10))
    assert observation.verdict.standing == "trusted"
    assert observation.evidence.suspected == 0
    assert ClientState.from_bytes(watch.changes("fraud")["c1"]).count == 10


def test_forgiving_one_of_a_ring_starts_anew_with_the_ring() -> None:
    watch = make()
    ask_as_ring(watch, organisation="acme")
    watch.changes("fraud")

    watch.forgive("member-3")

    assert watch.changes("fraud").keys() == {f"member-{name}" for name in range(10)}
    observation = ask(watch, asker("member-0", "acme"), honest(1, 1))
    assert (observation.evidence.campaign_p_value, observation.evidence.campaign_suspected) == (1, 0)


def test_forgiving_somebody_who_never_asked_does_nothing() -> None:
    watch = make()

    watch.forgive("nobody")

    assert watch.changes("fraud") == {}


@pytest.mark.parametrize(
    ("feature", "change"),
    [
        ("level", lambda rows: rows + 4),
        ("component-1", lambda rows: rows + 1.5 * _along(0)),
        ("component-2", lambda rows: rows - 1.5 * _along(1)),
    ],
)
def test_explanations_name_the_feature_that_is_unusual(feature: str, change: Any) -> None:
    watch = make()
    ask(watch, asker(), factories.asked(change(honest().inputs)))

    (explanation,) = watch.explain("c1")

    named = [reason.split()[0] for reason in explanation.reasons if reason not in WORDS]
    assert feature in named
    assert all(SCORES[name] in reason for name, reason in zip(named, explanation.reasons, strict=False))
    assert explanation.p_value <= 0.05


def _along(direction: int) -> Any:
    features = CALIBRATION.instruments.features
    return features.scale * features.directions[:, direction] * features.deviations[direction]


def test_an_explanation_of_the_ordinary_gives_figures_and_no_reasons() -> None:
    watch = make()
    ask(watch, asker("a", "acme"), honest(5))
    ask(watch, asker("b", "acme"), honest(6, 1))

    (explanation,) = watch.explain("a")

    assert explanation.reasons == ()
    assert explanation.queries == HORIZON
    assert explanation.group == ("a", "b")
    assert 1 < explanation.buckets <= explanation.group_buckets
    assert explanation.p_value > 0.05
    assert watch.explain("nobody") == []


def test_a_ring_is_explained_by_what_its_members_did_together() -> None:
    watch = make()
    ask_as_ring(watch, organisation="acme")

    (explanation,) = watch.explain("member-0")

    assert len(explanation.group) == 10
    assert explanation.campaign_p_value <= 0.02
    assert explanation.reasons


@pytest.mark.parametrize("defect", factories.hostile())
@pytest.mark.parametrize("scores", [np.full((6, CLASSES), np.nan), np.full((6, 1), 7.0), np.zeros((6, 0))])
def test_hostile_rows_and_answers_are_observed_like_others(defect: str, scores: Any) -> None:
    watch = make()

    observation = watch.observe(asker("a", "acme"), "fraud", factories.hostile()[defect], scores, now=NOW)

    assert observation.p_value is not None
    assert 0 < observation.p_value <= 1
    assert not np.isnan(watch.explain("a")[0].statistic)
    assert ask(watch, asker("b", "bank"), honest()).verdict.standing == "trusted"
    assert make(saved=watch.changes("fraud")).explain("a") == watch.explain("a")


def test_rows_of_another_size_are_as_suspicious_as_can_be() -> None:
    generator = np.random.default_rng(SEED)
    inputs = generator.standard_normal((10, INPUTS + 1))

    observation = make().observe(asker(), "fraud", inputs, np.full((10, CLASSES), 0.25), now=NOW)

    assert observation.p_value == REAL.clients.rate_min


def test_exact_repeats_change_no_evidence() -> None:
    watch = make()
    before = ask(watch, asker(), stolen(queries=12))
    again = ask(watch, asker(), stolen(queries=12))

    assert (again.distinct, again.new_buckets) == (0, 0)
    assert again.evidence == before.evidence


def test_coverage_is_kept_while_epochs_go_by() -> None:
    watch = make()
    ask(watch, asker(), honest(1, 3 * HORIZON))

    state = ClientState.from_bytes(watch.changes("fraud")["c1"])

    assert state.epoch == 2
    assert watch.explain("c1")[0].buckets == coverage.count(state.bitmap)


@pytest.mark.parametrize(
    ("weight", "share", "standing"), [(1.0, 0.8, "trusted"), (1.5, 0.8, "watched"), (0.5, 1.2, "trusted")]
)
def test_a_prior_decides_whether_a_client_is_watched_and_changes_no_p_value(
    weight: float, share: float, standing: str
) -> None:
    # somebody who is a little unusual, and more so on its own than as a group of one
    seen = ((seed, ask(make(), asker(), honest(seed)).evidence) for seed in range(100))
    seed, usual = next(
        (seed, evidence)
        for seed, evidence in seen
        if evidence.p_value < 0.35 and evidence.campaign_p_value > 1.3 * evidence.p_value
    )
    watch = make(alpha_watched=usual.p_value * share)

    observation = ask(watch, replace(asker(), prior=Prior(weight, "a list")), honest(seed))

    assert observation.evidence == usual
    assert observation.verdict.standing == standing
    assert (observation.quiet_hours < 1) == (standing == "watched")
    assert ask(make(alpha_watched=usual.p_value * 1.2), asker(), honest(seed)).verdict.standing == "watched"
