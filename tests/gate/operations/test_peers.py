"""Nobody takes all connections of the second port or the operators' socket, and probes get in whoever holds some."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from palladion.gate.administration.local import LocalConnection, open_socket
from palladion.gate.operations import peers as module
from palladion.gate.operations.peers import OF_ONE_MAX, PeerConnection, peer_of, prove
from palladion.gate.operations.port import Port, port_config
from palladion.policy import OperatorsPolicy

ASK = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Scene:
    """An open socket, whose pages answer, prove, or never end."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "o.sock"
        self.held = asyncio.Event()
        pages = [Route("/plain", self._plain), Route("/known", self._known), Route("/long", self._long)]
        self.port = Port(
            port_config(Starlette(routes=pages), connection=LocalConnection),
            partial(open_socket, OperatorsPolicy(socket="o.sock"), folder),
        )
        self.opened: list[Streams] = []

    async def connect(self, page: bytes = b"") -> Streams:
        streams = await asyncio.open_unix_connection(str(self.path))
        self.opened.append(streams)
        if page:
            streams[1].write(ASK % page)
        return streams

    async def said(self, page: bytes) -> tuple[Streams, bytes]:
        streams = await self.connect(page)
        return streams, await streams[0].read(300)

    async def _plain(self, _: Request) -> Response:
        return JSONResponse({})

    async def _known(self, request: Request) -> Response:
        prove(request.scope)
        return JSONResponse({})

    async def _long(self, _: Request) -> Response:
        await self.held.wait()
        return JSONResponse({})


def _with(folder: Path, work: Callable[[Scene], Awaitable[Any]]) -> None:
    async def run() -> None:
        scene = Scene(folder)
        await scene.port.start()
        try:
            await work(scene)
        finally:
            scene.held.set()
            for _, writer in scene.opened:
                writer.close()
            await scene.port.close()

    asyncio.run(run())


@pytest.mark.slow
def test_a_probe_gets_in_in_place_of_what_has_been_idle_for_longest(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        held = [(await scene.said(b"plain"))[0] for _ in range(OF_ONE_MAX)]
        _, answer = await scene.said(b"plain")
        assert answer.startswith(b"HTTP/1.1 200")
        assert await held[0][0].read(1) == b""
        held[1][1].write(ASK % b"plain")
        assert (await held[1][0].read(300)).startswith(b"HTTP/1.1 200")

    _with(tmp_path, work)


@pytest.mark.slow
def test_strangers_give_way_before_those_who_are_known(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        known, _ = await scene.said(b"known")
        strangers = [(await scene.said(b"plain"))[0] for _ in range(OF_ONE_MAX - 1)]
        await scene.said(b"plain")
        assert await strangers[0][0].read(1) == b""
        known[1].write(ASK % b"plain")
        assert (await known[0].read(300)).startswith(b"HTTP/1.1 200")

    _with(tmp_path, work)


@pytest.mark.slow
def test_one_peer_has_no_more_at_work_than_its_share(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        for _ in range(OF_ONE_MAX):
            await scene.connect(b"long")
        # every one is at work before the next comes
        while len([item for item in _connections(scene) if not item.idle]) < OF_ONE_MAX:
            await asyncio.sleep(0)
        late = await scene.connect()
        answer = b""
        with suppress(ConnectionResetError):
            answer = await late[0].read(1)
        assert answer == b""
        assert len(_connections(scene)) == OF_ONE_MAX

    _with(tmp_path, work)


@pytest.mark.slow
def test_a_stranger_is_waited_for_shortly_and_somebody_known_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STRANGER_SECONDS", 0.05)

    async def work(scene: Scene) -> None:
        silent = await scene.connect()
        while not _connections(scene):
            await asyncio.sleep(0)
        timer = _connections(scene)[0]._head_timer
        assert timer is not None
        assert timer.when() - asyncio.get_running_loop().time() <= 0.05
        stranger, _ = await scene.said(b"plain")
        known, _ = await scene.said(b"known")
        assert await silent[0].read(1) == b""
        assert await stranger[0].read(1) == b""
        known[1].write(ASK % b"plain")
        assert (await known[0].read(300)).startswith(b"HTTP/1.1 200")

    _with(tmp_path, work)


def _connections(scene: Scene) -> list[PeerConnection]:
    return [item for item in scene.port.server_state.connections if isinstance(item, PeerConnection)]


def test_a_scope_without_a_connection_proves_nothing() -> None:
    prove({})


def test_who_has_gone_is_nobody() -> None:
    import socket

    with socket.socket() as unconnected:
        assert peer_of(unconnected) == ""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert peer_of(client) == "127.0.0.1"
