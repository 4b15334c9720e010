"""Signatures: the few schemes that vendors use, and no weak key or parameter."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from palladion.attest import der
from palladion.attest.signature import Scheme, ecdsa_der, holds, scheme_of
from palladion.errors import FormatError
from tests.attest.synthetic import oid, tlv

MESSAGE = b"what was signed"
NULL = b"\x05\x00"
SHA1, SHA256_OID, SHA384_OID = "1.3.14.3.2.26", "2.16.840.1.101.3.4.2.1", "2.16.840.1.101.3.4.2.2"
PSS, MGF1 = "1.2.840.113549.1.1.10", "1.2.840.113549.1.1.8"


def spki(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_ecdsa_holds_for_its_key_hash_and_message_alone() -> None:
    key, other = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    signature = key.sign(MESSAGE, ec.ECDSA(SHA384()))

    assert holds(Scheme(SHA384), spki(key), signature, MESSAGE)
    assert not holds(Scheme(SHA256), spki(key), signature, MESSAGE)
    assert not holds(Scheme(SHA384), spki(other), signature, MESSAGE)
    assert not holds(Scheme(SHA384), spki(key), signature, MESSAGE + b".")
    assert not holds(Scheme(SHA384), spki(key), signature + b"\0", MESSAGE)
    assert not holds(Scheme(SHA384), spki(key), b"", MESSAGE)
    assert not holds(Scheme(SHA384), b"no key", signature, MESSAGE)
    assert not holds(Scheme(SHA384), spki(key), ecdsa_der(b"\0", b"\0"), MESSAGE)
    assert not holds(Scheme(SHA384, "pss"), spki(key), signature, MESSAGE)


def test_weak_and_odd_keys_hold_nothing() -> None:
    short = rsa.generate_private_key(65537, 1024)
    odd = ec.generate_private_key(ec.SECP256K1())
    edwards = ed25519.Ed25519PrivateKey.generate()

    assert not holds(Scheme(SHA256, "pkcs1"), spki(short), short.sign(MESSAGE, padding.PKCS1v15(), SHA256()), MESSAGE)
    assert not holds(Scheme(SHA256), spki(odd), odd.sign(MESSAGE, ec.ECDSA(SHA256())), MESSAGE)
    assert not holds(Scheme(SHA256), spki(edwards), edwards.sign(MESSAGE), MESSAGE)


def test_rsa_holds_in_the_stated_padding_alone() -> None:
    key = rsa.generate_private_key(65537, 2048)
    plain = key.sign(MESSAGE, padding.PKCS1v15(), SHA256())
    pss = key.sign(MESSAGE, padding.PSS(padding.MGF1(SHA384()), 48), SHA384())
    short_salt = key.sign(MESSAGE, padding.PSS(padding.MGF1(SHA384()), 20), SHA384())

    assert holds(Scheme(SHA256, "pkcs1"), spki(key), plain, MESSAGE)
    assert holds(Scheme(SHA384, "pss"), spki(key), pss, MESSAGE)
    assert not holds(Scheme(SHA384, "pss"), spki(key), short_salt, MESSAGE)
    assert not holds(Scheme(SHA256, "pss"), spki(key), plain, MESSAGE)
    assert not holds(Scheme(SHA256), spki(key), plain, MESSAGE)


def algorithm(identifier: str, *parameters: bytes) -> der.Node:
    return der.read(tlv(0x30, oid(identifier), *parameters), what="it")


def pss(hash_oid: str, mask: str, salt: int, *, trailer: int | None = None) -> bytes:
    parts = [
        tlv(0xA0, tlv(0x30, oid(hash_oid), NULL)),
        tlv(0xA1, tlv(0x30, oid(MGF1), tlv(0x30, oid(mask), NULL))),
        tlv(0xA2, tlv(2, bytes([salt]))),
    ]
    return tlv(0x30, *parts, *([tlv(0xA3, tlv(2, bytes([trailer])))] if trailer is not None else []))


def test_schemes_are_read() -> None:
    assert scheme_of(algorithm("1.2.840.10045.4.3.3"), what="it") == Scheme(SHA384)
    assert scheme_of(algorithm("1.2.840.113549.1.1.11", NULL), what="it") == Scheme(SHA256, "pkcs1")
    assert scheme_of(algorithm(PSS, pss(SHA384_OID, SHA384_OID, 48)), what="it") == Scheme(SHA384, "pss")
    assert scheme_of(algorithm(PSS, pss(SHA384_OID, SHA384_OID, 48, trailer=1)), what="it") == Scheme(SHA384, "pss")


@pytest.mark.parametrize(
    "node",
    [
        algorithm("1.2.840.113549.1.1.5", NULL),
        algorithm("1.2.840.10045.4.1"),
        algorithm("1.2.840.10045.4.3.2", NULL),
        algorithm("1.2.840.113549.1.1.11"),
        algorithm(PSS),
        algorithm(PSS, tlv(0x30)),
        algorithm(PSS, pss(SHA1, SHA1, 20)),
        algorithm(PSS, pss(SHA384_OID, SHA256_OID, 48)),
        algorithm(PSS, pss(SHA384_OID, SHA384_OID, 20)),
        algorithm(PSS, pss(SHA384_OID, SHA384_OID, 48, trailer=2)),
        der.Node(0x30, b"", b""),
        der.Node(0x31, b"", b""),
    ],
    ids=["SHA-1", "ECDSA SHA-1", "ECDSA with parameters", "PKCS1 without", "PSS without", "PSS defaults", "PSS SHA-1",
         "other mask", "short salt", "trailer", "empty", "no sequence"],
)  # fmt: skip
def test_weak_and_odd_schemes_are_refused(node: der.Node) -> None:
    with pytest.raises(FormatError):
        scheme_of(node, what="it")
