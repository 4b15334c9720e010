"""Enrolment without a TPM: whom a challenge goes to, and which answer counts."""

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.hashes import SHA256

from palladion.attest.roots import Roots
from palladion.attest.tpm.credential import Challenge, accept, challenge
from palladion.attest.tpm.structures import parse_signing_key
from tests.attest.refusals import refused
from tests.attest.synthetic import NOW, certify
from tests.attest.tpm.vectors import QUOTES

MAKER = ec.generate_private_key(ec.SECP256R1())


ROOT = certify("a maker", MAKER, "a maker", MAKER, authority=True)


ROOTS = Roots({"tpm": (ROOT,)})


PUBLIC = bytes.fromhex(QUOTES["ecdsa"]["public"])


def endorsed(key: Any) -> bytes:
    """The certificate that a maker gives an endorsement key."""

    class Holder:
        @staticmethod
        def public_key() -> Any:
            return key

    holder: Any = Holder()
    return certify("EK", holder, "a maker", MAKER)


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
