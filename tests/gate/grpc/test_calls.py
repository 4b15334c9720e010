"""Calls over a real channel: who is let in, what ends them, and that REST would have said the same."""

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import pytest

from palladion.gate.grpc import calls
from palladion.gate.grpc.statuses import CODES
from palladion.gate.problems import Problem
from palladion.gate.protocols.tensors import HEADER_LENGTH, OCTETS
from palladion.policy import RoutePolicy
from tests.gate.gates import MODEL, OTHER_MODEL, ROW, Deadlines, House, header

from .listening import MESSAGES, ROUTE, Calling, Told, asked, calling, grpc

HERE = "127.0.0.1"
INFER = f"/v2/models/{MODEL}/infer"
ROWS = [ROW, [1, 2, 3, 4]]
EXPECTED = [0.29978597, 0.36587357, 0.33434045]  # what the model of these tests says to ROW
DAYS = {"queries_per_day": 3}


# --- who is let in


def _bearer(key: str) -> list[tuple[str, str | bytes]]:
    return [("authorization", f"Bearer {key}")]


@pytest.mark.parametrize(
    "rpc", ["ModelInfer", "ModelReady", "ModelMetadata", "ServerLive", "ServerReady", "ServerMetadata"]
)
def test_strangers_learn_nothing_and_nothing_of_them_is_read(house: House, rpc: str) -> None:
    good, other = house.keys["acme"], house.keys["globex"]
    strangers: list[list[tuple[str, str | bytes]]] = [
        [],
        _bearer(""),
        _bearer("nobody"),
        _bearer(good[:-1] + ("A" if good[-1] != "A" else "B")),
        [("authorization", f"Basic {good}")],
        [("x-api-key", good), ("authorization", f"Bearer {good}")],
        [("api-key", good)],
        [("authorization-bin", f"Bearer {good}".encode())],
        _bearer(other[:-4]),
    ]

    async def work(c: Calling) -> list[Told]:
        # no message: whoever reads one finds a fault in it
        return [await c.call(rpc, b"\xff\xff", metadata=metadata) for metadata in strangers]

    told = calling(house, work)
    assert {(one.code, one.problem) for one in told} == {("UNAUTHENTICATED", "unauthenticated")}
    assert all(good not in one.details for one in told)


def test_a_key_that_is_over_or_revoked_lets_nobody_in(house: House) -> None:
    async def work(c: Calling) -> list[Told]:
        before = await c.call("ModelInfer", asked(), client="brief")
        c.bench.clock.advance(timedelta(hours=2))
        over = await c.call("ModelInfer", asked(), client="brief")
        directory = c.bench.gate.stages.directory
        directory._keys = {}  # as it is when every key was revoked
        return [before, over, await c.call("ModelInfer", asked())]

    before, *refused = calling(house, work)
    assert before.code == "OK"
    assert {(one.code, one.details) for one in refused} == {("UNAUTHENTICATED", "the credential is not accepted")}


def test_who_may_not_ask_a_model_is_refused_it_and_no_other(house: House) -> None:
    other = RoutePolicy(model=OTHER_MODEL, protocol="open-inference")

    async def work(c: Calling) -> list[Told]:
        name = MESSAGES["ModelMetadataRequest"](name=MODEL)
        return [
            await c.call("ModelInfer", asked(), client="initech"),
            await c.call("ModelMetadata", name, client="initech"),
            await c.call("ModelReady", MESSAGES["ModelReadyRequest"](name=MODEL), client="initech"),
            await c.call("ModelInfer", asked(model=OTHER_MODEL), client="initech"),
        ]

    *refused, mine = calling(house, work, ROUTE, other)
    assert [(one.code, one.problem) for one in refused] == [("PERMISSION_DENIED", "forbidden")] * 3
    assert mine.code == "OK"


@pytest.mark.parametrize("name", ["authorization", "x-api-key"])
def test_a_header_that_decides_something_may_not_come_twice(house: House, name: str) -> None:
    async def work(c: Calling) -> Told:
        return await c.call("ModelInfer", asked(), metadata=[*c.headers("acme"), (name, "a"), (name, "b")])

    told = calling(house, work)
    assert (told.code, told.details) == ("INVALID_ARGUMENT", f"the header {name} comes twice")


