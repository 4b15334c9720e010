"""The response as a table: what each piece of evidence asks for, and what follows from each standing."""

from dataclasses import replace
from itertools import product

import pytest
from msgspec import structs

from palladion.policy import WatchPolicy
from palladion.registry.rows import Standing
from palladion.watch.response import FEW, STANDINGS, Cause, Evidence, Prior, Verdict, judge, next_standing, rank

# thresholds that differ, so that none can stand in for another
POLICY = WatchPolicy(
    alpha_watched=0.02,
    alpha_suspected=0.002,
    alpha_campaign=0.005,
    degrade_after=8,
    suspend_after=16,
    recover_hours=24,
    simulated_may_enforce=True,
    suspend_campaigns=True,
)
REAL = Evidence(simulated=False)


@pytest.mark.parametrize(
    ("p_value", "suspected", "standing"),
    [
        (1.0, 0, "trusted"),
        (0.0201, 99, "trusted"),
        (0.02, 0, "watched"),
        (0.0021, 99, "watched"),
        (0.002, 0, "throttled"),
        (0.002, 7, "throttled"),
        (0.002, 8, "degraded"),
        (0.002, 15, "degraded"),
        (0.002, 16, "suspended"),
        (1e-9, 10**6, "suspended"),
    ],
)
def test_own_evidence_asks_for_this(p_value: float, suspected: int, standing: Standing) -> None:
    verdict = judge(replace(REAL, p_value=p_value, suspected=suspected), POLICY)

    assert verdict.standing == standing
    assert verdict.cause == (None if standing == "trusted" else "client")


@pytest.mark.parametrize(
    ("p_value", "suspected", "standing"),
    [
        (1.0, 0, "trusted"),
        (0.0201, 99, "trusted"),
        (0.02, 0, "watched"),
        (0.0051, 99, "watched"),
        (0.005, 7, "throttled"),
        (0.005, 8, "degraded"),
        (0.005, 15, "degraded"),
        (0.005, 16, "suspended"),
    ],
)
def test_evidence_of_the_group_asks_for_this(p_value: float, suspected: int, standing: Standing) -> None:
    verdict = judge(replace(REAL, campaign_p_value=p_value, campaign_suspected=suspected), POLICY)

    assert verdict.standing == standing
    assert verdict.cause == (None if standing == "trusted" else "campaign")


def test_a_policy_that_suspects_sooner_than_it_watches_is_followed() -> None:
    hasty = WatchPolicy(alpha_watched=0.001, alpha_suspected=0.05, alpha_campaign=0.03)

    assert judge(replace(REAL, p_value=0.04), hasty).standing == "throttled"
    assert judge(replace(REAL, p_value=0.06), hasty).standing == "trusted"
    assert judge(replace(REAL, campaign_p_value=0.02), hasty).standing == "throttled"


SUSPICION: dict[Standing, tuple[float, int]] = {
    "trusted": (1.0, 0),
    "watched": (0.01, 0),
    "throttled": (0.001, 0),
    "degraded": (0.001, 8),
    "suspended": (0.001, 16),
}


@pytest.mark.parametrize(("own", "group", "spent"), list(product(SUSPICION, SUSPICION, (False, True))))
def test_the_worst_counts_and_where_two_ask_for_the_same_first_the_budget_then_the_client(
    own: Standing, group: Standing, spent: bool
) -> None:
    evidence = Evidence(*SUSPICION[own], *SUSPICION[group], budget_spent=spent, simulated=False)
    asking: dict[Cause | None, Standing] = {"client": own, "campaign": group}
    if spent:
        asking = {"budget": "throttled", **asking}
    worst = max(asking.values(), key=rank)
    expected = next(cause for cause, standing in asking.items() if standing == worst)

    verdict = judge(evidence, POLICY)

    assert verdict.standing == worst
    assert verdict.cause == (None if worst == "trusted" else expected)


@pytest.mark.parametrize("own", SUSPICION)
@pytest.mark.parametrize("group", SUSPICION)
def test_a_simulated_calibration_goes_no_further_than_watched_by_itself(own: Standing, group: Standing) -> None:
    evidence = Evidence(*SUSPICION[own], *SUSPICION[group], simulated=True)
    cautious = WatchPolicy(simulated_may_enforce=False, suspend_campaigns=True)

    assert judge(evidence, cautious).standing == ("trusted" if own == group == "trusted" else "watched")
    assert judge(evidence, POLICY).standing == max(own, group, key=rank)


