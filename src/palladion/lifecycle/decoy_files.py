"""Plants sealed files that nobody can open: real format, real signature, the recipients of real ones, and a file key
that was thrown away. Whoever asks for that key has been where the file lies.

What is wrapped to each recipient is a random number and not the file key: the file says of itself what every other one
says, and opens for nobody, the owner included.
"""

import secrets
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from palladion import files
from palladion.access.decoy_files import file_hash, open_places, seal_places
from palladion.errors import ConflictError, PalladionError, StorageError
from palladion.keys import Recipient, Root, Signer, Wrap
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.backup import PUBLISHER_FILE, SEALED_FOLDER
from palladion.lifecycle.installation import Installation, gate_identity, owner_identity
from palladion.registry import Decoy, names
from palladion.registry.decoys import FILES, new_id
from palladion.registry.rows import DecoyKind
from palladion.seal.header import Kind, Purpose, new_header
from palladion.seal.sign import publisher_id, publisher_text
from palladion.seal.structure import SealedInfo
from palladion.seal.writer import Pieces, seal_files
from palladion.transit.connection import Limits
from palladion.transit.push import push

SIZE_MIN, SIZE_MAX = 4 * 1024, 64 * 2**30
SIZES = (6 * 2**20, 40 * 2**20)  # where nobody says how large: as models are that somebody would take along
_PIECE_BYTES = 1024 * 1024
_NAMES = {"onnx": "model.onnx", "safetensors": "model.safetensors", "gguf": "model.gguf"}


@dataclass(frozen=True)
class Planted:
    """A decoy that lies somewhere now: its row, where, and the record."""

    decoy: Decoy
    place: str
    receipt: Receipt


def plant_file(
    installation: Installation,
    owner: Root,
    place: str,
    *,
    label: str,
    model: str,
    version: int = 1,
    kind: Kind = "safetensors",
    purpose: Purpose = "original",
    size: int | None = None,
    addresses: Sequence[str] = (),
    actor: str,
    limits: Limits | None = None,
) -> Planted:
    """Put a sealed file that nobody can open at `place`, a new path or an address such as s3://BUCKET/KEY.

    It says that it is `version` of `model`, which must be no model of ours: a host that trusts this publisher could
    take it for the next version. `addresses` are further ones at which access logs may name it. Raises ConflictError,
    StorageError; PalladionError on names and sizes that cannot be.
    """
    names.slug(model, what="the model that a decoy says it is")
    count = _size(size)
    with installation.open_registry() as registry, registry.read() as records:
        if records.models.find(model) is not None:
            raise ConflictError(
                f"{model} is a model of this installation",
                "a decoy needs another name: hosts that trust this publisher could take it for the next version",
            )
    header = new_header(
        kind=kind,
        purpose=purpose,
        publisher=publisher_id(owner.signer("publisher").public_key),
        created=installation.clock.now(),
        model=model,
        version=version,
        previous=secrets.token_hex(32) if version > 1 else "",
        content=secrets.token_hex(32),
    )
    # as `protect` has it: the gate opens what is served, owner and escrow the original
    served, kept = purpose == "served", [owner_identity(owner).recipient, *installation.escrow_recipients()]
    wraps = [gate_identity(installation.open_gate_root()).recipient] if served else kept
    content = [(_NAMES.get(kind, "model.bin"), _zeros(count))]
    if "://" in place:
        with tempfile.TemporaryDirectory(dir=installation.paths.directory, prefix=".decoy-") as scratch:
            path = Path(scratch) / "decoy.sealed"
            info = seal_files(content, header, _blind(wraps), owner.signer("publisher"), path)
            push(path, place, installation.publishers(), limits=limits)
            where = place
    else:
        path = Path(place).absolute()
        files.make_private_directory(path.parent)
        info = seal_files(content, header, _blind(wraps), owner.signer("publisher"), path)
        where = str(path)
    try:
        return _keep(installation, "file", label, info, [where, *addresses], actor=actor)
    except PalladionError as error:
        if "://" in place:
            raise type(error)(error.message, *error.hints, f"delete {place}: it is no decoy that is known") from error
        path.unlink(missing_ok=True)
        raise


