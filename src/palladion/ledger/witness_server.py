"""The witness behind HTTP: one path that takes POST, small requests, and nobody for long."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from palladion.errors import PalladionError
from palladion.ledger.witness import REQUEST_BYTES_MAX, Answer, Witness

PATH = "/add-checkpoint"
REQUEST_SECONDS_MAX = 10.0  # until a request has come whole: it has some kilobytes
CONNECTIONS_MAX = 256

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class WitnessApp:
    """An ASGI application. Requests are answered one after the other: what is known of a log must not go back."""

    def __init__(self, witness: Witness, complain: Callable[[str], None]) -> None:
        self._witness = witness
        self._complain = complain

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        answer = await self._answer(scope, receive)
        headers = [
            (b"content-type", answer.content_type.encode()),
            (b"content-length", b"%d" % len(answer.body)),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: _Scope, receive: _Receive) -> Answer:
        if scope["path"] != PATH:
            return _refusal(404, "there is nothing here but POST /add-checkpoint")
        if scope["method"] != "POST":
            return _refusal(405, "only POST is answered")
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return _refusal(400, "the request did not come whole")
            body += message.get("body", b"")
            if len(body) > REQUEST_BYTES_MAX:
                return _refusal(413, f"a request has at most {REQUEST_BYTES_MAX} bytes")
            if not message.get("more_body"):
                break
        try:
            # nothing is awaited in it, so no other request comes between looking and keeping
            return self._witness.add_checkpoint(bytes(body))
        except PalladionError as error:
            self._complain(error.message)
            return _refusal(500, "the witness cannot keep its state")


def serve_witness(
    witness: Witness,
    listener: socket.socket,
    *,
    complain: Callable[[str], None],
    certificate: str | None = None,
    private_key: str | None = None,
) -> None:
    """Answer on `listener` until the process is told to stop; with TLS where a certificate and its key are named."""
    config = uvicorn.Config(
        WitnessApp(witness, complain),
        http=_Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        # what strangers send that is no HTTP is their affair, and must not fill a log
        log_level=logging.ERROR,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=int(REQUEST_SECONDS_MAX),
        timeout_graceful_shutdown=5,
        ssl_certfile=certificate,
        ssl_keyfile=private_key,
    )
    uvicorn.Server(config).run(sockets=[listener])


class _Connection(HttpToolsProtocol):
    """uvicorn's, with the limit of time that it leaves to a proxy."""

    _waits: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._begin()
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._end()
        super().on_message_complete()

    def _begin(self) -> None:
        if self._waits is None:
            self._waits = self.loop.call_later(REQUEST_SECONDS_MAX, self.transport.close)

    def _end(self) -> None:
        if self._waits is not None:
            self._waits.cancel()
            self._waits = None


def _refusal(status: int, sentence: str) -> Answer:
    return Answer(status, "text/plain; charset=utf-8", f"{sentence}\n".encode())
