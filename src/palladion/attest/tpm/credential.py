"""Enrolment: that a signing key lies in the TPM whose maker certified its endorsement key (Part 1, §24).

The one who enrols encrypts a secret to the endorsement key, bound to the name of the signing key; only a TPM that holds
both gives it back. Then the signing key is trusted by itself. No TPM is needed on this side.
"""

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from palladion.attest.chains import refuse, verify_chain
from palladion.attest.roots import Roots
from palladion.attest.tpm.structures import SigningKey, is_key, parse_signing_key

SECRET_BYTES = 32
_RSA_BITS = (2048, 3072, 4096)
_AES_BITS = 128
_ENDORSEMENT_KEY = "2.23.133.8.1"  # tcg-kp-EKCertificate


@dataclass(frozen=True)
class Challenge:
    """What a TPM is asked to give back: a TPM2B_ID_OBJECT, a TPM2B_ENCRYPTED_SECRET, and what is expected."""

    credential: bytes
    encrypted_seed: bytes
    key: SigningKey
    secret: bytes = field(repr=False)


def challenge(endorsement: Sequence[bytes], signing_key: bytes, *, at: datetime, roots: Roots) -> Challenge:
    """A challenge to the TPM of the endorsement certificate (DER, leaf first) to show that it holds `signing_key`.

    `signing_key` is a TPMT_PUBLIC. Raises AttestationError unless the chain ends in a root of kind tpm and the key can
    only sign what a TPM has made.
    """
    key = parse_signing_key(signing_key)
    makers = [anchor for anchor in roots.of("tpm") if not is_key(anchor)]
    path = verify_chain(endorsement, roots=makers, at=at, intermediates=roots.between("tpm"))
    # whoever has a server's certificate of the same maker could decrypt the secret with no TPM at all
    if path[0].authority or _ENDORSEMENT_KEY not in path[0].purposes:
        refuse("chain", "the certificate is not that of a TPM's endorsement key")
    try:
        public = load_der_public_key(path[0].public_key)
    except (UnsupportedAlgorithm, ValueError):
        public = None
    if not isinstance(public, rsa.RSAPublicKey) or public.key_size not in _RSA_BITS:
        refuse("feature", "the endorsement key is not of RSA with 2048 to 4096 bits, which is enrolled here")
    secret = secrets.token_bytes(SECRET_BYTES)
    credential, seed = make_credential(public, key.name, secret)
    return Challenge(credential, seed, key, secret)


def accept(asked: Challenge, answer: bytes) -> bytes:
    """The SubjectPublicKeyInfo of the enrolled key, to be trusted as a root. Raises AttestationError."""
    if not hmac.compare_digest(asked.secret, answer):
        refuse("binding", "the TPM does not hold the key that it was to be enrolled with")
    return asked.key.spki


def make_credential(endorsement: rsa.RSAPublicKey, name: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """TPM2_MakeCredential in software, for the template that makers certify: AES-128-CFB and SHA-256."""
    seed = secrets.token_bytes(32)
    oaep = padding.OAEP(padding.MGF1(SHA256()), SHA256(), b"IDENTITY\0")
    cipher = Cipher(algorithms.AES(_kdf(seed, "STORAGE", name, _AES_BITS)), CFB(bytes(16))).encryptor()
    encrypted = cipher.update(_sized(secret)) + cipher.finalize()
    outer = hmac.digest(_kdf(seed, "INTEGRITY", b"", 256), encrypted + name, sha256)
    return _sized(_sized(outer) + encrypted), _sized(endorsement.encrypt(seed, oaep))


def _kdf(seed: bytes, label: str, context: bytes, bits: int) -> bytes:
    """KDFa (Part 1, §11.4.10.2), one block of HMAC-SHA-256."""
    message = (1).to_bytes(4, "big") + label.encode() + b"\0" + context + bits.to_bytes(4, "big")
    return hmac.digest(seed, message, sha256)[: bits // 8]


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data
