"""The way from a time stamp's signer up to a root, as RFC 5280 §6.1 has it, at the time that was stamped.

Checked of every certificate: who signed it, when it was valid, and that no critical extension is unknown here. Of every
one that issued another: that it may (basic constraints, key usage), below how many (path length), and that its extended
key usage, where there is one, allows time stamps. Not checked: revocation, name constraints and policies; a certificate
in which one of these two is critical is refused. Every certificate is looked at once, and signatures are counted, so
that no token takes long.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from .findings import DossierError

# what reading hostile bytes raises: here, or in the library that reads certificates
BROKEN = (
    ValueError,
    IndexError,
    KeyError,
    StopIteration,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
Kind = TypeVar("Kind", bound=x509.ExtensionType)

CHAIN_MAX = 8  # certificates from a time stamp's signer up to its root
SIGNATURES_MAX = 64  # that are tried for one time stamp: many certificates can have one name
_UNDERSTOOD = frozenset({ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE})
_STAMPING = frozenset({ExtendedKeyUsageOID.TIME_STAMPING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE})


def read_roots(pem: bytes) -> list[x509.Certificate]:
    """The certificates in PEM text, at least one. Raises DossierError."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except BROKEN as error:
        raise DossierError(f"the roots cannot be read: {error}") from None


def root_of(
    signer: x509.Certificate,
    embedded: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    moment: datetime,
) -> x509.Certificate:
    """The root that vouches for a signer at `moment`. Raises DossierError.

    `embedded` are certificates that came along, which are trusted for nothing.
    """
    signatures = 0
    if _valid(signer, moment) and _may_sign(signer):
        seen, reached = {signer}, [(signer, 0)]  # certificates, and how many issuers are between each and the signer
        for certificate, between in reached:
            if certificate in roots:
                return certificate
            for issuer in [*embedded, *roots] if between < CHAIN_MAX else ():
                if issuer in seen or issuer.subject != certificate.issuer:
                    continue
                signatures += 1
                if signatures > SIGNATURES_MAX:
                    raise DossierError("a time stamp's certificates lead too many ways: use openssl ts -verify")
                if _valid(issuer, moment) and _may_issue(issuer, between) and _issued(certificate, issuer):
                    seen.add(issuer)
                    # one that was issued under its own name, for a new key, does not count (RFC 5280 §4.2.1.9)
                    reached.append((issuer, between + (issuer.issuer != issuer.subject)))
    raise DossierError("a time stamp's signer leads to none of the roots, or was not valid at that time")


def _valid(certificate: x509.Certificate, moment: datetime) -> bool:
    return certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc


def _may_sign(certificate: x509.Certificate) -> bool:
    """Whether its key may sign; that it is for time stamps alone was checked before."""
    usage = _extension(certificate, x509.KeyUsage)
    return _understood(certificate) and (usage is None or usage.digital_signature or usage.content_commitment)


def _may_issue(issuer: x509.Certificate, between: int) -> bool:
    try:
        limits = _extension(issuer, x509.BasicConstraints)
        usage, purposes = _extension(issuer, x509.KeyUsage), _extension(issuer, x509.ExtendedKeyUsage)
        return (
            limits is not None
            and limits.ca
            and (limits.path_length is None or between <= limits.path_length)
            and (usage is None or usage.key_cert_sign)
            and (purposes is None or not _STAMPING.isdisjoint(purposes))
            and _understood(issuer)
        )
    except BROKEN:
        return False


def _understood(certificate: x509.Certificate) -> bool:
    return all(not item.critical or item.oid in _UNDERSTOOD for item in certificate.extensions)


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (*BROKEN, InvalidSignature):
        return False
    return True


def _extension(certificate: x509.Certificate, kind: type[Kind]) -> Kind | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
