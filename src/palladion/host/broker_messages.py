"""What a host and a key broker say to each other (docs/broker.md §3): JSON in, frozen values out, within limits.

Pure. Both sides compute `answer_context` by themselves: the key opens only for whoever agrees on all of it.
"""

import re
from collections.abc import Sequence
from hashlib import sha512
from typing import Annotated, Literal, TypeVar

import msgspec

from palladion.attest.binding import NONCE_BYTES, PUBLIC_KEY_BYTES_MAX
from palladion.errors import FormatError, KeysError
from palladion.keys import Wrap
from palladion.seal.floe import HEADER_BYTES as FLOE_BYTES
from palladion.seal.trailer import BLOB_BYTES_MAX, SIGNATURE_BYTES

CHALLENGE_PATH, RELEASE_PATH, RENEW_PATH, KEYS_PATH = "/v1/challenge", "/v1/release", "/v1/renew", "/v1/keys"
HEADER_BYTES_MAX = 16 * 1024  # ours has about 400 bytes
EVIDENCE_BYTES_MAX = 2 * 1024 * 1024  # a TDX guest with 16 GPUs and all certificates has some 300 KiB
REQUEST_BYTES_MAX = 3 * 1024 * 1024  # evidence in base64, and the rest
ANSWER_BYTES_MAX = 64 * 1024  # the names of 64 keys are most of it
KEYS_MAX = 64
LEASE_SECONDS_MAX = 24 * 3600
SEALED_BYTES_MAX = 2048  # X-Wing's encapsulation has 1,120 bytes
_DOMAIN = b"palladion/v1/broker/answer\0"
_KIND = r"^[a-z0-9-]{1,32}\Z"

Nonce = Annotated[bytes, msgspec.Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
LeaseId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
Purpose = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?\Z")]
PublicKey = Annotated[bytes, msgspec.Meta(min_length=1, max_length=PUBLIC_KEY_BYTES_MAX)]
Bundle = Annotated[bytes, msgspec.Meta(max_length=EVIDENCE_BYTES_MAX)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=LEASE_SECONDS_MAX)]
_Size = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
_Message = TypeVar("_Message", bound=msgspec.Struct)


class BrokerRefusedError(KeysError):
    """The broker says no; `reason` is the name of what it refused for."""

    def __init__(self, message: str, *hints: str, reason: str) -> None:
        super().__init__(message, *hints)
        self.reason = reason


class _Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all messages; bytes are base64."""

    v: Literal[1]


class KeyName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Kind and id of a key of the broker's: wraps to it are worth sending."""

    kind: Annotated[str, msgspec.Meta(pattern=_KIND)]
    key_id: Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,256}\Z")]


class SentWrap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A wrap of the file key to the broker."""

    kind: Annotated[str, msgspec.Meta(pattern=_KIND)]
    key_id: Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,256}\Z")]
    parameters: Annotated[dict[str, str | int], msgspec.Meta(max_length=16)]
    blob: Annotated[bytes, msgspec.Meta(max_length=BLOB_BYTES_MAX)]

    @property
    def wrap(self) -> Wrap:
        """The wrap as identities take it."""
        return Wrap(self.kind, self.key_id, self.parameters, self.blob)


class FileFront(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sealed file without its body: enough to verify who signed it, and to open its key."""

    header: Annotated[bytes, msgspec.Meta(min_length=1, max_length=HEADER_BYTES_MAX)]
    floe_header: Annotated[bytes, msgspec.Meta(min_length=FLOE_BYTES, max_length=FLOE_BYTES)]
    segments: _Size
    body_bytes: _Size
    root: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    signature: Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
    wrap: SentWrap


class Challenge(_Said, frozen=True):
    """The broker's first answer."""

    nonce: Nonce
    seconds: Seconds
    keys: Annotated[tuple[KeyName, ...], msgspec.Meta(max_length=KEYS_MAX)]


class ReleaseRequest(_Said, frozen=True):
    """Asks for a file's key, to be sealed to `public_key` (X25519 or X-Wing, told by its length)."""

    nonce: Nonce
    public_key: PublicKey
    file: FileFront
    purpose: Purpose
    evidence: Bundle = b""
    approval: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-z-]{0,64}\Z")] = ""


class Released(_Said, frozen=True):
    """The key, sealed; it may be used for `seconds` from when it was asked for."""

    lease: LeaseId
    seconds: Seconds
    sealed: Annotated[bytes, msgspec.Meta(min_length=1, max_length=SEALED_BYTES_MAX)]


class RenewRequest(_Said, frozen=True):
    """Asks to go on with a lease; evidence is made anew, for a new nonce and key."""

    nonce: Nonce
    public_key: PublicKey
    lease: LeaseId
    evidence: Bundle = b""


class Renewed(_Said, frozen=True):
    """The lease goes on for `seconds` from when this was asked for."""

    lease: LeaseId
    seconds: Seconds


class Refusal(_Said, frozen=True):
    """Why not."""

    reason: Annotated[str, msgspec.Meta(pattern=r"^[a-z-]{1,32}\Z")]
    message: Annotated[str, msgspec.Meta(max_length=1000)]


class KeyList(_Said, frozen=True):
    """The keys that the broker opens files with."""

    keys: Annotated[tuple[KeyName, ...], msgspec.Meta(max_length=KEYS_MAX)]


def encode(message: msgspec.Struct) -> bytes:
    """The JSON of a message."""
    return msgspec.json.encode(message)


def decode(data: bytes, kind: type[_Message], *, size_max: int, what: str) -> _Message:
    """The message of that kind. Raises FormatError, naming `what` and quoting nothing."""
    if len(data) > size_max:
        raise FormatError(f"{what} has {len(data)} bytes, at most {size_max} are read")
    try:
        return msgspec.json.decode(data, type=kind, strict=True)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise FormatError(f"{what} is not a message of the form {kind.__name__}") from None


def answer_context(request: ReleaseRequest, *, client: str, lease: str, seconds: int) -> bytes:
    """What the sealed key is bound to, 64 bytes: all of the request, the client's certificate, and the lease.

    `client` is the SHA-256 of its certificate, in hex.
    """
    file = request.file
    parts: Sequence[bytes] = (
        request.nonce,
        request.public_key,
        file.header,
        file.floe_header,
        file.segments.to_bytes(8, "big") + file.body_bytes.to_bytes(8, "big"),
        file.root,
        file.signature,
        request.evidence,
        request.purpose.encode(),
        request.approval.encode(),
        client.encode(),
        lease.encode(),
        seconds.to_bytes(4, "big"),
    )
    return sha512(_DOMAIN + b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()


_WORDS = re.compile(r"[^\x20-\x7e]")


def printable(text: str) -> str:
    """What somebody else's sentence may show in a terminal."""
    return _WORDS.sub("?", text)[:1000]
