"""Handshakes: unfinished ones count, end in time, and leave room; over real sockets of the loopback, in one process."""

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import uvloop

from palladion.gate import handshakes
from palladion.gate.connections import Connection
from palladion.gate.handshakes import Server

from .certificates import self_made

REQUEST = b"GET / HTTP/1.1\r\nhost: gate\r\n\r\n"
CONNECTIONS = 3
SECONDS_MAX = 30.0  # for the other side, on a busy machine; a test that reaches it has failed


async def _app(_: Any, __: Any, send: Callable[[MutableMapping[str, Any]], Awaitable[None]]) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _server(folder: Path, *, tls: bool = True) -> Server:
    self_made(folder, "127.0.0.1")
    files = {"ssl_certfile": str(folder / "certificate.pem"), "ssl_keyfile": str(folder / "key.pem")} if tls else {}
    config = uvicorn.Config(
        _app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        limit_concurrency=CONNECTIONS + 1,
        **files,  # type: ignore[arg-type]
    )
    config.load()
    server = Server(config)
    server.lifespan = config.lifespan_class(config)
    return server


class _Client:
    """One connection, with a handshake or without."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    async def ended(self) -> bool:
        try:
            return await asyncio.wait_for(self._reader.read(1), SECONDS_MAX) == b""
        except ConnectionError:
            return True

    async def ask(self) -> bool:
        self.writer.write(REQUEST)
        answer = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), SECONDS_MAX)
        return answer.startswith(b"HTTP/1.1 204 ")


class _Gate:
    """A server that accepts, and its clients."""

    def __init__(self, server: Server, listener: socket.socket, folder: Path) -> None:
        self.server, self.listener = server, listener
        self._address = listener.getsockname()
        self._folder = folder
        self.clients: list[_Client] = []

    async def half_open(self) -> _Client:
        return await self._connect()

    async def known(self) -> _Client:
        return await self._connect(ssl=ssl.create_default_context(cafile=str(self._folder / "certificate.pem")))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(SECONDS_MAX):
            while not condition():
                await asyncio.sleep(0)

    async def _connect(self, **tls: Any) -> _Client:
        client = _Client(*await asyncio.open_connection(*self._address, **tls))
        self.clients.append(client)
        return client


@asynccontextmanager
async def _gate(folder: Path, *, tls: bool = True) -> AsyncIterator[_Gate]:
    server = _server(folder, tls=tls)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await server.startup([listener])
        gate = _Gate(server, listener, folder)
        try:
            yield gate
        finally:
            await server.shutdown([listener])
            for client in gate.clients:
                client.writer.close()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Run a coroutine in a loop of each kind."""

    def run_in(main: Any) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main)

    return run_in


@pytest.mark.slow
def test_handshakes_that_are_not_finished_take_the_room_of_connections_and_not_more(
    run: Callable[..., None], tmp_path: Path
) -> None:
    async def main() -> None:
        async with _gate(tmp_path) as gate:
            known = await gate.known()
            assert await known.ask()
            half = [await gate.half_open() for _ in range(CONNECTIONS - 1)]
            await gate.until(lambda: len(gate.server._shaking) == CONNECTIONS - 1)
            files = _files()
            for _ in range(4):
                assert await (await gate.half_open()).ended()
            # ours of the four, and none of the server's
            assert _files() <= files + 4
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await gate.known()
            assert await known.ask()
            half[0].writer.close()
            await gate.until(lambda: len(gate.server._shaking) == CONNECTIONS - 2)
            assert await (await gate.known()).ask()
            assert len(gate.server.server_state.connections) == 2

    run(main())


@pytest.mark.slow
def test_a_handshake_has_to_end_in_time(
    run: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshakes, "HEAD_SECONDS_MAX", 0.01)

    async def main() -> None:
        async with _gate(tmp_path) as gate:
            assert await (await gate.half_open()).ended()
            await gate.until(lambda: not gate.server._shaking)
            assert gate.server.server_state.connections == set()

    run(main())


@pytest.mark.slow
def test_what_is_no_handshake_is_nobodys_and_fills_no_log(
    run: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with _gate(tmp_path) as gate:
            for data in (REQUEST, b"\x16\x03\x01\x00\x02\x01\x00", b"\x00" * 1000):
                stranger = await gate.half_open()
                stranger.writer.write(data)
                stranger.writer.write_eof()
                while not await stranger.ended():
                    pass  # an alert
            await gate.until(lambda: not gate.server._shaking)
            assert gate.server.server_state.connections == set()
            assert await (await gate.known()).ask()

    run(main())
    assert caplog.text == ""


class _Failing(socket.socket):
    """A listener on a host that has nothing left for a while."""

    errors: list[int]

    def accept(self) -> tuple[socket.socket, Any]:
        if self.errors:
            raise OSError(self.errors.pop(0), "it is made up")
        return super().accept()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("errors", "pauses"),
    [([errno.EMFILE, errno.ENFILE, errno.ENOMEM], 3), ([errno.ECONNABORTED] * 3, 0)],
    ids=["exhausted", "gone again"],
)
def test_a_host_that_has_nothing_left_is_survived(
    run: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, errors: list[int], pauses: int
) -> None:
    monkeypatch.setattr(handshakes, "PAUSE_SECONDS", 0.0)
    begun: list[socket.socket] = []
    listen = Server._listen

    def begin(server: Server, listener: socket.socket) -> None:
        begun.append(listener)
        listen(server, listener)

    monkeypatch.setattr(Server, "_listen", begin)

    async def main() -> None:
        server = _server(tmp_path)
        with _Failing() as listener:
            listener.errors = [*errors]
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            await server.startup([listener])
            gate = _Gate(server, listener, tmp_path)
            assert await (await gate.known()).ask()
            assert (listener.errors, len(begun)) == ([], 1 + pauses)
            await server.shutdown([listener])

    run(main())


@pytest.mark.slow
def test_a_stop_ends_handshakes_and_accepts_nobody_not_even_after_a_pause(
    run: Callable[..., None], tmp_path: Path
) -> None:
    async def main() -> None:
        async with _gate(tmp_path) as gate:
            half, known = await gate.half_open(), await gate.known()
            await gate.until(lambda: len(gate.server._shaking) == 1)
            await gate.server.shutdown([gate.listener])
            assert gate.server._shaking == set()
            assert await half.ended()
            assert await known.ended()
            # as a pause would that was over only now
            gate.server._listen(gate.listener)
            with pytest.raises(ConnectionError):
                await gate.half_open()

    run(main())


@pytest.mark.slow
def test_plain_connections_are_accepted_as_before(run: Callable[..., None], tmp_path: Path) -> None:
    async def main() -> None:
        async with _gate(tmp_path, tls=False) as gate:
            assert await (await gate.half_open()).ask()
            assert gate.server._listeners == []

    run(main())


def test_a_server_without_a_limit_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no limit"):
        Server(uvicorn.Config(_app))
