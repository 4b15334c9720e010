"""A request and its answer on a connection, without ASGI: what is written, and when a body has to be waited for."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from palladion.gate.app import App
from palladion.gate.connections import Connection
from palladion.gate.operations.peers import PeerConnection
from palladion.gate.problems import Problem
from palladion.gate.requests import Request, Response, Stream

from .gates import House, open_gate
from .test_connections import Transport

POST = b"POST /v1/x HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n%s\r\n"


class Answering(App):
    """Answers with what it is told to, and remembers what it was asked."""

    def __init__(self, house: House, response: Response) -> None:
        super().__init__(open_gate(house).gate, ready=lambda: True)
        self.response, self.bodies = response, list[bytes | None]()

    async def answer(self, arrived: Any) -> Response:
        self.bodies.append(arrived.whole())
        if self.bodies[-1] is None:
            message = await arrived.receive()
            self.bodies[-1] = message.get("body")
        return self.response


class Pouring(Answering):
    """Answers with a stream that never ends by itself, and remembers what became of it."""

    poured, closed = 0, 0

    def __init__(self, house: House) -> None:
        super().__init__(house, Response(200, b""))

    async def answer(self, _: Any) -> Response:
        return Response(200, b"", stream=Stream(self._parts()))

    async def _parts(self) -> AsyncGenerator[bytes, None]:
        try:
            while self.poured < 1000:
                self.poured += 1
                yield b"x"
                await asyncio.sleep(0)
        finally:
            self.closed += 1


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    """An application that is not ours: says what it was asked, and with which credential."""
    body = (await receive())["body"]
    said = b" ".join((scope["path"].encode(), dict(scope["headers"])[b"authorization"], body))
    headers = [(b"content-length", b"%d" % len(said))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": said})


def _asked(app: Any, *parts: bytes, kind: type[Connection] = Connection) -> Transport:
    """What one connection wrote, and how it ended, after it was sent these parts."""

    async def ask() -> Transport:
        config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None, interface="asgi3", proxy_headers=False)
        config.load()
        transport, connection = Transport(), kind(config, ServerState(), {})
        connection.connection_made(transport)
        for part in parts:
            if not transport.is_closing():
                connection.data_received(part)
            await _turns(10)
        connection.connection_lost(None)
        await _turns(10)
        return transport

    return asyncio.run(ask())


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def _stream(*parts: bytes) -> Stream:
    async def pour() -> AsyncGenerator[bytes, None]:
        for part in parts:
            yield part

    return Stream(pour())


def test_head_and_body_of_an_answer_leave_together(house: House) -> None:
    app = Answering(house, Response(200, b"hello", [(b"content-type", b"text/plain")]))
    written = _asked(app, POST % b"" + b"body").written
    head, _, body = written.partition(b"\r\n\r\n")
    assert (app.bodies, body) == ([b"body"], b"hello")
    assert head.splitlines() == [
        b"HTTP/1.1 200 OK",
        b"content-type: text/plain",
        b"cache-control: no-store",
        b"x-content-type-options: nosniff",
        b"content-length: 5",
    ]


def test_a_body_that_is_not_here_yet_is_waited_for(house: House) -> None:
    app = Answering(house, Response(200, b""))
    assert _asked(app, POST % b"", b"body").written.startswith(b"HTTP/1.1 200 ")
    assert app.bodies == [b"body"]


def test_who_waits_to_be_asked_for_a_body_is_asked(house: House) -> None:
    app = Answering(house, Response(200, b""))
    written = _asked(app, POST % b"expect: 100-continue\r\n", b"body").written
    assert written.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


def test_who_is_answered_before_he_was_asked_for_a_body_comes_again_on_another_connection(house: House) -> None:
    app = App(open_gate(house).gate, ready=lambda: True)
    transport = _asked(app, POST % b"expect: 100-continue\r\n", b"GET /health/live HTTP/1.1\r\nhost: a\r\n\r\n")
    assert transport.written.startswith(b"HTTP/1.1 401 ")
    assert transport.written.count(b"HTTP/1.1 ") == transport.written.count(b"connection: close\r\n") == 1
    assert transport.ended == "closed"


def test_that_is_so_of_streams_as_well(house: House) -> None:
    transport = _asked(Pouring(house), POST % b"expect: 100-continue\r\n")
    assert b"connection: close\r\n" in transport.written


def test_a_body_that_came_unasked_keeps_the_connection(house: House) -> None:
    app = App(open_gate(house).gate, ready=lambda: True)
    transport = _asked(app, POST % b"expect: 100-continue\r\n" + b"body")
    assert transport.written.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close" not in transport.written


def test_a_client_that_speaks_an_old_version_is_not_asked_for_its_body(house: House) -> None:
    app = Answering(house, Response(200, b""))
    head = (POST % b"expect: 100-continue\r\n").replace(b"HTTP/1.1", b"HTTP/1.0")
    assert _asked(app, head, b"body").written.startswith(b"HTTP/1.1 200 OK\r\n")
    assert app.bodies == [b"body"]


def test_a_stream_leaves_in_parts(house: House) -> None:
    response = Response(200, b"", [(b"content-type", b"text/plain")], stream=_stream(b"one", b"three"))
    head, _, body = _asked(Answering(house, response), POST % b"" + b"body").written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n")
    assert body == b"3\r\none\r\n5\r\nthree\r\n0\r\n\r\n"


def test_a_head_is_answered_without_a_stream(house: House) -> None:
    app = Answering(house, Response(200, b"", stream=_stream(b"one")))
    written = _asked(app, b"HEAD /v1/x HTTP/1.1\r\nhost: a\r\n\r\n").written
    assert written.startswith(b"HTTP/1.1 200 OK\r\n")
    assert written.endswith(b"\r\n\r\n")
    assert b"one" not in written


@pytest.mark.parametrize("requests", [1, 2, 3])
def test_a_stream_ends_when_its_client_goes_away_whatever_waits_behind_it(house: House, requests: int) -> None:
    app = Pouring(house)
    _asked(app, (POST % b"" + b"body") * requests)
    assert 0 < app.poured < 50
    assert app.closed == 1


class Gated(App):
    """Pours without end, by way of a gate."""

    def __init__(self, house: House) -> None:
        gate = open_gate(house).gate
        super().__init__(gate, ready=lambda: True)
        self.pouring = Pouring(house)

        async def handle(request: Request) -> Response:
            return await self.pouring.answer(request)

        gate.handle = handle  # type: ignore[method-assign]


def test_a_stream_is_not_begun_for_who_closes_while_it_waits_to_be_written(house: House) -> None:
    async def ask() -> None:
        app = Gated(house)
        config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None, interface="asgi3", proxy_headers=False)
        config.load()
        transport, connection = Transport(), Connection(config, ServerState(), {})
        connection.connection_made(transport)
        connection.pause_writing()
        connection.data_received(POST % b"" + b"body")
        await _turns(10)
        assert connection.eof_received() is True
        connection.resume_writing()
        await _turns(10)
        assert transport.written.startswith(b"HTTP/1.1 400 ")
        assert (app.pouring.poured, transport.ended) == (0, "closed")
        connection.connection_lost(None)
        await _turns(10)

    asyncio.run(ask())


@pytest.mark.parametrize("kind", [Connection, PeerConnection])
def test_requests_in_advance_keep_their_own_heads(kind: type[Connection]) -> None:
    first, second = (POST.replace(b"/v1/x", path) for path in (b"/a", b"/b"))
    asked = first % b"authorization: A\r\n" + b"1111" + second % b"authorization: B\r\n" + b"2222"
    written = _asked(_echo, asked, kind=kind).written
    assert [part.rpartition(b"\r\n")[2] for part in written.split(b"HTTP/1.1 ")[1:]] == [
        b"/a A 1111",
        b"/b B 2222",
    ]


def test_a_head_is_answered_without_a_body(house: House) -> None:
    app = Answering(house, Response(200, b"hello"))
    written = _asked(app, b"HEAD /v1/x HTTP/1.1\r\nhost: a\r\n\r\n").written
    assert b"content-length: 5\r\n" in written
    assert written.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("header", [(b"connection", b"close"), None])
def test_an_answer_can_end_its_connection_and_says_so_once(house: House, header: tuple[bytes, bytes] | None) -> None:
    app = Answering(house, Response(200, b"", [] if header is None else [header]))
    transport = _asked(app, POST % b"" + b"body")
    assert transport.written.count(b"connection: close\r\n") == (header is not None)


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\0"])
def test_a_header_that_would_be_two_is_never_sent(house: House, value: bytes) -> None:
    transport = _asked(Answering(house, Response(200, b"", [(b"x", value)])), POST % b"" + b"body")
    assert (transport.written, transport.ended) == (b"", "closed")


def test_the_gate_itself_is_asked_so(house: House) -> None:
    app = App(open_gate(house).gate, ready=lambda: True)
    written = _asked(app, POST % b"" + b"body").written
    assert written.startswith(b"HTTP/1.1 %d " % Problem("unauthenticated").status)
    assert written.count(b"HTTP/1.1") == 1
