"""The publisher's signature: text form and id of its key, and the check against pinned keys (docs/format.md §6).

Signing itself is `palladion.keys.Signer`, which may live in an HSM.
"""

from collections.abc import Sequence
from hashlib import sha256

from cryptography.exceptions import InvalidSignature

from palladion.errors import TamperError
from palladion.keys import ed25519_public_key
from palladion.seal.bech32 import decode_key, encode_key

PUBLIC_KEY_BYTES = 32
_PREFIX = "pallp"
_ED25519 = "e"


def publisher_id(public_key: bytes) -> str:
    """The short public name of a publisher's key, which a header states: 16 hex digits."""
    return sha256(b"palladion/v1/publisher" + _checked(public_key)).hexdigest()[:16]


def publisher_text(public_key: bytes) -> str:
    """The text form of a publisher's public key, `pallp1e…`: what `trust.publishers` lists."""
    return encode_key(_PREFIX, _checked(public_key), tag=_ED25519)


def parse_publisher(text: str) -> bytes:
    """The public key of a `publisher_text`. Raises FormatError."""
    key = decode_key(text, _PREFIX, tag=_ED25519, key_bytes=PUBLIC_KEY_BYTES, what="the publisher's key")
    ed25519_public_key(key, what="the publisher's key")
    return key


def verify_signature(message: bytes, signature: bytes, *, publisher: str, pinned: Sequence[bytes], what: str) -> bytes:
    """The pinned key that signed `message`. Raises TamperError, naming `what`, if none did.

    `publisher`, the id that the file states, only selects among the `pinned` keys: a key that a file brings along or
    names for itself is never trusted.
    """
    candidates = [key for key in pinned if publisher_id(key) == publisher]
    if not candidates:
        raise TamperError(
            f"{what} is signed by publisher {publisher}, who is none of the {len(pinned)} that are trusted",
            "if you expected this publisher, get its public key another way and add it to trust.publishers",
        )
    for key in candidates:
        try:
            ed25519_public_key(key, what="the publisher's key").verify(signature, message)
        except InvalidSignature:
            continue
        return key
    raise TamperError(
        f"{what} was altered: the signature of publisher {publisher} does not hold",
        "get the file again from its source",
    )


def _checked(public_key: bytes) -> bytes:
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise ValueError(f"an Ed25519 public key has {PUBLIC_KEY_BYTES} bytes, got {len(public_key)}")
    return public_key
