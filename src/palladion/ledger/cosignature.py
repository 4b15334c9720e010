"""Cosignatures of witnesses on a log's checkpoint (c2sp.org/tlog-cosignature, Ed25519). Pure.

A cosignature says: at this time, this was the largest state of that log which the witness has seen, and all that it
saw before was a beginning of it. So whoever cuts or rewrites a log needs every witness that people ask for.
"""

import base64
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

from cryptography.exceptions import InvalidSignature

from palladion.errors import FormatError, TamperError
from palladion.keys import Signer, ed25519_public_key
from palladion.ledger.checkpoint import (
    Checkpoint,
    VerifierKey,
    decode_base64,
    parse_note,
    valid_origin,
    verify_checkpoint,
)

_COSIGNATURE = b"\x04"  # signature type of the tlog-cosignature specification
_TIME_MAX = 253_402_300_799  # seconds since 1970: the last that a date can have here
_BLOB_BYTES = 4 + 8 + 64  # key id, time, signature


@dataclass(frozen=True)
class WitnessKey:
    """The public key of a witness: its name, and the raw Ed25519 key."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """The four bytes that name the key in a signature line."""
        return sha256(self.name.encode() + b"\n" + _COSIGNATURE + self.public_key).digest()[:4]

    def __str__(self) -> str:
        key = base64.b64encode(_COSIGNATURE + self.public_key).decode()
        return f"{self.name}+{self.key_id.hex()}+{key}"


def parse_witness_key(text: str) -> WitnessKey:
    """The key of `<name>+<id>+<base64>`, as other tlog tools write it. Raises FormatError."""
    parts = text.strip().split("+", 2)
    if len(parts) == 3 and valid_origin(parts[0]):
        data = decode_base64(parts[2], what="the witness's key")
        key = WitnessKey(parts[0], data[1:])
        if data[:1] == _COSIGNATURE and len(data) == 33 and str(key) == text.strip():
            ed25519_public_key(key.public_key, what="the witness's key")
            return key
    raise FormatError("not a witness's key, expected <name>+<id>+<base64 of an Ed25519 key for cosignatures>")


def cosign(text: bytes, name: str, signer: Signer, time: datetime) -> bytes:
    """The signature line, newline included, of the witness `name` under the text of a checkpoint's note."""
    seconds = int(time.timestamp())
    key = WitnessKey(name, signer.public_key)
    blob = key.key_id + struct.pack(">Q", seconds) + signer.sign(_message(text, seconds))
    return f"— {name} {base64.b64encode(blob).decode()}\n".encode()


def cosignatures(note: bytes, witnesses: Collection[WitnessKey]) -> dict[WitnessKey, datetime]:
    """Who of `witnesses` cosigned a note, and when they say they did; of several the latest.

    Signatures of others are ignored. Raises FormatError on what is no note, TamperError on a cosignature of one of
    them that does not hold.
    """
    text, signatures = parse_note(note)
    known = {(key.name, key.key_id): key for key in witnesses}
    found: dict[WitnessKey, datetime] = {}
    for name, blob in signatures:
        key = known.get((name, blob[:4]))
        if key is None:
            continue
        seconds = int.from_bytes(blob[4:12], "big")
        if len(blob) != _BLOB_BYTES or seconds > _TIME_MAX:
            raise FormatError(f"the cosignature of {name} is not one")
        try:
            found_key = ed25519_public_key(key.public_key, what="the witness's key")
            found_key.verify(blob[12:], _message(text, seconds))
        except InvalidSignature:
            raise TamperError(f"the cosignature of {name} does not hold: it is of another checkpoint or time") from None
        moment = datetime.fromtimestamp(seconds, UTC)
        found[key] = max(moment, found.get(key, moment))
    return found


def verify_witnessed(
    note: bytes, log: VerifierKey, witnesses: Sequence[WitnessKey], quorum: int
) -> tuple[Checkpoint, dict[WitnessKey, datetime]]:
    """The checkpoint of a note that `log` signed and at least `quorum` of `witnesses` cosigned, and when these did.

    Raises TamperError where a signature does not hold or too few are there, FormatError on what is no note.
    """
    checkpoint = verify_checkpoint(note, log)
    found = cosignatures(note, witnesses)
    # a witness listed under two names is one
    if len({key.public_key for key in found}) < quorum:
        raise TamperError(
            f"the checkpoint of {checkpoint.size} entries carries cosignatures of {len(found)} of the witnesses, "
            f"{quorum} are asked for"
        )
    return checkpoint, found


def with_cosignatures(note: bytes, lines: Sequence[bytes]) -> bytes:
    """The note with these signature lines below those that it has."""
    return note + b"".join(lines)


def _message(text: bytes, seconds: int) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n".encode() + text