def test_a_key_may_come_in_the_other_header_as_well(house: House) -> None:
    async def work(c: Calling) -> Told:
        return await c.call("ModelInfer", asked(), metadata=[("x-api-key", house.keys["acme"]), ("a", "1"), ("a", "2")])

    assert calling(house, work).code == "OK"


def test_an_rpc_that_is_not_spoken_is_unimplemented(house: House) -> None:
    async def work(c: Calling) -> list[Told]:
        return [await c.call(rpc) for rpc in ("ModelStreamInfer", "RepositoryIndex", "SystemSharedMemoryRegister")]

    assert {told.code for told in calling(house, work)} == {"UNIMPLEMENTED"}


# --- the same as REST


def _rest(rows: Any) -> tuple[bytes, dict[bytes, bytes]]:
    values = np.asarray(rows, "<f4")
    tensor = {
        "name": "x",
        "shape": list(values.shape),
        "datatype": "FP32",
        "parameters": {"binary_data_size": values.nbytes},
    }
    text = msgspec.json.encode({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    return text + values.tobytes(), {HEADER_LENGTH: str(len(text)).encode(), b"content-type": OCTETS}


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["scores", "label"])
@pytest.mark.parametrize("standing", ["trusted", "watched", "throttled", "degraded", "suspended"])
def test_the_same_question_has_the_answer_and_the_record_that_rest_gives(
    house: House, standing: Any, answer: Any
) -> None:
    route = RoutePolicy(model=MODEL, protocol="open-inference", mode="enforce", answer=answer, decimals=3)

    async def work(c: Calling) -> tuple[Any, ...]:
        c.bench.put(standing)
        body, headers = _rest(ROWS)
        by_rest = await c.bench.gate.handle(
            c.bench.request(path=INFER, body=body, headers={**c.bench.request().headers, **headers}, address=HERE)
        )
        by_grpc = await c.call("ModelInfer", asked(ROWS))
        return by_rest, by_grpc, c.bench.journal.records, c.bench.watch.asked, c.bench.gate.stages

    by_rest, by_grpc, records, seen, stages = calling(house, work, route)
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :]
    assert by_rest.problem == by_grpc.problem == ("suspended" if standing == "suspended" else "")
    if standing == "suspended":
        assert records == []
        return
    length = int(header(by_rest, HEADER_LENGTH) or 0)
    document = msgspec.json.decode(by_rest.body[:length])
    assert (by_grpc.answer.model_name, by_grpc.answer.model_version) == (MODEL, document["model_version"])
    shown = [(tensor["name"], tensor["datatype"], tensor["shape"]) for tensor in document["outputs"]]
    assert shown == [(item.name, item.datatype, list(item.shape)) for item in by_grpc.answer.outputs]
    assert b"".join(by_grpc.answer.raw_output_contents) == by_rest.body[length:]
    first, second = (_comparable(record) for record in records)
    assert first == second
    assert records[1].details["request"] == by_grpc.metadata["palladion-request"]
    assert by_grpc.metadata["palladion-receipt"].endswith("/1")
    # the digests are of the messages as they went over the wire
    salt = stages.seeds.salt(house.ids["acme"], records[1].details["request"])
    sent, answered = asked(ROWS).SerializeToString(), by_grpc.answer.SerializeToString()
    recorded = tuple(records[1].details[name] for name in ("request_digest", "answer_digest"))
    assert (salt.digest(sent), salt.digest(answered)) == recorded


def _comparable(record: Any) -> Any:
    own = {"request", "request_digest", "answer_digest"}
    return replace(record, details={name: value for name, value in record.details.items() if name not in own})


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_numbers_and_raw_bytes_have_the_same_answer(house: House, raw: bool) -> None:
    async def work(c: Calling) -> list[float]:
        answer = (await c.call("ModelInfer", asked(raw=raw, id="r"))).answer
        assert answer.id == "r"
        if raw:
            return list(np.frombuffer(answer.raw_output_contents[0], "<f4"))
        return list(answer.outputs[0].contents.fp32_contents)

    numbers = calling(house, work)
    assert numbers == pytest.approx(EXPECTED)
    assert sum(numbers) == pytest.approx(1)


