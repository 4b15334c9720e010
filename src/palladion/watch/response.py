"""What follows from suspicion: the standing of a client, decided by a pure function of evidence and policy.

Trusted → watched → throttled → degraded → suspended. Suspicion only ever lowers a standing; time, or a person, raises
it; a suspension is lifted by a person alone. What each standing discloses is decided in the gate (docs/gate.md).
"""

from dataclasses import dataclass
from typing import Literal, get_args

from palladion.policy import WatchPolicy
from palladion.registry.rows import Standing
from palladion.watch.onset import AT_ONCE, delay

STANDINGS: tuple[Standing, ...] = get_args(Standing)
Cause = Literal["client", "campaign", "budget", "decoy", "rules"]
LISTED_P_MAX = 0.5  # the largest p-value that a prior lets count: one without evidence is 1, whatever lists say


@dataclass(frozen=True, slots=True)
class Prior:
    """What is known of a client beside its queries: `weight` multiplies `alpha_watched` for it, and `words` say why.

    Whoever gives weights keeps their mean over clients at 1 or below (p-value weighting: Genovese, Roeder and
    Wasserman, Biometrika 93, 2006). No other threshold depends on them.
    """

    weight: float = 1.0
    words: str = ""


NO_PRIOR = Prior()


@dataclass(frozen=True)
class Evidence:
    """What speaks against a client now.

    `p_value` is that of its own queries, `campaign_p_value` that of its group's. `suspected` counts the distinct
    queries that left the own statistic above the threshold of `alpha_suspected`, `campaign_suspected` those of the
    group. `simulated` says that thresholds come from simulated clients. Where they come from few real ones, `rate_min`
    is the smallest rate that these support, else 0, and `beyond` says that one of the client's tests found it more
    unusual than all of them, or than all of many who do not support what is spent in its epoch (`spending`). What
    follows from either p-value is put off by `onset` and `campaign_onset`.
    """

    p_value: float = 1.0
    suspected: int = 0
    campaign_p_value: float = 1.0
    campaign_suspected: int = 0
    budget_spent: bool = False
    simulated: bool = True
    onset: int = AT_ONCE
    campaign_onset: int = AT_ONCE
    rate_min: float = 0.0
    beyond: bool = False


@dataclass(frozen=True)
class Verdict:
    """The standing that the evidence asks for, and what it rests on; `cause` is None for trusted.

    `listed` says that without a prior the same queries would not have asked for it.
    """

    standing: Standing
    cause: Cause | None
    reason: str
    listed: bool = False


SPENT = "it is beyond all calibration clients, who support nothing of what is left for its epoch: a person should look"
FEW = "it is beyond all of the few real calibration clients, who support no smaller rate: a person should look"
_NOTHING = Verdict("trusted", None, "nothing unusual")


