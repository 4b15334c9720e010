"""A publisher's list of what is not to be opened any more, and the signed form that it shares with licences.

Bytes in, bytes out (docs/licenses.md).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Literal, TypeVar

import msgspec

from palladion import canonical
from palladion.clock import parse_timestamp, timestamp
from palladion.errors import FormatError, LicenseError
from palladion.keys import Signer
from palladion.seal.header import HIDDEN_CHARACTERS
from palladion.seal.machine import Digest, LicensesSeen, Positive, Serial
from palladion.seal.sign import publisher_id, verify_signature
from palladion.seal.structure import SealedInfo

REVOCATIONS_BYTES_MAX = 4 * 1024 * 1024  # about 20,000 licences with a reason each
TEXT_CHARACTERS_MAX = 200  # a name or a reason: one line on a screen

Moment = Annotated[str, msgspec.Meta(max_length=27)]
Number = Annotated[int, msgspec.Meta(ge=0, le=canonical.INTEGER_MAX)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_CHARACTERS_MAX)]
Slug = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z")]
Publisher = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]

_MEMBER = "revocations"
_Signature = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{128}\Z")]
_Kind = TypeVar("_Kind", bound=msgspec.Struct)


class RevokedVersions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Versions `first` to `last` of a model, both included, that nobody should open any more."""

    model: Slug
    first: Number
    last: Number
    reason: Text


