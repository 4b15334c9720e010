"""Time stamps (RFC 3161): signed by an authority whose certificates were valid at that time, over our manifest.

The order of the certificates in a token does not matter here, as it does to readers that insist on DER's order of sets.
Whether a certificate was revoked is not looked up.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from .chain import BROKEN, root_of
from .findings import DossierError

REPLY_BYTES_MAX = 64 * 1024  # with the authority's whole chain 3 to 8 KiB
EMBEDDED_MAX = 16  # certificates in a token: a chain has two to four
SIGNED_DATA, TIME_STAMP, CONTENT_TYPE, MESSAGE_DIGEST = (
    bytes.fromhex(oid)
    for oid in ("2a864886f70d010702", "2a864886f70d0109100104", "2a864886f70d010903", "2a864886f70d010904")
)
SIGNING_CERTIFICATE = {
    bytes.fromhex("2a864886f70d010910020c"): "sha1",
    bytes.fromhex("2a864886f70d010910022f"): "sha256",
}
PSS = bytes.fromhex("2a864886f70d01010a")
DIGESTS: dict[bytes, tuple[str, hashes.HashAlgorithm]] = {
    bytes.fromhex("608648016503040201"): ("sha256", hashes.SHA256()),
    bytes.fromhex("608648016503040202"): ("sha384", hashes.SHA384()),
    bytes.fromhex("608648016503040203"): ("sha512", hashes.SHA512()),
}


@dataclass(frozen=True)
class Der:
    """One element of DER: its tag, all of its bytes, and its content."""

    tag: int
    raw: bytes
    content: bytes

    def parts(self) -> list["Der"]:
        """The elements that its content is made of."""
        found, data, start = [], self.content, 0
        while start < len(data):
            if len(data) < start + 2:
                raise DossierError("a time stamp is cut")
            length, head = data[start + 1], start + 2
            if length & 0x80:
                octets = length & 0x7F
                length = int.from_bytes(data[head : head + octets], "big") if 0 < octets <= 4 else len(data) + 1
                head += octets
            end = head + length
            if len(data) < end:
                raise DossierError("a time stamp is cut")
            found.append(Der(data[start], data[start:end], data[head:end]))
            start = end
        return found


@dataclass(frozen=True)
class Stamped:
    """What a time stamp says: when, by which authority, under which root, and the number used once of its request."""

    time: datetime
    authority: str
    root: str
    nonce: int | None


def check_stamp(reply: bytes, message: bytes, roots: Sequence[x509.Certificate]) -> Stamped:
    """The time stamp over `message` in an authority's reply (RFC 3161). Raises DossierError.

    The order of its certificates does not matter. They have to be valid at the stamped time, not now.
    """
    if len(reply) > REPLY_BYTES_MAX:
        raise DossierError(f"a time stamp has {len(reply)} bytes, at most {REPLY_BYTES_MAX} are read")
    try:
        return _stamp(reply, message, roots)
    except BROKEN as error:
        raise DossierError(f"a time stamp is not one that can be read: {type(error).__name__} {error}") from None


def _stamp(reply: bytes, message: bytes, roots: Sequence[x509.Certificate]) -> Stamped:
    # the reply: status, and the token, which is CMS SignedData (RFC 5652 §5) of a TSTInfo
    (response,) = Der(0, b"", reply).parts()
    status, *token = response.parts()
    if int.from_bytes(status.parts()[0].content, "big") > 1 or len(token) != 1:
        raise DossierError("a time stamp is a refusal of the authority")
    oid, explicit = token[0].parts()
    (signed,) = explicit.parts()
    _, _, encapsulated, *optional, signers = signed.parts()
    content_type, content = encapsulated.parts()
    if oid.content != SIGNED_DATA or content_type.content != TIME_STAMP or len(signers.parts()) != 1:
        raise DossierError("a time stamp is not signed data of one signer")
    told = content.parts()[0].content
    # what was stamped: the manifest's digest
    info = Der(0, b"", told).parts()[0].parts()
    algorithm, imprint = info[2].parts()
    if hashlib.new(DIGESTS[algorithm.parts()[0].content][0], message).digest() != imprint.content:
        raise DossierError("a time stamp is over something else than this manifest")
    time = datetime.strptime(info[4].content.decode("ascii")[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    nonce = next((int.from_bytes(item.content, "big") for item in info[5:] if item.tag == 0x02), None)
    certificates = [item.raw for part in optional if part.tag == 0xA0 for item in part.parts()]
    if len(certificates) > EMBEDDED_MAX:
        raise DossierError(f"a time stamp has {len(certificates)} certificates, at most {EMBEDDED_MAX} are read")
    embedded = [x509.load_der_x509_certificate(item) for item in certificates]
    signer = _signer(signers.parts()[0], told, embedded)
    root = root_of(signer, embedded, roots, time)
    return Stamped(time, signer.subject.rfc4514_string(), root.fingerprint(hashes.SHA256()).hex(), nonce)


def _signer(signer_info: Der, told: bytes, embedded: Sequence[x509.Certificate]) -> x509.Certificate:
    """The certificate whose key signed: the one that the signed attributes name by its digest (RFC 5035)."""
    _, _, digest_algorithm, attributes, signature_algorithm, signature, *_ = signer_info.parts()
    name, algorithm = DIGESTS[digest_algorithm.parts()[0].content]
    values = {part.parts()[0].content: part.parts()[1].parts()[0] for part in attributes.parts()}
    if values[CONTENT_TYPE].content != TIME_STAMP or values[MESSAGE_DIGEST].content != hashlib.new(name, told).digest():
        raise DossierError("a time stamp was changed: its signature is over something else")
    oid, implied = next((oid, name) for oid, name in reversed(SIGNING_CERTIFICATE.items()) if oid in values)
    certificate_id = values[oid].parts()[0].parts()[0].parts()
    if certificate_id[0].tag == 0x30:  # another digest than the implied one is named
        implied = DIGESTS[certificate_id.pop(0).parts()[0].content][0]
    (certificate,) = [
        item
        for item in embedded
        if hashlib.new(implied, item.public_bytes(Encoding.DER)).digest() == certificate_id[0].content
    ]
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    if not usage.critical or list(usage.value) != [ExtendedKeyUsageOID.TIME_STAMPING]:
        raise DossierError("a time stamp is signed by a certificate that is not for time stamps alone")
    message = b"\x31" + attributes.raw[1:]  # what is signed is the SET, not the [0] that stands for it (RFC 5652 §5.4)
    key = certificate.public_key()
    try:
        if isinstance(key, rsa.RSAPublicKey) and signature_algorithm.parts()[0].content != PSS:
            key.verify(signature.content, message, padding.PKCS1v15(), algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature.content, message, ec.ECDSA(algorithm))
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature.content, message)
        else:
            raise DossierError("a time stamp has a signature of a kind that is not known here: use openssl ts -verify")
    except InvalidSignature:
        raise DossierError("a time stamp was changed: its signature does not hold") from None
    return certificate
