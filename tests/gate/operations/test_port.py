"""Where the second port may listen, and that it does."""

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from palladion.errors import PolicyError
from palladion.gate.operations.peers import OF_ONE_MAX
from palladion.gate.operations.port import TOKEN_BYTES_MIN, Port, port_address, read_token
from palladion.policy import OperationsPolicy
from tests.gate.certificates import self_made
from tests.gate.gates import House, open_gate

from .watched import watched

LOCAL = OperationsPolicy(listen="127.0.0.1:0")


@pytest.mark.parametrize("listen", ["127.0.0.1:8711", "localhost:8711", "[::1]:8711"])
def test_the_loopback_needs_nothing(listen: str) -> None:
    assert port_address(OperationsPolicy(listen=listen))[1] == 8711


@pytest.mark.parametrize("listen", ["0.0.0.0:8711", "10.0.0.1:8711", "[::]:8711", "gate.example:8711"])
@pytest.mark.parametrize(
    "protected", [{}, {"token": "t"}, {"tls_certificate": "c", "tls_key": "k"}], ids=["nothing", "token", "tls"]
)
def test_any_other_address_needs_tls_and_a_token(listen: str, protected: dict[str, Any]) -> None:
    with pytest.raises(PolicyError, match="is not the loopback") as caught:
        port_address(OperationsPolicy(listen=listen, **protected))
    assert "operations.token" in caught.value.hints[0]


def test_with_both_it_may_be_any() -> None:
    policy = OperationsPolicy(listen="0.0.0.0:8711", token="t", tls_certificate="c", tls_key="k")
    assert port_address(policy) == ("0.0.0.0", 8711)


def test_ports_beyond_65535_and_half_a_certificate_are_refused() -> None:
    with pytest.raises(PolicyError, match="no port between"):
        port_address(OperationsPolicy(listen="127.0.0.1:65536"))
    with pytest.raises(PolicyError, match="go together"):
        port_address(OperationsPolicy(listen="127.0.0.1:1", tls_key="k"))


def test_the_token_is_read_without_the_end_of_its_line(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"x" * TOKEN_BYTES_MIN + b"\n")
    assert read_token(tmp_path, OperationsPolicy(token="token")) == b"x" * TOKEN_BYTES_MIN
    assert read_token(tmp_path, OperationsPolicy()) is None


def test_a_token_that_is_short_or_missing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"x" * (TOKEN_BYTES_MIN - 1))
    with pytest.raises(PolicyError, match="at least 32 are needed"):
        read_token(tmp_path, OperationsPolicy(token="token"))
    with pytest.raises(PolicyError, match="is no file"):
        read_token(tmp_path, OperationsPolicy(token="none"))


@pytest.mark.slow
def test_it_answers_while_it_is_open_and_not_after(house: House) -> None:
    item = watched(open_gate(house))

    async def work() -> tuple[bytes, int]:
        port = Port.open(LOCAL, Path(), item.figures, item.health)
        await port.start()
        number = int(port.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", number)
        writer.write(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await port.close()
        await port.close()
        return answer, number

    answer, number = asyncio.run(work())
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b'{"ok":true,"faults":[]}')
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", number))


def test_a_port_that_is_taken_is_a_sentence(house: House) -> None:
    item = watched(open_gate(house))

    async def work(number: int) -> None:
        await Port.open(OperationsPolicy(listen=f"127.0.0.1:{number}"), Path(), item.figures, item.health).start()

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(PolicyError, match="cannot be opened"):
        asyncio.run(work(taken.getsockname()[1]))


def test_what_was_never_started_can_be_closed_and_has_no_address(house: House) -> None:
    item = watched(open_gate(house))
    port = Port.open(LOCAL, Path(), item.figures, item.health)
    asyncio.run(port.close())
    with pytest.raises(ValueError, match="not started"):
        _ = port.url


def test_certificates_that_are_none_are_a_sentence(house: House, tmp_path: Path) -> None:
    item = watched(open_gate(house))
    for name in ("c", "k"):
        (tmp_path / name).write_text("no certificate")
    with pytest.raises(PolicyError, match="cannot be used"):
        Port.open(
            OperationsPolicy(listen="127.0.0.1:0", tls_certificate="c", tls_key="k"),
            tmp_path,
            item.figures,
            item.health,
        )


@pytest.mark.slow
def test_unfinished_handshakes_of_one_address_keep_no_probe_of_it_out(house: House, tmp_path: Path) -> None:
    item = watched(open_gate(house))
    self_made(tmp_path, "127.0.0.1")
    policy = OperationsPolicy(listen="127.0.0.1:0", tls_certificate="certificate.pem", tls_key="key.pem")

    async def work() -> bytes:
        port = Port.open(policy, tmp_path, item.figures, item.health)
        await port.start()
        number = int(port.url.rpartition(":")[2])
        held = [await asyncio.open_connection("127.0.0.1", number) for _ in range(OF_ONE_MAX)]
        while len(port._handshakes) < OF_ONE_MAX:
            await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", number, ssl=ssl._create_unverified_context(), server_hostname="127.0.0.1"
        )
        assert await held[0][0].read(1) == b""
        assert len(port._handshakes) <= OF_ONE_MAX
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        for _, one in [*held, (reader, writer)]:
            one.close()
        await port.close()
        return answer

    assert asyncio.run(work()).startswith(b"HTTP/1.1 200 ")
