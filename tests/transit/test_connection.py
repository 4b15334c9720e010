"""Connections: how many there are, how long they wait, and whom they believe."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from palladion.errors import StorageError
from palladion.transit.connection import Connections, Deadline, tls_context
from palladion.transit.url import parse_url
from palladion.transit.web import InterruptedTransferError, Web
from tests.transit.factories import IMPATIENT, QUICK
from tests.transit.servers import serving

pytestmark = pytest.mark.service  # servers on loopback


def _certificate(folder: Path, name: str = "localhost") -> ssl.SSLContext:
    """A server's context, and its certificate in `folder`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def _localhost(base: str) -> str:
    return base.replace("127.0.0.1", "localhost")


def test_a_deadline_passes() -> None:
    assert 0 < Deadline(5).left() <= 5
    with pytest.raises(TimeoutError):
        Deadline(-1).left()


def test_tls_is_at_least_1_2_and_certificates_are_checked() -> None:
    context = tls_context()
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_a_server_whose_certificate_is_trusted_is_spoken_to_by_tls_1_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = _certificate(tmp_path)
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    with serving({"/x": b"content"}, tls=tls) as shelf:
        web = Web(QUICK)
        with web.ask("GET", parse_url(_localhost(shelf.url("/x")))) as answer:
            assert answer.read(100) == b"content"
        web.close()


def test_a_server_with_an_unknown_certificate_is_not_asked(tmp_path: Path) -> None:
    with serving({"/x": b""}, tls=_certificate(tmp_path)) as shelf:
        with pytest.raises(StorageError, match="does not prove who it is") as caught:
            Web(QUICK).ask("GET", parse_url(_localhost(shelf.url("/x"))))
        assert "SSL_CERT_FILE" in caught.value.hints[0]
        assert not isinstance(caught.value, InterruptedTransferError)
        assert shelf.asked == []


def test_a_certificate_of_another_name_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = _certificate(tmp_path, name="elsewhere.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    with serving({"/x": b""}, tls=tls) as shelf:
        with pytest.raises(StorageError, match="does not prove who it is"):
            Web(QUICK).ask("GET", parse_url(_localhost(shelf.url("/x"))))
        assert shelf.asked == []


def test_a_connection_is_used_again_once_its_answer_is_read() -> None:
    with serving({"/x": b"content"}) as shelf:
        web = Web(QUICK)
        for _ in range(3):
            with web.ask("GET", parse_url(shelf.url("/x"))) as answer:
                assert answer.read(100) == b"content"
        assert len(shelf.connections) == 1
        with web.ask("GET", parse_url(shelf.url("/x"))):
            pass
        with web.ask("GET", parse_url(shelf.url("/x"))) as answer:
            answer.read(100)
        assert len(shelf.connections) == 2
        web.close()


def test_there_are_no_more_connections_than_allowed() -> None:
    with serving({"/x": b"content"}) as shelf:
        connections = Connections(replace(QUICK, connections=2))
        url = parse_url(shelf.url("/x"))
        taken = [connections.take(url) for _ in range(2)]
        got: list[object] = []
        waiting = threading.Thread(target=lambda: got.append(connections.take(url)))
        waiting.start()
        waiting.join(0.05)
        assert got == []
        connections.give_back(taken[0], usable=False)
        waiting.join(5)
        assert len(got) == 1


def test_closing_ends_the_wait_of_another_thread() -> None:
    with serving({}, lambda handler: handler.shelf.over.wait(10)) as shelf:
        web = Web(QUICK)
        errors: list[BaseException] = []

        def ask() -> None:
            try:
                web.ask("GET", parse_url(shelf.url("/x")))
            except StorageError as error:
                errors.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        while not shelf.asked:
            thread.join(0.005)
        web.close()
        thread.join(5)
        assert len(errors) == 1
        with pytest.raises(StorageError, match="closed on this side"):
            web.ask("GET", parse_url(shelf.url("/x")))


def test_nobody_listening_is_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(InterruptedTransferError, match="cannot be reached: connection refused"):
        Web(QUICK).ask("GET", parse_url(f"http://127.0.0.1:{port}/x"))


def test_a_server_that_accepts_and_says_nothing_is_given_up() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        pytest.raises(InterruptedTransferError, match="too slow, or silent"),
    ):
        Web(IMPATIENT).ask("GET", parse_url(f"http://127.0.0.1:{mute.getsockname()[1]}/x"))


def test_a_handshake_that_trickles_is_given_up_like_a_silent_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def trickle() -> None:
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                connection.sendall(b"\x16\x03\x03\x40\x00")  # the head of a record of 16,384 bytes
                connection.settimeout(0.02)
                while True:
                    connection.send(b"x")
                    with suppress(TimeoutError):
                        if connection.recv(4096) == b"":
                            return

        thread = threading.Thread(target=trickle)
        thread.start()
        with pytest.raises(InterruptedTransferError, match="too slow, or silent"):
            Web(IMPATIENT).ask("GET", parse_url(f"https://127.0.0.1:{listening.getsockname()[1]}/x"))
        thread.join()


@contextmanager
def _proxy(target: tuple[str, int]) -> Iterator[tuple[int, list[bytes]]]:
    """Tunnels everything to `target`; keeps what it was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def pump(source: socket.socket, sink: socket.socket) -> None:
            while data := source.recv(65536):
                sink.sendall(data)

        def run() -> None:
            client, _ = listening.accept()
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            asked.append(head)
            server = socket.create_connection(target)
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            threading.Thread(target=pump, args=(server, client), daemon=True).start()
            pump(client, server)

        threading.Thread(target=run, daemon=True).start()
        yield listening.getsockname()[1], asked


def test_a_proxy_of_the_environment_sees_a_tunnel_and_its_own_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = _certificate(tmp_path, name="store.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    with serving({"/x": b"content"}, tls=tls) as shelf:
        port = int(shelf.base.rpartition(":")[2])
        with _proxy(("127.0.0.1", port)) as (proxy, asked):
            monkeypatch.setenv("https_proxy", f"http://user:p%40ss@127.0.0.1:{proxy}")
            monkeypatch.delenv("no_proxy", raising=False)
            web = Web(QUICK)
            with web.ask("GET", parse_url("https://store.example/x")) as answer:
                assert answer.read(100) == b"content"
            web.close()
    assert asked[0].startswith(b"CONNECT store.example:443 ")
    assert b"Proxy-Authorization: Basic dXNlcjpwQHNz" in asked[0]
    assert b"/x" not in asked[0]
