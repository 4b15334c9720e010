"""Trailer of a sealed file: the publisher's signature, and to whom the file key is wrapped (docs/format.md §6).

Bytes in, bytes out. Wraps are outside the signature, because they are replaced when recipients change.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import msgspec
from blake3 import blake3

from palladion import canonical
from palladion.errors import FormatError
from palladion.keys import Wrap, parse_wrap, wrap_document
from palladion.seal.layout import TRAILER_BYTES_MAX

WRAPS_MAX = 1024  # every one may cost its reader a public-key operation before anything is decrypted
BLOB_BYTES_MAX = 8192  # ML-KEM-1024 makes 1.6 KB; a KMS or TPM blob stays below 6 KiB
SIGNATURE_BYTES = 64
_KIND = re.compile(r"[a-z0-9-]{1,32}")
_KEY_ID = re.compile(r"[!-~]{1,256}")  # a cloud key's resource name has up to 200 printing characters


@dataclass(frozen=True)
class Trailer:
    """What may be read by all: signature and wraps. Only the signature is covered by itself; wraps are not."""

    signature: bytes
    wraps: tuple[Wrap, ...]

    def encode(self) -> bytes:
        """Canonical JSON. Raises ValueError on wraps that no reader would accept."""
        _check_wraps(self.wraps)
        wraps = [wrap_document(wrap) for wrap in self.wraps]
        return canonical.encode({"signature": self.signature.hex(), "wraps": wraps})


def decode_trailer(data: bytes, *, what: str) -> Trailer:
    """The trailer of canonical JSON. Raises FormatError, naming `what`; encoding it again gives the same bytes."""
    document = canonical.decode(data, size_max=TRAILER_BYTES_MAX, what=f"the trailer of {what}")
    try:
        parsed = msgspec.convert(document, _TrailerDocument, strict=True)
        if len(parsed.wraps) > WRAPS_MAX:
            raise ValueError(f"{len(parsed.wraps)} wraps, at most {WRAPS_MAX} are allowed")
        wraps = tuple(parse_wrap(item, what) for item in parsed.wraps)
        trailer = Trailer(bytes.fromhex(parsed.signature), wraps)
        if len(trailer.signature) != SIGNATURE_BYTES:
            raise ValueError(f"a signature of {len(trailer.signature)} bytes, expected {SIGNATURE_BYTES}")
        encoded = trailer.encode()
    except (msgspec.ValidationError, ValueError) as error:
        raise FormatError(f"{what} has a trailer that this version does not know: {error}") from None
    # hex has two cases and tolerates blanks; a wrap may carry fields that nobody reads
    if encoded != data:
        raise FormatError(f"{what} has a trailer with unknown fields or hex that is not canonical")
    return trailer


def signed_message(header: bytes, floe_header: bytes, *, segments: int, body_bytes: int, digests: bytes) -> bytes:
    """What the publisher signs: the header, the FLOE header, and every byte of the body through its digests.

    Not the AES-GCM tags: whoever has the file key can change a segment and keep its tag (docs/format.md §9).
    """
    sizes = segments.to_bytes(8, "little") + body_bytes.to_bytes(8, "little")
    return b"palladion/v1/sealed-file" + sha256(header).digest() + floe_header + sizes + blake3(digests).digest()


def body_data(header: bytes) -> bytes:
    """The payload's associated data: it decrypts under this header only."""
    return b"palladion/v1/sealed-body" + sha256(header).digest()


def wrap_context(file_id: str, floe_header: bytes, *, kind: str, key_id: str) -> bytes:
    """What a wrap is bound to: it opens in this file only, and only as the kind and key that it states."""
    bound = bytes.fromhex(file_id) + sha256(floe_header).digest()
    return b"palladion/v1/file-key" + bound + f"{kind}/{key_id}".encode()


def _check_wraps(wraps: Sequence[Wrap]) -> None:
    if not 0 < len(wraps) <= WRAPS_MAX:
        raise ValueError(f"{len(wraps)} wraps, expected 1 to {WRAPS_MAX}")
    for wrap in wraps:
        if not _KIND.fullmatch(wrap.kind) or not _KEY_ID.fullmatch(wrap.key_id):
            raise ValueError("a wrap of a kind or key id that has other characters than allowed")
        if len(wrap.blob) > BLOB_BYTES_MAX:
            raise ValueError(f"a wrap of {len(wrap.blob)} bytes, at most {BLOB_BYTES_MAX} are allowed")
    # one wrap per key, so one attempt per key; passphrases all have the same key id, so Argon2 runs once
    if len({(wrap.kind, wrap.key_id) for wrap in wraps}) != len(wraps):
        raise ValueError("two wraps for the same key, or two passphrases")


class _TrailerDocument(msgspec.Struct, forbid_unknown_fields=True):
    signature: str
    wraps: list[dict[str, object]]