def test_a_spent_budget_throttles_also_where_the_calibration_is_simulated() -> None:
    verdict = judge(Evidence(budget_spent=True, simulated=True), WatchPolicy())

    assert (verdict.standing, verdict.cause) == ("throttled", "budget")


@pytest.mark.parametrize(("group", "standing"), [("degraded", "degraded"), ("suspended", "degraded")])
def test_a_campaign_is_suspended_by_a_person_alone_unless_the_policy_says_otherwise(
    group: Standing, standing: Standing
) -> None:
    evidence = Evidence(1.0, 0, *SUSPICION[group], simulated=False)

    assert judge(evidence, WatchPolicy(suspend_campaigns=False)).standing == standing
    assert judge(evidence, WatchPolicy(suspend_campaigns=True)).standing == group


def test_a_member_of_a_campaign_is_suspended_for_its_own_queries() -> None:
    evidence = Evidence(*SUSPICION["suspended"], *SUSPICION["suspended"], simulated=False)

    verdict = judge(evidence, WatchPolicy(suspend_campaigns=False))

    assert (verdict.standing, verdict.cause) == ("suspended", "client")


@pytest.mark.parametrize(
    ("evidence", "policy", "words"),
    [
        (replace(REAL, p_value=0.01), POLICY, ["the account's queries", "p = 0.01"]),
        (replace(REAL, campaign_p_value=0.001, campaign_suspected=20), POLICY, ["linked accounts", "20 queries"]),
        (Evidence(p_value=0.0005, suspected=9), WatchPolicy(), ["9 queries", "no further than watched", "simulated"]),
        (
            replace(REAL, campaign_p_value=0.001, campaign_suspected=20),
            WatchPolicy(),
            ["no further than degraded", "needs a person"],
        ),
        (replace(REAL, budget_spent=True), POLICY, ["information budget is spent"]),
    ],
)
def test_reasons_say_what_it_rests_on_and_what_held_it_back(
    evidence: Evidence, policy: WatchPolicy, words: list[str]
) -> None:
    reason = judge(evidence, policy).reason

    assert [word for word in words if word not in reason] == []


ASKED = {standing: Verdict(standing, "client", "a reason") for standing in STANDINGS}


@pytest.mark.parametrize(("current", "asked"), list(product(STANDINGS, STANDINGS)))
@pytest.mark.parametrize("quiet_hours", [0.0, 23.9, 24.0, float("inf")])
def test_a_standing_falls_at_once_and_rises_by_one_step_after_quiet_hours(
    current: Standing, asked: Standing, quiet_hours: float
) -> None:
    following = next_standing(current, ASKED[asked], quiet_hours=quiet_hours, policy=POLICY)

    if rank(asked) > rank(current):
        assert following == asked
    elif quiet_hours < 24 or current in {"trusted", "suspended"}:
        assert following == current
    else:
        assert rank(following) == rank(current) - 1


@pytest.mark.parametrize("hours", [1, 24, 8760, float("inf")])
def test_no_time_lifts_a_suspension(hours: float) -> None:
    assert next_standing("suspended", ASKED["trusted"], quiet_hours=hours, policy=POLICY) == "suspended"


@pytest.mark.parametrize(
    ("current", "following"),
    [("trusted", "throttled"), ("watched", "throttled"), ("throttled", "throttled"), ("degraded", "throttled")],
)
def test_while_the_budget_is_spent_no_time_raises_anybody_above_throttled(
    current: Standing, following: Standing
) -> None:
    spent = judge(replace(REAL, budget_spent=True), POLICY)

    assert next_standing(current, spent, quiet_hours=float("inf"), policy=POLICY) == following


def test_time_that_runs_backwards_raises_nobody() -> None:
    assert next_standing("watched", ASKED["trusted"], quiet_hours=-5.0, policy=POLICY) == "watched"


def test_standings_are_ranked_from_trusted_to_suspended() -> None:
    assert STANDINGS == ("trusted", "watched", "throttled", "degraded", "suspended")
    assert [rank(standing) for standing in STANDINGS] == [0, 1, 2, 3, 4]


FEW_POLICY = WatchPolicy(alpha_watched=0.01, alpha_suspected=0.001, alpha_campaign=0.005, suspend_campaigns=True)


