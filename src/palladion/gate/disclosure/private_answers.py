"""Private answers of a route: the noise that its model's scores get, what each costs, and that it is paid before.

What is paid is in the registry, on the disk, before the model runs: a gate that is killed in between has spent and not
answered, never the reverse. Nothing is given back.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar

from palladion.errors import PalladionError, PolicyError
from palladion.gate.contract import Contract, Outputs
from palladion.gate.disclosure.mechanisms import Noise
from palladion.gate.disclosure.privacy import PrivacyBudget, cost_of
from palladion.gate.problems import Problem
from palladion.model.run import Port
from palladion.policy import RoutePolicy
from palladion.registry import Registry
from palladion.registry.privacy import PrivacySpent

_Result = TypeVar("_Result")


class Run(Protocol):
    """Does something with the registry, in its thread."""

    def __call__(self, function: Callable[[Registry], _Result]) -> Awaitable[_Result]:
        """Its result."""
        ...


def make_noise(route: RoutePolicy, contract: Contract, ports: list[Port]) -> tuple[Noise | None, Contract]:
    """The noise of a route, and the contract under which no answer goes around it; None where it has none.

    The model's own label says what noise is to hide, so it is never disclosed: labels are made of noisy scores. Raises
    PolicyError where the model has no class scores, MissingExtraError.
    """
    if not route.privacy.is_on:
        return None, contract
    port = next((port for port in ports if port.name == contract.scores), None)
    classes = port.shape[-1] if port is not None and len(port.shape) == 2 else None
    if contract.kind != "classes" or not isinstance(classes, int) or classes < 2:
        raise PolicyError(
            f"route {route.route}: privacy needs scores of a known number of classes, (rows, classes)",
            'leave privacy out, or set mechanism = "none"',
        )
    noise = Noise(route.privacy, classes)
    # now, as it takes seconds, and the first request would wait for it with all others
    noise.prepare()
    answer = "label" if route.privacy.mechanism == "noisy-max" else contract.answer
    return noise, replace(contract, label=None, answer=answer)


def with_noise(outputs: Outputs, contract: Contract, noise: Noise) -> dict[str, Any]:
    """What may be disclosed of an answer that was paid for: scores under noise, and nothing else."""
    name = contract.scores or ""
    # in the type that the model has: noise and its steps fit into any
    return {name: noise.disclose(outputs[name]).astype(outputs[name].dtype)}


class Spending:
    """Pays for private answers. For one event loop."""

    def __init__(self, run: Run | None) -> None:
        """Without `run` nothing can be paid, and so nothing is answered privately."""
        self._run = run

    async def spend(self, route: RoutePolicy, client: str, noise: Noise, rows: int) -> PrivacySpent:
        """What so many rows cost, which is durably spent when this returns. Raises Problem, and then nothing is."""
        policy, cost = route.privacy, noise.cost
        spent = cost_of(cost.epsilon, cost.rho, rows)
        budget = PrivacyBudget(policy.epsilon_per_client, policy.epsilon_total, policy.delta)
        if self._run is None:
            raise Problem("unrecorded")
        try:
            is_paid = await self._run(partial(_spend, route.model, client, spent, budget))
        except PalladionError:
            # the reason is for the operator, not for the client
            raise Problem("unrecorded", retry_after_seconds=5) from None
        if not is_paid:
            raise Problem("privacy-spent", "this client, or all together, would have been told more than was allowed")
        return spent


def details_of(route: RoutePolicy, spent: PrivacySpent) -> dict[str, str]:
    """What a record says of what its request spent: ε by basic composition, and ρ."""
    policy = route.privacy
    epsilon = "" if policy.mechanism == "gaussian" else f"{spent.epsilon:.6g}"
    return {"mechanism": policy.mechanism, "epsilon": epsilon, "rho": f"{spent.rho:.6g}", "delta": f"{policy.delta:g}"}


def said_of(route: RoutePolicy, stated: str | None) -> str:
    """What noise on a route's answers is worth, for whoever runs the gate; `stated` is of the model's training."""
    policy = route.privacy
    each = f"{policy.mechanism}, ε {policy.epsilon:g} an answer, {policy.epsilon_per_client:g} a client"
    if policy.sensitivity == 1:
        worth = "assuming nothing of the model"
    else:
        worth = (
            "only if one row of training moves no score, clipped to 0..1 as the model gives it, by more than "
            f"{policy.sensitivity:g}, which nobody proved"
        )
    trained = f"; its training: {stated}" if stated else "; it was not trained privately, as far as is known"
    return f"private answers: {each}, {policy.epsilon_total:g} in all, {worth}{trained}"


def _spend(model: str, client: str, spent: PrivacySpent, budget: PrivacyBudget, registry: Registry) -> bool:
    with registry.write() as records:
        return records.privacy.spend(model, client, spent, budget.allows)
