"""The socket for users of the machine: who may connect, and that the system says who does."""

import asyncio
import grp
import os
import socket
import stat
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from palladion.errors import PolicyError
from palladion.gate.administration.local import LocalConnection, open_socket
from palladion.gate.administration.pages import UNIX
from palladion.gate.operations.port import Port, port_config
from palladion.policy import OperatorsPolicy

POLICY = OperatorsPolicy(socket="o.sock")


def test_every_user_may_connect_because_each_has_to_be_an_operator(tmp_path: Path) -> None:
    with open_socket(POLICY, tmp_path):
        assert stat.S_IMODE((tmp_path / "o.sock").stat().st_mode) == 0o666


def test_a_group_keeps_others_out(tmp_path: Path) -> None:
    group = grp.getgrgid(os.getgid()).gr_name
    with open_socket(OperatorsPolicy(socket="o.sock", socket_group=group), tmp_path):
        assert stat.S_IMODE((tmp_path / "o.sock").stat().st_mode) == 0o660


def test_what_a_crash_left_is_replaced_and_a_living_one_is_not(tmp_path: Path) -> None:
    open_socket(POLICY, tmp_path).close()
    with open_socket(POLICY, tmp_path), pytest.raises(PolicyError, match="another process answers"):
        open_socket(POLICY, tmp_path)


@pytest.mark.parametrize("policy", [OperatorsPolicy(socket="no/o.sock"), OperatorsPolicy(socket="file")])
def test_a_place_that_cannot_be_had_is_told(tmp_path: Path, policy: OperatorsPolicy) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PolicyError, match="cannot be opened"):
        open_socket(policy, tmp_path)


def test_a_group_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be opened"):
        open_socket(OperatorsPolicy(socket="o.sock", socket_group="no-such-group"), tmp_path)


@pytest.mark.slow
def test_the_system_says_who_asks(tmp_path: Path) -> None:
    async def who(request: Request) -> Response:
        assert request.client is not None
        return JSONResponse([request.client.host, request.client.port])

    async def work() -> bytes:
        app = Starlette(routes=[Route("/", who)])
        port = Port(port_config(app, connection=LocalConnection), lambda: open_socket(POLICY, tmp_path))
        await port.start()
        reader, writer = await asyncio.open_unix_connection(tmp_path / "o.sock")
        # nothing that is sent changes it
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.1\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await port.close()
        return answer

    assert asyncio.run(work()).endswith(f'["{UNIX}",{os.getuid()}]'.encode())
    with pytest.raises(OSError, match="refused"), socket.socket(socket.AF_UNIX) as late:
        late.connect(str(tmp_path / "o.sock"))


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_a_folder_in_which_others_could_take_its_place_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(PolicyError, match="others can change what is in"):
        open_socket(POLICY, tmp_path)
    assert list(tmp_path.iterdir()) == []
    tmp_path.chmod(0o1777)
    open_socket(POLICY, tmp_path).close()


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:
        os.chown(tmp_path, 12345, -1)
    with pytest.raises(PolicyError, match="others can change") as caught:
        open_socket(POLICY, tmp_path)
    assert "let it belong to the gate's account" in caught.value.hints[0]
