"""Without a budget nothing is counted; the gate's own stages are one."""

from typing import Any

from palladion.gate.chat.budget import Budget, Unlimited
from palladion.policy import RoutePolicy
from tests.gate.gates import House, open_gate


def test_without_a_budget_everything_is_reserved_and_nothing_exceeded() -> None:
    anybody: Any = None
    reservation = Unlimited().reserve(anybody, RoutePolicy(model="m"), queries=1, tokens=10**9, information=1)
    assert not reservation.exceeded(10**12)
    reservation.settle(5, information=1)


def test_the_stages_of_a_gate_are_a_budget(house: House) -> None:
    stages = open_gate(house).gate.stages
    budget: Budget = stages
    (caller, *_) = stages.directory.callers.values()
    budget.reserve(caller, RoutePolicy(model="m"), queries=1, tokens=10, information=1).settle(5)
