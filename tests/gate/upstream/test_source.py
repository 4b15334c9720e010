"""A model at an upstream: its answers, what clients are told when there is none, and what the operator is."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np
import pytest

from palladion.gate.problems import Problem
from palladion.gate.protocols.open_inference_upstream import OpenInferenceUpstream, read_metadata
from palladion.gate.upstream.address import parse_address
from palladion.gate.upstream.source import UpstreamSource

from .inference_server import MODEL, Answered, InferenceServer, inference_server, scores
from .scripted import Peer, Runner, answers, answers_and_closes, asking, serving

ROWS = np.array([[1, 2, 3, 4], [0, 0, 0, 1]], np.float32)
SECRET = b"layer 7 of /models/secret.onnx overflows"


@asynccontextmanager
async def source(
    address: str, *, binary: bool = False, doubted: Callable[[], None] | None = None, **limits: Any
) -> AsyncIterator[UpstreamSource]:
    """A source for the server's model."""
    described = read_metadata(msgspec.json.encode(InferenceServer().metadata))
    codec = OpenInferenceUpstream(MODEL, described, wanted=["scores"], binary=binary)
    async with asking(parse_address(address), **limits) as upstream:
        yield UpstreamSource(
            "/v2/models/m", upstream, codec, inputs=described.inputs, outputs=described.outputs, doubted=doubted
        )


async def _problem(asked: UpstreamSource) -> Problem:
    with pytest.raises(Problem) as caught:
        await asked.infer({"x": ROWS}, 2)
    assert caught.value.__cause__ is None
    return caught.value


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_the_models_answer_comes_back_as_arrays(run: Runner, binary: bool) -> None:
    async def main() -> None:
        model = InferenceServer()
        async with inference_server(model) as (_, address), source(address, binary=binary) as asked:
            outputs = await asked.infer({"x": ROWS}, 2)
            assert np.array_equal(outputs["scores"], scores(ROWS))
            assert asked.ready
            assert bool(model.asked[0][1]) is binary
            assert [port.name for port in asked.inputs + asked.outputs] == ["x", "scores"]

    run(main())


@pytest.mark.parametrize(
    ("status", "kind", "retry"),
    [
        (400, "model-failed", False),
        (422, "model-failed", False),
        (429, "busy", True),
        (503, "busy", True),
        (404, "upstream-failed", False),
        (401, "upstream-failed", False),
        (500, "upstream-failed", False),
        (302, "upstream-failed", False),
        (204, "upstream-failed", False),
    ],
)
def test_a_status_becomes_a_problem_that_repeats_nothing(run: Runner, status: int, kind: str, retry: bool) -> None:
    async def main() -> None:
        body = b"" if status == 204 else SECRET
        model = InferenceServer(infer=lambda _: Answered(body, status))
        async with inference_server(model) as (_, address), source(address) as asked:
            problem = await _problem(asked)
            assert (problem.kind, bool(problem.retry_after_seconds)) == (kind, retry)
            assert (problem.detail, problem.field) == ("", "")
            assert len(model.asked) == 1

    run(main())


@pytest.mark.parametrize("status", [201, 206])
def test_an_answer_is_one_only_with_the_status_of_one(run: Runner, status: int) -> None:
    async def main() -> None:
        output = {"name": "scores", "shape": [2, 3], "datatype": "FP32", "data": [0.5] * 6}
        body = msgspec.json.encode({"outputs": [output]})
        model = InferenceServer(infer=lambda _: Answered(body, status))
        async with inference_server(model) as (_, address), source(address) as asked:
            assert (await _problem(asked)).kind == "upstream-failed"
            model.infer = lambda _: Answered(body)
            assert (await asked.infer({"x": ROWS}, 2))["scores"].shape == (2, 3)

    run(main())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        SECRET,
        b'{"outputs":[]}',
        b'{"outputs":[{"name":"scores","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}',
        b'{"outputs":[{"name":"scores","shape":[2,3],"datatype":"FP32","data":[1,2,3,4,5]}]}',
    ],
)
def test_garbage_is_no_answer_and_raises_a_doubt(run: Runner, body: bytes) -> None:
    async def main() -> None:
        doubts: list[int] = []
        model = InferenceServer(infer=lambda _: Answered(body))
        async with (
            inference_server(model) as (_, address),
            source(address, doubted=lambda: doubts.append(1)) as asked,
        ):
            assert (await _problem(asked)).kind == "upstream-failed"
            assert doubts == [1]
            assert not asked.ready

    run(main())


def _scores(*last: bytes) -> list[bytes]:
    head = b'{"outputs":[{"name":"scores","shape":[2,3],"datatype":"FP32","data":[1,2,3,4,5,%s]}]}'
    return [head % number for number in last]


