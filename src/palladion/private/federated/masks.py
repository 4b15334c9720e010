"""Keys and masks of one round: X25519 in pairs, HKDF-SHA-256 with a label for each use, AES-256 in counter mode.

In place of Flower's masks, whose seeds have 28 bits: here each mask is the key stream of a full key that is used once.
"""

from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from palladion.errors import TamperError
from palladion.private.federated.ring import Ring

_NONCE = bytes(12)  # every key is of one round, one direction and one message


@dataclass(frozen=True)
class Round:
    """What keys are bound to beside the two sites: the digest of the terms, and the round's number."""

    terms: bytes
    number: int

    def bound(self, use: str, *names: str) -> bytes:
        """The text of a use, which no other use, round, session or pair shares. Names hold no line breaks."""
        return "\n".join(["palladion/federated/v1", use, str(self.number), *names]).encode() + b"\n" + self.terms


def new_private() -> bytes:
    """A fresh X25519 private key, 32 bytes."""
    return X25519PrivateKey.generate().private_bytes_raw()


def public_of(private: bytes) -> bytes:
    """Its public key, 32 bytes."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def own_mask(seed: bytes, at: Round, site: str, size: int) -> Ring:
    """The mask (size,) of a site's own seed."""
    return _stream(_derived(seed, at.bound("own mask", site)), size)


def pair_mask(private: bytes, public: bytes, at: Round, pair: tuple[str, str], size: int) -> Ring:
    """The mask (size,) that two sites share; the first of them in order of names adds it, the other takes it off."""
    return _stream(_agreed(private, public, at.bound("pair mask", *sorted(pair))), size)


def seal_shares(private: bytes, public: bytes, at: Round, way: tuple[str, str], shares: bytes) -> bytes:
    """Shares on their `way` from sender to receiver, which the server passes on and cannot read."""
    bound = at.bound("shares", *way)
    return AESGCM(_agreed(private, public, bound)).encrypt(_NONCE, shares, bound)


def open_shares(private: bytes, public: bytes, at: Round, way: tuple[str, str], sealed: bytes) -> bytes:
    """What `seal_shares` was given. Raises TamperError naming the sender."""
    from cryptography.exceptions import InvalidTag

    bound = at.bound("shares", *way)
    try:
        return AESGCM(_agreed(private, public, bound)).decrypt(_NONCE, sealed, bound)
    except InvalidTag:
        raise TamperError(f"the shares that {way[0]} sealed for {way[1]} do not open") from None


def _agreed(private: bytes, public: bytes, bound: bytes) -> bytes:
    try:
        shared = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:  # a point of small order: everybody knows what it agrees to
        raise TamperError("a site's key is none that anybody could keep a secret with") from None
    return _derived(shared, bound)


def _derived(secret: bytes, bound: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=bound).derive(secret)


def _stream(key: bytes, size: int) -> Ring:
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(4 * size))
    return np.frombuffer(stream, dtype="<u4").astype(np.uint32, copy=False)
