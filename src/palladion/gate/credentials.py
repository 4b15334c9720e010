"""Where in a request its credential stands, whatever it is worth: one header out of two, and never both."""

from collections.abc import Mapping
from datetime import datetime

from palladion.gate.problems import Problem
from palladion.gate.requests import Peer


def read_credential(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The key or token that the headers hold; None where there is none. Raises Problem where there is half of one."""
    authorization, header = headers.get(b"authorization"), headers.get(b"x-api-key")
    if authorization is None and header is None:
        return None
    if authorization is not None and header is not None:
        raise Problem("unauthenticated", "one of Authorization and X-API-Key was expected, not both")
    if authorization is not None:
        scheme, _, value = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            raise Problem("unauthenticated", "Authorization: Bearer KEY was expected")
        header = value.strip()
    if not header:
        raise Problem("unauthenticated", "Authorization: Bearer KEY was expected")
    return header


def fingerprint_of(peer: Peer, now: datetime) -> str | None:
    """That of the certificate that the peer has shown, while it counts."""
    certificate = peer.certificate
    if certificate is None or (certificate.expires is not None and certificate.expires <= now):
        return None
    return certificate.fingerprint
