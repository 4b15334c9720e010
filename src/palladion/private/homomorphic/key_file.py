r"""The file of a client's secret key: readable by its owner alone, and encrypted to a passphrase if wished.

    "palladion-homomorphic-key 1\n", length of the header (8 bytes, little), canonical JSON, the key or its ciphertext

Encrypted, the key is under AES-256-GCM with a key of its own, which the header's wrap holds, bound to the program's id.
"""

import secrets
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Meta

from palladion import canonical, files
from palladion.errors import FormatError, KeysError, TamperError
from palladion.keys import Identity, Recipient, Wrap

MAGIC = b"palladion-homomorphic-key 1\n"
FILE_BYTES_MAX = 64 * 1024**2  # a secret key is one polynomial for each prime: some MiB at most
HEADER_BYTES_MAX = 16 * 1024
_LENGTH = struct.Struct("<Q")
_NONCE = bytes(12)  # of a key that encrypts once
_CONTEXT = b"palladion/v1/homomorphic-key/"


class _Wrapped(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    kind: str
    key_id: str
    parameters: dict[str, str | int]
    blob: Annotated[str, Meta(pattern=r"^([0-9a-f]{2})+$")]


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    program: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]
    wrap: _Wrapped | None


def write_key(path: Path, secret: bytes, program: str, recipient: Recipient | None = None) -> None:
    """Write a secret key for a program to a new file of its owner's; `recipient` is whom it is encrypted to.

    Raises StorageError if `path` exists.
    """
    context = _CONTEXT + program.encode()
    wrapped = None
    if recipient is not None:
        data_key = secrets.token_bytes(32)
        wrap = recipient.wrap(data_key, context)
        wrapped = _Wrapped(kind=wrap.kind, key_id=wrap.key_id, parameters=dict(wrap.parameters), blob=wrap.blob.hex())
        secret = AESGCM(data_key).encrypt(_NONCE, secret, context)
    header = canonical.encode(msgspec.to_builtins(_Header(program=program, wrap=wrapped)))
    with files.atomic_writer(path, replace=False) as stream:
        stream.write(MAGIC + _LENGTH.pack(len(header)) + header + secret)


def is_encrypted(data: bytes) -> bool:
    """Whether a key file needs an identity. Raises FormatError."""
    return _parsed(data)[0].wrap is not None


def parse_key(data: bytes, program: str, identities: Sequence[Identity] = ()) -> bytes:
    """The secret key in a file's bytes, for a program.

    Raises KeysError if it is for another program or no identity opens it, FormatError or TamperError if it is broken.
    """
    header, secret = _parsed(data)
    if header.program != program:
        raise KeysError(f"the key is for the program {header.program}, expected one for {program}")
    if header.wrap is None:
        return secret
    context = _CONTEXT + program.encode()
    wrap = Wrap(header.wrap.kind, header.wrap.key_id, header.wrap.parameters, bytes.fromhex(header.wrap.blob))
    data_key = next((found for item in identities if (found := item.unwrap(wrap, context)) is not None), None)
    if data_key is None:
        raise KeysError("the key is encrypted, and nothing that was given opens it", "give its passphrase")
    try:
        return AESGCM(data_key).decrypt(_NONCE, secret, context)
    except (InvalidTag, ValueError):
        raise TamperError("the key file is damaged") from None


def _parsed(data: bytes) -> tuple[_Header, bytes]:
    start = len(MAGIC) + _LENGTH.size
    if not data.startswith(MAGIC) or len(data) < start:
        raise FormatError("this is no key of a homomorphic client", "palladion private key writes one")
    (length,) = _LENGTH.unpack_from(data, len(MAGIC))
    if length > min(HEADER_BYTES_MAX, len(data) - start):
        raise FormatError(f"the header of a key says that it has {length} bytes")
    try:
        document = canonical.decode(data[start : start + length], size_max=HEADER_BYTES_MAX, what="the header of a key")
        return msgspec.convert(document, _Header), data[start + length :]
    except msgspec.ValidationError as error:
        raise FormatError(f"the header of a key is not one: {error}") from None
