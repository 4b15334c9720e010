"""Where the API listens: never in plain text beyond the loopback, unless the policy says so aloud."""

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from palladion.errors import PolicyError
from palladion.gate.app import App
from palladion.gate.connections import CONNECTIONS_MAX, Connection
from palladion.gate.listener import api_config, listen, listen_address
from palladion.policy import GatePolicy

from .certificates import self_made
from .gates import House, open_gate

TLS: dict[str, Any] = {"tls_certificate": "c.pem", "tls_key": "k.pem"}


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({}, ("127.0.0.1", 8710)),
        ({"listen": "127.9.9.9:0"}, ("127.9.9.9", 0)),
        ({"listen": "localhost:80"}, ("localhost", 80)),
        ({"listen": "[::1]:8710"}, ("::1", 8710)),
        ({"listen": "0.0.0.0:8710", **TLS}, ("0.0.0.0", 8710)),
        ({"listen": "api.example:443", **TLS}, ("api.example", 443)),
        ({"listen": "10.0.0.1:80", "behind_proxy": True}, ("10.0.0.1", 80)),
    ],
)
def test_an_address_that_gives_no_key_away_is_taken(settings: dict[str, Any], address: tuple[str, int]) -> None:
    assert listen_address(GatePolicy(**settings)) == address


@pytest.mark.parametrize("listen", ["0.0.0.0:8710", "[::]:8710", "10.0.0.1:80", "api.example:80", "localhost.evil:80"])
def test_plain_text_beyond_the_loopback_is_refused_with_what_to_do(listen: str) -> None:
    with pytest.raises(PolicyError, match=r"is not the loopback, and API keys would cross the network") as caught:
        listen_address(GatePolicy(listen=listen))
    assert "gate.tls_certificate" in caught.value.hints[0]


@pytest.mark.parametrize("name", TLS)
def test_half_of_tls_is_refused(name: str) -> None:
    with pytest.raises(PolicyError, match="go together"):
        listen_address(GatePolicy(**{**TLS, name: ""}))


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(PolicyError, match="no port between 0 and 65535"):
        listen_address(GatePolicy(listen="127.0.0.1:70000"))


def test_a_port_that_is_taken_is_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
        with pytest.raises(PolicyError, match=rf"127.0.0.1:{address[1]} cannot be opened: address already in use"):
            listen(address)


def test_an_address_of_another_machine_is_a_sentence() -> None:
    with pytest.raises(PolicyError, match="cannot be opened: cannot assign requested address"):
        listen(("203.0.113.1", 0))


def test_both_families_can_be_listened_on() -> None:
    for host in ("127.0.0.1", "::1"):
        with listen((host, 0)) as listener:
            assert listener.getsockname()[0] == host


@pytest.fixture
def config(house: House, tmp_path: Path) -> Callable[..., uvicorn.Config]:
    app = App(open_gate(house).gate, ready=lambda: True)
    return lambda **settings: api_config(app, GatePolicy(**settings), tmp_path)


def test_uvicorn_is_told_to_believe_no_header_and_to_say_nothing_of_itself(
    config: Callable[..., uvicorn.Config],
) -> None:
    made = config()
    assert made.http_protocol_class is Connection
    assert (made.proxy_headers, made.server_header, made.access_log, made.ws_protocol_class) == (*[False] * 3, None)
    assert made.limit_concurrency is not None
    assert 1 < made.limit_concurrency <= CONNECTIONS_MAX + 1
    assert not made.is_ssl


def test_files_of_tls_are_relative_to_the_policy(config: Callable[..., uvicorn.Config], tmp_path: Path) -> None:
    self_made(tmp_path, "localhost")
    made = config(tls_certificate="certificate.pem", tls_key="key.pem")
    assert isinstance(made.ssl, ssl.SSLContext)
    assert made.ssl.minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("missing", ["certificate", "key"])
def test_a_file_of_tls_that_is_not_there_is_named(
    config: Callable[..., uvicorn.Config], tmp_path: Path, missing: str
) -> None:
    self_made(tmp_path, "localhost")
    (tmp_path / f"{missing}.pem").unlink()
    with pytest.raises(PolicyError, match=rf"gate.tls_{missing}: .*{missing}.pem is no file"):
        config(tls_certificate="certificate.pem", tls_key="key.pem")


@pytest.mark.parametrize("broken", ["certificate", "key"])
def test_a_file_of_tls_that_is_none_is_a_sentence(
    config: Callable[..., uvicorn.Config], tmp_path: Path, broken: str
) -> None:
    self_made(tmp_path, "localhost")
    (tmp_path / f"{broken}.pem").write_text("garbage")
    with pytest.raises(PolicyError, match=r"gate.tls_certificate and gate.tls_key cannot be used"):
        config(tls_certificate="certificate.pem", tls_key="key.pem")


def test_the_key_of_another_certificate_is_a_sentence(config: Callable[..., uvicorn.Config], tmp_path: Path) -> None:
    self_made(tmp_path, "localhost")
    certificate = (tmp_path / "certificate.pem").read_bytes()
    self_made(tmp_path, "localhost")
    (tmp_path / "certificate.pem").write_bytes(certificate)
    with pytest.raises(PolicyError, match="cannot be used"):
        config(tls_certificate="certificate.pem", tls_key="key.pem")
