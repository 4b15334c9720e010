"""Which certificates a server showed, and from where; what is in them is cut and never believed."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from palladion.lifecycle.servers import CHAIN_MAX, Server, described, noting_context, server_of
from tests.gate.certificates import Authority, Issued, address


@contextmanager
def _listening(shown: Path, key: Path) -> Iterator[int]:
    """The port of a TLS server that shows these certificates to one connection."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(shown, key)

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            try:
                context.wrap_socket(connection, server_side=True).close()
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)


def _met(
    issued: Issued, shown: Path, monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> tuple[int, list[Server]]:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    seen: list[Server] = []
    context = noting_context(seen)
    with (
        _listening(shown, issued.key) as port,
        socket.create_connection(("127.0.0.1", port), 5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        assert server_of(secure) == seen[0]
    return port, seen


def test_address_version_and_chain_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("server", [address("127.0.0.1")])
    both = tmp_path / "chain.pem"
    both.write_bytes(issued.path.read_bytes() + authority.path.read_bytes())
    port, (server,) = _met(issued, both, monkeypatch, authority)
    assert (server.address, server.tls) == (f"127.0.0.1:{port}", "TLSv1.3")
    above = x509.load_pem_x509_certificate(authority.path.read_bytes()).public_bytes(Encoding.DER)
    assert [item.sha256 for item in server.certificates] == [sha256(issued.der).hexdigest(), sha256(above).hexdigest()]
    own = server.certificates[0]
    assert (own.subject, own.issuer) == ("CN=server", "CN=authority")
    assert own.since < own.until
    assert server.document()["certificates"][0]["sha256"] == issued.fingerprint


def test_a_server_that_nobody_vouches_for_is_not_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    issued = other.issue("server", [address("127.0.0.1")])
    with pytest.raises(ssl.SSLCertVerificationError):
        _met(issued, issued.path, monkeypatch, authority)


def test_no_more_certificates_than_are_useful_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("server", [address("127.0.0.1")])
    many = tmp_path / "chain.pem"
    others = [authority.issue(f"other-{number}").path.read_bytes() for number in range(CHAIN_MAX + 3)]
    many.write_bytes(b"".join([issued.path.read_bytes(), *others]))
    _, (server,) = _met(issued, many, monkeypatch, authority)
    assert len(server.certificates) == CHAIN_MAX


@pytest.mark.parametrize("der", [b"", b"\x30", bytes(3000)])
def test_of_what_is_no_certificate_the_digest_is_kept(der: bytes) -> None:
    assert described(der).sha256 == sha256(der).hexdigest()
    assert described(der).subject == ""


def test_names_are_cut_and_have_no_control_characters(tmp_path: Path) -> None:
    issued = Authority(tmp_path, "a").issue("ü\x1b[31m" + "x" * 40)
    found = described(issued.der)
    assert found.subject.startswith("CN=\\xfc\\x1b[31m") or "\x1b" not in found.subject
    assert found.subject.isascii()
    assert found.subject.isprintable()
