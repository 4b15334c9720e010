"""What a running gate says of itself: its routes, for the ledger, and its clients by suspicion, for commands."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any

from palladion.gate.callers import Caller
from palladion.gate.gate import Gate
from palladion.gate.served import OnTrial
from palladion.policy import RoutePolicy
from palladion.watch.campaign_list import campaigns_of
from palladion.watch.discoveries import discoveries, e_value
from palladion.watch.explanation import Explanation
from palladion.watch.response import rank

CLIENTS_MAX = 1000  # the most suspicious ones; an operator's screen holds fewer
EXPLAINED_MAX = 10_000  # of more clients, those who are trusted and did not ask lately are left out
CLIENTS_AT_ONCE = 100  # explaining one takes 50 µs: then requests have their turn
CAMPAIGNS_MAX = 100
GROUP_SHOWN_MAX = 100  # members of a campaign, in the status of each of them


def routes_shown(gate: Gate, others: Iterable[RoutePolicy]) -> list[dict[str, Any]]:
    """Every route with what answers on it; `others` are those without arrays."""
    shown = [
        {
            "path": path,
            "version": item.subject,
            "content": item.version.content_digest if item.version else None,
            "mode": item.route.mode,
            "calibration": item.calibration_row.digest if item.calibration_row else None,
            **({"canary": canary_shown(item.on_trial)} if item.on_trial else {}),
        }
        for path, item in gate.served.items()
    ]
    return shown + [
        {"path": route.route, "version": route.model, "content": None, "mode": route.mode, "calibration": None}
        for route in [*(late.route for late in gate.waiting.values()), *others]
    ]


def canary_shown(on_trial: OnTrial) -> dict[str, Any]:
    """A version on trial, and what was counted of it and beside it so far."""
    served, total, standing = on_trial.served, on_trial.trial.total, on_trial.trial.standing
    return {
        "version": served.subject,
        "content": served.version.content_digest if served.version else None,
        "percent": on_trial.row.percent,
        "calibration": served.calibration_row.digest if served.calibration_row else None,
        "requests": total.requests,
        "failed": total.failed,
        "standing_requests": standing.requests,
        "standing_failed": standing.failed,
    }


async def clients_shown(gate: Gate) -> dict[str, Any]:
    """The most suspicious clients and campaigns, and how many there are."""
    stages = gate.stages
    found: list[tuple[Caller, list[Explanation]]] = []
    unexplained: Counter[bool] = Counter()  # by whether they are end users
    total = len(stages.directory.callers)
    for number, caller in enumerate(stages.directory.snapshot()):
        if number % CLIENTS_AT_ONCE == 0:
            await asyncio.sleep(0)
        if total > EXPLAINED_MAX and caller.standing == "trusted" and not stages.watch.in_memory(caller.id):
            unexplained[_is_end_user(caller)] += 1
            continue
        found.append((caller, stages.watch.explain(caller.id)))
    found.sort(key=lambda item: (-rank(item[0].standing), _least_p_value(item[1]), _name(item[0])))
    await asyncio.sleep(0)
    campaigns = campaigns_of(stages.watch, {caller.id: explanations for caller, explanations in found})
    await asyncio.sleep(0)
    names = {caller.id: _name(caller) for caller, _ in found}
    discovered = _discovered(gate, found, unexplained)
    await asyncio.sleep(0)
    return {
        "clients": [
            {
                "id": caller.id,
                "client": names[caller.id],
                "pseudonym": stages.name(caller.id),
                "standing": caller.standing,
                "models": [
                    {**_shown(item), "discovery": caller.id in discovered.get(item.model, ())} for item in explanations
                ],
            }
            for caller, explanations in found[:CLIENTS_MAX]
        ],
        "discoveries": {model: len(clients) for model, clients in sorted(discovered.items())},
        "drift": {model: item.figures() for model, item in sorted(stages.watch.drifts.watched.items())},
        "clients_total": total,
        "alpha_spent": stages.watch.policy.alpha_spent,
        "campaigns": [
            {**asdict(item), "members": [names.get(member, member) for member in item.members]}
            for item in campaigns[:CAMPAIGNS_MAX]
        ],
        "campaigns_total": len(campaigns),
    }


def _discovered(
    gate: Gate, found: Iterable[tuple[Caller, list[Explanation]]], unexplained: Mapping[bool, int]
) -> dict[str, frozenset[str]]:
    """The ids of the clients that are discoveries among all who asked a model, by its name.

    Among end users by themselves: else a reseller could hide others by inventing as many as it likes.
    """
    calibrated = gate.stages.watch.drifts.watched
    e_values: defaultdict[tuple[str, bool], dict[str, float]] = defaultdict(dict)
    for caller, explanations in found:
        for item in explanations:
            # another calibration may have come meanwhile, or none
            if (known := calibrated.get(item.model)) is not None:
                e_values[item.model, _is_end_user(caller)][caller.id] = e_value(item.p_value, known.about.clients)
    discovered: defaultdict[str, frozenset[str]] = defaultdict(frozenset)
    for (model, of_users), values in e_values.items():
        # who is not explained may have asked as well, and counts as one more who was weighed
        discovered[model] |= frozenset(discoveries(values, tested=len(values) + unexplained.get(of_users, 0)))
    return dict(discovered)


def _is_end_user(caller: Caller) -> bool:
    return caller.client.parent is not None


def _shown(item: Explanation) -> dict[str, Any]:
    # of a campaign of thousands, each member would list all the others; nor may they be copied on the way
    figures = {field.name: getattr(item, field.name) for field in fields(item)}
    figures["unlike"] = asdict(item.unlike)
    return {**figures, "group": item.group[:GROUP_SHOWN_MAX], "linked": len(item.group) - 1}


def _name(caller: Caller) -> str:
    return f"{caller.client.organisation}/{caller.client.name}"


def _least_p_value(explanations: list[Explanation]) -> float:
    return min((min(item.p_value, item.campaign_p_value) for item in explanations), default=1.0)
