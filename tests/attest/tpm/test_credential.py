"""Enrolment without a TPM: whom a challenge goes to, and which answer counts."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.hashes import SHA256

from palladion.attest.roots import Roots
from palladion.attest.tpm.credential import Challenge, accept, challenge
from palladion.attest.tpm.structures import parse_signing_key
from tests.attest.refusals import refused
from tests.attest.synthetic import ATTESTATION, ENDORSEMENT, NOW, SERVER, certify, oid, purposes, tlv
from tests.attest.tpm.vectors import QUOTES

MAKER = ec.generate_private_key(ec.SECP256R1())


ROOT = certify("a maker", MAKER, "a maker", MAKER, authority=True)


ROOTS = Roots({"tpm": (ROOT,)})


PUBLIC = bytes.fromhex(QUOTES["ecdsa"]["public"])


def endorsed(key: Any, **options: Any) -> bytes:
    """The certificate that a maker gives an endorsement key."""

    class Holder:
        @staticmethod
        def public_key() -> Any:
            return key

    holder: Any = Holder()
    options = {"extensions": purposes(ENDORSEMENT), **options}
    return certify("EK", holder, "a maker", MAKER, **options)


def with_unknown_curve(certificate: bytes) -> bytes:
    """The same certificate, with a key of a curve that nobody knows; its signature holds no more."""
    curve = oid("1.2.840.10045.3.1.7")
    assert certificate.count(curve) == 1
    return certificate.replace(curve, tlv(6, curve[2:-1] + b"\x63"))


def test_only_a_certified_endorsement_key_is_challenged() -> None:
    key = rsa.generate_private_key(65537, 2048)
    stranger = ec.generate_private_key(ec.SECP256R1())
    foreign = certify("EK", key, "a maker", stranger)
    with refused("chain"):
        challenge((foreign,), PUBLIC, at=NOW, roots=ROOTS)
    with refused("root"):
        challenge((endorsed(key.public_key()),), PUBLIC, at=NOW, roots=Roots({}))
    with refused("feature", match="RSA"):
        challenge((endorsed(stranger.public_key()),), PUBLIC, at=NOW, roots=ROOTS)
    with refused("feature", match="attests nothing"):
        loose = PUBLIC[:4] + (0x00040472).to_bytes(4, "big") + PUBLIC[8:]
        challenge((endorsed(key.public_key()),), loose, at=NOW, roots=ROOTS)


@pytest.mark.parametrize("named", [(), (SERVER,), (ATTESTATION,)], ids=["none", "server", "AK"])
def test_another_certificate_of_the_maker_is_not_challenged(named: tuple[str, ...]) -> None:
    """Whoever holds the key of a server of the maker's would decrypt the secret with no TPM."""
    key = rsa.generate_private_key(65537, 2048).public_key()
    with refused("chain", match="endorsement key"):
        challenge((endorsed(key, extensions=purposes(*named) if named else {}),), PUBLIC, at=NOW, roots=ROOTS)
    with refused("chain", match="endorsement key"):
        challenge((endorsed(key, authority=True),), PUBLIC, at=NOW, roots=ROOTS)


def test_an_endorsement_key_of_an_unknown_kind_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    data = with_unknown_curve(endorsed(key.public_key()))
    with refused("feature", match="RSA"):
        challenge((data,), PUBLIC, at=NOW, roots=Roots({"tpm": (data,)}))


def test_keys_that_were_enrolled_before_are_no_makers() -> None:
    key = rsa.generate_private_key(65537, 2048)
    enrolled = parse_signing_key(PUBLIC).spki
    asked = challenge((endorsed(key.public_key()),), PUBLIC, at=NOW, roots=Roots({"tpm": (enrolled, ROOT)}))
    # what the TPM would find in it, with the private key
    seed = key.decrypt(asked.encrypted_seed[2:], OAEP(MGF1(SHA256()), SHA256(), b"IDENTITY\0"))
    assert len(seed) == 32
    assert len(asked.credential) == 2 + 2 + 32 + 2 + 32
    assert asked.secret not in asked.credential


def test_another_answer_is_refused_and_the_secret_is_not_shown() -> None:
    asked = Challenge(b"", b"", parse_signing_key(PUBLIC), b"s" * 32)
    assert "ssss" not in repr(asked)
    with refused("binding"):
        accept(asked, b"t" * 32)
    assert accept(asked, b"s" * 32) == parse_signing_key(PUBLIC).spki
