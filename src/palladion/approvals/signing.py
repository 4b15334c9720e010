"""Keys of approvers: Ed25519, or ECDSA on P-256 where a token has no Ed25519; their text, and files that hold one.

A key in a file stands wrapped to a passphrase, which is handed in as `Recipient` and `Identity`.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any, Literal, Protocol, Self

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from palladion import canonical
from palladion.errors import ApprovalError, FormatError, KeysError, TamperError
from palladion.keys import Identity, Recipient, ed25519_public_key, parse_wrap, wrap_document

KEY_FILE_BYTES_MAX = 16 * 1024  # one wrap of some 400 bytes
KEY_TEXT = r"^(ed25519:[0-9a-f]{64}|p256:0[23][0-9a-f]{64})\Z"
SIGNATURE_BYTES = 64  # of both: r and s of ECDSA as two numbers of 32 bytes
_FILE_DOMAIN = b"palladion/v1/approver-key"

KeyText = Annotated[str, msgspec.Meta(pattern=KEY_TEXT)]
SignatureText = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{128}\Z")]


class ApproverSigner(Protocol):
    """A private key of an approver, in memory or in a token."""

    @property
    def key(self) -> "ApproverKey":
        """The public side."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The signature of `message`, 64 bytes. Raises KeysError if the token refuses."""
        ...


@dataclass(frozen=True)
class ApproverKey:
    """A public key: `raw` is 32 bytes of Ed25519 (RFC 8032), or 33 of a compressed point on P-256 (SEC 1)."""

    kind: Literal["ed25519", "p256"]
    raw: bytes

    def __str__(self) -> str:
        return f"{self.kind}:{self.raw.hex()}"

    @property
    def key_id(self) -> str:
        """16 hex digits by which people tell keys apart."""
        return sha256(b"palladion/v1/approver" + str(self).encode()).hexdigest()[:16]

    @property
    def unsigned(self) -> bytes:
        """The key less its sign: who has the private key of one has that of the other of the two."""
        if self.kind == "ed25519":
            return self.raw[:-1] + bytes([self.raw[-1] & 0x7F])
        return self.raw[1:]

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key of a text `ed25519:…` or `p256:…`, in hex. Raises FormatError."""
        try:
            msgspec.convert(text, KeyText)
            kind, _, digits = text.partition(":")
            found = cls("ed25519" if kind == "ed25519" else "p256", bytes.fromhex(digits))
            found._public()
        except (msgspec.ValidationError, FormatError, ValueError):
            raise FormatError(
                "the approver's key was not expected: ed25519: or p256: and its digits", "palladion approval key new"
            ) from None
        return found

    def verify(self, message: bytes, signature: bytes, *, what: str) -> None:
        """Raise TamperError, naming `what`, unless this key signed `message`."""
        public = self._public()
        try:
            if len(signature) != SIGNATURE_BYTES:
                raise InvalidSignature
            if isinstance(public, Ed25519PublicKey):
                public.verify(signature, message)
            else:
                r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
                public.verify(encode_dss_signature(r, s), message, ec.ECDSA(SHA256()))
        except InvalidSignature:
            raise TamperError(f"{what} was altered, or signed by another key than {self.key_id}") from None

    def _public(self) -> Ed25519PublicKey | ec.EllipticCurvePublicKey:
        if self.kind == "ed25519":
            return ed25519_public_key(self.raw, what="the approver's key")
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), self.raw)


class HeldKey:
    """An Ed25519 key in this process's memory. It prints its public side only."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.key = ApproverKey("ed25519", self._key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"<HeldKey {self.key}>"

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature of `message`, 64 bytes (RFC 8032)."""
        return self._key.sign(message)


class _KeyFile(msgspec.Struct, forbid_unknown_fields=True):
    v: Literal[1]
    key: KeyText
    wraps: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1, max_length=4)]


def new_key_file(recipient: Recipient) -> tuple[ApproverKey, bytes]:
    """A fresh key, and the file that holds it wrapped to `recipient`: whoever knows a passphrase, usually."""
    seed = Ed25519PrivateKey.generate().private_bytes_raw()
    key = HeldKey(seed).key
    wrap = wrap_document(recipient.wrap(seed, _context(key)))
    return key, canonical.encode({"v": 1, "key": str(key), "wraps": [wrap]}) + b"\n"


def open_key_file(data: bytes, identity: Identity, *, what: str) -> HeldKey:
    """The key of such a file. Raises FormatError, KeysError if `identity` does not open it, TamperError."""
    document, key = _parsed(data, what)
    for item in document.wraps:
        seed = identity.unwrap(parse_wrap(item, what), _context(key))
        if seed is not None:
            held = HeldKey(seed)
            if held.key != key:
                raise TamperError(f"{what} states another public key than that of its private key")
            return held
    raise KeysError(f"{what} is not wrapped to what was given")


def key_of_file(data: bytes, *, what: str) -> ApproverKey:
    """The public key that such a file states. Raises FormatError."""
    return _parsed(data, what)[1]


def unmatched(key: ApproverKey) -> ApprovalError:
    """The error for a key that no approver has."""
    return ApprovalError(
        f"{key.key_id} is the key of no approver", "palladion approval key list shows whose count", reason="approver"
    )


def _parsed(data: bytes, what: str) -> tuple[_KeyFile, ApproverKey]:
    document = canonical.decode(data.removesuffix(b"\n"), size_max=KEY_FILE_BYTES_MAX, what=what)
    try:
        found = msgspec.convert(document, _KeyFile, strict=True)
    except msgspec.ValidationError as error:
        raise FormatError(f"{what} holds no key of an approver: {error}") from None
    return found, ApproverKey.parse(found.key)


def _context(key: ApproverKey) -> bytes:
    return _FILE_DOMAIN + str(key).encode()
