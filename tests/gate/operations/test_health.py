"""When a gate is ready, and what is said of it when it is not."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from palladion.gate.operations.health import DRAINING, LEDGER, Health
from palladion.gate.readiness import Waiting
from palladion.gate.sources.source import Source
from palladion.policy import RoutePolicy
from tests.gate.gates import PATH, House, open_gate

from .watched import watched


def test_a_gate_that_serves_is_ready(house: House) -> None:
    health = watched(open_gate(house)).health
    assert health.ready()
    assert health.faults() == []


def test_a_ledger_that_takes_nothing_makes_it_unready(house: House) -> None:
    item = watched(open_gate(house))
    item.recorder.sound = False
    assert not item.health.ready()
    assert item.health.faults() == [LEDGER]


def test_a_gate_that_is_about_to_stop_is_not_ready_any_more(house: House) -> None:
    item = watched(open_gate(house))
    item.health.draining = True
    assert not item.health.ready()
    assert item.health.faults() == [DRAINING]


def test_an_upstream_that_is_down_is_told_of_and_takes_no_other_route_away(house: House) -> None:
    bench = open_gate(house)
    item = watched(bench)
    well = bench.gate.served[PATH].source
    ill: Any = SimpleNamespace(ready=False, inputs=well.inputs, outputs=well.outputs)
    served = replace(bench.gate.served[PATH], source=cast(Source, ill))
    late = Waiting(RoutePolicy(model="late", protocol="open-inference", upstream="http://127.0.0.1:1"), {})
    bench.gate.serve({PATH: served}, waiting={late.route.route: late})
    assert item.health.ready()
    assert item.health.faults() == [
        "/v2/models/late waits for its upstream",
        f"the upstream of {PATH} does not answer as it should",
    ]


def test_an_upstream_that_failed_when_last_asked_is_told_of_once_whoever_asks_it(house: House) -> None:
    bench = open_gate(house)
    well = bench.gate.served[PATH].source
    ill: Any = SimpleNamespace(ready=False, inputs=well.inputs, outputs=well.outputs)
    bench.gate.serve({PATH: replace(bench.gate.served[PATH], source=cast(Source, ill))})
    failing = ["/v1/models/llama", PATH]
    health = Health(bench.gate, sound=lambda: True, failing=lambda: failing)
    assert health.ready()
    assert health.faults() == [
        f"the upstream of {route} does not answer as it should" for route in sorted(["/v1/models/llama", PATH])
    ]
    failing.clear()
    assert health.faults() == [f"the upstream of {PATH} does not answer as it should"]


def test_what_operators_changed_and_is_not_in_effect_is_told(house: House) -> None:
    bench = open_gate(house)
    late = ["a change is late"]
    health = Health(bench.gate, sound=lambda: True, late=lambda: late)
    assert health.ready()
    assert health.faults() == late
    late.clear()
    assert health.faults() == []
