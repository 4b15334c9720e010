"""The gate as an ASGI application: health checks, and everything else through `Gate.handle`.

Owns what a transport can do wrong: bodies that are too long or too slow, and headers that come twice.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from palladion.gate.gate import Gate
from palladion.gate.hops import ONCE, SCOPE, Hops
from palladion.gate.operations.meter import OTHER
from palladion.gate.problems import Problem
from palladion.gate.requests import JSON, Request, Response

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

LIVE, READY = "/health/live", "/health/ready"
HEALTH_PATHS = {LIVE, READY}
REQUEST_HEADER = b"palladion-request"  # the id under which the ledger tells of it
TOO_SLOW = 408
LENGTH_DIGITS_MAX = 12  # of a content-length; more say a terabyte, or hide one behind zeros

log = logging.getLogger("palladion.gate")


class App:
    """ASGI 3 application (asgi.readthedocs.io, HTTP only)."""

    def __init__(self, gate: Gate, *, ready: Callable[[], bool], leaving: Callable[[], bool] = lambda: False) -> None:
        """`ready` says whether requests should be sent here; while `leaving`, each answer ends its connection.

        Raises PolicyError.
        """
        self._leaving = leaving
        self._gate = gate
        self._ready = ready
        self._hops = Hops(gate.stages.policy.proxy)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']} is not served")
        begun = time.perf_counter()
        try:
            response = await self._respond(scope, receive)
        except Problem as problem:
            response = Response.of_problem(problem)
        except Exception:
            # a bug of ours: the client learns nothing, the operator everything
            log.exception("a request failed")
            response = Response.of_problem(Problem("internal"))
        self._count(scope["path"], response, time.perf_counter() - begun)
        if self._leaving() or response.status == TOO_SLOW:
            # the client comes again on another connection, and a balancer leads it elsewhere; what still comes of a
            # body that was given up is for nobody (RFC 9110 §15.5.9)
            response = replace(response, headers=[*response.headers, (b"connection", b"close")])
        await _send(receive, send, response)

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        if scope["path"] in HEALTH_PATHS:
            return self._health(scope)
        headers: dict[bytes, bytes] = {}
        repeated: set[bytes] = set()
        for name, value in scope["headers"]:
            if name in headers:
                if name in ONCE:
                    raise Problem("bad-request", f"the header {name.decode('latin-1')} comes twice")
                repeated.add(name)
            headers[name] = value
        stages = self._gate.stages
        policy = stages.policy.gate

        async def body() -> bytes:
            # called when the client is known and admitted; until then nothing is read, and no limit is told
            _check_length(headers.get(b"content-length", b"0"), policy.body_bytes_max)
            try:
                with stages.deadlines.within(policy.body_seconds_max):
                    return await _read(receive, policy.body_bytes_max)
            except TimeoutError:
                raise Problem("timeout", f"a body has to arrive within {policy.body_seconds_max} s") from None

        client = scope.get("client")
        address = None if policy.behind_proxy or client is None else str(client[0])
        peer, address = self._hops.peer(scope.get(SCOPE), headers, address, repeated)
        return await self._gate.handle(Request(scope["method"], scope["path"], headers, body, address, peer))

    def _count(self, path: str, response: Response, seconds: float) -> None:
        route = path if path in self._gate.endpoints or path in HEALTH_PATHS else OTHER
        self._gate.stages.meter.answered(
            route, response.status, response.problem, seconds, lambda: _request_id(response.headers)
        )

    def _health(self, scope: Scope) -> Response:
        if scope["method"] not in {"GET", "HEAD"}:
            raise Problem("method-not-allowed", allow="GET, HEAD")
        well = scope["path"] == LIVE or self._ready()
        body = b'{"ok":true}' if well else b'{"ok":false}'
        return Response(200 if well else 503, body, [(b"content-type", JSON)])


def _request_id(headers: list[tuple[bytes, bytes]]) -> str:
    return next((value.decode("ascii") for name, value in headers if name == REQUEST_HEADER), "")


def _check_length(length: bytes, bytes_max: int) -> None:
    if not length.isdigit():
        raise Problem("bad-request", "the header content-length is no number")
    if len(length) > LENGTH_DIGITS_MAX or int(length) > bytes_max:
        raise Problem("too-large", f"a body may have {bytes_max} bytes")


async def _read(receive: Receive, bytes_max: int) -> bytes:
    # one buffer: a list of parts would cost 50 times their size where they come byte by byte
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem("bad-request", "the client went away")
        body += message.get("body", b"")
        if len(body) > bytes_max:
            raise Problem("too-large", f"a body may have {bytes_max} bytes")
        if not message.get("more_body", False):
            return bytes(body)


async def _send(receive: Receive, send: Send, response: Response) -> None:
    stream = response.stream
    headers = [
        *response.headers,
        # answers are for one client: no cache on the way may keep them
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if stream is None:
        headers.append((b"content-length", str(len(response.body)).encode()))
    try:
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        if stream is not None:
            async with _while_there(receive):
                async for part in stream.parts:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": response.body if stream is None else b""})
    finally:
        # a stream that breaks is not ended: uvicorn then cuts the connection, and the client sees that it is not whole
        if stream is not None:
            await stream.close()


@asynccontextmanager
async def _while_there(receive: Receive) -> AsyncIterator[None]:
    """End the block when the client goes away: what is sent to nobody is taken in silence, and a stream would go on."""
    ends, inside = asyncio.timeout(None), True

    def end(leaving: asyncio.Task[None]) -> None:
        if inside and not leaving.cancelled():
            ends.reschedule(0)

    try:
        async with ends:
            leaving = asyncio.create_task(_left(receive))
            leaving.add_done_callback(end)
            try:
                yield
            finally:
                inside = False
                leaving.cancel()
    except TimeoutError:
        if not ends.expired():
            raise


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
