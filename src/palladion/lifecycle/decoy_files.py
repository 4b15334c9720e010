"""Plants sealed files that nobody can open: real format, real signature, the recipients of real ones, and a file key
that was thrown away. Whoever asks for that key has been where the file lies.

What is wrapped to each recipient is a random number and not the file key: the file says of itself what every other one
says, and opens for nobody, the owner included.
"""

import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

from palladion import files
from palladion.access.decoy_files import file_hash, open_places, seal_places
from palladion.errors import ConflictError, PalladionError, StorageError
from palladion.keys import Recipient, Root, Signer, Wrap
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.backup import PUBLISHER_FILE, SEALED_FOLDER, all_versions
from palladion.lifecycle.installation import Installation, gate_identity, owner_identity
from palladion.registry import Decoy, names
from palladion.registry.decoys import FILES, new_id
from palladion.registry.rows import DecoyKind
from palladion.seal.header import Kind, Purpose, header_digest, new_header
from palladion.seal.reader import inspect_file
from palladion.seal.sign import publisher_id, publisher_text
from palladion.seal.structure import SealedInfo
from palladion.seal.writer import Pieces, seal_files
from palladion.transit.connection import Limits
from palladion.transit.push import push

SIZE_MIN, SIZE_MAX = 4 * 1024, 64 * 2**30
SIZES = (6 * 2**20, 40 * 2**20)  # where nobody says how large: as models are that somebody would take along
_PIECE_BYTES = 1024 * 1024
ALIGNED = {"safetensors": 8, "gguf": 32}  # bytes of which such files are a multiple
# what the models of a planted backup may be called, where none of ours is
MODEL_NAMES = ("scoring", "ranking", "forecast", "screening", "matching", "pricing", "routing", "intake")
COPIES_MAX = 4  # sealed versions in a planted backup
LIKE_MAX = 256 * 2**20  # nobody waits for decoys of gigabytes who did not ask for them
_LIKE = (0.7, 1.4)  # of a size that one of ours has
_REGISTRY_BYTES = 400 * 1024  # of one that is new, where ours is a server's
_PURPOSES: tuple[Purpose, ...] = ("served", "original")
_DAYS_MAX = 30  # between a version and the backup
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
    count = _size(size, kind, _own_sizes(installation, kind))
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
    wraps = _openers(installation, owner, purpose)
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

    `wraps` are as those of a real backup: a passphrase, and escrow. Beside it lie sealed versions of a model that there
    is not, each a decoy of its own. Raises StorageError if the folder exists.
    """
    if folder.exists():
        raise StorageError(f"{folder} exists already", "name a new folder: nothing is overwritten")
    count = _state_bytes(installation) if size is None else _size(size)
    signer: Signer = owner.signer("publisher")
    now = installation.clock.now()
    header = new_header(kind="backup", purpose="backup", publisher=publisher_id(signer.public_key), created=now)
    folder = folder.absolute()
    files.make_private_directory(folder / SEALED_FOLDER)
    files.write_atomically(folder / PUBLISHER_FILE, f"{publisher_text(signer.public_key)}\n".encode(), mode=0o644)
    for path, copy in _copies(installation, owner, folder / SEALED_FOLDER, now=now):
        _keep(installation, "file", label, copy, [str(path)], actor=actor)
    state = folder / f"state-{now:%Y%m%dT%H%M%S.%f}-{header.file_id[:8]}.sealed"
    recipients = [*wraps, *installation.escrow_recipients()]
    info = seal_files([("registry.sqlite", _zeros(count))], header, _blind(recipients), signer, state)
    return _keep(installation, "backup", label, info, [str(state)], actor=actor)


def _copies(
    installation: Installation, owner: Root, folder: Path, *, now: datetime
) -> Iterator[tuple[Path, SealedInfo]]:
    """Sealed versions of a model that there is not, one after the other, named as a backup names its copies."""
    with installation.open_registry() as registry:
        real = all_versions(registry)
        with registry.read() as records:
            free = [name for name in MODEL_NAMES if records.models.find(name) is None]
    if not free:
        return
    formats = [version.format for version in real if version.format in _NAMES]
    kind: Kind = cast("Kind", secrets.choice(formats or ["safetensors"]))
    model, signer = secrets.choice(free), owner.signer("publisher")
    count = _size(None, kind, _own_sizes(installation, kind))
    created, previous = now - timedelta(days=_DAYS_MAX), ""
    for number in range(1, max(1, min(len(real), COPIES_MAX // 2)) + 1):
        created += timedelta(microseconds=secrets.randbelow(_DAYS_MAX * 86_400_000_000 // COPIES_MAX))
        content = secrets.token_hex(32)
        for purpose in _PURPOSES:
            header = new_header(
                kind=kind, purpose=purpose, publisher=publisher_id(signer.public_key), created=created, model=model,
                version=number, previous=previous, content=content,
            )  # fmt: skip
            path = folder / f"{header_digest(header.encode())}.sealed"
            wraps = _blind(_openers(installation, owner, purpose))
            yield path, seal_files([(_NAMES[kind], _zeros(count))], header, wraps, signer, path)
            created += timedelta(microseconds=20_000 + secrets.randbelow(80_000))
            if purpose == "served":
                following = header_digest(header.encode())
        previous = following


def _openers(installation: Installation, owner: Root, purpose: Purpose) -> list[Recipient]:
    """As `protect` has it: the gate opens what is served, owner and escrow the original."""
    if purpose == "served":
        return [gate_identity(installation.open_gate_root()).recipient]
    return [owner_identity(owner).recipient, *installation.escrow_recipients()]


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


def _size(size: int | None, kind: str = "safetensors", own: Sequence[int] = ()) -> int:
    """How large a decoy is: as asked, or about as one of ours (`own`), which lie beside it, or as models are."""
    if size is None:
        least, most = SIZES
        if own:
            chosen = secrets.choice(own)
            like = min(chosen, LIKE_MAX)
            least, most = max(SIZE_MIN, int(like * _LIKE[0])), max(2 * SIZE_MIN, int(like * _LIKE[1]))
        # another size than such files have would tell a thief that it is none: the remainder, too, is of one of ours
        step = ALIGNED.get(kind, 1)
        least = -(-least // step) * step + (chosen % step if own else 0)
        return least + secrets.randbelow(max(1, (most - least) // step)) * step
    if not SIZE_MIN <= size <= SIZE_MAX:
        raise PalladionError(f"a decoy of {size} bytes, {SIZE_MIN} to {SIZE_MAX} were expected")
    return size


def _own_sizes(installation: Installation, kind: str) -> list[int]:
    """How many bytes are in the sealed versions of a kind here; of any kind, where there is none of that."""
    with installation.open_registry() as registry:
        every = all_versions(registry)
    sizes = []
    for version in [version for version in every if version.format == kind] or every:
        path = installation.paths.sealed / version.served.path
        with suppress(PalladionError):  # one that is lost or damaged is no reason not to plant
            sizes.append(inspect_file(path).payload_bytes)
    return sizes


def _state_bytes(installation: Installation) -> int:
    """How large the state of a backup that was made lately would be."""
    paths = installation.paths
    single = (paths.policy, paths.owner, paths.gate, paths.registry, paths.host_identity)
    size = 0 if paths.registry.is_file() else _REGISTRY_BYTES
    size += sum(path.stat().st_size for path in single if path.is_file())
    # the ledger as one archive: a block before each file, whole blocks, and an end of ten kilobytes
    for path in paths.ledger.rglob("*"):
        if path.is_file():
            size += 512 + -(-path.stat().st_size // 512) * 512
    return max(SIZE_MIN, size + 10_240 + secrets.randbelow(4096) - 2048)
