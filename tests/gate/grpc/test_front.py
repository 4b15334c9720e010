"""Routes as gRPC reaches them: the same stages, the model's name in place of a path, and always what is served now."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from numpy.typing import NDArray

from palladion.gate.grpc import front as front_module
from palladion.gate.grpc.head import read_head
from palladion.gate.protocols.open_inference import OpenInferenceErrors, model_paths
from palladion.gate.readiness import Waiting
from palladion.gate.served import OnTrial, open_canary
from palladion.policy import RoutePolicy
from palladion.registry import Canary
from tests.gate.gates import (
    MODEL,
    OTHER_MODEL,
    ROW,
    Bench,
    House,
    failing,
    session_of,
    stub,
    tiny_calibration,
)
from tests.gate.service import WAIT_SECONDS_MAX
from tests.lifecycle.installations import ACTOR, NOW

from .listening import MESSAGES, ROUTE, Calling, asked, calling

LABELS = RoutePolicy(model=MODEL, protocol="open-inference", path="/labels", answer="label")
OTHER = RoutePolicy(model=OTHER_MODEL, protocol="open-inference")
PREDICT = RoutePolicy(model=OTHER_MODEL)
REST_BODY = msgspec.json.encode({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": ROW}]})
LATE = RoutePolicy(model="late", protocol="open-inference", path="/far", upstream="http://127.0.0.1:1")


def _wait(route: RoutePolicy) -> Waiting:
    return Waiting(route, model_paths(route.path, route.model, ""), OpenInferenceErrors())


def test_a_route_with_a_prefix_is_asked_for_by_prefix_and_name(house: House) -> None:
    async def work(c: Calling) -> list[Any]:
        return [
            await c.call("ModelInfer", asked(model=f"labels/{MODEL}", raw=False)),
            await c.call("ModelInfer", asked()),
            await c.call("ModelInfer", asked(model=f"/labels/{MODEL}")),
            await c.call("ModelInfer", asked(model=f"other/{MODEL}")),
        ]

    label, scores, *strange = calling(house, work, ROUTE, LABELS)
    assert [tensor.name for tensor in label.answer.outputs] == ["label"]
    assert [tensor.name for tensor in scores.answer.outputs] == ["probabilities"]
    assert {told.problem for told in strange} == {"model-not-found"}


@pytest.mark.parametrize("version", ["1", "2", "1/infer", "../1", ""])
def test_only_the_version_that_is_served_exists(house: House, version: str) -> None:
    async def work(c: Calling) -> Any:
        return await c.call("ModelInfer", asked(model_version=version))

    told = calling(house, work)
    assert told.problem == ("" if version in {"1", ""} else "model-not-found")
    if told.problem:
        assert (told.code, told.details) == ("NOT_FOUND", "model_name: there is no such model")


def test_names_that_are_guessed_are_paid_for_and_nothing_is_said_of_others(house: House) -> None:
    async def work(c: Calling) -> list[Any]:
        guesses = [await c.call("ModelInfer", asked(model=name)) for name in ("a", "b")]
        return [*guesses, await c.call("ModelInfer", asked())]

    limits = {"queries_per_second": 0.001, "burst": 2}
    *guessed, last = calling(house, work, limits=limits)
    assert [told.problem for told in guessed] == ["model-not-found"] * 2
    assert (last.problem, last.code) == ("rate-limited", "RESOURCE_EXHAUSTED")
    assert int(last.metadata["retry-after"]) > 1


def test_messages_that_cannot_be_read_are_paid_for_and_those_beyond_the_rate_are_not_read(house: House) -> None:
    read: list[bytes] = []

    async def work(c: Calling) -> list[Any]:
        return [await c.call("ModelInfer", b"\xff" * 100) for _ in range(4)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(front_module, "read_head", lambda data: read.append(data) or read_head(data))  # type: ignore[func-returns-value]
        told = calling(house, work, limits={"queries_per_second": 0.001, "burst": 2})
    assert [item.problem for item in told] == ["bad-input", "bad-input", "rate-limited", "rate-limited"]
    assert len(read) == 2


def test_routes_of_other_protocols_are_not_reached(house: House) -> None:
    async def work(c: Calling) -> list[Any]:
        return [
            await c.call("ModelInfer", asked(model=name))
            for name in (OTHER_MODEL, f"v1/models/{OTHER_MODEL}/predict", f"/v1/models/{OTHER_MODEL}/predict")
        ]

    assert {told.problem for told in calling(house, work, ROUTE, PREDICT)} == {"model-not-found"}


def test_a_gate_without_such_routes_answers_nothing(house: House) -> None:
    async def work(c: Calling) -> list[Any]:
        return [await c.call("ModelInfer", asked(model=OTHER_MODEL)), await c.call("ServerReady")]

    # nobody may ask what there is not
    assert [told.problem for told in calling(house, work, PREDICT)] == ["forbidden", "not-found"]


def test_what_is_swapped_in_answers_the_next_call(house: House) -> None:
    async def work(c: Calling) -> list[Any]:
        (item,) = c.bench.gate.served.values()
        before = await c.call("ModelInfer", asked())
        moved = replace(item, route=RoutePolicy(model=MODEL, protocol="open-inference", path="/new"))
        c.bench.gate.serve({moved.route.route: moved})
        return [before, await c.call("ModelInfer", asked()), await c.call("ModelInfer", asked(model=f"new/{MODEL}"))]

    assert [told.code for told in calling(house, work)] == ["OK", "NOT_FOUND", "OK"]


def test_a_route_that_waits_for_its_upstream_says_so(house: House) -> None:
    def prepare(bench: Bench) -> None:
        bench.gate.serve(bench.gate.served, waiting={LATE.route: _wait(LATE)})

    async def work(c: Calling) -> list[Any]:
        return [
            await c.call("ModelInfer", asked(model="far/late")),
            await c.call("ModelReady", MESSAGES["ModelReadyRequest"](name="far/late")),
            await c.call("ServerReady"),
            await c.call("ServerReady", client="initech"),
            await c.call("ServerLive"),
        ]

    late, ready, server, others, live = calling(house, work, OTHER, prepare=prepare)
    assert (late.code, late.problem) == ("UNAVAILABLE", "not-ready")
    assert (ready.code, ready.answer.ready) == ("OK", False)
    assert not server.answer.ready
    # the model that is late is not for this one
    assert others.answer.ready
    assert live.answer.live


def test_a_suspended_client_is_read_nothing_of(house: House) -> None:
    async def work(c: Calling) -> Any:
        c.bench.put("suspended")
        # this is no message, which nobody finds out
        return await c.call("ModelInfer", b"\xff")

    told = calling(house, work)
    assert (told.code, told.problem) == ("PERMISSION_DENIED", "suspended")


def _on_trial(bench: Bench) -> OnTrial:
    (served,) = bench.gate.served.values()
    assert served.on_trial is not None
    return served.on_trial


def _with_canary(house: House) -> Callable[[Bench], None]:
    class Chosen(OnTrial):
        def is_chosen(self, client: str) -> bool:
            return client == house.ids["globex"]

    def prepare(bench: Bench) -> None:
        made = open_canary(house.installation, ROUTE, Canary(MODEL, 2, "begin", 50, "", ACTOR, NOW))
        bench.change_served(on_trial=Chosen(made.served, made.row, made.key))

    return prepare


def test_a_version_on_trial_answers_its_share_here_too(house: House) -> None:
    async def work(c: Calling) -> list[str]:
        for client in ("acme", "globex"):
            await c.call("ModelInfer", asked(), client=client)
        # a path with a version's number in it is that version's, for everybody
        await c.call("ModelInfer", asked(model_version="1"), client="globex")
        return [record.subject for record in c.bench.journal.records]

    subjects = calling(house, work, prepare=_with_canary(house))
    assert subjects == [f"{MODEL}@1", f"{MODEL}@2", f"{MODEL}@1"]


def test_failures_of_a_version_on_trial_count_together_with_those_of_rest(house: House) -> None:
    told: list[OnTrial] = []
    rest: dict[str, Any] = {"path": f"/v2/models/{MODEL}/infer", "body": REST_BODY}

    async def work(c: Calling) -> OnTrial:
        bad = stub(c.bench, failing(ValueError("it breaks")))
        on_trial = _on_trial(c.bench)
        c.bench.change_served(on_trial=replace(on_trial, served=replace(on_trial.served, source=bad)))
        c.bench.gate.failing = lambda failed, finding: told.append(failed)
        for _ in range(13):
            assert (await c.call("ModelInfer", asked())).code == "OK"
            assert (await c.bench.gate.handle(c.bench.request(**rest))).status == 200
        for _ in range(10):
            assert (await c.call("ModelInfer", asked(), client="globex")).problem == "model-failed"
            assert (await c.bench.gate.handle(c.bench.request(client="globex", **rest))).problem == "model-failed"
        return _on_trial(c.bench)

    on_trial = calling(house, work, prepare=_with_canary(house))
    assert on_trial.trial.standing.requests == 26
    assert on_trial.trial.total.requests == 20
    # whoever acts on it is told of the gate's own
    assert told == [on_trial]


def test_a_version_that_is_replaced_while_it_runs_is_not_weighed_by_the_new_calibration(house: House) -> None:
    async def work(c: Calling) -> list[str]:
        loop, swapped = asyncio.get_running_loop(), threading.Event()
        (item,) = c.bench.gate.served.values()
        session = session_of(item)

        def swap() -> None:
            c.bench.change_served(calibration=tiny_calibration())
            swapped.set()

        def answer(feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            loop.call_soon_threadsafe(swap)
            swapped.wait(WAIT_SECONDS_MAX)
            return session.run(feeds)

        c.bench.change_served(source=stub(c.bench, answer))
        assert (await c.call("ModelInfer", asked())).code == "OK"
        return [model for _, model, _ in c.bench.watch.asked]

    assert calling(house, work) == [""]
