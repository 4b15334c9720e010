"""The fields that requests, decisions and statements share, and their canonical, signed form (docs/approvals.md)."""

from collections.abc import Iterator
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, TypeVar

import msgspec

from palladion import canonical
from palladion.clock import parse_timestamp
from palladion.errors import FormatError

DOCUMENT_BYTES_MAX = 32 * 1024  # a record of the ledger, 64 KiB, holds one with its signature
TEXT_CHARACTERS_MAX = 200  # a name or a reason: one line on a screen
KEY_CHARACTERS_MAX = 2500  # a recipient's post-quantum public key, as the registry takes it

Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
MaybeDigest = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")]
MaybeFileId = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{32})?\Z")]
Moment = Annotated[str, msgspec.Meta(max_length=27)]
# no line breaks, escape sequences or marks that turn text round: an approver reads it on a terminal
Text = Annotated[str, msgspec.Meta(max_length=TEXT_CHARACTERS_MAX)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_CHARACTERS_MAX)]
Slug = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z")]

_Kind = TypeVar("_Kind", bound=msgspec.Struct)


def document_of(value: msgspec.Struct) -> dict[str, Any]:
    """The JSON document of a value, as it is signed and stored."""
    found: dict[str, Any] = msgspec.to_builtins(value)
    return found


def digest_of(domain: bytes, value: msgspec.Struct) -> str:
    """SHA-256 over a domain and the canonical document, in hex: what signatures are about."""
    return sha256(domain + canonical.encode(document_of(value))).hexdigest()


def read_document(document: Any, kind: type[_Kind], *, what: str) -> _Kind:
    """The value of a document, of the right types and no more. Raises FormatError, naming `what`."""
    try:
        found = msgspec.convert(document, kind, strict=True)
        if not all(text.isprintable() for text in _texts(document_of(found))):
            raise ValueError("a text holds something else than printing characters")
        if len(canonical.encode(document_of(found))) > DOCUMENT_BYTES_MAX:
            raise ValueError(f"it has more than {DOCUMENT_BYTES_MAX} bytes")
    except (msgspec.ValidationError, ValueError) as error:
        raise FormatError(f"{what} is not one that this version knows: {error}") from None
    return found


def read_moment(text: str, *, what: str) -> datetime:
    """The time that a document states. Raises FormatError, naming `what`."""
    try:
        return parse_timestamp(text)
    except ValueError:
        raise FormatError(f"{what} states no canonical time: {text[:40]!r}") from None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