def test_every_query_is_counted_together_with_those_of_rest(house: House) -> None:
    async def work(c: Calling) -> list[Any]:
        body, headers = _rest(ROWS)
        by_rest = await c.bench.gate.handle(
            c.bench.request(path=INFER, body=body, headers={**c.bench.request().headers, **headers}, address=HERE)
        )
        return [by_rest.problem, *[(await c.call("ModelInfer", asked())).problem for _ in range(2)]]

    assert calling(house, work, limits=DAYS) == ["", "", "budget-spent"]


def test_the_figures_tell_of_calls_by_their_rpc(house: House) -> None:
    async def work(c: Calling) -> dict[tuple[str, int, str], int]:
        await c.call("ModelInfer", asked())
        await c.call("ServerLive", metadata=())
        return dict(c.bench.gate.stages.meter.requests)

    service = "/inference.GRPCInferenceService"
    assert calling(house, work) == {
        (f"{service}/ModelInfer", 200, ""): 1,
        (f"{service}/ServerLive", 401, "unauthenticated"): 1,
    }


# --- what ends a call


@pytest.mark.parametrize(
    "kind", ["busy", "model-failed", "upstream-failed", "upstream-timeout", "unrecorded", "not-ready", "rate-limited"]
)
def test_problems_come_as_codes_with_their_kind(house: House, kind: str) -> None:
    async def work(c: Calling) -> Told:
        async def fail() -> None:
            raise Problem(kind, retry_after_seconds=1)

        c.bench.journal.before = fail
        return await c.call("ModelInfer", asked())

    told = calling(house, work)
    assert (told.code, told.problem) == (CODES[kind], kind)
    assert told.metadata["retry-after"] == "1"
    assert "palladion-request" not in told.metadata


@pytest.mark.slow
def test_a_message_that_is_larger_than_a_body_may_be_is_refused_and_costs_nothing(house: House) -> None:
    async def work(c: Calling) -> tuple[Told, Told]:
        large = await c.call("ModelInfer", asked(np.zeros((600, 4))))
        return large, await c.call("ModelInfer", asked())

    large, after = calling(house, work, gate={"body_bytes_max": 4096}, limits={"queries_per_day": 1})
    assert large.code == "RESOURCE_EXHAUSTED"
    assert "4096" in large.details
    assert after.code == "OK"


def test_a_limit_that_was_lowered_since_the_start_counts_too(house: House) -> None:
    async def work(c: Calling) -> Told:
        stages = c.bench.gate.stages
        gate = msgspec.structs.replace(stages.policy.gate, body_bytes_max=1024)
        stages.renew(msgspec.structs.replace(stages.policy, gate=gate))
        return await c.call("ModelInfer", asked(np.zeros((100, 4))))

    told = calling(house, work)
    assert (told.code, told.problem) == ("RESOURCE_EXHAUSTED", "too-large")


def test_a_compressed_message_is_refused(house: House) -> None:
    async def work(c: Calling) -> Told:
        return await c.call("ModelInfer", asked(np.zeros((100, 4))), compression=grpc.Compression.Gzip)

    assert calling(house, work).code == "UNIMPLEMENTED"


