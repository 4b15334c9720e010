"""Sockets of which one side is closed, at the gate's door and at its upstreams: answered or ended, and nothing held."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn

from palladion.gate.app import HALF_CLOSED, App
from palladion.gate.connections import Connection
from tests.gate.gates import PATH, ROW, House

from .engine import Exchange, Script, good, streams, words
from .talking import CHAT, HELLO, Talk, run, talking

SECONDS_MAX = 10.0  # for the other side; a test that reaches it has failed


@dataclass(eq=False)
class Door:
    """The gate on a port, by its own connections."""

    talk: Talk
    port: int
    server: uvicorn.Server

    def request(self, document: object, path: str = CHAT) -> bytes:
        """The bytes of a request."""
        body = json.dumps(document).encode()
        key = self.talk.bench.house.keys["acme"]
        head = f"POST {path} HTTP/1.1\r\nhost: gate\r\nauthorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n"
        return f"{head}content-type: application/json\r\n\r\n".encode() + body

    async def nothing_held(self) -> None:
        """Fail unless all that requests took up is given back."""
        stages = self.talk.bench.gate.stages
        async with asyncio.timeout(SECONDS_MAX):
            while self.server.server_state.tasks or self.server.server_state.connections:
                await asyncio.sleep(0)
        assert stages.limits.places.taken == 0
        assert stages.limits.budgets._open == set()
        assert stages.limits.budgets.expired == 0


@asynccontextmanager
async def door(house: House, script: Script = good) -> AsyncIterator[Door]:
    async with talking(house, script) as talk:
        stages = talk.bench.gate.stages
        talk.models._budget = stages
        talk.models.put(talk.models._routes)
        talk.bench.gate.serve(talk.bench.gate.served, talk.models.endpoints)
        app = App(talk.bench.gate, ready=lambda: True)
        config = uvicorn.Config(
            app, http=Connection, log_config=None, lifespan="off", ws="none", proxy_headers=False, interface="asgi3"
        )
        server = uvicorn.Server(config)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            serving = asyncio.create_task(server._serve([listener]))
            try:
                yield Door(talk, listener.getsockname()[1], server)
            finally:
                server.should_exit = server.force_exit = True
                await serving


@asynccontextmanager
async def said(opened: Door, data: bytes) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection on which `data` was sent, and then nothing more can be."""
    reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
    try:
        writer.write(data)
        writer.write_eof()
        yield reader, writer
    finally:
        writer.close()


async def all_of(opened: Door, data: bytes) -> bytes:
    """Everything that comes back until the gate closes as well."""
    async with said(opened, data) as (reader, _), asyncio.timeout(SECONDS_MAX):
        return await reader.read()


STREAM = {**HELLO, "stream": True}


async def _waits(exchange: Exchange) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(("path", "document"), [(CHAT, HELLO), (PATH, {"inputs": [ROW]})], ids=["chat", "predict"])
def test_who_has_asked_and_sends_no_more_is_answered(house: House, path: str, document: object) -> None:
    async def test() -> None:
        async with door(house) as opened:
            came = await all_of(opened, opened.request(document, path))
            head, _, body = came.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" in head
            assert json.loads(body)
            assert opened.talk.bench.kinds == ["answer.given"]
            await opened.nothing_held()

    run(test)


def test_an_answer_that_takes_its_time_still_comes(house: House) -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        asked.set()
        await may_answer.wait()
        await good(exchange)

    async def test() -> None:
        async with door(house, slow) as opened, said(opened, opened.request(HELLO)) as (reader, _):
            await asked.wait()
            (connection,) = opened.server.server_state.connections
            while not connection.half_closed:  # type: ignore[union-attr]
                await asyncio.sleep(0)
            may_answer.set()
            assert b" 200 " in await asyncio.wait_for(reader.read(), SECONDS_MAX)
            await opened.nothing_held()

    run(test)


def test_all_that_was_asked_before_is_answered_in_order(house: House) -> None:
    async def test() -> None:
        async with door(house) as opened:
            three = opened.request(HELLO) + opened.request({"inputs": [ROW]}, PATH) + opened.request(HELLO)
            came = await all_of(opened, three)
            assert came.count(b"HTTP/1.1 200 ") == 3
            assert came.count(b"connection: close") == 1
            await opened.nothing_held()

    run(test)


@pytest.mark.parametrize("cut", [0, 10, -1], ids=["nothing", "in the head", "in the body"])
def test_who_has_not_asked_in_full_gets_an_end_and_nothing_else(house: House, cut: int) -> None:
    async def test() -> None:
        async with door(house) as opened:
            assert await all_of(opened, opened.request(HELLO)[:cut]) == b""
            assert opened.talk.bench.kinds == []
            assert opened.talk.engine.asked == []
            await opened.nothing_held()

    run(test)


