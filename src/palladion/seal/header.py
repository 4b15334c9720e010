"""Header of a sealed file: what everybody may read and nobody can change (docs/format.md §3). Bytes in, bytes out."""

import re
import secrets
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Final, Literal

import msgspec

from palladion import canonical
from palladion.clock import parse_timestamp, timestamp
from palladion.errors import FormatError

MAGIC = b"\x93PALL\r\n\x1a"  # as a length it exceeds every safetensors header; \r\n shows a text-mode transfer
FORMAT_VERSION = 1
PREFIX_BYTES = 16
HEADER_BYTES_MAX = 1024 * 1024  # ours has about 400 bytes; read before anything is authenticated
SUITE: Final = "FLOE-AES256GCM-SHA384-1MiB"

Kind = Literal["onnx", "safetensors", "gguf", "folder", "adapter", "opaque", "keyring", "backup", "clients"]
Purpose = Literal["served", "original", "delivery", "backup", "clients"]

# control characters, and the invisible ones that make one name look like another (a fixed list: Unicode's tables grow)
HIDDEN_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")

_Digest = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")]
_RECIPIENT_CHARACTERS_MAX = 256  # a person's or a company's name


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What a sealed file says about itself in clear; `new_header` makes one, `decode_header` reads one.

    It holds only what may be known to whoever finds the file: names and shapes of tensors are in the payload.
    """

    suite: Literal["FLOE-AES256GCM-SHA384-1MiB"]
    file_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
    kind: Kind
    purpose: Purpose
    model: Annotated[str, msgspec.Meta(pattern=r"^([a-z0-9][a-z0-9._-]{0,63})?\Z")]  # "" where there is none: a backup
    version: Annotated[int, msgspec.Meta(ge=0, le=canonical.INTEGER_MAX)]  # 0 where there is none
    previous: _Digest  # header digest of the model's previous version, or ""
    content: _Digest  # model digest, or ""
    created: str
    publisher: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
    recipient: Annotated[str, msgspec.Meta(max_length=_RECIPIENT_CHARACTERS_MAX)]  # of a delivery; "" otherwise
    # absent, not empty, where they do not apply: the files of earlier writers stay byte for byte what they were
    base: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")] = ""  # of an adapter: model digest of its base
    license: Literal["", "required"] = ""  # whether it is opened only under a licence of its publisher

    def encode(self) -> bytes:
        """Canonical JSON. Raises ValueError on a field that no reader would accept."""
        try:
            _check(self)
            encoded = canonical.encode(msgspec.to_builtins(self))
        except msgspec.ValidationError as error:
            raise ValueError(f"not a header that a reader would accept: {error}") from None
        return encoded


def new_header(
    *,
    kind: Kind,
    purpose: Purpose,
    publisher: str,
    created: datetime,
    model: str = "",
    version: int = 0,
    previous: str = "",
    content: str = "",
    recipient: str = "",
    base: str = "",
    license_required: bool = False,
) -> Header:
    """A header with a fresh file id; `publisher` is the `publisher_id` of the key that will sign.

    Raises ValueError on a value that no reader would accept.
    """
    header = Header(
        suite=SUITE,
        file_id=secrets.token_hex(16),
        kind=kind,
        purpose=purpose,
        model=model,
        version=version,
        previous=previous,
        content=content,
        created=timestamp(created),
        publisher=publisher,
        recipient=recipient,
        base=base,
        license="required" if license_required else "",
    )
    header.encode()
    return header


def decode_header(data: bytes, *, what: str) -> Header:
    """The header of canonical JSON. Raises FormatError, naming `what`."""
    document = canonical.decode(data, size_max=HEADER_BYTES_MAX, what=f"the header of {what}")
    try:
        header = msgspec.convert(document, Header, strict=True)
        if header.encode() != data:
            raise ValueError("a member that is empty should be absent")
    except (msgspec.ValidationError, ValueError) as error:
        raise FormatError(f"{what} has a header that this version does not know: {error}") from None
    return header


def header_digest(encoded: bytes) -> str:
    """SHA-256 of an encoded header in hex: what the next version's `previous` names."""
    return sha256(encoded).hexdigest()


def encode_prefix(header_bytes: int) -> bytes:
    """The first 16 bytes of a sealed file."""
    return MAGIC + bytes([FORMAT_VERSION, 0, 0, 0]) + header_bytes.to_bytes(4, "little")


def decode_prefix(data: bytes, *, what: str) -> int:
    """The header's length in bytes. Raises FormatError, saying so when the file is not sealed at all."""
    if data[: len(MAGIC)] != MAGIC:
        raise FormatError(
            f"{what} is not a sealed file: it begins with other bytes",
            "a plain file is never opened in place of a sealed one; palladion protect seals a model",
        )
    if len(data) < PREFIX_BYTES:
        raise FormatError(f"{what} is cut off: it ends within its first {PREFIX_BYTES} bytes")
    if data[8] != FORMAT_VERSION:
        raise FormatError(
            f"{what} has format version {data[8]}, expected {FORMAT_VERSION}",
            "a newer Palladion made it: update this one",
        )
    if data[9:12] != bytes(3):
        raise FormatError(f"{what} has bytes after its format version that must be zero")
    header_bytes = int.from_bytes(data[12:16], "little")
    if not 0 < header_bytes <= HEADER_BYTES_MAX:
        raise FormatError(f"{what} claims a header of {header_bytes} bytes, at most {HEADER_BYTES_MAX} are allowed")
    return header_bytes


def _check(header: Header) -> None:
    # a Struct checks its fields when it is converted, not when it is made
    msgspec.convert(msgspec.to_builtins(header), Header, strict=True)
    parse_timestamp(header.created)
    # it is shown in terminals: no escape sequences
    if HIDDEN_CHARACTERS.search(header.recipient):
        raise ValueError("the recipient's name holds characters that do not print")