class Revocations(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One publisher's list; each replaces the one of a lower sequence.

    `serials` are those of licences, `files` header digests of sealed files, each with the reason.
    """

    v: Literal[1]
    publisher: Publisher
    sequence: Positive
    issued: Moment
    serials: dict[Serial, Text]
    files: dict[Digest, Text]
    versions: tuple[RevokedVersions, ...]

    def revoked(self, info: SealedInfo) -> str | None:
        """Why a verified file is not to be opened; None if it may. A list says nothing of another publisher's files."""
        header = info.header
        if header.publisher != self.publisher:
            return None
        for row in self.versions:
            if row.model == header.model and row.first <= header.version <= row.last:
                return row.reason
        return self.files.get(info.header_digest)


def revised(
    current: Revocations | None,
    *,
    publisher: str,
    issued: datetime,
    serials: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
    versions: Iterable[RevokedVersions] = (),
) -> Revocations:
    """The list after `current` with more on it, where what stands there already keeps its reason.

    Nothing is ever taken off: what was revoked by mistake is issued anew. Raises ValueError on what no reader accepts.
    """
    if current is not None and current.publisher != publisher:
        raise ValueError(f"the list is publisher {current.publisher}'s, not {publisher}'s")
    return _valid(
        Revocations(
            v=1,
            publisher=publisher,
            sequence=current.sequence + 1 if current else 1,
            issued=timestamp(issued),
            serials={**(serials or {}), **(current.serials if current else {})},
            files={**(files or {}), **(current.files if current else {})},
            versions=(*(current.versions if current else ()), *versions),
        )
    )


def encode_revocations(revocations: Revocations, signer: Signer) -> bytes:
    """The file of a list. Raises ValueError if `signer` is not its publisher, or if it is too large."""
    return encode_signed(_MEMBER, revocations, revocations.publisher, signer, size_max=REVOCATIONS_BYTES_MAX)


def decode_revocations(data: bytes, *, what: str) -> Revocations:
    """What a list claims, unverified: to be shown. Raises FormatError, naming `what`."""
    return _decode(data, what)[0]


def verify_revocations(data: bytes, publishers: Sequence[bytes], *, what: str) -> Revocations:
    """The list that one of `publishers` (raw keys) signed. Raises FormatError or TamperError, naming `what`."""
    found, signature = _decode(data, what)
    verify_signed(_MEMBER, found, signature, publisher=found.publisher, pinned=publishers, what=what)
    return found


def check_revoked(info: SealedInfo, revocations: Revocations | None, seen: LicensesSeen) -> LicensesSeen:
    """Refuse a file that its publisher revoked, a list older than one seen here, and one that is gone.

    Returns what to remember. Raises LicenseError.
    """
    publisher = info.header.publisher
    current = revocations if revocations is not None and revocations.publisher == publisher else None
    newest = seen.revocations.get(publisher, 0)
    if (current.sequence if current else 0) < newest:
        found = f"list {current.sequence}" if current else "none"
        raise LicenseError(
            f"this machine has seen revocation list {newest} of publisher {publisher}, and {found} is here now",
            "put the newest list back, or ask the publisher for it",
            refusal="replayed",
        )
    if current is None:
        return seen
    reason = current.revoked(info)
    if reason is not None:
        header = info.header
        raise LicenseError(f"version {header.version} of {header.model} was revoked: {reason}", refusal="revoked")
    return replace(seen, revocations={**seen.revocations, publisher: current.sequence})


def encode_signed(member: str, document: msgspec.Struct, publisher: str, signer: Signer, *, size_max: int) -> bytes:
    """One line of canonical JSON: the document as `member`, and its signature, over a domain that names the member.

    Raises ValueError if `signer` is not `publisher`, or if the line would be larger than readers accept.
    """
    if publisher_id(signer.public_key) != publisher:
        raise ValueError(f"publisher {publisher} signs this, not {publisher_id(signer.public_key)}")
    body = msgspec.to_builtins(document)
    line = canonical.encode({member: body, "signature": signer.sign(_message(member, document)).hex()}) + b"\n"
    if len(line) > size_max:
        raise ValueError(f"it has {len(line)} bytes, more than the {size_max} that readers accept")
    return line


def decode_signed(member: str, data: bytes, kind: type[_Kind], *, size_max: int, what: str) -> tuple[_Kind, bytes]:
    """The document of such a line, of the right types and no more, and its signature. Raises FormatError."""
    if data[-1:] != b"\n":
        raise FormatError(f"{what} is cut off: its line does not end", "get the file again from its source")
    envelope = canonical.decode(data[:-1], size_max=size_max - 1, what=what)
    if not isinstance(envelope, dict) or envelope.keys() != {member, "signature"}:
        raise FormatError(f"{what} has other members than {member} and signature")
    try:
        signature = msgspec.convert(envelope["signature"], _Signature)
        return msgspec.convert(envelope[member], kind, strict=True), bytes.fromhex(signature)
    except msgspec.ValidationError as error:
        raise FormatError(f"{what} is not one that this version knows: {error}") from None


def verify_signed(
    member: str, document: msgspec.Struct, signature: bytes, *, publisher: str, pinned: Sequence[bytes], what: str
) -> None:
    """Raise TamperError unless `publisher`, one of the `pinned` keys, signed the document as a `member`."""
    verify_signature(_message(member, document), signature, publisher=publisher, pinned=pinned, what=what)


def require_valid(document: msgspec.Struct, texts: Iterable[str], ranges: Iterable[tuple[int, int]]) -> None:
    """Raise ValueError on what no reader accepts: a Struct checks nothing when it is made."""
    try:
        msgspec.convert(msgspec.to_builtins(document), type(document), strict=True)
    except msgspec.ValidationError as error:
        raise ValueError(f"no reader would accept it: {error}") from None
    # they are shown in terminals: no escape sequences
    if any(HIDDEN_CHARACTERS.search(text) for text in texts):
        raise ValueError("a text in it holds characters that do not print")
    if any(first > last for first, last in ranges):
        raise ValueError("a range of versions ends before it begins")


def _decode(data: bytes, what: str) -> tuple[Revocations, bytes]:
    found, signature = decode_signed(_MEMBER, data, Revocations, size_max=REVOCATIONS_BYTES_MAX, what=what)
    try:
        return _valid(found), signature
    except ValueError as error:
        raise FormatError(f"{what} is not a list of revocations: {error}") from None


def _valid(revocations: Revocations) -> Revocations:
    reasons = [
        *revocations.serials.values(),
        *revocations.files.values(),
        *(row.reason for row in revocations.versions),
    ]
    require_valid(revocations, reasons, ((row.first, row.last) for row in revocations.versions))
    parse_timestamp(revocations.issued)
    return revocations


def _message(member: str, document: msgspec.Struct) -> bytes:
    return f"palladion/v1/{member}".encode() + sha256(canonical.encode(msgspec.to_builtins(document))).digest()
