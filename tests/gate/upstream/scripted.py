"""Model servers on the loopback that follow a script, mostly a bad one; and pools with little patience to ask them."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

from palladion.gate.upstream.address import Address
from palladion.gate.upstream.limits import UpstreamLimits
from palladion.gate.upstream.pool import Upstream

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"
# long, so that only those limits end something which a test makes short
PATIENT = UpstreamLimits(
    waiting_seconds=30, connect_seconds=30, head_seconds=30, idle_seconds=30, keep_alive_seconds=30
)
SOON = 0.02

Runner = Callable[[Coroutine[Any, Any, None]], None]


class Peer:
    """The server's end of one connection."""

    def __init__(self, server: "Server", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server, self.reader, self.writer = server, reader, writer

    async def request(self) -> bytes:
        """The next request, head and body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next((line[16:] for line in head.split(b"\r\n") if line.startswith(b"content-length: ")), b"0")
        request = head + await self.reader.readexactly(int(length))
        self.server.requests.append(request)
        return request

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """End without a word: over TLS this is a cut, too."""
        self.writer.transport.abort()

    def half_close(self) -> None:
        self.writer.write_eof()

    async def closed(self) -> bytes:
        """Wait until the client closes; what it sent until then."""
        with suppress(ConnectionError):
            return await self.reader.read()
        return b""


Script = Callable[[Peer], Awaitable[None]]


class Server:
    """One script for each connection, in order; the last one for all that follow. `requests` is what came."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.requests: list[bytes] = []
        self.connections = 0
        self.now = 0
        self.ended = asyncio.Event()  # a script is over, and its connection closed
        self.deserted = asyncio.Event()  # all of them are
        self.deserted.set()
        self.failures: list[BaseException] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = self.scripts[min(self.connections, len(self.scripts) - 1)]
        self.connections += 1
        self.now += 1
        self.deserted.clear()
        try:
            await script(Peer(self, reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except AssertionError as failure:
            self.failures.append(failure)
        finally:
            writer.close()
            with suppress(ConnectionError, ssl.SSLError, TimeoutError):
                await writer.wait_closed()
            self.now -= 1
            self.ended.set()
            if not self.now:
                self.deserted.set()


@asynccontextmanager
async def serving(*scripts: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Server, Address]]:
    """A server with these scripts, and where it is."""
    server = Server(*scripts)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    address = Address("127.0.0.1", listening.sockets[0].getsockname()[1], secure=tls is not None)
    try:
        yield server, address
    finally:
        listening.close()
    await server.deserted.wait()
    assert server.failures == []


@asynccontextmanager
async def asking(address: Address, tls: ssl.SSLContext | None = None, **limits: Any) -> AsyncIterator[Upstream]:
    """A pool for a server, closed at the end, when nothing of it may be left."""
    upstream = Upstream(address, limits=replace(PATIENT, **limits), tls=tls)
    try:
        yield upstream
    finally:
        await upstream.close()
    assert (upstream.idle, upstream.waiting) == (0, 0)


def answers(*parts: bytes, then: Callable[[Peer], Any] | None = None) -> Script:
    """Answer one request with these parts, do something, and wait until the client closes."""

    async def script(peer: Peer) -> None:
        await peer.request()
        for part in parts:
            await peer.send(part)
        if then is not None:
            then(peer)
        await peer.closed()

    return script


def answers_and_closes(*parts: bytes) -> Script:
    """Answer one request with these parts, and close."""

    async def script(peer: Peer) -> None:
        await peer.request()
        for part in parts:
            await peer.send(part)

    return script


async def good(peer: Peer) -> None:
    """Answer every request."""
    while True:
        await peer.request()
        await peer.send(OK)