def judge(evidence: Evidence, policy: WatchPolicy, prior: Prior = NO_PRIOR) -> Verdict:
    """The standing that `evidence` asks for; `prior` moves the threshold at which its own p-value asks for watched.

    Everything beyond watched needs a p-value of at most `alpha_suspected` (`alpha_campaign` for a group), so that the
    share of honest clients that ever get there is bounded by these, however many steps there are below. Where few real
    clients support no such p-value, or any number of them what is spent of it in this epoch, being beyond all of them
    asks for watched: a person has to look.
    """
    watched = watched_from(policy, prior)
    # nearly every request of nearly every client ends here
    if (
        not (evidence.budget_spent or evidence.beyond)
        and evidence.p_value > max(policy.alpha_suspected, watched)
        and evidence.campaign_p_value > max(policy.alpha_campaign, policy.alpha_watched)
    ):
        return _NOTHING
    client = _by_suspicion(
        "client",
        evidence.p_value,
        policy.alpha_suspected,
        evidence.suspected,
        policy,
        watched=watched,
        onset=evidence.onset,
    )
    if client.cause is not None and evidence.p_value > max(policy.alpha_suspected, policy.alpha_watched):
        client = Verdict("watched", "client", f"{client.reason}; watched sooner: {prior.words}", listed=True)
    if evidence.beyond and evidence.p_value > policy.alpha_suspected:
        client = Verdict(
            "watched", "client", f"{_unlike('client', evidence.p_value)}; {FEW if evidence.rate_min else SPENT}"
        )
    campaign = _by_suspicion(
        "campaign",
        evidence.campaign_p_value,
        policy.alpha_campaign,
        evidence.campaign_suspected,
        policy,
        watched=policy.alpha_watched,
        onset=evidence.campaign_onset,
    )
    if evidence.simulated and not policy.simulated_may_enforce:
        client, campaign = (_at_most(item, "watched", "the calibration is simulated") for item in (client, campaign))
    elif evidence.rate_min > policy.alpha_suspected and not policy.simulated_may_enforce:
        campaign = _at_most(campaign, "watched", "organisations are simulated, and real clients are few")
    if not policy.suspend_campaigns:
        campaign = _at_most(campaign, "degraded", "suspending a campaign needs a person")
    spent = Verdict("throttled", "budget", "the information budget is spent")
    # where two ask for the same, the first counts: the budget, because time does not undo that
    return max([spent if evidence.budget_spent else _NOTHING, client, campaign], key=lambda item: rank(item.standing))


def rank(standing: Standing) -> int:
    """0 for trusted, 4 for suspended."""
    return STANDINGS.index(standing)


def next_standing(current: Standing, verdict: Verdict, *, quiet_hours: float, policy: WatchPolicy) -> Standing:
    """The standing that follows: lower at once, higher by one step after quiet hours.

    A suspension stays. Where the budget is spent, nothing is raised beyond what that asks for.
    """
    if rank(verdict.standing) > rank(current):
        return verdict.standing
    if current in {"trusted", "suspended"} or quiet_hours < policy.recover_hours:
        return current
    if verdict.cause == "budget" and verdict.standing == current:
        return current
    return STANDINGS[rank(current) - 1]


def hours_quiet(alarmed_at: float, now: float) -> float:
    """How long ago a client last looked suspicious, of seconds since 1970; infinite if it never did."""
    return (now - alarmed_at) / 3600 if alarmed_at else float("inf")


def watched_from(policy: WatchPolicy, prior: Prior) -> float:
    """The p-value from which on a client's own queries ask for watched."""
    alpha = policy.alpha_watched
    if prior.weight <= 1:
        return alpha * prior.weight
    return max(alpha, min(alpha * prior.weight, LISTED_P_MAX))


def _by_suspicion(
    cause: Cause, p_value: float, alpha: float, suspected: int, policy: WatchPolicy, *, watched: float, onset: int
) -> Verdict:
    if p_value > max(alpha, watched):
        return _NOTHING
    reason = _unlike(cause, p_value)
    if p_value > alpha:
        return Verdict("watched", cause, reason)
    late = delay(onset, policy.degrade_after, policy.onset_spread)
    if suspected >= policy.suspend_after + late:
        return Verdict("suspended", cause, f"{reason}, and went on for {suspected} queries")
    if suspected >= policy.degrade_after + late:
        return Verdict("degraded", cause, f"{reason}, and went on for {suspected} queries")
    # the query that crossed is the first, also where what was counted is of another threshold
    if max(suspected, 1) <= late:
        return Verdict("watched", cause, reason)
    return Verdict("throttled", cause, reason)


def _unlike(cause: Cause, p_value: float) -> str:
    who = "the account's queries" if cause == "client" else "the linked accounts' queries together"
    return f"{who} are unlike those of honest clients (p = {p_value:.2g})"


def _at_most(verdict: Verdict, standing: Standing, why: str) -> Verdict:
    if rank(verdict.standing) <= rank(standing):
        return verdict
    return Verdict(standing, verdict.cause, f"{verdict.reason}; no further than {standing}: {why}")
