"""Wrapping to a key that a quantum computer does not break either: HPKE with MLKEM768-X25519 (docs/format.md §7).

Whoever records a sealed file today and wants to open it in twenty years has to break ML-KEM-768 and X25519 both. The
KEM is 0x647a of draft-ietf-hpke-pq, also known as X-Wing; the private key is its seed of 32 bytes.
"""

import secrets
from dataclasses import dataclass
from hashlib import sha256, shake_256
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from palladion.errors import FormatError, KeysError
from palladion.keys import Wrap
from palladion.seal.bech32 import decode_key, encode_key

KIND = "mlkem768-x25519"
PUBLIC_KEY_BYTES = 1216
SEED_BYTES = 32
RECIPIENT_TEXT = "pallr1h"  # how a recipient's text begins
IDENTITY_TEXT = "PALLADION-IDENTITY-MLKEM768X25519-1"  # how an identity's text begins
_MLKEM_BYTES = 1184
_MLKEM_SEED_BYTES = 64
_RECIPIENT_PREFIX = "pallr"
_HYBRID = "h"
_IDENTITY_PREFIX = "palladion-identity-mlkem768x25519-"
# Exactly what these keys take; what the checksum is still worth stands in bech32.py. Of an identity's 93 characters,
# 35 are the prefix, which is compared whole, so any four wrong ones among the others are found as in a short text.
_RECIPIENT_CHARACTERS = 1959
_IDENTITY_CHARACTERS = 93
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


@dataclass(frozen=True)
class HybridRecipient:
    """The public side of a hybrid identity: wraps to whoever has it. `str()` gives its text form, `pallr1h…`.

    Raises ValueError on bytes that are no such public key.
    """

    public_key: bytes

    kind = KIND

    def __post_init__(self) -> None:
        # lengths, and that the ML-KEM half is encoded in the one allowed way (FIPS 203 §7.2)
        _, x25519 = self._halves
        # RFC 7748 §6.1: a half of low order adds nothing, and the key would be no hybrid
        X25519PrivateKey.generate().exchange(x25519)

    @property
    def key_id(self) -> str:
        """16 hex digits of a hash of the public key."""
        return sha256(b"palladion/v1/mlkem768-x25519" + self.public_key).hexdigest()[:16]

    def __str__(self) -> str:
        return encode_key(_RECIPIENT_PREFIX, self.public_key, tag=_HYBRID)

    def __repr__(self) -> str:
        return f"<HybridRecipient {self.key_id}>"

    def wrap(self, secret: bytes, context: bytes) -> Wrap:
        """Encrypt `secret`, bound to `context`: HPKE base mode with the context as `info`."""
        blob = _SUITE.encrypt(secret, MLKEM768X25519PublicKey(*self._halves), info=context)
        return Wrap(KIND, self.key_id, {}, blob)

    @property
    def _halves(self) -> tuple[MLKEM768PublicKey, X25519PublicKey]:
        return (
            MLKEM768PublicKey.from_public_bytes(self.public_key[:_MLKEM_BYTES]),
            X25519PublicKey.from_public_bytes(self.public_key[_MLKEM_BYTES:]),
        )


class HybridIdentity:
    """A hybrid private key in this process's memory. It prints a short name of its public side only."""

    __slots__ = ("_key", "_seed", "recipient")  # no __dict__: a tool that prints all fields would print the seed

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise ValueError(f"a seed of {len(seed)} bytes, expected {SEED_BYTES}")
        # draft-irtf-cfrg-concrete-hybrid-kems: both private keys come from one seed
        expanded = shake_256(seed).digest(_MLKEM_SEED_BYTES + 32)
        mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:_MLKEM_SEED_BYTES])
        x25519 = X25519PrivateKey.from_private_bytes(expanded[_MLKEM_SEED_BYTES:])
        self._seed = seed
        self._key = MLKEM768X25519PrivateKey(mlkem, x25519)
        self.recipient = HybridRecipient(mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> Self:
        """A fresh one."""
        return cls(secrets.token_bytes(SEED_BYTES))

    def __repr__(self) -> str:
        return f"<HybridIdentity {self.recipient.key_id}>"

    def unwrap(self, wrap: Wrap, context: bytes) -> bytes | None:
        """The secret, or None if the wrap is for another key. Raises KeysError if it does not open."""
        if (wrap.kind, wrap.key_id) != (KIND, self.recipient.key_id):
            return None
        if wrap.parameters:
            raise FormatError(f"an {KIND} wrap has parameters, and none are defined")
        try:
            return _SUITE.decrypt(wrap.blob, self._key, info=context)
        except (InvalidTag, ValueError):
            raise KeysError(
                f"the wrap for {self.recipient.key_id} does not open: it is damaged, or moved here from another file"
            ) from None

    def unsafe_text(self) -> str:
        """The private key as text, `PALLADION-IDENTITY-MLKEM768X25519-1…`; for its file, and never to be printed."""
        return encode_key(_IDENTITY_PREFIX, self._seed).upper()


def parse_hybrid_recipient(text: str) -> HybridRecipient:
    """The recipient of a text `pallr1h…`. Raises FormatError."""
    public_key = decode_key(
        text,
        _RECIPIENT_PREFIX,
        tag=_HYBRID,
        key_bytes=PUBLIC_KEY_BYTES,
        characters_max=_RECIPIENT_CHARACTERS,
        what="the recipient",
    )
    try:
        return HybridRecipient(public_key)
    except ValueError:
        raise FormatError(
            "the recipient's key is none that anything can be sealed to: a half of it is not a key, or has low order"
        ) from None


def parse_hybrid_identity(text: str, *, what: str) -> HybridIdentity:
    """The identity of an `unsafe_text`. Raises FormatError, naming `what` and never quoting the text."""
    return HybridIdentity(
        decode_key(text, _IDENTITY_PREFIX, key_bytes=SEED_BYTES, characters_max=_IDENTITY_CHARACTERS, what=what)
    )