@pytest.mark.parametrize("body", _scores(b"NaN", b"-Infinity", b"1e999", b"1e39"))
def test_inputs_that_make_the_model_answer_no_number_make_nobody_doubt_it(
    run: Runner, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        doubts: list[int] = []
        model = InferenceServer(infer=lambda _: Answered(body))
        async with (
            inference_server(model) as (_, address),
            source(address, doubted=lambda: doubts.append(1)) as asked,
        ):
            assert (await _problem(asked)).kind == "model-failed"
            assert asked.ready
            assert doubts == []

    run(main())
    assert caplog.records == []


async def _silent(peer: Peer) -> None:
    await peer.request()
    await peer.closed()


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (answers_and_closes(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc"), "upstream-failed"),
        (answers_and_closes(b"SSH-2.0-x\r\n"), "upstream-failed"),
        (answers(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n"), "upstream-failed"),
        (answers(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc"), "upstream-failed"),
        (_silent, "upstream-timeout"),
    ],
    ids=["breaks-off", "no-http", "too-large", "two-lengths", "silent"],
)
def test_a_server_that_breaks_http_or_stalls_is_a_problem(run: Runner, script: Any, kind: str) -> None:
    async def main() -> None:
        async with (
            serving(script) as (_, address),
            source(str(address), head_seconds=0.05, idle_seconds=0.05) as asked,
        ):
            assert (await _problem(asked)).kind == kind

    run(main())


def test_a_server_that_is_not_there_is_a_problem(run: Runner) -> None:
    async def main() -> None:
        async with source("http://127.0.0.1:1") as asked:
            assert (await _problem(asked)).kind == "upstream-failed"

    run(main())


def test_more_requests_than_may_wait_are_told_to_come_again(run: Runner) -> None:
    async def main() -> None:
        async with (
            serving(_silent) as (server, address),
            source(str(address), connections_max=1, waiting_max=1, head_seconds=30) as asked,
        ):
            held = [asyncio.create_task(asked.infer({"x": ROWS}, 2)) for _ in range(2)]
            while not server.requests:
                await asyncio.sleep(0)
            problem = await _problem(asked)
            assert (problem.kind, problem.retry_after_seconds) == ("busy", 1)
            for task in held:
                task.cancel()
            await asyncio.gather(*held, return_exceptions=True)

    run(main())


def test_what_cannot_be_sent_is_not(run: Runner) -> None:
    async def main() -> None:
        model = InferenceServer()
        async with inference_server(model) as (_, address), source(address) as asked:
            with pytest.raises(Problem) as caught:
                await asked.infer({"other": ROWS}, 2)
            assert caught.value.kind == "model-failed"
            assert model.asked == []

    run(main())


def test_the_operator_is_told_once_for_each_time_it_gets_ill_or_well(
    run: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        broken = [True]
        model = InferenceServer(infer=lambda _: Answered(SECRET, 500) if broken[0] else None)
        async with inference_server(model) as (_, address), source(address) as asked:
            for state in (True, True, True, False, False, True):
                broken[0] = state
                if state:
                    await _problem(asked)
                else:
                    await asked.infer({"x": ROWS}, 2)
                assert asked.upstream.well is not state
            # nobody but clients looks after it, so that it must not be left alone
            assert asked.ready

    with caplog.at_level(logging.WARNING, "palladion.gate"):
        run(main())
    said = [record.getMessage() for record in caplog.records]
    assert ["500" in text for text in said] == [True, False, True]
    assert "answers again" in said[1]
    assert all(text.startswith("/v2/models/m: ") for text in said)
    assert SECRET.decode() not in "".join(said)


def test_only_a_good_answer_says_that_it_answers_again(run: Runner, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        model = InferenceServer(infer=lambda _: Answered(b"", 500))
        async with inference_server(model) as (_, address), source(address, doubted=lambda: None) as asked:
            for _ in range(3):
                await _problem(asked)
                assert not asked.ready
                asked.believe()  # as whoever looks after it does, each time
                assert asked.ready

    with caplog.at_level(logging.WARNING, "palladion.gate"):
        run(main())
    assert len(caplog.records) == 1


def test_a_client_that_leaves_ends_its_request(run: Runner) -> None:
    async def main() -> None:
        async with serving(_silent) as (server, address), source(str(address)) as asked:
            task = asyncio.create_task(asked.infer({"x": ROWS}, 2))
            while not server.requests:
                await asyncio.sleep(0)
            task.cancel()
            await server.deserted.wait()
            assert asked.ready

    run(main())


def test_its_connections_end_with_it(run: Runner) -> None:
    async def main() -> None:
        async with inference_server(InferenceServer()) as (server, address), source(address) as asked:
            await asked.infer({"x": ROWS}, 2)
            await asked.close()
            await server.deserted.wait()
            assert (await _problem(asked)).kind == "upstream-failed"

    run(main())
