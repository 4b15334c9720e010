"""The messages of the admin socket, through which commands write to a ledger that another process holds. Pure.

A frame is a four-byte big-endian length and as many bytes of JSON with exactly the fields below; each request gets one
reply. `remote` asks, `palladion.gate.admin` answers; docs/ledger.md says what each message does.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from palladion import errors
from palladion.clock import parse_timestamp, timestamp
from palladion.errors import FormatError, PalladionError
from palladion.ledger.record import Record
from palladion.ledger.writer import encode_batch

FRAME_HEADER_BYTES = 4
FRAME_BYTES_MAX = 64 * 1024 * 1024  # the largest batch: 1024 records of 65,535 bytes, a little shorter here than there


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op"):
    pass


class Write(_Request, frozen=True, tag="write"):
    """Take the write session; answered by `Opened`, or refused with BusyError while another has it."""


class RecordRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """A record as it travels; `time` is a canonical timestamp."""

    kind: str
    time: str
    actor: str
    subject: str
    details: dict[str, Any]


class Append(_Request, frozen=True, tag="append"):
    """Append these; answered by `Receipts`."""

    records: list[RecordRow]


class PublishCheckpoint(_Request, frozen=True, tag="checkpoint"):
    """Publish everything acknowledged so far; answered by `Published`."""


class Freeze(_Request, frozen=True, tag="freeze"):
    """Publish nothing until `Thaw`; answered by `Acknowledged`."""


class Thaw(_Request, frozen=True, tag="thaw"):
    """Publish again; answered by `Thawed`."""


class Done(_Request, frozen=True, tag="done"):
    """Act on what the registry says now, and end the write session; answered by `Acknowledged` after both."""


class AskStatus(_Request, frozen=True, tag="status"):
    """How the server is; answered by `Status`, and needs no write session."""


class ReloadPolicy(_Request, frozen=True, tag="policy"):
    """Take over what the policy file says now, on behalf of `actor`; answered by `PolicyReloaded`."""

    actor: str


class AskPolicy(_Request, frozen=True, tag="settings"):
    """Which policy is in force; answered by `PolicyInForce`, and needs no write session."""


class _Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="re"):
    pass


class Opened(_Reply, frozen=True, tag="opened"):
    """The write session is the caller's: of which log, and how many entries it has."""

    origin: str
    size: int


class ReceiptRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """The receipt of one record."""

    index: int
    leaf_hash: bytes


class Receipts(_Reply, frozen=True, tag="receipts"):
    """The records are on the disk."""

    receipts: list[ReceiptRow]


class Published(_Reply, frozen=True, tag="published"):
    """The signed note of the last checkpoint."""

    note: bytes


class Thawed(_Reply, frozen=True, tag="thawed"):
    """Whether nothing was published since `Freeze`."""

    held: bool


class Acknowledged(_Reply, frozen=True, tag="acknowledged"):
    """It is so."""


class Status(_Reply, frozen=True, tag="status"):
    """How the server is."""

    status: dict[str, Any]


class PolicyReloaded(_Reply, frozen=True, tag="policy"):
    """The digest of the policy in force, and what is different from before."""

    digest: str
    changes: list[dict[str, Any]]


class PolicyInForce(_Reply, frozen=True, tag="settings"):
    """The settings of the policy in force, by section."""

    settings: dict[str, Any]


class Failed(_Reply, frozen=True, tag="failed"):
    """The request was refused: an error of our tree, or a ValueError, by its name."""

    kind: str
    message: str
    hints: list[str]


Request = Write | Append | PublishCheckpoint | Freeze | Thaw | Done | AskStatus | ReloadPolicy | AskPolicy
Reply = Opened | Receipts | Published | Thawed | Acknowledged | Status | PolicyReloaded | PolicyInForce | Failed

_REQUESTS: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_REPLIES: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)
_KINDS = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, PalladionError)
}


def encode_frame(message: Request | Reply) -> bytes:
    """The bytes of a message on the socket. Raises ValueError on one that is too long for a frame."""
    body = msgspec.json.encode(message)
    if len(body) > FRAME_BYTES_MAX:
        raise ValueError(f"a message of {len(body)} bytes, at most {FRAME_BYTES_MAX} are allowed")
    return len(body).to_bytes(FRAME_HEADER_BYTES, "big") + body


def frame_length(header: bytes, *, bytes_max: int = FRAME_BYTES_MAX) -> int:
    """The length of the body after `header`. Raises FormatError if it is more than `bytes_max`, before it is read."""
    length = int.from_bytes(header, "big")
    if length > bytes_max:
        raise FormatError(f"a frame of {length} bytes on the admin socket, at most {bytes_max} are allowed")
    return length


def decode_request(body: bytes) -> Request:
    """The request in a frame. Raises FormatError on an unknown operation, a field too many or too few, a wrong type."""
    try:
        return _REQUESTS.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise FormatError(f"the admin socket got no request: {error}") from None


def decode_reply(body: bytes) -> Reply:
    """The reply in a frame. Raises FormatError if it is none."""
    try:
        return _REPLIES.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise FormatError(f"the admin socket got no reply: {error}") from None


def encode_records(records: Sequence[Record]) -> Append:
    """The request that appends `records`, which `encode_batch` has accepted."""
    return Append([RecordRow(r.kind, timestamp(r.time), r.actor, r.subject, r.details) for r in records])


def decode_records(request: Append) -> list[Record]:
    """The records of a request, held to what a local append would accept. Raises ValueError."""
    records = [
        Record(row.kind, parse_timestamp(row.time), row.actor, row.subject, row.details) for row in request.records
    ]
    encode_batch(records)
    return records


def encode_failure(error: PalladionError | ValueError) -> Failed:
    """The reply that carries `error`."""
    if isinstance(error, PalladionError):
        return Failed(type(error).__name__, error.message, list(error.hints))
    return Failed(ValueError.__name__, str(error), [])


def decode_failure(reply: Failed) -> PalladionError | ValueError:
    """The error that a reply carries; a kind that a newer server may know becomes the tree's base."""
    if reply.kind == ValueError.__name__:
        return ValueError(reply.message)
    return _KINDS.get(reply.kind, PalladionError)(reply.message, *reply.hints)
