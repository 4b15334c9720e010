"""A request and its answer on a connection, without ASGI: what is written, and when a body has to be waited for."""

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from palladion.gate.app import App
from palladion.gate.connections import Connection
from palladion.gate.problems import Problem
from palladion.gate.requests import Response

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


def _asked(app: App, *parts: bytes) -> Transport:
    """What one connection wrote, and how it ended, after it was sent these parts."""

    async def ask() -> Transport:
        config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None, interface="asgi3", proxy_headers=False)
        config.load()
        transport, connection = Transport(), Connection(config, ServerState(), {})
        connection.connection_made(transport)
        for part in parts:
            connection.data_received(part)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        connection.connection_lost(None)
        return transport

    return asyncio.run(ask())


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