def test_a_stream_is_not_begun_for_who_sends_no_more(house: House) -> None:
    async def test() -> None:
        async with door(house, streams(*words(), then=_waits)) as opened:
            came = await all_of(opened, opened.request(STREAM))
            assert came.startswith(b"HTTP/1.1 400 ")
            told = json.loads(came.partition(b"\r\n\r\n")[2])
            # as whoever speaks OpenAI's form reads it
            assert (told["error"]["code"], HALF_CLOSED in told["error"]["message"]) == ("bad_request", True)
            assert opened.talk.bench.gate.stages.meter.requests == {(CHAT, 400, "bad-request"): 1}
            await opened.talk.engine.left.wait()
            assert opened.talk.bench.kinds == ["answer.begun", "answer.broken"]
            await opened.nothing_held()

    run(test)


def test_a_stream_ends_with_the_clients_side_and_what_was_sent_arrives(house: House) -> None:
    async def test() -> None:
        async with door(house, streams(*words(), then=_waits)) as opened:
            reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
            writer.write(opened.request(STREAM))
            await reader.readuntil(b"Palladion")
            writer.write_eof()
            rest = await asyncio.wait_for(reader.read(), SECONDS_MAX)
            assert not rest.endswith(b"0\r\n\r\n"), "what is not whole must not look whole"
            writer.close()
            await opened.talk.engine.left.wait()
            assert opened.talk.bench.kinds == ["answer.begun", "answer.broken"]
            assert opened.talk.details[-1]["reason"] == "the client left"
            await opened.nothing_held()

    run(test)


def test_a_stream_behind_another_request_is_not_begun_either(house: House) -> None:
    async def test() -> None:
        async with door(house) as opened:
            came = await all_of(opened, opened.request(HELLO) + opened.request(STREAM) + opened.request(HELLO))
            assert [came.count(b"HTTP/1.1 %b " % status) for status in (b"200", b"400")] == [2, 1]
            await opened.nothing_held()

    run(test)


def test_who_leaves_for_good_while_a_whole_answer_is_made_leaves_nothing_behind(house: House) -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        asked.set()
        await may_answer.wait()
        await good(exchange)

    async def test() -> None:
        async with door(house, slow) as opened:
            async with said(opened, opened.request(HELLO)) as (_, writer):
                await asked.wait()
                writer.transport.abort()
            may_answer.set()
            await opened.nothing_held()
            assert opened.talk.bench.kinds == ["answer.given"]

    run(test)


# --- the other side


def _ends(before: Script) -> Script:
    """Do as `before`, and send no more then."""

    async def script(exchange: Exchange) -> None:
        await before(exchange)
        exchange.writer.write_eof()
        await _waits(exchange)

    return script


async def _nothing(exchange: Exchange) -> None:
    pass


async def _half_a_head(exchange: Exchange) -> None:
    exchange.writer.write(b"HTTP/1.1 200 OK\r\ncontent-ty")


async def _half_a_body(exchange: Exchange) -> None:
    await exchange.head(200, "application/json", 1000)
    exchange.writer.write(b'{"choices":[')


async def _until_the_end(exchange: Exchange) -> None:
    choice = {"index": 0, "message": {"content": "Troy"}, "finish_reason": "stop"}
    exchange.writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
    exchange.writer.write(json.dumps({"choices": [choice]}).encode())


@pytest.mark.parametrize(
    ("script", "status"),
    [(_nothing, 502), (_half_a_head, 502), (_half_a_body, 502), (_until_the_end, 200), (good, 200)],
    ids=["nothing", "half a head", "half a body", "until the end", "all"],
)
def test_a_server_that_sends_no_more_is_taken_at_its_word(house: House, script: Script, status: int) -> None:
    async def test() -> None:
        async with door(house, _ends(script)) as opened:
            talk = opened.talk
            assert (await talk.ask()).status == status
            await talk.engine.left.wait()  # the gate has closed its side as well
            talk.engine.script = good
            assert (await talk.ask()).status == 200
            assert talk.engine.connections == 2
            await opened.nothing_held()

    run(test)


@pytest.mark.parametrize(
    ("script", "ended"),
    [(streams(*words()), False), (streams(), False), (good, True)],
    ids=["amid the stream", "at its beginning", "after it"],
)
def test_a_stream_whose_server_sends_no_more_is_broken_unless_it_was_whole(
    house: House, script: Script, ended: bool
) -> None:
    async def test() -> None:
        async with door(house, _ends(script)) as opened:
            talk = opened.talk
            heard = await talk.stream()
            assert talk.bench.kinds == ["answer.begun", "answer.given" if ended else "answer.broken"]
            if ended:
                assert heard.finish == ["stop"]
            else:
                assert heard.error["code"] == "upstream_failed"
            await talk.engine.left.wait()
            await opened.nothing_held()

    run(test)


def test_the_last_word_counts_though_the_frame_around_it_is_cut(house: House) -> None:
    async def cut(exchange: Exchange) -> None:
        stop: dict[str, Any] = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        await streams(*words(), stop, b"data: [DONE]\n\n")(exchange)

    async def test() -> None:
        async with door(house, _ends(cut)) as opened:
            heard = await opened.talk.stream()
            assert heard.finish == ["stop"]
            assert opened.talk.bench.kinds == ["answer.begun", "answer.given"]
            await opened.nothing_held()

    run(test)
