"""Finding out what a model takes: at the start, later, and again when it changed."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from palladion.errors import FormatError, PolicyError
from palladion.gate.problems import Problem
from palladion.gate.upstream.address import parse_address
from palladion.gate.upstream.discovery import LAST_SECONDS, Discoveries, Discovery, Sought
from palladion.gate.upstream.errors import UpstreamError
from palladion.gate.upstream.pool import Upstream
from palladion.gate.upstream.source import UpstreamSource
from palladion.policy import RoutePolicy

from .inference_server import MODEL, Answered, InferenceServer, inference_server
from .scripted import PATIENT, Runner

ROUTE = RoutePolicy(model="m", protocol="open-inference", upstream="http://127.0.0.1:8000", upstream_model=MODEL)
ROWS = np.zeros((1, 4), np.float32)


class Clock:
    """Sleeps end at once, are counted, and stop the discovery after so many."""

    def __init__(self, sleeps_max: int) -> None:
        self.slept: list[float] = []
        self._max = sleeps_max
        self.over = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) >= self._max:
            self.over.set()
            await asyncio.Event().wait()


class House:
    """Who gets the sources, and refuses them if a test says so."""

    def __init__(self) -> None:
        self.sources: list[UpstreamSource] = []
        self.error: Exception | None = None

    async def found(self, route: RoutePolicy, source: UpstreamSource) -> None:
        assert route.model == "m"
        if self.error is not None:
            raise self.error
        self.sources.append(source)


@asynccontextmanager
async def discovering(
    address: str, house: House, clock: Clock | None = None, route: RoutePolicy = ROUTE
) -> AsyncIterator[Discovery]:
    """A discovery; every pool it opened has to be closed at the end, or belong to a source."""
    opened: list[Upstream] = []

    def open_upstream() -> Upstream:
        opened.append(Upstream(parse_address(address), limits=PATIENT))
        return opened[-1]

    sleep = (clock or Clock(1)).sleep
    yield Discovery(route, open_upstream, house.found, sleep=sleep)
    for source in house.sources:
        await source.close()
    assert [pool for pool in opened if pool.open] == []


async def _until(clock: Clock, discovery: Discovery) -> None:
    task = asyncio.create_task(discovery.run())
    await clock.over.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_a_model_that_is_there_is_found_at_once(run: Runner) -> None:
    async def main() -> None:
        house = House()
        async with inference_server(InferenceServer()) as (_, address), discovering(address, house) as discovery:
            assert await discovery.look()
            (source,) = house.sources
            assert [port.name for port in source.inputs + source.outputs] == ["x", "scores"]
            assert (await source.infer({"x": ROWS}, 1))["scores"].shape == (1, 3)

    run(main())


def test_outputs_that_no_contract_names_are_not_asked_for(run: Runner) -> None:
    async def main() -> None:
        house, model = House(), InferenceServer()
        model.metadata["outputs"].append({"name": "embedding", "datatype": "FP32", "shape": [-1, 4, 4]})
        async with inference_server(model) as (_, address), discovering(address, house) as discovery:
            await discovery.look()
            await house.sources[0].infer({"x": ROWS}, 1)
            assert model.asked[0][0]["outputs"] == [{"name": "scores"}]

    run(main())


@pytest.mark.parametrize(
    ("setting", "extensions", "binary"),
    [
        ("auto", ["binary_tensor_data"], True),
        ("auto", [], False),
        ("binary", [], True),
        ("json", ["binary_tensor_data"], False),
    ],
)
def test_bytes_are_sent_where_they_are_taken(run: Runner, setting: Any, extensions: list[str], binary: bool) -> None:
    async def main() -> None:
        house, model = House(), InferenceServer(extensions=extensions)
        route = msgspec.structs.replace(ROUTE, upstream_tensors=setting)
        async with inference_server(model) as (_, address), discovering(address, house, route=route) as discovery:
            await discovery.look()
            await house.sources[0].infer({"x": ROWS}, 1)
            assert bool(model.asked[0][1]) is binary

    run(main())


def test_one_that_is_not_there_is_looked_for_ever_more_seldom_and_told_once(
    run: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        clock = Clock(9)
        async with discovering("http://127.0.0.1:1", House(), clock) as discovery:
            assert not await discovery.look()
            await _until(clock, discovery)
            assert clock.slept == [1, 2, 4, 8, 16, 32, LAST_SECONDS, LAST_SECONDS, LAST_SECONDS]

    with caplog.at_level(logging.ERROR, "palladion.gate"):
        run(main())
    assert len(caplog.records) == 1
    assert "/v2/models/m: http://127.0.0.1:1 cannot be reached" in caplog.text


def test_one_that_went_is_told_by_who_asked_it_alone(run: Runner, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        house, model = House(), InferenceServer()
        async with inference_server(model) as (_, address), discovering(address, house) as discovery:
            await discovery.look()
            model.status, model.infer = 500, lambda _: Answered(b"", 500)
            for _ in range(3):
                with pytest.raises(Problem):
                    await house.sources[0].infer({"x": ROWS}, 1)
                assert not await discovery.look()

    with caplog.at_level(logging.WARNING, "palladion.gate"):
        run(main())
    assert len(caplog.records) == 1


def test_one_that_comes_up_later_is_found(run: Runner) -> None:
    async def main() -> None:
        house, model, clock = House(), InferenceServer(status=503), Clock(3)
        async with inference_server(model) as (_, address), discovering(address, house, clock) as discovery:
            assert not await discovery.look()
            sleep = clock.sleep

            async def then_it_is_up(seconds: float) -> None:
                model.status = 200
                await sleep(seconds)

            discovery._sleep = then_it_is_up
            task = asyncio.create_task(discovery.run())
            while not house.sources:
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    run(main())


def test_a_model_that_is_still_the_same_is_ready_again(run: Runner) -> None:
    async def main() -> None:
        house, model, clock = House(), InferenceServer(infer=lambda _: Answered(b"garbage")), Clock(1)
        async with inference_server(model) as (_, address), discovering(address, house, clock) as discovery:
            await discovery.look()
            (source,) = house.sources
            with pytest.raises(Problem):
                await source.infer({"x": ROWS}, 1)
            ready = [source.ready]
            await _until(clock, discovery)
            assert [*ready, source.ready] == [False, True]
            assert house.sources == [source]
            assert model.described == 2

    run(main())


def test_a_server_whose_answers_never_fit_is_not_asked_for_its_metadata_all_the_time(run: Runner) -> None:
    async def main() -> None:
        house, model = House(), InferenceServer(infer=lambda _: Answered(b"garbage"))
        async with inference_server(model) as (_, address), discovering(address, house) as discovery:
            await discovery.look()
            slept: list[float] = []

            async def sleep(seconds: float) -> None:
                slept.append(seconds)
                if len(slept) == 5:
                    await asyncio.Event().wait()
                with pytest.raises(Problem):  # meanwhile a client asks
                    await house.sources[0].infer({"x": ROWS}, 1)

            discovery._sleep = sleep
            discovery._doubted.set()
            task = asyncio.create_task(discovery.run())
            while len(slept) < 5:
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert slept == [1, 2, 4, 8, 16]

    run(main())


def test_after_a_quiet_time_it_is_patient_again(run: Runner) -> None:
    async def main() -> None:
        house, model = House(), InferenceServer()
        async with inference_server(model) as (_, address), discovering(address, house) as discovery:
            slept: list[float] = []

            async def sleep(seconds: float) -> None:
                slept.append(seconds)
                if len(slept) < 3:
                    discovery._doubted.set()  # doubted while it sleeps
                elif len(slept) == 3:
                    asyncio.get_running_loop().call_soon(discovery._doubted.set)  # and once when it slept enough

            discovery._sleep = sleep
            task = asyncio.create_task(discovery.run())
            while len(slept) < 4:
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert slept == [1, 2, 4, 1]

    run(main())


def test_a_model_that_became_another_one_is_a_new_source(run: Runner) -> None:
    async def main() -> None:
        house, model = House(), InferenceServer()
        async with inference_server(model) as (_, address), discovering(address, house) as discovery:
            await discovery.look()
            model.metadata["inputs"][0]["shape"] = [-1, 5]
            assert await discovery.look()
            first, second = house.sources
            assert (first.inputs[0].shape, second.inputs[0].shape) == ((None, 4), (None, 5))
            # the old one answers what it was asked before, until it is closed by who got it
            assert (await first.infer({"x": ROWS}, 1))["scores"].shape == (1, 3)
            assert first.upstream is not second.upstream

    run(main())


def test_one_that_cannot_be_served_so_is_told_and_tried_again(run: Runner) -> None:
    async def main() -> None:
        house = House()
        async with inference_server(InferenceServer()) as (_, address), discovering(address, house) as discovery:
            house.error = PolicyError("it does not fit")
            with pytest.raises(PolicyError, match="does not fit"):
                await discovery.look()
            house.error = None
            assert await discovery.look()
            assert len(house.sources) == 1

    run(main())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"inputs": []}, "linear: its metadata names 0 inputs"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": []}]}, "linear: 'x' has no rows"),
    ],
)
def test_metadata_that_says_too_little_is_told_with_server_and_model(
    run: Runner, change: dict[str, Any], reason: str
) -> None:
    async def main() -> None:
        model = InferenceServer()
        model.metadata |= change
        async with inference_server(model) as (_, address), discovering(address, House()) as discovery:
            with pytest.raises(FormatError, match=reason):
                await discovery.look()

    run(main())


def test_outputs_that_no_contract_fits_are_a_fault_of_the_policy(run: Runner) -> None:
    async def main() -> None:
        model = InferenceServer()
        model.metadata["outputs"] = [{"name": "mask", "datatype": "FP32", "shape": [-1, 4, 4]}]
        async with inference_server(model) as (_, address), discovering(address, House()) as discovery:
            with pytest.raises(PolicyError, match="none of the outputs"):
                await discovery.look()

    run(main())


# --- all of a policy


def test_only_routes_that_an_upstream_describes_wait(tmp_path: Path) -> None:
    routes = [
        RoutePolicy(model="here", protocol="open-inference"),
        msgspec.structs.replace(ROUTE, path="/a/"),
        RoutePolicy(model="chat", protocol="openai", upstream="http://127.0.0.1:1"),
    ]
    waiting = Discoveries(routes, tmp_path, House().found).waiting
    assert list(waiting) == ["/a/v2/models/m"]
    assert waiting["/a/v2/models/m"].paths["/a/v2/models/m/infer"] == "ask"


def test_an_upstream_that_cannot_be_asked_is_told_before_anything_is_served(tmp_path: Path) -> None:
    far = msgspec.structs.replace(ROUTE, upstream="http://models.example")
    with pytest.raises(PolicyError, match="not encrypted"):
        Discoveries([far], tmp_path, House().found)


def test_all_are_looked_for_at_the_start_and_none_holds_up_the_others(run: Runner, tmp_path: Path) -> None:
    async def main() -> None:
        house = House()
        async with inference_server(InferenceServer()) as (_, address):
            up = msgspec.structs.replace(ROUTE, upstream=address)
            down = msgspec.structs.replace(ROUTE, upstream="http://127.0.0.1:1", path="/down")
            discoveries = Discoveries([down, up], tmp_path, house.found)
            await discoveries.start()
            assert len(house.sources) == 1
            await discoveries.close()
            await house.sources[0].close()

    run(main())


def test_a_policy_that_does_not_fit_ends_the_start(run: Runner, tmp_path: Path) -> None:
    async def main() -> None:
        house = House()
        house.error = PolicyError("scores_output is 'x'")
        async with inference_server(InferenceServer()) as (_, address):
            discoveries = Discoveries([msgspec.structs.replace(ROUTE, upstream=address)], tmp_path, house.found)
            with pytest.raises(PolicyError, match="scores_output"):
                await discoveries.start()
            await discoveries.close()

    run(main())


async def _sought(discoveries: Discoveries, *routes: RoutePolicy) -> Sought:
    async with discoveries.seeking(routes) as sought:
        return sought


def test_under_another_policy_only_upstreams_that_are_new_are_asked(run: Runner, tmp_path: Path) -> None:
    async def main() -> None:
        house = House()
        async with inference_server(InferenceServer()) as (_, one), inference_server(InferenceServer()) as (_, two):
            first = msgspec.structs.replace(ROUTE, upstream=one)
            discoveries = Discoveries([first], tmp_path, house.found)
            await discoveries.start()
            same = await _sought(discoveries, msgspec.structs.replace(first, mode="enforce"))
            assert (same.found, same.sources, same.waiting) == ({}, {}, {})
            elsewhere = msgspec.structs.replace(ROUTE, upstream=two)
            down = msgspec.structs.replace(ROUTE, path="/down")
            sought = await _sought(discoveries, elsewhere, down)
            assert list(sought.sources) == [ROUTE.route]
            assert list(sought.waiting) == [down.route]
            assert sought.sources[ROUTE.route].upstream.address.port == int(two.rpartition(":")[2])
            # nothing of it is in force yet
            assert list(discoveries.waiting) == [ROUTE.route]
            (old,) = discoveries._tasks.values()
            discoveries.put(sought)
            await asyncio.gather(old, return_exceptions=True)
            assert old.cancelled()
            assert set(discoveries.waiting) == {ROUTE.route, down.route}
            discoveries.put(await _sought(discoveries, elsewhere))
            assert list(discoveries._tasks) == [ROUTE.route]
            await discoveries.close()
            for source in (*house.sources, *sought.sources.values()):
                await source.close()

    run(main())


def test_an_upstream_that_answers_is_not_given_up_for_one_that_does_not(run: Runner, tmp_path: Path) -> None:
    async def main() -> None:
        house = House()
        async with inference_server(InferenceServer()) as (_, address), inference_server(InferenceServer()) as (_, two):
            here, second = (msgspec.structs.replace(ROUTE, upstream=address, path=path) for path in ("", "/second"))
            discoveries = Discoveries([here, second], tmp_path, house.found)
            await discoveries.start()
            gone = msgspec.structs.replace(here, upstream="http://127.0.0.1:9")
            moved = msgspec.structs.replace(second, upstream=two)
            with pytest.raises(UpstreamError):
                await _sought(discoveries, gone, moved)
            assert len(discoveries._tasks) == 2
            await discoveries.close()
            for source in house.sources:
                await source.close()
            # one that was never reached may be looked for anywhere
            lost = Discoveries([gone], tmp_path, house.found)
            await lost.start()
            assert list((await _sought(lost, msgspec.structs.replace(gone, upstream="http://127.0.0.1:19"))).waiting)
            await lost.close()

    run(main())


def test_what_was_found_for_a_policy_that_is_refused_is_closed(run: Runner, tmp_path: Path) -> None:
    async def main() -> None:
        async with inference_server(InferenceServer()) as (_, address):
            discoveries = Discoveries([], tmp_path, House().found)
            await discoveries.start()
            with pytest.raises(PolicyError):
                async with discoveries.seeking([msgspec.structs.replace(ROUTE, upstream=address)]) as sought:
                    raise PolicyError("something else is wrong")
            (source,) = sought.sources.values()
            assert source.upstream.open == 0
            assert source.upstream._closed

    run(main())
