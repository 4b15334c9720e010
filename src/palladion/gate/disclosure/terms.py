"""What holds for one caller on one route: its contract, the level of disclosure, and whether answers are perturbed.

A client with a contract of its own keeps that precision until a person decides otherwise: the watch alone lowers its
rate, and suspends it, but its answers stay as they were promised.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from palladion.gate.callers import WATCH, Caller
from palladion.gate.contract import Contract
from palladion.gate.disclosure.levels import LEVELS, Level
from palladion.gate.disclosure.perturbation import Method
from palladion.policy import ContractPolicy, Policy, RoutePolicy
from palladion.registry.rows import Standing

Own = Mapping[tuple[str, str], ContractPolicy]


@dataclass(frozen=True)
class Terms:
    """What a caller's answers disclose. `perturbation` is None where none is put on them."""

    contract: Contract
    level: Level
    perturbation: Method | None = None
    perturbation_max: float = 0.0


def own_contracts(policy: Policy) -> Own:
    """The contracts that promise a precision, by organisation and name of the client."""
    return {item.organisation_and_name: item for item in policy.contract if _promises_precision(item)}


def terms_of(caller: Caller, standing: Standing, route: RoutePolicy, contract: Contract, own: Own) -> Terms | None:
    """What holds for a caller who stands on this route as `standing` says; None for nothing, it is suspended."""
    level = LEVELS.get(standing)
    if level is None:
        return None
    mine = own.get((caller.client.organisation, caller.client.name)) if own else None
    if mine is not None:
        contract = promised(contract, mine)
        if caller.decided_by == WATCH:
            return Terms(contract, "contract")
    if route.perturbation == "none" or standing == "trusted":
        return Terms(contract, level)
    return Terms(contract, level, route.perturbation, route.perturbation_max)


@lru_cache(4096)
def promised(contract: Contract, own: ContractPolicy) -> Contract:
    """The route's contract with what a client was promised in its place, as far as the model can give it."""
    answer = own.answer or contract.answer
    if contract.kind != "classes" and (contract.label is None or contract.kind != "numbers"):
        answer = contract.answer  # there is no label to give instead
    return replace(
        contract,
        answer=answer,
        decimals=contract.decimals if own.decimals < 0 else own.decimals,
        top_k=contract.top_k if own.top_k < 0 else own.top_k,
    )


def _promises_precision(own: ContractPolicy) -> bool:
    return bool(own.answer) or own.decimals >= 0 or own.top_k >= 0
