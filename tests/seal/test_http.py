"""One bounded request: what it sends, what it takes, and when it gives up. Servers are on loopback."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from palladion.errors import PalladionError, StorageError
from palladion.seal import http
from palladion.seal.http import exchange, split_url

Peer = Callable[[socket.socket], object]


@contextmanager
def _served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def _raw(peer: Peer, *, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that does with its one connection whatever `peer` says."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with suppress(ssl.SSLError):
                wrapped = context.wrap_socket(connection, server_side=True) if context else connection
                with wrapped:
                    wrapped.recv(65536)
                    peer(wrapped)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http{'s' if context else ''}://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            thread.join()


class Echo(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(f"GET {self.path} {self.headers['Accept-Encoding']}".encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(f"POST {self.headers['Content-Type']} ".encode() + body)

    def _answer(self, body: bytes) -> None:
        status = {"/moved": 302, "/gone": 404}.get(self.path, 200)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's context for 127.0.0.1, and the certificate to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    # the TLS library looks at the machine's clock
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    certificate = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    pem, private = tmp_path / "certificate", tmp_path / "key"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, private)
    return context, pem


def _body(url: str, body: bytes | None = None, *, seconds: float = 20) -> bytes:
    with exchange(url, body=body, content_type="a/b" if body else "", seconds=seconds) as answer:
        return b"".join(answer.pieces)


def _trickle(connection: socket.socket, head: bytes) -> None:
    """A byte now and then, for as long as the other end holds: no single wait is long."""
    try:
        connection.sendall(head)
        while connection.send(b"x"):
            if _hung_up(connection):
                return
    except OSError:
        return


def _waited(connection: socket.socket) -> bool:
    connection.settimeout(20)
    return connection.recv(1) == b""


def _hung_up(connection: socket.socket) -> bool:
    connection.settimeout(0.05)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False


def test_get_and_post_carry_what_they_should() -> None:
    with _served(Echo) as address:
        assert _body(f"{address}/a/b?c=d") == b"GET /a/b?c=d identity"
        assert _body(address) == b"GET / identity"
        assert _body(address, b"question") == b"POST a/b question"


def test_other_statuses_are_the_callers_business_and_redirects_are_not_followed() -> None:
    with _served(Echo) as address:
        for path, status in (("/moved", 302), ("/gone", 404)):
            with exchange(address + path, seconds=20) as answer:
                assert answer.status == status


def test_an_answer_without_end_is_read_piece_by_piece_and_left() -> None:
    def endless(connection: socket.socket) -> None:
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                connection.sendall(bytes(65536))
        except OSError:
            return

    read = 0
    with _raw(endless) as address, exchange(address, seconds=20) as answer:
        for piece in answer.pieces:
            read += len(piece)
            if read > 1_000_000:
                break
    assert read < 4_000_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"], ids=["header", "body"]
)
def test_a_server_that_trickles_is_left_when_the_time_is_up(head: bytes) -> None:
    with _raw(lambda connection: _trickle(connection, head)) as address, pytest.raises(StorageError, match="too slow"):
        _body(address, seconds=0.3)


@pytest.mark.slow
def test_a_server_that_says_nothing_is_left_when_the_time_is_up() -> None:
    with _raw(_waited) as address, pytest.raises(StorageError):
        _body(address, seconds=0.2)


def test_https_asks_for_a_certificate_that_the_machine_trusts(
    tls: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with _raw(answer, context=tls[0]) as address, pytest.raises(StorageError, match="certificate verify failed"):
        _body(address)
    monkeypatch.setenv("SSL_CERT_FILE", str(tls[1]))
    with _raw(answer, context=tls[0]) as address:
        assert _body(address) == b"ok"


@pytest.mark.slow
def test_a_tls_server_that_trickles_is_left_too_and_no_ciphertext_passes_for_an_answer(
    tls: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls[1]))
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"
    read: list[bytes] = []
    with (
        _raw(lambda connection: _trickle(connection, head), context=tls[0]) as address,
        exchange(address, seconds=0.3) as answer,
        pytest.raises(StorageError, match="too slow"),
    ):
        read.extend(answer.pieces)
    assert set(b"".join(read)) <= {ord("x")}


@pytest.mark.slow
def test_every_so_many_bytes_buy_a_second_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large file may take longer than the base time, as long as it keeps coming."""
    monkeypatch.setattr(http, "BYTES_PER_SECOND_MIN", 10)

    def steady(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n")
        for _ in range(10):
            connection.sendall(b"four")
            _hung_up(connection)  # waits 50 ms

    with _raw(steady) as address:
        assert _body(address, seconds=0.2) == b"four" * 10


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nsh",
        b"what?\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"",
    ],
    ids=["short", "chunk cut off", "no HTTP", "too many headers", "nothing"],
)
def test_a_broken_answer_is_no_answer(answer: bytes) -> None:
    with _raw(lambda connection: connection.sendall(answer)) as address, pytest.raises(StorageError):
        _body(address)


def test_nobody_there_is_said_without_the_path() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(StorageError, match=r"127\.0\.0\.1 gives no whole answer") as caught:
        _body(f"http://127.0.0.1:{port}/path?token=secret")
    assert "secret" not in str(caught.value)


def test_an_error_of_the_reader_stays_what_it_is() -> None:
    def write() -> None:
        raise OSError(28, "no space left on device")

    with _served(Echo) as address, pytest.raises(OSError, match="no space") as caught, exchange(address):
        write()
    assert not isinstance(caught.value, PalladionError)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://host/x", "https://", "//host/x", "host/x", "http://user:secret@host/",
        "http://host:0/", "http://host:99999/", "http://host/a b", "http://host/\r\nX: y", "http://höst/", "",
    ],
)  # fmt: skip
def test_only_plain_addresses_are_asked(url: str) -> None:
    with pytest.raises(PalladionError, match="not a plain http") as caught:
        split_url(url)
    assert "secret" not in str(caught.value)
