"""The signatures that hardware and its vendors make: which ones are accepted, and whether one holds."""

from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from palladion.attest import der

RSA_BITS_MIN, RSA_BITS_MAX = 2048, 8192  # AMD signs with 4096, makers of TPMs with 2048 to 4096
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_HASHES: dict[str, type[HashAlgorithm]] = {
    "2.16.840.1.101.3.4.2.1": SHA256,
    "2.16.840.1.101.3.4.2.2": SHA384,
    "2.16.840.1.101.3.4.2.3": SHA512,
}
_ECDSA: dict[str, type[HashAlgorithm]] = {
    "1.2.840.10045.4.3.2": SHA256,
    "1.2.840.10045.4.3.3": SHA384,
    "1.2.840.10045.4.3.4": SHA512,
}
_PKCS1: dict[str, type[HashAlgorithm]] = {
    "1.2.840.113549.1.1.11": SHA256,
    "1.2.840.113549.1.1.12": SHA384,
    "1.2.840.113549.1.1.13": SHA512,
}
_PSS, _MGF1 = "1.2.840.113549.1.1.10", "1.2.840.113549.1.1.8"


@dataclass(frozen=True)
class Scheme:
    """How a signature was made: `padding` is empty for ECDSA, else pkcs1 or pss."""

    hash: type[HashAlgorithm]
    padding: str = ""


def scheme_of(algorithm: der.Node, *, what: str) -> Scheme:
    """The scheme of an AlgorithmIdentifier. Raises FormatError for any that is weak, odd or unknown."""
    name, *parameters = der.children(algorithm, der.SEQUENCE, what=what) or [der.Node(der.NULL, b"", b"")]
    identifier = der.oid(name, what=what)
    if identifier in _ECDSA and not parameters:
        return Scheme(_ECDSA[identifier])
    if identifier in _PKCS1 and [node.raw for node in parameters] == [b"\x05\x00"]:
        return Scheme(_PKCS1[identifier], "pkcs1")
    if identifier != _PSS or len(parameters) != 1:
        der.refuse(what, f"signed in a way that is not accepted, {identifier}")
    return Scheme(_pss_hash(parameters[0], what), "pss")


def holds(scheme: Scheme, public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` over `message` is of the key, a SubjectPublicKeyInfo in DER. False for a weak or odd key."""
    try:
        key = load_der_public_key(public_key)
        if isinstance(key, ec.EllipticCurvePublicKey):
            if scheme.padding or key.curve.name not in _CURVES:
                return False
            key.verify(signature, message, ec.ECDSA(scheme.hash()))
        elif isinstance(key, rsa.RSAPublicKey):
            if not scheme.padding or not RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
                return False
            chosen = scheme.hash()
            pad = (
                padding.PSS(padding.MGF1(chosen), chosen.digest_size) if scheme.padding == "pss" else padding.PKCS1v15()
            )
            key.verify(signature, message, pad, chosen)
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def ecdsa_der(r: bytes, s: bytes) -> bytes:
    """The two numbers of an ECDSA signature, big-endian, as `holds` takes them."""
    return encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))


def _pss_hash(parameters: der.Node, what: str) -> type[HashAlgorithm]:
    """The hash of RSASSA-PSS parameters (RFC 4055 §3.1): the mask's the same, and the salt as long."""
    fields = {node.tag: der.read(node.content, what=what) for node in der.children(parameters, der.SEQUENCE, what=what)}
    if set(fields) not in ({0xA0, 0xA1, 0xA2}, {0xA0, 0xA1, 0xA2, 0xA3}):
        der.refuse(what, "RSASSA-PSS with defaults, which mean SHA-1")
    chosen = _hash(fields[0xA0], what)
    mask = der.children(fields[0xA1], der.SEQUENCE, what=what)
    if len(mask) != 2 or der.oid(mask[0], what=what) != _MGF1 or _hash(mask[1], what) is not chosen:
        der.refuse(what, "RSASSA-PSS with another mask")
    if der.integer(fields[0xA2], what=what) != chosen().digest_size:
        der.refuse(what, "RSASSA-PSS with a salt of another length")
    if 0xA3 in fields and der.integer(fields[0xA3], what=what) != 1:
        der.refuse(what, "RSASSA-PSS with another trailer")
    return chosen


def _hash(node: der.Node, what: str) -> type[HashAlgorithm]:
    parts = der.children(node, der.SEQUENCE, what=what)
    identifier = der.oid(parts[0], what=what) if parts else ""
    if identifier not in _HASHES or [part.raw for part in parts[1:]] not in ([], [b"\x05\x00"]):
        der.refuse(what, "a hash that is not accepted")
    return _HASHES[identifier]
