"""A share of the clients is served another version, stays with it, and comes back where that version fails."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from palladion.clock import ManualClock
from palladion.gate.canary import CanaryPath
from palladion.gate.served import OnTrial, open_canary
from palladion.gate.trial import Finding
from palladion.ledger.record import Record, decode_record
from palladion.lifecycle.canary import begin_canary
from palladion.lifecycle.clients import add_client
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.promote import promote
from palladion.lifecycle.protect import protect
from palladion.policy import RoutePolicy
from palladion.registry import Canary
from tests.lifecycle.installations import ACTOR, NOW, OWNER
from tests.models import write

from .gates import MODEL, PATH, Bench, House, answer, failing, open_gate, problem, stub
from .operations.watched import watched
from .service import configure, serving, wait_until

ENFORCE = RoutePolicy(model=MODEL, mode="enforce")
INFERENCE = RoutePolicy(model=MODEL, protocol="open-inference", mode="enforce")


def _on_trial(house: House, route: RoutePolicy = ENFORCE, *, percent: int = 50) -> OnTrial:
    return open_canary(house.installation, route, Canary(MODEL, 2, "begin", percent, "", ACTOR, NOW))


def _bench(house: House, chosen: set[str], route: RoutePolicy = ENFORCE) -> Bench:
    """A gate with version 2 on trial for these clients."""
    ids = {house.ids[name] for name in chosen}

    class Chosen(OnTrial):
        def is_chosen(self, client: str) -> bool:
            return client in ids

    made = _on_trial(house, route)
    bench = open_gate(house, route)
    bench.change_served(on_trial=Chosen(made.served, made.row, made.key))
    return bench


def _trial(bench: Bench) -> OnTrial:
    (served,) = bench.gate.served.values()
    assert served.on_trial is not None
    return served.on_trial


def _versions(bench: Bench) -> list[str]:
    return [record.subject for record in bench.journal.records if record.kind == "answer.given"]


def test_each_client_is_answered_by_its_version_and_stays_with_it(house: House) -> None:
    bench = _bench(house, {"globex"})
    said = [answer(bench.ask(client=client))["version"] for client in ("acme", "globex", "acme", "globex")]
    assert [str(version) for version in said] == ["1", "2", "1", "2"]
    assert _versions(bench) == [f"{MODEL}@1", f"{MODEL}@2", f"{MODEL}@1", f"{MODEL}@2"]


def test_what_a_version_is_asked_is_watched_under_its_own_name(house: House) -> None:
    bench = _bench(house, {"globex"})
    bench.ask()
    bench.ask(client="globex")
    assert [model for _, model, _ in bench.watch.asked] == [MODEL, f"{MODEL}@2"]


def test_a_description_is_of_the_version_that_answers(house: House) -> None:
    bench = _bench(house, {"globex"})
    said = [answer(bench.ask(client=client, method="GET"))["version"] for client in ("acme", "globex")]
    assert [str(version) for version in said] == ["1", "2"]


def test_a_path_with_a_number_in_it_is_of_that_version_for_everybody(house: House) -> None:
    bench = _bench(house, {"globex"}, INFERENCE)
    of_version = bench.gate.endpoints[f"/v2/models/{MODEL}/versions/1"]
    assert not isinstance(of_version, CanaryPath)
    assert isinstance(bench.gate.endpoints[f"/v2/models/{MODEL}/infer"], CanaryPath)
    assert f"/v2/models/{MODEL}/versions/2" not in bench.gate.endpoints


def test_failures_are_counted_and_mistakes_of_clients_are_not(house: House) -> None:
    bench = _bench(house, {"globex"})
    bench.ask()
    bench.ask(client="globex")
    bench.ask("no rows", client="globex")
    broken = replace(_trial(bench).served, source=stub(bench, failing(ValueError("it breaks"))))
    bench.change_served(on_trial=replace(_trial(bench), served=broken))
    assert problem(bench.ask(client="globex")) == "model-failed"
    trial = _trial(bench).trial
    assert (trial.total.requests, trial.total.failed) == (2, 1)
    assert (trial.standing.requests, trial.standing.failed) == (1, 0)
    # for whoever watches, counted on when the trial's own counts begin anew
    trial.restart()
    bench.ask(client="globex")
    item = watched(bench)
    assert item.value("canary_requests_total", PATH, "canary") == 3
    assert item.value("canary_failures_total", PATH, "canary") == 2
    assert item.value("canary_requests_total", PATH, "standing") == 1
    assert item.value("canary_failures_total", PATH, "standing") == 0
    assert item.value("canary_ratio", PATH) == 0.5


def test_without_a_version_on_trial_there_are_no_figures_of_one(house: House) -> None:
    bench = open_gate(house)
    bench.ask()
    found = watched(bench).read()
    assert [name for name, family in found.items() if name.startswith("canary_") and family.rows] == []


def test_whoever_acts_on_a_failing_version_is_told(house: House) -> None:
    bench = _bench(house, {"globex"})
    broken = replace(_trial(bench).served, source=stub(bench, failing(ValueError("it breaks"))))
    bench.change_served(on_trial=replace(_trial(bench), served=broken))
    told: list[tuple[OnTrial, Finding]] = []
    bench.gate.failing = lambda on_trial, finding: told.append((on_trial, finding))
    for _ in range(25):
        bench.ask()
    for _ in range(20):
        bench.ask(client="globex")
    assert [on_trial.served.subject for on_trial, _ in told] == [f"{MODEL}@2"]


# --- over HTTP, in a process of its own

CLIENTS = 24


def _many(house: House) -> list[str]:
    keys = []
    for number in range(CLIENTS):
        _, key, _ = add_client(
            house.installation, f"org{number}", "it", models=[], environment="test", expires=None, actor=ACTOR
        )
        keys.append(key.text)
    return keys


def _records(installation: Installation) -> list[Record]:
    return [decode_record(data, what="it") for _, data in installation.read_ledger().entries()]


def _broken(path: Path) -> Path:
    """A model that loads, and fails whenever it is asked for one row."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "weights"], ["scores"]),
            helper.make_node("Reshape", ["scores", "shape"], ["shaped"]),
            helper.make_node("Softmax", ["shaped"], ["probabilities"]),
        ],
        "broken",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, [None, 7])],
        [
            onnx.numpy_helper.from_array(np.ones((4, 3), np.float32), "weights"),
            onnx.numpy_helper.from_array(np.array([-1, 7]), "shape"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return write(path, model.SerializeToString())


def _begin(house: House, number: int = 2, *, percent: int = 50) -> None:
    installation = Installation.find(house.installation.paths.home, ManualClock(NOW), exact=True)
    begin_canary(installation, MODEL, number, percent=percent, uncalibrated=True, actor=ACTOR)


@pytest.mark.service
@pytest.mark.slow
def test_a_share_of_clients_is_served_it_over_a_restart_until_it_is_full(house: House, tmp_path: Path) -> None:
    mine = house.copy(tmp_path)
    configure(mine, ENFORCE)
    keys = _many(mine)
    with serving(mine) as service:
        assert {service.ask(key=key).document["version"] for key in keys} == {1}
        _begin(mine)
        before = [service.ask(key=key).document["version"] for key in keys]
        assert before == [service.ask(key=key).document["version"] for key in keys]
        shown = mine.installation.server_status()
        assert shown is not None
        (route,) = shown["routes"]
        assert (route["version"], route["canary"]["version"], route["canary"]["percent"]) == (
            f"{MODEL}@1",
            f"{MODEL}@2",
            50,
        )
    # half of 24, within what a fair draw leaves in 999 of 1,000
    assert 4 <= before.count(2) <= 20
    with serving(mine) as service:
        assert [service.ask(key=key).document["version"] for key in keys] == before
        promote(mine.installation, MODEL, 2, actor=ACTOR)
        assert {service.ask(key=key).document["version"] for key in keys} == {2}
    opened = [record.subject for record in _records(mine.installation) if record.kind == "model.opened"]
    # what was on trial stays in memory when it is promoted
    assert opened == [f"{MODEL}@1", f"{MODEL}@2", f"{MODEL}@1", f"{MODEL}@2"]


@pytest.mark.service
@pytest.mark.slow
def test_a_version_that_fails_is_rolled_back_by_the_gate(house: House, tmp_path: Path) -> None:
    mine = house.copy(tmp_path)
    configure(mine, ENFORCE)
    keys = _many(mine)
    owner = mine.installation.open_owner_root([OWNER])
    number = protect(mine.installation, owner, _broken(tmp_path / "broken.onnx"), MODEL, actor=ACTOR).version.number
    with serving(mine) as service:
        _begin(mine, number)

        def ask_all() -> bool:
            return {service.ask(key=key).status for key in keys} == {200}

        assert not ask_all()
        wait_until(ask_all)
        with mine.installation.open_registry() as registry, registry.read() as records:
            assert records.canaries.current(MODEL) is None
            ended = records.canaries.history(MODEL)[-1]
        wait_until(lambda: f"{MODEL}@{number} is rolled back" in service.complaints)
        assert service.terminate() == 0
    (record,) = [item for item in _records(mine.installation) if item.kind == "model.rolled-back"]
    assert (record.actor, record.subject, record.details["canary"]) == ("gate", f"{MODEL}@1", number)
    assert record.details["failed"] == record.details["requests"] > 0
    assert (ended.kind, ended.actor) == ("end", "gate")
