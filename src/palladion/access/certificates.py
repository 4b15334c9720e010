"""Certificates of clients, once TLS has verified them: who they say it is. SPIFFE ids and X.509-SVIDs by their rules.

Pure. Source: SPIFFE-ID.md and X509-SVID.md of the SPIFFE standards.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING

from palladion.errors import FormatError

if TYPE_CHECKING:
    from cryptography import x509

SPIFFE_BYTES_MAX = 2048  # SPIFFE-ID §2.3
TRUST_DOMAIN_CHARACTERS_MAX = 255
CERTIFICATE_BYTES_MAX = 64 * 1024  # one has 1 to 2 KiB; a post-quantum signature adds up to 50
_TRUST_DOMAIN = re.compile(rf"[a-z0-9._-]{{1,{TRUST_DOMAIN_CHARACTERS_MAX}}}", re.ASCII)
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_FINGERPRINT = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class Certificate:
    """What counts of a certificate: SHA-256 of all of it in hexadecimal, its SPIFFE id if it has one, and its end."""

    fingerprint: str
    spiffe: str | None = None
    expires: datetime | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What it can be known by."""
        return (self.fingerprint,) if self.spiffe is None else (self.spiffe, self.fingerprint)


def parse_spiffe_id(text: str) -> str:
    """`text` if it is the SPIFFE id of a workload, in its one spelling. Raises ValueError.

    No percent-encoding, upper-case scheme or trust domain, user, port, query or fragment: ids are compared as text.
    """
    if len(text) > SPIFFE_BYTES_MAX or not text.isascii():
        raise ValueError(f"a SPIFFE id has at most {SPIFFE_BYTES_MAX} ASCII characters")
    scheme, separator, rest = text.partition("://")
    if scheme != "spiffe" or not separator:
        raise ValueError("a SPIFFE id begins with spiffe://")
    domain, slash, path = rest.partition("/")
    if not _TRUST_DOMAIN.fullmatch(domain):
        raise ValueError("a SPIFFE id has a trust domain of a-z, 0-9, '.', '-' and '_'")
    if not slash:
        raise ValueError("a SPIFFE id without a path names a whole trust domain, and no workload of it")
    for segment in path.split("/"):
        if not _SEGMENT.fullmatch(segment) or segment in {".", ".."}:
            raise ValueError("the path of a SPIFFE id has segments of letters, digits, '.', '-' and '_', none empty")
    return text


def parse_fingerprint(text: str) -> str:
    """The SHA-256 of a certificate in the one spelling that is compared; colons and upper case may be typed.

    Raises ValueError.
    """
    plain = text.removeprefix("sha256:").replace(":", "").lower()
    if not _FINGERPRINT.fullmatch(plain):
        raise ValueError("a fingerprint is the SHA-256 of a certificate: 64 hexadecimal digits were expected")
    return plain


def read_certificate(der: bytes) -> Certificate:
    """What a certificate says that TLS, or a proxy that is believed, has verified. Raises FormatError."""
    from cryptography import x509

    if len(der) > CERTIFICATE_BYTES_MAX:
        raise FormatError(f"a certificate of {len(der)} bytes, at most {CERTIFICATE_BYTES_MAX} were expected")
    try:
        certificate = x509.load_der_x509_certificate(der)
        extensions = certificate.extensions
        try:
            names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        except x509.ExtensionNotFound:
            uris = []
        spiffe = _workload(uris) if _is_leaf(extensions) else None
        return Certificate(sha256(der).hexdigest(), spiffe, certificate.not_valid_after_utc)
    except (ValueError, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise FormatError("a certificate that cannot be read") from None


def _workload(uris: list[str]) -> str | None:
    # X509-SVID §2: exactly one URI; with two, a reader that takes the first and one that takes the last disagree
    if len(uris) != 1:
        return None
    try:
        return parse_spiffe_id(uris[0])
    except ValueError:
        return None


def _is_leaf(extensions: "x509.Extensions") -> bool:
    """X509-SVID §4: no authority, and for signatures, but not for those of certificates."""
    from cryptography import x509

    try:
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
    except x509.ExtensionNotFound:
        pass
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return usage.digital_signature and not usage.key_cert_sign and not usage.crl_sign