@pytest.mark.parametrize(
    ("p_value", "rate_min", "beyond", "standing"),
    [
        (1 / 16, 1 / 16, True, "watched"),
        (2 / 16, 1 / 16, False, "trusted"),
        (2 / 16, 2 / 16, True, "watched"),
        # of two tests, one at its own smallest rate and the other not
        (2 * 6 / 151, 1 / 151 + 1 / 20, True, "watched"),
        (2 * 3 / 151, 1 / 151 + 1 / 20, False, "trusted"),
        (1 / 151, 1 / 151, True, "watched"),
        (1 / 1001, 1 / 1001, True, "throttled"),
        (0.02, 0.0, False, "trusted"),
    ],
)
def test_whoever_is_beyond_all_of_few_real_clients_is_for_a_person(
    *, p_value: float, rate_min: float, beyond: bool, standing: Standing
) -> None:
    suspected = 1 if standing == "throttled" else 99
    evidence = replace(REAL, p_value=p_value, suspected=suspected, rate_min=rate_min, beyond=beyond)

    verdict = judge(evidence, FEW_POLICY)

    assert verdict.standing == standing
    assert (FEW in verdict.reason) == (standing == "watched")


def test_of_few_real_clients_no_number_of_queries_makes_it_more_than_watched() -> None:
    for policy in (FEW_POLICY, structs.replace(FEW_POLICY, simulated_may_enforce=True)):
        evidence = replace(REAL, p_value=1 / 21, suspected=10**6, rate_min=1 / 21, beyond=True)
        assert judge(evidence, policy).standing == "watched"


def test_where_real_clients_are_few_a_campaign_is_for_a_person_too() -> None:
    evidence = replace(REAL, campaign_p_value=0.001, campaign_suspected=99, rate_min=1 / 21)

    verdict = judge(evidence, FEW_POLICY)
    opted_in = judge(evidence, structs.replace(FEW_POLICY, simulated_may_enforce=True))
    enough = judge(replace(evidence, rate_min=0.0009), FEW_POLICY)

    assert (verdict.standing, verdict.cause) == ("watched", "campaign")
    assert "organisations are simulated, and real clients are few" in verdict.reason
    assert opted_in.standing == enough.standing == "suspended"


def test_few_real_clients_who_support_what_disturbs_disturb() -> None:
    policy = structs.replace(FEW_POLICY, alpha_suspected=0.02)

    evidence = replace(REAL, p_value=1 / 61, suspected=1, rate_min=1 / 61, beyond=True)
    assert judge(evidence, policy).standing == "throttled"


@pytest.mark.parametrize(
    ("weight", "p_value", "standing"),
    [
        (1.0, 0.02, "watched"),
        (1.0, 0.021, "trusted"),
        (2.5, 0.05, "watched"),
        (2.5, 0.0501, "trusted"),
        (0.9, 0.018, "watched"),
        (0.9, 0.0181, "trusted"),
        (7.39, 0.0021, "watched"),  # no prior steps anybody further down
        (0.05, 0.002, "throttled"),  # and none keeps anybody from it
        (1000.0, 0.5, "watched"),
        (1000.0, 0.5001, "trusted"),  # without evidence p is 1: lists alone never count
    ],
)
def test_a_prior_moves_the_threshold_of_watched_and_no_other(weight: float, p_value: float, standing: Standing) -> None:
    verdict = judge(replace(REAL, p_value=p_value, suspected=9 if p_value > 0.002 else 1), POLICY, Prior(weight, "it"))

    assert verdict.standing == standing


def test_a_prior_says_nothing_of_a_group() -> None:
    assert judge(replace(REAL, campaign_p_value=0.03), POLICY, Prior(7.0, "it")).standing == "trusted"
    assert judge(replace(REAL, campaign_p_value=0.02), POLICY, Prior(0.5)).standing == "watched"


def test_a_reason_names_the_prior_only_where_it_made_the_difference() -> None:
    prior = Prior(2.0, "address listed by tor")
    assert judge(replace(REAL, p_value=0.03), POLICY, prior).reason.endswith(
        "(p = 0.03); watched sooner: address listed by tor"
    )
    assert "listed" not in judge(replace(REAL, p_value=0.02), POLICY, prior).reason
    assert "listed" not in judge(replace(REAL, p_value=0.001, suspected=1), POLICY, prior).reason


def test_no_policy_lets_lists_alone_watch_anybody() -> None:
    policy = structs.replace(POLICY, alpha_watched=0.5)
    assert judge(replace(REAL, p_value=1.0), policy, Prior(7.39, "it")).standing == "trusted"
    assert judge(replace(REAL, p_value=0.5), policy, Prior(7.39, "it")).standing == "watched"
