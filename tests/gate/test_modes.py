"""Whether a client is observed: as its contract says, whatever the route does, or as the route says."""

from typing import Any

import pytest
from msgspec import structs

from palladion.gate.callers import WATCH, Caller
from palladion.gate.modes import Modes
from palladion.policy import ContractPolicy, Policy, RoutePolicy
from palladion.registry.rows import Standing
from palladion.watch.response import Verdict
from tests.lifecycle.installations import NOW

from .gates import MODEL, Bench, House, answer, open_gate

THROTTLED = Verdict("throttled", "client", "they are odd")


def _renew(bench: Bench, *contracts: ContractPolicy) -> None:
    stages = bench.gate.stages
    stages.renew(structs.replace(stages.policy, contract=contracts))


def _modes(own: Any) -> Modes:
    return Modes(Policy(contract=(ContractPolicy(client="acme", mode=own),)))


@pytest.mark.parametrize("route", ["observe", "enforce"])
@pytest.mark.parametrize("own", ["", "observe", "enforce"])
@pytest.mark.parametrize("standing", ["trusted", "watched", "throttled", "degraded", "suspended"])
def test_a_contract_comes_before_the_route(house: House, own: Any, route: Any, standing: Standing) -> None:
    bench = open_gate(house)
    modes, path = _modes(own), RoutePolicy(model=MODEL, mode=route)
    for name, mode in (("acme", own or route), ("globex", route)):
        caller = Caller(bench.gate.stages.directory.callers[house.ids[name]].client, standing, NOW, WATCH)
        assert modes.of(caller, path) == mode
        effective = "trusted" if mode == "observe" and standing != "suspended" else standing
        assert modes.effective(caller, path) == effective
        assert (modes.level(caller, path) is None) == (standing == "suspended")


@pytest.mark.parametrize(
    ("route", "own", "kind"), [("observe", "enforce", "standing.changed"), ("enforce", "observe", "standing.proposed")]
)
def test_one_client_is_enforced_where_the_route_observes_and_the_other_way(
    house: House, route: Any, own: Any, kind: str
) -> None:
    bench = open_gate(house, RoutePolicy(model=MODEL, mode=route))
    _renew(bench, ContractPolicy(client="acme", mode=own))
    bench.watch.verdict = THROTTLED
    for client in ("acme", "globex"):
        bench.ask(client=client)
        bench.ask(client=client)
    told = {(item.subject, item.kind) for item in bench.journal.records if item.kind.startswith("standing")}
    name = bench.gate.stages.name
    other = {"standing.changed", "standing.proposed"} - {kind}
    assert told == {(name(house.ids["acme"]), kind), (name(house.ids["globex"]), other.pop())}
    given = [item for item in bench.journal.records if item.kind == "answer.given"]
    assert [item.details["mode"] for item in given] == [own, own, route, route]
    # full to who is observed
    assert [item.details["disclosed"] for item in given[1::2]] == [
        "reduced" if mode == "enforce" else "contract" for mode in (own, route)
    ]


def test_a_mode_can_change_while_the_gate_runs(house: House) -> None:
    bench = open_gate(house, RoutePolicy(model=MODEL, mode="observe"))
    bench.watch.verdict = THROTTLED
    answer(bench.ask())
    caller = bench.gate.stages.directory.callers[house.ids["acme"]]
    assert caller.standing == "trusted"
    _renew(bench, ContractPolicy(client="acme", mode="enforce"))
    answer(bench.ask())
    assert bench.gate.stages.directory.callers[house.ids["acme"]].standing == "throttled"