def plant_backup(
    installation: Installation,
    owner: Root,
    wraps: Sequence[Recipient],
    folder: Path,
    *,
    label: str,
    size: int | None = None,
    actor: str,
) -> Planted:
    """Make the new folder `folder` look like one with a backup of this installation, which nobody can restore.

    `wraps` are as those of a real backup: a passphrase, and escrow. Raises StorageError if the folder exists.
    """
    if folder.exists():
        raise StorageError(f"{folder} exists already", "name a new folder: nothing is overwritten")
    count = _size(size)
    signer: Signer = owner.signer("publisher")
    now = installation.clock.now()
    header = new_header(kind="backup", purpose="backup", publisher=publisher_id(signer.public_key), created=now)
    folder = folder.absolute()
    files.make_private_directory(folder / SEALED_FOLDER)
    files.write_atomically(folder / PUBLISHER_FILE, f"{publisher_text(signer.public_key)}\n".encode(), mode=0o644)
    state = folder / f"state-{now:%Y%m%dT%H%M%S.%f}-{header.file_id[:8]}.sealed"
    recipients = [*wraps, *installation.escrow_recipients()]
    info = seal_files([("registry.sqlite", _zeros(count))], header, _blind(recipients), signer, state)
    return _keep(installation, "backup", label, info, [str(state)], actor=actor)


def places_of(installation: Installation, decoy: Decoy) -> list[str]:
    """Where a planted file lies; nothing for other decoys. Raises TamperError on what was changed."""
    if decoy.kind not in FILES:
        return []
    key = installation.open_gate_root().derive("decoys")
    with installation.open_registry() as registry, registry.read() as records:
        return open_places(key, decoy.id, records.decoys.data(decoy.id))


def _keep(
    installation: Installation, kind: DecoyKind, label: str, info: SealedInfo, places: list[str], *, actor: str
) -> Planted:
    gate, decoy = installation.open_gate_root(), new_id()
    key = gate.derive("decoys")
    with installation.recording(gate) as (ledger, records):
        made = records.decoys.add_file(
            decoy,
            kind,
            label,
            file_hash=file_hash(key, info.header.file_id),
            data=seal_places(key, decoy, places),
            actor=actor,
        )
        # what kind, and never where nor which: the ledger may be shown
        details = {"kind": made.kind, "model": None, "count": made.count}
        record = Record("decoy.added", made.created, made.actor, f"decoy:{made.id}", details)
        return Planted(made, places[0], ledger.append([record])[0])


class _Blind:
    """A recipient of whom the file says that it can open it, and who is wrapped another secret."""

    def __init__(self, recipient: Recipient) -> None:
        self._recipient = recipient
        self.kind, self.key_id = recipient.kind, recipient.key_id

    def __str__(self) -> str:
        return str(self._recipient)

    def wrap(self, secret: bytes, context: bytes) -> Wrap:
        """Wrap a random number of the same length: the file key is gone when the file is written."""
        return self._recipient.wrap(secrets.token_bytes(len(secret)), context)


def _blind(recipients: Sequence[Recipient]) -> list[Recipient]:
    unique = {(recipient.kind, recipient.key_id): recipient for recipient in recipients}
    return [_Blind(recipient) for recipient in unique.values()]


def _zeros(size: int) -> Pieces:
    """What is encrypted: nobody will ever see it."""

    def begin() -> Iterator[bytes]:
        left = size
        while left:
            piece = bytes(min(left, _PIECE_BYTES))
            left -= len(piece)
            yield piece

    return Pieces(size, begin)


def _size(size: int | None) -> int:
    if size is None:
        least, most = SIZES
        return least + secrets.randbelow(most - least)
    if not SIZE_MIN <= size <= SIZE_MAX:
        raise PalladionError(f"a decoy of {size} bytes, {SIZE_MIN} to {SIZE_MAX} were expected")
    return size
