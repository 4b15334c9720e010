"""The gate as an ASGI application: health checks, and everything else through `Gate.handle`.

Owns what a transport can do wrong: bodies that are too long or too slow, and headers that come twice.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

from msgspec.structs import replace

from palladion.gate.gate import Gate
from palladion.gate.hops import ONCE, SCOPE, Hop, Hops
from palladion.gate.operations.meter import OTHER
from palladion.gate.problems import Problem
from palladion.gate.requests import JSON, Request, Response

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
_Bytes = TypeVar("_Bytes", bytes, bytearray)

# Answers are for one client: no cache on the way may keep them.
ALWAYS = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
LIVE, READY = "/health/live", "/health/ready"
HEALTH_PATHS = {LIVE, READY}
TOO_SLOW = 408
HALF_CLOSED = "a stream needs a connection that its client has not closed in its own direction"
LENGTH_DIGITS_MAX = 12  # of a content-length; more say a terabyte, or hide one behind zeros

log = logging.getLogger("palladion.gate")


class Arrived(Protocol):
    """A request as a transport has it: `fields` are its headers, with names in lower case."""

    method: str
    path: str
    fields: Sequence[tuple[bytes, bytes]]
    hop: Hop | None
    client: tuple[str, int] | None

    def whole(self) -> bytes | None:
        """The body, if all of it is here already."""
        ...

    async def may_stream(self) -> bool:
        """Whether a stream can begin at once, when all that was written before is taken: somebody must be there."""
        ...

    @property
    def receive(self) -> Receive:
        """What gives the next part of it, as ASGI has it: for bodies that are not here yet."""
        ...


class App:
    """What a transport hands its requests to; also an ASGI 3 application (asgi.readthedocs.io, HTTP only)."""

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
        await send_parts(receive, send, await self.answer(_Scoped(scope, receive)))

    async def answer(self, arrived: Arrived) -> Response:
        """The response to a request, whatever becomes of it; whoever has it sends it, and closes its stream."""
        begun, path = time.perf_counter(), arrived.path
        try:
            if path in HEALTH_PATHS:
                response = self._health(arrived)
            else:
                response = await self._begun(arrived, await self._gate.handle(self._request(arrived)))
        except Problem as problem:
            response = Response.of_problem(problem)
        except Exception:
            # a bug of ours: the client learns nothing, the operator everything
            log.exception("a request failed")
            response = Response.of_problem(Problem("internal"))
        route = path if path in self._gate.endpoints or path in HEALTH_PATHS else OTHER
        self._gate.stages.meter.answered(
            route, response.status, response.problem, time.perf_counter() - begun, response.request_id
        )
        if self._leaving() or response.status == TOO_SLOW:
            # the client comes again on another connection, and a balancer leads it elsewhere; what still comes of a
            # body that was given up is for nobody (RFC 9110 §15.5.9)
            response = replace(response, headers=[*response.headers, (b"connection", b"close")])
        return response

    async def _begun(self, arrived: Arrived, response: Response) -> Response:
        """The response, or a refusal where it is a stream and its client has closed its own direction."""
        stream, may = response.stream, False
        if stream is None:
            return response
        try:
            may = await arrived.may_stream()
        finally:
            if not may:
                await stream.close()
        return response if may else self._gate.told(arrived.path, Problem("bad-request", HALF_CLOSED))

    def _request(self, arrived: Arrived) -> Request:
        headers: dict[bytes, bytes] = {}
        repeated: set[bytes] | frozenset[bytes] = frozenset()
        for name, value in arrived.fields:
            if name in headers:
                if name in ONCE:
                    raise Problem("bad-request", f"the header {name.decode('latin-1')} comes twice")
                repeated = repeated | {name}
            headers[name] = value
        client = arrived.client
        address = None if client is None or self._gate.stages.policy.gate.behind_proxy else str(client[0])
        peer, address = self._hops.peer(arrived.hop, headers, address, repeated)
        return Request(arrived.method, arrived.path, headers, partial(self._body, arrived, headers), address, peer)

    async def _body(self, arrived: Arrived, headers: Mapping[bytes, bytes]) -> bytes:
        # called when the client is known and admitted; until then nothing is read, and no limit is told
        policy, endpoint = self._gate.stages.policy.gate, self._gate.endpoints.get(arrived.path)
        bytes_max: int = getattr(endpoint, "body_bytes_max", policy.body_bytes_max)
        seconds_max: int = getattr(endpoint, "body_seconds_max", policy.body_seconds_max)
        _check_length(headers.get(b"content-length", b"0"), bytes_max)
        body = arrived.whole()
        if body is not None:
            return _within(body, bytes_max)
        try:
            with self._gate.stages.deadlines.within(seconds_max):
                return await _read(arrived.receive, bytes_max)
        except TimeoutError:
            raise Problem("timeout", f"a body has to arrive within {seconds_max} s") from None

    def _health(self, arrived: Arrived) -> Response:
        if arrived.method not in {"GET", "HEAD"}:
            raise Problem("method-not-allowed", allow="GET, HEAD")
        well = arrived.path == LIVE or self._ready()
        body = b'{"ok":true}' if well else b'{"ok":false}'
        return Response(200 if well else 503, body, [(b"content-type", JSON)])


class _Scoped:
    """A request that comes by ASGI. Satisfies `Arrived`."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.fields: Sequence[tuple[bytes, bytes]] = scope["headers"]
        self.hop: Hop | None = scope.get(SCOPE)
        self.client: tuple[str, int] | None = scope.get("client")
        self.receive = receive

    def whole(self) -> bytes | None:
        return None

    async def may_stream(self) -> bool:
        return True


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
        _within(body, bytes_max)
        if not message.get("more_body", False):
            return bytes(body)


def _within(body: _Bytes, bytes_max: int) -> _Bytes:
    if len(body) > bytes_max:
        raise Problem("too-large", f"a body may have {bytes_max} bytes")
    return body


async def send_parts(receive: Receive, send: Send, response: Response) -> None:
    """Send a response by ASGI, part by part if it is a stream, which is closed in any case."""
    stream = response.stream
    headers = [*response.headers, *ALWAYS]
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
