"""Wrapping to an X25519 key that lives in a file: HPKE (RFC 9180) and text forms (docs/format.md §7)."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from palladion.errors import FormatError, KeysError
from palladion.keys import Wrap
from palladion.seal.bech32 import decode_key, encode_key

KIND = "x25519"
KEY_BYTES = 32
IDENTITY_FILE_BYTES_MAX = 4096  # two comments, one with a hybrid recipient of 1,959 characters, and one line of 93
_RECIPIENT_PREFIX = "pallr"
_X25519 = "x"
_IDENTITY_PREFIX = "palladion-identity-x25519-"
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


@dataclass(frozen=True)
class FileRecipient:
    """The public side of a file identity: wraps to whoever has it. `str()` gives its text form, `pallr1x…`.

    Raises ValueError on bytes that are no X25519 public key.
    """

    public_key: bytes

    kind = KIND

    def __post_init__(self) -> None:
        # RFC 7748 §6.1: with a key of low order the shared secret is zero, and anybody could unwrap
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(self.public_key))

    @property
    def key_id(self) -> str:
        """16 hex digits of a hash of the public key."""
        return sha256(b"palladion/v1/x25519" + self.public_key).hexdigest()[:16]

    def __str__(self) -> str:
        return encode_key(_RECIPIENT_PREFIX, self.public_key, tag=_X25519)

    def wrap(self, secret: bytes, context: bytes) -> Wrap:
        """Encrypt `secret`, bound to `context`: HPKE base mode with the context as `info`."""
        return Wrap(KIND, self.key_id, {}, _SUITE.encrypt(secret, self._key, info=context))

    @property
    def _key(self) -> X25519PublicKey:
        return X25519PublicKey.from_public_bytes(self.public_key)


class FileIdentity:
    """An X25519 private key in this process's memory. It prints its public side only."""

    def __init__(self, private_key: bytes) -> None:
        self._key = X25519PrivateKey.from_private_bytes(private_key)
        self.recipient = FileRecipient(self._key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> Self:
        """A fresh one."""
        return cls(X25519PrivateKey.generate().private_bytes_raw())

    def __repr__(self) -> str:
        return f"<FileIdentity of {self.recipient}>"

    def unwrap(self, wrap: Wrap, context: bytes) -> bytes | None:
        """The secret, or None if the wrap is for another key. Raises KeysError if it does not open."""
        if (wrap.kind, wrap.key_id) != (KIND, self.recipient.key_id):
            return None
        if wrap.parameters:
            raise FormatError("an x25519 wrap has parameters, and none are defined")
        try:
            return _SUITE.decrypt(wrap.blob, self._key, info=context)
        except (InvalidTag, ValueError):
            raise KeysError(
                f"the wrap for {self.recipient.key_id} does not open: it is damaged, or moved here from another file"
            ) from None

    def unsafe_text(self) -> str:
        """The private key as text, `PALLADION-IDENTITY-X25519-1…`; for its file, and never to be printed."""
        return encode_key(_IDENTITY_PREFIX, self._key.private_bytes_raw()).upper()


def parse_file_recipient(text: str) -> FileRecipient:
    """The recipient of a text `pallr1x…`. Raises FormatError."""
    public_key = decode_key(text, _RECIPIENT_PREFIX, tag=_X25519, key_bytes=KEY_BYTES, what="the recipient")
    try:
        return FileRecipient(public_key)
    except ValueError:
        raise FormatError("the recipient's key has low order: nothing sealed to it would be secret") from None


def parse_file_identity(text: str, *, what: str) -> FileIdentity:
    """The identity of an `unsafe_text`. Raises FormatError, naming `what` and never quoting the text."""
    return FileIdentity(decode_key(text, _IDENTITY_PREFIX, key_bytes=KEY_BYTES, what=what))
