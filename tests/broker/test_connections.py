"""Whoever reaches the port, with a certificate or without: nobody takes all of it, and hosts are served meanwhile."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from palladion.broker import connections
from palladion.errors import PolicyError
from palladion.host.broker_messages import CHALLENGE_PATH, KEYS_PATH, RELEASE_PATH
from tests.gate.certificates import Issued

from .parts import Setting
from .serving import Parties, Served, built, serving

pytestmark = [pytest.mark.slow, pytest.mark.service]

SECONDS_MAX = 30.0  # for the other side, on a busy machine; a test that reaches it has failed
BEGUN = f"POST {RELEASE_PATH} HTTP/1.1\r\nhost: broker\r\ncontent-length: 3000000\r\n\r\n{{".encode()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A broker with patience: what ends in a test ends for another reason."""
    for name in ("HANDSHAKE_SECONDS_MAX", "REQUEST_SECONDS_MAX"):
        monkeypatch.setattr(connections, name, 600.0)
    setting, parties = built(tmp_path)
    with serving(setting, parties) as made:
        yield made


def _address(served: Served) -> tuple[str, int]:
    parts = urlsplit(served.url)
    return str(parts.hostname), int(parts.port or 0)


def _tls(served: Served, issued: Issued) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(served.parties.authority.path))
    context.load_cert_chain(issued.path, issued.key)
    plain = socket.create_connection(_address(served), timeout=SECONDS_MAX)
    return context.wrap_socket(plain, server_hostname="127.0.0.1")


def _ended(stream: socket.socket) -> bool:
    """Whether the broker has closed a connection, or does within time, without a word."""
    try:
        return stream.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


@contextmanager
def _begun(served: Served, *issued: Issued) -> Iterator[list[ssl.SSLSocket]]:
    """Connections with requests that do not go on."""
    with ExitStack() as held:
        streams = []
        for one in issued:
            streams.append(held.enter_context(closing(_tls(served, one))))
            streams[-1].sendall(BEGUN)
        yield streams


def _takes(stream: socket.socket, data: bytes) -> bool:
    """Whether the broker takes all of it."""
    try:
        stream.sendall(data)
    except OSError:
        return False
    return not _ended(stream)


def _works(served: Served) -> bool:
    structure = served.setting.structure()
    return len(served.client().release(structure, purpose="exec")[0]) == 32


def test_strangers_who_end_no_handshake_leave_room_for_hosts(served: Served) -> None:
    with ExitStack() as held:
        strangers = [
            held.enter_context(socket.create_connection(_address(served), timeout=SECONDS_MAX))
            for _ in range(connections.HANDSHAKES_OWN_MAX + 4)
        ]
        assert all(_ended(one) for one in strangers[:4])
        assert _works(served)


def test_a_handshake_ends_in_time(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HANDSHAKE_SECONDS_MAX", 0.1)
    with socket.create_connection(_address(served), timeout=SECONDS_MAX) as stranger:
        assert _ended(stranger)


def test_a_request_ends_in_time(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS_MAX", 0.1)
    with _begun(served, served.parties.other) as (stream,):
        assert _ended(stream)


def test_one_certificate_holds_a_few_connections_and_hosts_are_served(served: Served) -> None:
    """Any certificate of the authority will do for it, also one that no client has."""
    holders = [served.parties.other] * (connections.CONNECTIONS_MAX + 2)
    with _begun(served, *holders) as streams:
        assert _works(served)
        assert all(_ended(one) for one in streams[: -connections.CONNECTIONS_OWN_MAX])


def test_many_certificates_leave_room_for_hosts(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CONNECTIONS_MAX", 3)
    holders = [served.parties.authority.issue(f"tls-{number}") for number in range(3)]
    with _begun(served, *holders) as streams:
        assert _works(served)
        assert _ended(streams[0])


def test_a_stolen_certificate_does_not_keep_its_host_out(served: Served) -> None:
    with _begun(served, *[served.parties.host] * connections.CONNECTIONS_OWN_MAX) as streams:
        assert _works(served)
        assert _ended(streams[0])


@pytest.mark.parametrize("path", [KEYS_PATH, CHALLENGE_PATH, RELEASE_PATH])
def test_a_head_without_an_end_is_cut_off(served: Served, path: str) -> None:
    head = f"{'GET' if path == KEYS_PATH else 'POST'} {path} HTTP/1.1\r\n".encode()
    with closing(_tls(served, served.parties.other)) as stream:
        assert not _takes(stream, head + b"x: y\r\n" * 300_000)
        assert _works(served)


def test_a_body_in_tiny_chunks_is_cut_off(served: Served) -> None:
    head = f"POST {RELEASE_PATH} HTTP/1.1\r\nhost: broker\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    with closing(_tls(served, served.parties.other)) as stream:
        assert not _takes(stream, head + b"1\r\nx\r\n" * 1_000_000)
        assert _works(served)


def test_who_takes_no_leave_keeps_nobody_out(served: Served) -> None:
    """Answered, and closed by the broker, but not by the other side, for which TLS would wait."""
    with ExitStack() as held:
        for _ in range(connections.CONNECTIONS_OWN_MAX + 1):
            stream = held.enter_context(closing(_tls(served, served.parties.host)))
            stream.sendall(b"GET /nothing HTTP/1.1\r\nhost: broker\r\n\r\n")
            assert stream.recv(12) == b"HTTP/1.1 404"
        assert _works(served)


def test_a_port_that_is_taken_is_a_sentence(tmp_path: Path) -> None:
    setting, parties = built(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path = setting.installation.paths.policy
        path.write_text(path.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}"))
        again: Setting = setting.again()
        with pytest.raises(PolicyError, match="cannot be opened: address already in use"):
            _serve(again, parties)


def _serve(setting: Setting, _parties: Parties) -> None:
    from palladion.broker.server import BrokerApp, serve_broker

    serve_broker(
        BrokerApp(setting.broker()),
        setting.installation.policy.broker,
        setting.installation.paths.home,
        started=lambda _: None,
    )
