"""What one gate's watch knows of a model's clients, for another gate of the same house: sealed, signed, on record.

Bytes of states and of the calibration that they mean something under: what is in them, and what they come to together
with this gate's own, is the watch's affair (`palladion.watch.merging`). Nothing here is changed by a file.
"""

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from palladion import canonical, files
from palladion.clock import parse_timestamp, timestamp
from palladion.errors import ConflictError, FormatError, NotFoundError, StorageError, TamperError
from palladion.keys import Identity, Recipient, Root
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.client_copy import CLOCKS_APART_MAX, open_told
from palladion.lifecycle.installation import Installation
from palladion.registry import CalibrationRow, Records, Version
from palladion.seal.header import HEADER_BYTES_MAX, new_header
from palladion.seal.sign import publisher_id
from palladion.seal.writer import seal_files

STATES_FILE, CALIBRATION_FILE = "states.json", "calibration.safetensors"
STATES_BYTES_MAX = 128 * 1024 * 1024  # some 6,000 clients who asked much, or 60,000 who asked little
CALIBRATION_BYTES_MAX = 512 * 1024 * 1024  # as `palladion.watch.calibration_file` reads
FILE_BYTES_MAX = STATES_BYTES_MAX + CALIBRATION_BYTES_MAX + HEADER_BYTES_MAX + 4 * 1024 * 1024
STATE_BYTES_MAX = 16 * 1024  # as `palladion.watch.client` writes

_SCRATCH = ".states.unfinished"
_Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
_Hash = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_State = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9+/]+={0,2}\Z", max_length=STATE_BYTES_MAX * 4 // 3 + 4)]


class _States(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    v: Literal[1]
    gate: _Id
    issued: Annotated[str, msgspec.Meta(max_length=27)]
    model: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z")]
    calibration: _Hash
    states: dict[_Id, _State]


@dataclass(frozen=True, eq=False)
class Told:
    """What another gate knows of the clients of a model, by id, under the calibration of that digest."""

    gate: str
    issued: datetime
    publisher: bytes
    model: str
    digest: str
    calibration: bytes
    states: Mapping[str, bytes]


@dataclass(frozen=True)
class Written:
    """What was handed over: how many clients' states, under which calibration, and the record of it."""

    clients: int
    digest: str
    receipt: Receipt


def export_states(
    installation: Installation,
    owner: Root,
    model: str,
    out: Path,
    recipients: Sequence[Recipient],
    *,
    actor: str,
    replace: bool = False,
) -> Written:
    """Write what the watch has saved of the clients of a model, and its calibration, sealed and signed by the owner.

    Raises NotFoundError for a model without a promoted version or a calibration, StorageError if `out` exists (unless
    `replace`), ConflictError where the states are too many.
    """
    if not replace and os.path.lexists(out):
        raise StorageError(f"{out} exists already", "name a new file, or say --replace")
    signer, gate = owner.signer("publisher"), installation.open_gate_root()
    with installation.open_ledger(gate) as ledger, installation.open_registry() as registry:
        now = installation.clock.now()
        with registry.read() as records:
            _, row = calibrated(records, model)
            saved = records.gate_states.load(purpose_of(model, row.digest))
        document = {
            "v": 1,
            "gate": gate.root_id,
            "issued": timestamp(now),
            "model": model,
            "calibration": row.digest,
            "states": {client: base64.b64encode(data).decode() for client, data in saved.items()},
        }
        content = canonical.encode(document)
        if len(content) > STATES_BYTES_MAX:
            raise ConflictError(f"the states take {len(content)} bytes, and at most {STATES_BYTES_MAX} are read")
        path = installation.paths.calibrations / row.path
        calibration = files.read_limited(path, size_max=CALIBRATION_BYTES_MAX, what="the calibration")
        if sha256(calibration).hexdigest() != row.digest:
            raise TamperError(f"{path} is not the calibration that was registered")
        header = new_header(kind="clients", purpose="clients", publisher=publisher_id(signer.public_key), created=now)
        with files.scratch_directory(installation.paths.directory / _SCRATCH) as scratch:
            sealed = scratch / STATES_FILE
            info = seal_files(
                [(CALIBRATION_FILE, calibration), (STATES_FILE, content)], header, recipients, signer, sealed
            )
            details = {
                "file_id": header.file_id,
                "header": info.header_digest,
                "root": info.root,
                "watched": model,
                "digest": row.digest,
                "clients": len(saved),
                "keys": 0,
                "sealed_to": [f"{recipient.kind} {recipient.key_id}" for recipient in recipients],
            }
            receipt = ledger.append([Record("clients.exported", now, actor, out.name, details)])[0]
            files.copy_file(sealed, out, replace=replace)
    return Written(len(saved), row.digest, receipt)


def open_states(
    installation: Installation, path: Path, identities: Sequence[Identity], *, publisher: bytes | None = None
) -> Told:
    """What is in a file of another gate. One of the publishers that the policy pins must have signed it.

    Raises KeysError, FormatError, TamperError; ConflictError on a file of the future, or of this gate itself.
    """
    gate = installation.open_gate_root()
    content, signed_by = open_told(
        installation,
        gate,
        path,
        identities,
        publisher,
        names=(CALIBRATION_FILE, STATES_FILE),
        size_max=FILE_BYTES_MAX,
        made_by="palladion watch export",
    )
    what = str(path)
    document = canonical.decode(content[STATES_FILE], size_max=STATES_BYTES_MAX, what=what)
    try:
        found = msgspec.convert(document, _States, strict=True)
        issued = parse_timestamp(found.issued)
        states = {client: base64.b64decode(data, validate=True) for client, data in found.states.items()}
    except (msgspec.ValidationError, ValueError) as error:
        raise FormatError(f"{what} holds no states that this version knows: {error}") from None
    if sha256(content[CALIBRATION_FILE]).hexdigest() != found.calibration:
        raise FormatError(f"{what} holds another calibration than its states are of")
    if found.gate == gate.root_id:
        raise ConflictError(f"{what} is of this gate itself, whose queries would count twice")
    if issued > installation.clock.now() + CLOCKS_APART_MAX:
        raise ConflictError(f"{what} is of {found.issued}, and that is still to come", "set both machines' clocks")
    return Told(found.gate, issued, signed_by, found.model, found.calibration, content[CALIBRATION_FILE], states)


def calibrated(records: Records, model: str) -> tuple[Version, CalibrationRow]:
    """The promoted version of a model, and its newest calibration. Raises NotFoundError where there is none."""
    version = records.promotions.current(model)
    row = None if version is None else records.calibrations.newest(model, version.number)
    if version is None or row is None:
        raise NotFoundError(f"no version of {model} that is served is calibrated here", "palladion watch calibrate")
    return version, row


def purpose_of(model: str, digest: str) -> str:
    """Under which name the gate saves what the watch knows of a model's clients (`gate.keeper`)."""
    return f"suspicion:{model}:{digest[:16]}"
