"""Where the API listens: never in plain text beyond the loopback, unless the policy says so aloud."""

import grp
import os
import socket
import ssl
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from palladion.errors import PolicyError
from palladion.gate.app import App
from palladion.gate.connections import CONNECTIONS_MAX, Connection
from palladion.gate.listener import api_config, listen, listen_address, listening, url_of
from palladion.policy import GatePolicy, ProxyPolicy

from .certificates import Authority, self_made
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
    assert isinstance(made.loaded_app, App)  # with anything around it, it would be asked by ASGI
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


def test_a_unix_socket_is_relative_to_the_policy_and_needs_no_tls(tmp_path: Path) -> None:
    assert listen_address(GatePolicy(listen="unix:run/gate.sock"), tmp_path) == tmp_path / "run/gate.sock"
    assert listen_address(GatePolicy(listen="unix:/run/gate.sock"), tmp_path) == Path("/run/gate.sock")
    with pytest.raises(PolicyError, match=r"the proxy ends TLS|names a Unix socket"):
        listen_address(GatePolicy(listen="unix:/run/gate.sock", **TLS), tmp_path)


def test_a_unix_socket_is_nobody_elses_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "gate.sock"
    with listening(path) as listener:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert url_of(listener, secure=False) == f"unix:{path}"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert not path.exists()


def test_a_group_can_be_let_in(tmp_path: Path) -> None:
    path, group = tmp_path / "gate.sock", grp.getgrgid(os.getegid()).gr_name
    with listening(path, group):
        assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_gid) == (0o660, os.getegid())
    with pytest.raises(PolicyError, match=r"gate\.listen: unix:.* cannot be opened"), listening(path, "no-such-group"):
        pass


def test_the_socket_of_a_crash_is_replaced_and_that_of_a_living_process_is_not(tmp_path: Path) -> None:
    path = tmp_path / "gate.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with listening(path), pytest.raises(PolicyError, match="another process answers"), listening(path):
        pass


@pytest.mark.parametrize("place", ["missing/gate.sock", "x" * 200])
def test_a_socket_that_cannot_be_had_is_a_sentence(tmp_path: Path, place: str) -> None:
    with pytest.raises(PolicyError, match="cannot be opened"):
        listen(tmp_path / place)


def test_a_file_in_the_place_of_the_socket_stays(tmp_path: Path) -> None:
    (tmp_path / "gate.sock").write_text("mine")
    with pytest.raises(PolicyError, match="cannot be opened: address already in use"):
        listen(tmp_path / "gate.sock")
    assert (tmp_path / "gate.sock").read_text() == "mine"


@pytest.mark.parametrize(("address", "url"), [("127.0.0.1", "http://127.0.0.1:"), ("::1", "http://[::1]:")])
def test_an_address_is_written_as_people_do(address: str, url: str) -> None:
    with listen((address, 0)) as listener:
        assert url_of(listener, secure=False).startswith(url)
        assert url_of(listener, secure=True).startswith("https://")


@pytest.mark.parametrize(("setting", "mode"), [("optional", ssl.CERT_OPTIONAL), ("required", ssl.CERT_REQUIRED)])
def test_clients_are_asked_for_certificates_of_the_policys_authority(
    config: Callable[..., uvicorn.Config], tmp_path: Path, setting: str, mode: ssl.VerifyMode
) -> None:
    self_made(tmp_path, "localhost")
    Authority(tmp_path)
    files = {"tls_certificate": "certificate.pem", "tls_key": "key.pem"}
    assert config(**files).ssl.verify_mode == ssl.CERT_NONE  # type: ignore[union-attr]
    made = config(**files, client_ca="authority.pem", client_certificate=setting)
    assert isinstance(made.ssl, ssl.SSLContext)
    assert made.ssl.verify_mode == mode
    # and of no other: the system's own are not among them
    assert len(made.ssl.get_ca_certs()) == 1


@pytest.mark.parametrize("content", ["garbage", ""])
def test_an_authority_that_is_none_is_a_sentence(
    config: Callable[..., uvicorn.Config], tmp_path: Path, content: str
) -> None:
    self_made(tmp_path, "localhost")
    (tmp_path / "authority.pem").write_text(content)
    with pytest.raises(PolicyError, match=r"gate\.client_ca: .* has no certificate"):
        config(tls_certificate="certificate.pem", tls_key="key.pem", client_ca="authority.pem")


@pytest.mark.parametrize("settings", [TLS, {}, {"listen": "0.0.0.0:1", "behind_proxy": True}])
def test_a_certificate_that_nobody_would_be_asked_for_cannot_be_required(settings: dict[str, Any]) -> None:
    with pytest.raises(PolicyError, match="nobody would be asked for one") as caught:
        listen_address(GatePolicy(client_certificate="required", **settings))
    assert caught.value.hints == ("set gate.client_ca",)
    assert listen_address(GatePolicy(client_certificate="required", client_ca="authority.pem", **TLS))


@pytest.mark.parametrize("settings", [{"client_ca": "authority.pem"}, {"client_certificate": "required"}])
def test_nobody_shows_a_certificate_on_a_unix_socket(settings: dict[str, Any]) -> None:
    with pytest.raises(PolicyError, match="over which nobody shows a certificate"):
        listen_address(GatePolicy(listen="unix:/run/gate.sock", **settings))


PROXY: dict[str, Any] = {"identities": ("spiffe://example.org/edge",), "user_header": "x-user"}
MUTUAL: dict[str, Any] = {**TLS, "client_ca": "authority.pem"}


@pytest.mark.parametrize(
    ("gate", "proxy", "missing"),
    [
        (TLS, PROXY, "gate.client_ca"),
        ({"listen": "0.0.0.0:1", "behind_proxy": True}, PROXY, "gate.client_ca"),
        (MUTUAL, {"address_header": "x-real-ip"}, "proxy.identities"),
        ({}, {"certificate_header": "x-forwarded-client-cert"}, "proxy.identities"),
        ({}, {"identities": PROXY["identities"]}, "gate.client_ca"),
    ],
)
def test_a_proxy_that_could_never_be_believed_is_a_mistake(
    gate: dict[str, Any], proxy: dict[str, Any], missing: str
) -> None:
    with pytest.raises(PolicyError, match=rf"{missing} is not set: no proxy can prove itself") as caught:
        listen_address(GatePolicy(**gate), proxy=ProxyPolicy(**proxy))
    assert "Unix socket" in caught.value.hints[0]


@pytest.mark.parametrize(
    ("gate", "proxy"),
    [(MUTUAL, PROXY), ({"listen": "unix:/run/gate.sock"}, {"user_header": "x-user"}), (TLS, {}), (MUTUAL, {})],
)
def test_a_proxy_that_can_prove_itself_is_taken(gate: dict[str, Any], proxy: dict[str, Any]) -> None:
    assert listen_address(GatePolicy(**gate), proxy=ProxyPolicy(**proxy))


def test_certificates_of_clients_need_tls() -> None:
    with pytest.raises(PolicyError, match="without TLS nobody shows a certificate"):
        listen_address(GatePolicy(client_ca="authority.pem"))
