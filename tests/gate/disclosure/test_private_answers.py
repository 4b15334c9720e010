"""Private answers through a gate: paid before they are given, refused when spent, never without noise."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from palladion.errors import BusyError, PolicyError
from palladion.gate.contract import Contract
from palladion.gate.disclosure.private_answers import make_noise, said_of
from palladion.gate.gate import Gate
from palladion.gate.requests import Response
from palladion.model.run import Port
from palladion.policy import RoutePolicy
from palladion.policy.privacy import PrivacyPolicy
from palladion.registry.privacy import PrivacySpent
from tests.gate.gates import MODEL, Bench, House, open_gate

pytest.importorskip("opendp.prelude", reason="OpenDP is not installed: pip install 'palladion[dp]'")
pytestmark = pytest.mark.slow  # OpenDP takes seconds to load

PRIVATE = PrivacyPolicy(mechanism="noisy-max", epsilon=1.0, epsilon_per_client=2.0, epsilon_total=3.0)
SCORES = PrivacyPolicy(mechanism="laplace", epsilon=1.0, epsilon_per_client=100.0, epsilon_total=100.0)
ROUTE = RoutePolicy(model=MODEL, mode="enforce", privacy=PRIVATE)
ROW = [0.5, -1.0, 2.0, 0.25]


def _bench(house: House, route: RoutePolicy = ROUTE) -> Bench:
    """A gate whose budgets are in the registry of the house."""
    bench = open_gate(house, route)
    registry = house.installation.open_registry()

    async def run(function: Callable[[Any], Any]) -> Any:
        return function(registry)

    return _with_run(bench, run)


def _with_run(bench: Bench, run: Any) -> Bench:
    gate = Gate(bench.gate.stages, run)
    gate.serve(bench.gate.served)
    bench.gate = gate
    return bench


def _kind(response: Response) -> str:
    return str(msgspec.json.decode(response.body).get("type", "")).rpartition(":")[2]


def _spent(house: House, client: str = "") -> PrivacySpent:
    with house.installation.open_registry() as registry, registry.read() as records:
        return records.privacy.spent(MODEL, house.ids[client] if client else "")


def test_an_answer_is_a_label_and_its_record_says_what_was_spent(house: House, tmp_path: Path) -> None:
    mine = house.copy(tmp_path)
    bench = _bench(mine)
    response = bench.ask((ROW,))
    assert response.status == 200
    (answer,) = msgspec.json.decode(response.body)["outputs"].items()
    assert answer[0] == "label"
    assert bench.journal.records[-1].details["privacy"] == {
        "mechanism": "noisy-max",
        "epsilon": "1",
        "rho": "0.125",
        "delta": "1e-06",
    }
    assert _spent(mine, "acme") == _spent(mine) == PrivacySpent(1, 1.0, 0.125)


def test_a_client_is_refused_when_its_budget_is_spent_also_by_another_gate(house: House, tmp_path: Path) -> None:
    mine = house.copy(tmp_path)
    assert [_kind(_bench(mine).ask((ROW,))) for _ in range(3)] == ["", "", "privacy-spent"]
    assert _spent(mine, "acme").answers == 2


def test_all_clients_together_have_one_budget(house: House, tmp_path: Path) -> None:
    bench = _bench(house.copy(tmp_path))
    asked = ["acme", "acme", "globex", "globex"]
    assert [_kind(bench.ask((ROW,), client=client)) for client in asked] == ["", "", "", "privacy-spent"]


def test_more_rows_than_are_left_cost_nothing(house: House, tmp_path: Path) -> None:
    mine = house.copy(tmp_path)
    bench = _bench(mine)
    response = bench.ask((ROW, ROW, ROW))
    assert (response.status, _kind(response)) == (403, "privacy-spent")
    assert _spent(mine) == PrivacySpent()


def test_what_was_paid_stays_paid_when_the_answer_is_not_given(house: House, tmp_path: Path) -> None:
    mine = house.copy(tmp_path)
    bench = _bench(mine)
    bench.journal.error = BusyError("the disk is full")
    assert _kind(bench.ask((ROW,))) == "unrecorded"
    assert _spent(mine, "acme").answers == 1


@pytest.mark.parametrize("run", [None, "fails"])
def test_what_cannot_be_paid_is_not_answered(house: House, run: str | None) -> None:
    async def fail(function: Callable[[Any], Any]) -> Any:
        raise BusyError("locked")

    bench = _with_run(open_gate(house, ROUTE), fail if run else None)
    response = bench.ask((ROW,))
    assert (response.status, _kind(response)) == (503, "unrecorded")


def test_scores_leave_with_noise_and_the_models_own_label_never(house: House, tmp_path: Path) -> None:
    mine = house.copy(tmp_path)
    route = RoutePolicy(model=MODEL, mode="enforce", privacy=SCORES)
    bench = _bench(mine, route)
    plain = msgspec.json.decode(open_gate(mine).ask((ROW,)).body)["outputs"]
    outputs = [msgspec.json.decode(bench.ask((ROW,)).body)["outputs"] for _ in range(3)]
    assert all(set(item) == {name for name in plain if name != "label"} for item in outputs)
    assert outputs[0] != outputs[1] != outputs[2]
    assert plain not in outputs


def test_many_clients_at_once_never_get_more_than_there_is(house: House, tmp_path: Path) -> None:
    mine = house.copy(tmp_path)
    bench = _bench(mine)

    async def ask() -> list[Response]:
        requests = [bench.request((ROW,), client=client) for client in ("acme", "globex") * 4]
        return list(await asyncio.gather(*map(bench.gate.handle, requests)))

    assert sum(response.status == 200 for response in asyncio.run(ask())) == 3
    assert _spent(mine).answers == 3


def test_a_model_without_class_scores_cannot_answer_privately(house: House) -> None:
    with pytest.raises(PolicyError, match=r"class scores|kind"):
        open_gate(house, RoutePolicy(model=MODEL, privacy=PRIVATE, kind="numbers"))


def test_what_is_said_of_a_route_tells_an_assumption_from_none() -> None:
    assert "assuming nothing of the model; it was not trained privately" in said_of(ROUTE, None)
    assumed = RoutePolicy(model=MODEL, privacy=PrivacyPolicy(mechanism="noisy-max", sensitivity=0.1))
    assert "which nobody proved; its training: ε = 1" in said_of(assumed, "ε = 1")


@pytest.mark.parametrize(("privacy", "answer"), [(PRIVATE, "label"), (SCORES, "scores")])
def test_the_label_that_the_model_gives_itself_goes_around_the_noise_nowhere(
    privacy: PrivacyPolicy, answer: str
) -> None:
    ports = [Port("label", "int64", (None,)), Port("probabilities", "float32", (None, 3))]
    plain = Contract("probabilities", "label", "classes", "scores", 17, 0)
    noise, contract = make_noise(RoutePolicy(model=MODEL, privacy=privacy), plain, ports)
    assert noise is not None
    assert (contract.label, contract.answer, noise.classes) == (None, answer, 3)
    assert make_noise(RoutePolicy(model=MODEL), plain, ports) == (None, plain)


@pytest.mark.parametrize("shape", [(None, None), (None, 1), (None, 3, 4)])
def test_noise_needs_a_known_number_of_classes(shape: tuple[int | None, ...]) -> None:
    plain = Contract("scores", None, "classes", "scores", 17, 0)
    with pytest.raises(PolicyError, match="a known number of classes"):
        make_noise(ROUTE, plain, [Port("scores", "float32", shape)])
