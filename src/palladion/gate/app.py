"""The gate as an ASGI application: health checks, and everything else through `Gate.handle`.

Owns what a transport can do wrong: bodies that are too long or too slow, and headers that come twice.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from palladion.gate.gate import Gate
from palladion.gate.problems import Problem
from palladion.gate.requests import JSON, Request, Response

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

LIVE, READY = "/health/live", "/health/ready"
HEALTH_PATHS = {LIVE, READY}
LENGTH_DIGITS_MAX = 12  # of a content-length; more say a terabyte, or hide one behind zeros
# Two of these, and two readers may each believe another one (request smuggling, confused identities).
_ONCE = {b"authorization", b"x-api-key", b"content-type", b"content-length", b"content-encoding", b"host"}

log = logging.getLogger("palladion.gate")


class App:
    """ASGI 3 application (asgi.readthedocs.io, HTTP only)."""

    def __init__(self, gate: Gate, *, ready: Callable[[], bool]) -> None:
        """`ready` says whether requests would be answered now."""
        self._gate = gate
        self._ready = ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']} is not served")
        try:
            response = await self._respond(scope, receive)
        except Problem as problem:
            response = Response.of_problem(problem)
        except Exception:
            # a bug of ours: the client learns nothing, the operator everything
            log.exception("a request failed")
            response = Response.of_problem(Problem("internal"))
        await _send(send, response)

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        if scope["path"] in HEALTH_PATHS:
            return self._health(scope)
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in headers and name in _ONCE:
                raise Problem("bad-request", f"the header {name.decode('latin-1')} comes twice")
            headers[name] = value
        policy = self._gate.stages.policy.gate

        async def body() -> bytes:
            # called when the client is known and admitted; until then nothing is read, and no limit is told
            _check_length(headers.get(b"content-length", b"0"), policy.body_bytes_max)
            try:
                async with asyncio.timeout(policy.body_seconds_max):
                    return await _read(receive, policy.body_bytes_max)
            except TimeoutError:
                raise Problem("timeout", f"a body has to arrive within {policy.body_seconds_max} s") from None

        client = scope.get("client")
        address = None if policy.behind_proxy or client is None else str(client[0])
        return await self._gate.handle(Request(scope["method"], scope["path"], headers, body, address))

    def _health(self, scope: Scope) -> Response:
        if scope["method"] not in {"GET", "HEAD"}:
            raise Problem("method-not-allowed", allow="GET, HEAD")
        well = scope["path"] == LIVE or self._ready()
        body = b'{"ok":true}' if well else b'{"ok":false}'
        return Response(200 if well else 503, body, [(b"content-type", JSON)])


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


async def _send(send: Send, response: Response) -> None:
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
            async for part in stream.parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": response.body if stream is None else b""})
    finally:
        # a stream that breaks is not ended: uvicorn then cuts the connection, and the client sees that it is not whole
        if stream is not None:
            await stream.close()