def test_a_message_that_does_not_come_is_not_waited_for(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines = Deadlines(monkeypatch)

    async def work(c: Calling) -> tuple[str, int]:
        call = c.channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")(metadata=tuple(c.headers("acme")))
        places = c.bench.gate.stages.limits.places
        while not deadlines.seconds:
            await asyncio.sleep(0)
        assert places.taken == 1
        deadlines.pass_by()
        try:
            await call
        except grpc.aio.AioRpcError as error:
            return error.details(), places.taken
        raise AssertionError("it was answered")

    details, taken = calling(house, work, gate={"body_seconds_max": 7})
    assert details == "a message has to arrive within 7 s"
    assert taken == 0
    assert deadlines.seconds == [7]


def test_no_message_is_no_question(house: House) -> None:
    async def work(c: Calling) -> str:
        call = c.channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")(
            iter(()), metadata=tuple(c.headers("acme"))
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        return str(caught.value.details())

    assert calling(house, work) == "there is no message"


async def _held(c: Calling) -> tuple[asyncio.Event, asyncio.Event]:
    """Answers now wait for their record; set when one has come so far, and when one was given up."""
    come, given_up = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        come.set()
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()

    c.bench.journal.before = wait
    return come, given_up


@pytest.mark.slow
@pytest.mark.parametrize("how", ["deadline", "cancel", "hang up"])
def test_who_does_not_wait_any_longer_holds_nothing_any_longer(house: House, how: str) -> None:
    async def work(c: Calling) -> list[Any]:
        come, given_up = await _held(c)
        more: dict[str, Any] = {"timeout": 0.3} if how == "deadline" else {}
        call = asyncio.create_task(c.call("ModelInfer", asked(), **more))
        await come.wait()
        stages = c.bench.gate.stages
        held = stages.limits.budgets.spent(house.ids["acme"])[1].queries
        if how == "cancel":
            call.cancel()
        elif how == "hang up":
            await c.channel.close()
        ended = (await asyncio.gather(call, return_exceptions=True))[0]
        await given_up.wait()
        while stages.limits.places.taken:
            await asyncio.sleep(0)
        left = stages.limits.budgets.spent(house.ids["acme"])[1].queries
        return [held, left, ended, len(c.bench.journal.records)]

    held, left, ended, records = calling(house, work, limits=DAYS)
    assert (held, left, records) == (1, 0, 0)
    if how == "deadline":
        assert ended.code == "DEADLINE_EXCEEDED"


def test_the_policys_deadline_counts_where_it_is_the_shorter(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines = Deadlines(monkeypatch)

    async def work(c: Calling) -> Told:
        come, _ = await _held(c)
        call = asyncio.create_task(c.call("ModelInfer", asked(), timeout=60))
        await come.wait()
        deadlines.pass_by()
        return await call

    told = calling(house, work, gate={"deadline_ms": 900})
    assert (told.code, told.problem, told.details) == ("UNAVAILABLE", "busy", "the answer was not ready in time")
    assert 0.9 in deadlines.seconds


def test_a_bug_of_ours_tells_the_client_nothing_and_the_operator_all(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(c: Calling) -> Told:
        c.bench.journal.error = RuntimeError("a bug in /secret/place")
        return await c.call("ModelInfer", asked())

    with caplog.at_level(logging.ERROR):
        told = calling(house, work)
    assert (told.code, told.problem) == ("INTERNAL", "internal")
    assert "secret" not in str(told)
    assert "a bug in /secret/place" in caplog.text
    assert house.keys["acme"] not in caplog.text


def test_a_call_ends_when_its_time_for_sending_is_over_and_not_before(house: House) -> None:
    async def sending(seconds: float, *, taken: bool) -> bool:
        calls._end_unread(seconds)
        if not taken:
            await asyncio.Event().wait()
        return True

    async def work() -> bool:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(sending(0, taken=False))
        return await asyncio.create_task(sending(1000, taken=True))

    assert asyncio.run(work())


# --- who is at the other end


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("ipv4:192.0.2.7:4711", "192.0.2.7"),
        ("ipv6:%5B2001:db8::1%5D:4711", "2001:db8::1"),
        ("ipv6:[::1]:4711", "::1"),
        ("unix:/run/a", None),
        ("", None),
    ],
)
def test_the_address_is_read_as_grpc_writes_it(peer: str, expected: str | None) -> None:
    assert calls._address(peer) == expected


@pytest.mark.parametrize("behind_proxy", [True, False])
def test_the_peers_address_links_accounts_unless_a_proxy_stands_before(house: House, behind_proxy: bool) -> None:
    async def work(c: Calling) -> list[str | None]:
        await c.call("ModelInfer", asked())
        return [asker.address for asker, _, _ in c.bench.watch.asked]

    expected = None if behind_proxy else "127.0.0.1"
    assert calling(house, work, gate={"behind_proxy": behind_proxy}) == [expected]


def test_headers_of_a_proxy_are_not_believed_of_somebody_without_a_certificate(house: House) -> None:
    proxy = {"user_header": "x-user", "address_header": "x-real-ip", "identities": ["spiffe://example.org/edge"]}

    async def work(c: Calling) -> list[str | None]:
        more = [("x-user", "eve"), ("x-real-ip", "192.0.2.1")]
        assert (await c.call("ModelInfer", asked(), metadata=[*c.headers("acme"), *more])).code == "OK"
        return [asker.address for asker, _, _ in c.bench.watch.asked]

    assert calling(house, work, proxy=proxy) == ["127.0.0.1"]
