"""Who answered: the address of a TLS server and the certificates that it showed, as evidence of whom we asked.

What is noted was verified by TLS before, so that a name leads to a certificate; the certificates are hostile input all
the same, and everything of them that is text is cut.
"""

import ssl
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from cryptography import x509

from palladion.clock import timestamp

CHAIN_MAX = 8  # three are usual
TEXT_CHARACTERS_MAX = 200  # of a name within a certificate


@dataclass(frozen=True)
class Certificate:
    """A certificate: SHA-256 of its DER in hexadecimal, and what it says; empty where it cannot be read."""

    sha256: str
    subject: str = ""
    issuer: str = ""
    serial: str = ""
    since: str = ""
    until: str = ""


@dataclass(frozen=True)
class Server:
    """A server as a connection met it: its IP address and port, the version of TLS, and its chain, its own first.

    Python before 3.13 gives the chain by no documented call; where it does not, `certificates` has the server's alone.
    """

    address: str
    tls: str
    certificates: tuple[Certificate, ...]

    def document(self) -> dict[str, Any]:
        """As a record has it."""
        return asdict(self) | {"certificates": [asdict(certificate) for certificate in self.certificates]}


def noting_context(seen: list[Server]) -> ssl.SSLContext:
    """A context of the system's authorities whose connections put their server into `seen` after the handshake."""

    class Noting(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            seen.append(server_of(self))

    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = Noting
    return context


def server_of(connection: ssl.SSLSocket) -> Server:
    """The server at the other end of a connection whose handshake is done."""
    host, port = connection.getpeername()[:2]
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Server(address, connection.version() or "", tuple(map(described, _chain(connection)[:CHAIN_MAX])))


def described(der: bytes) -> Certificate:
    """What a certificate says."""
    digest = sha256(der).hexdigest()
    try:
        found = x509.load_der_x509_certificate(der)
        return Certificate(
            digest,
            _cut(found.subject.rfc4514_string()),
            _cut(found.issuer.rfc4514_string()),
            f"{found.serial_number:x}"[:TEXT_CHARACTERS_MAX],
            timestamp(found.not_valid_before_utc),
            timestamp(found.not_valid_after_utc),
        )
    except (ValueError, TypeError, x509.InvalidVersion):
        return Certificate(digest)


def _chain(connection: ssl.SSLSocket) -> Sequence[bytes]:
    own = connection.getpeercert(binary_form=True) or b""
    # public on the socket since 3.13, where it gives DER; before that on what the socket holds, where it gives objects
    ask = getattr(connection, "get_unverified_chain", None)
    ask = ask or getattr(getattr(connection, "_sslobj", None), "get_unverified_chain", None)
    try:
        shown = [
            item if isinstance(item, bytes) else item.public_bytes(_DER) for item in (ask() if ask else None) or ()
        ]
    except (AttributeError, TypeError, ValueError):
        shown = []
    # never another certificate than the one that TLS verified
    return shown if shown and shown[0] == own else [own]


_DER = 2  # ENCODING_DER of the module under ssl


def _cut(text: str) -> str:
    # neither control characters nor text-direction marks: it is shown to people
    return "".join(c if " " <= c <= "~" else ascii(c)[1:-1] for c in text)[:TEXT_CHARACTERS_MAX]
