"""Backups: everything that an installation cannot make again, in one folder that may lie anywhere.

The folder holds the sealed versions as they are (they are encrypted already, and copied once), and for each backup one
sealed file with the rest: both keyrings, host identity, policy, registry, ledger, the calibrations of the watch,
revocations, licences, release channels, and what was spent on encrypted queries. That file is sealed to the owner
passphrase and the escrow recipients, and signed by the owner. A backup is recorded once it is there, so it does not
hold its own record. The way back is in `restore`.
"""

import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from palladion import files
from palladion.errors import ConflictError, PalladionError
from palladion.host.host import LICENSE_SUFFIX
from palladion.keys import Recipient, Root
from palladion.ledger.checkpoint import NOTE_BYTES_MAX
from palladion.ledger.journal import JOURNAL_BYTES_MAX
from palladion.ledger.pruning import DIGESTS_BYTES_MAX, KEPT, KEPT_BYTES_MAX, PRUNED_FILE
from palladion.ledger.reader import CHECKPOINT_FILE
from palladion.ledger.record import Record
from palladion.ledger.remote import LedgerWriter
from palladion.ledger.tiles import BUNDLE_BYTES_MAX, TILE_BYTES_MAX
from palladion.ledger.writer import JOURNAL_FILE
from palladion.lifecycle.approvers import require_escrow
from palladion.lifecycle.installation import TEXT_CALIBRATION, Installation
from palladion.lifecycle.open import verify_version
from palladion.lifecycle.slots import SLOTS_FILE, copy_slots
from palladion.lifecycle.witnesses import WITNESSED_FILE
from palladion.policy import POLICY_FILE
from palladion.registry import Registry, SealedFile, Version, names
from palladion.registry.rows import SealedKind
from palladion.seal.header import new_header
from palladion.seal.license import LICENSE_BYTES_MAX
from palladion.seal.reader import verify_file
from palladion.seal.sign import parse_publisher, publisher_id, publisher_text
from palladion.seal.structure import Progress
from palladion.seal.writer import seal_files

PUBLISHER_FILE = "publisher.txt"
SEALED_FOLDER = "sealed"
SCRATCH_FOLDER = ".backup.unfinished"
HOST_IDENTITY, OWNER, GATE, REGISTRY, LEDGER = (
    "host.identity",
    "owner.json",
    "gate.json",
    "registry.sqlite",
    "ledger.tar",
)
REVOCATIONS, LICENSES, CHANNEL_PREFIX = "revocations", "licenses", "release/"
CALIBRATION_PREFIX = "calibrations/"  # of the names of further files of a state
STATE_FILES = (POLICY_FILE, HOST_IDENTITY, OWNER, GATE, REGISTRY, LEDGER)

# docs/ledger.md; an index has 64 bits, in groups of three digits
_TILE = r"(x[0-9]{3}/){0,6}[0-9]{3}(\.p/[1-9][0-9]{0,2})?"
_LEDGER_FILES = (
    (re.compile(CHECKPOINT_FILE), NOTE_BYTES_MAX),
    (re.compile(re.escape(WITNESSED_FILE)), NOTE_BYTES_MAX),
    (re.compile(JOURNAL_FILE), JOURNAL_BYTES_MAX),
    (re.compile(rf"tile/[0-7]/{_TILE}"), TILE_BYTES_MAX),
    (re.compile(rf"tile/entries/{_TILE}"), BUNDLE_BYTES_MAX),
    (re.compile(rf"tile/{KEPT}/{_TILE}"), KEPT_BYTES_MAX),
    (re.compile(re.escape(PRUNED_FILE)), NOTE_BYTES_MAX),
    (re.compile(rf"{PRUNED_FILE}\.(0|[1-9][0-9]{{0,14}})"), DIGESTS_BYTES_MAX),
)


@dataclass(frozen=True)
class BackedUp:
    """What a backup wrote: the sealed state, how many sealed versions it copied, and how many lay there already."""

    state: Path
    copied: int
    present: int


def back_up(
    installation: Installation,
    owner: Root,
    wraps: Sequence[Recipient],
    folder: Path,
    *,
    actor: str,
    progress: Progress | None = None,
) -> BackedUp:
    """Add a backup to `folder`, sealed to `wraps` and the escrow recipients, and record it in the ledger.

    Nobody else registers or protects meanwhile, so that the state speaks of nothing that was not copied. Reads every
    sealed file, here or there. Raises TamperError if one is damaged and was not copied before, BusyError while another
    command writes, or if the process that serves could not hold still long enough; ConflictError if the folder holds
    the backups of another owner.
    """
    signer = owner.signer("publisher")
    _claim(folder, signer.public_key)
    now = installation.clock.now()
    header = new_header(kind="backup", purpose="backup", publisher=publisher_id(signer.public_key), created=now)
    gate = installation.open_gate_root()
    require_escrow(installation, gate)
    recipients = [*wraps, *installation.escrow_recipients()]
    state = folder / f"state-{now:%Y%m%dT%H%M%S.%f}-{header.file_id[:8]}.sealed"
    with installation.open_ledger(gate) as ledger, installation.open_registry() as registry:
        # 1. the sealed versions, before the state that speaks of them
        copied, present = _copy_versions(installation, all_versions(registry), folder / SEALED_FOLDER, progress)
        # 2. the state, under one signature
        with files.scratch_directory(installation.paths.directory / SCRATCH_FOLDER) as scratch:
            registry.copy_to(scratch / REGISTRY)
            ledger.checkpoint()
            _pack(ledger, installation.paths.ledger, scratch / LEDGER)
            sources = {
                POLICY_FILE: installation.paths.policy,
                HOST_IDENTITY: installation.paths.host_identity,
                OWNER: installation.paths.owner,
                GATE: installation.paths.gate,
                REGISTRY: scratch / REGISTRY,
                LEDGER: scratch / LEDGER,
                **_calibrations(installation, registry),
                **_signed(installation, scratch),
                **_slots(installation, scratch),
            }
            info = seal_files(list(sources.items()), header, recipients, signer, state, progress=progress)
        # 3. the record, once there is a backup to speak of
        details = {
            "file_id": header.file_id,
            "root": info.root,
            "header": info.header_digest,
            "sealed_to": [f"{r.kind} {r.key_id}" for r in recipients],
        }
        ledger.append([Record("backup.made", installation.clock.now(), actor, state.name, details)])
    return BackedUp(state, copied, present)


def read_publisher(folder: Path) -> bytes:
    """The public key that the backups in `folder` claim to be signed by; as trustworthy as the folder."""
    text = files.read_limited(folder / PUBLISHER_FILE, size_max=1024, what="the publisher's key")
    return parse_publisher(text.decode("ascii", errors="replace").strip())


def all_versions(registry: Registry) -> list[Version]:
    """Every version of every model."""
    with registry.read() as records:
        return [version for model in records.models.all() for version in records.versions.all(model.name)]


def sealed_files(versions: Iterable[Version]) -> Iterator[tuple[Version, SealedKind, SealedFile]]:
    """The sealed files of `versions`, each with its version and kind."""
    for version in versions:
        yield version, "served", version.served
        if version.original is not None:
            yield version, "original", version.original


def copy_name(sealed: SealedFile) -> str:
    """The name of a sealed file's copy: no two have the same header, so no other one can take its place."""
    return f"{names.digest(sealed.header_digest, what='the digest of a sealed file')}.sealed"


def ledger_bytes_max(name: str) -> int | None:
    """The most bytes that the file `name` of a ledger can have; None if a ledger has no such file."""
    return next((size for pattern, size in _LEDGER_FILES if pattern.fullmatch(name)), None)


def _calibrations(installation: Installation, registry: Registry) -> dict[str, Path]:
    """The calibration files that are still what was registered, or what the policy names, by their names in a state.

    One that is lost or damaged does not stop a backup: it can be made again.
    """
    with registry.read() as records:
        rows = records.calibrations.all()
    listed = [(row.path, row.digest) for row in rows]
    listed += [
        (TEXT_CALIBRATION.format(digest), digest)
        for digest in {route.calibration for route in installation.policy.route} - {""}
    ]
    paths = {name: (installation.paths.calibrations / name, digest) for name, digest in listed}
    return {
        f"{CALIBRATION_PREFIX}{name}": path
        for name, (path, digest) in paths.items()
        if path.is_file() and sha256(path.read_bytes()).hexdigest() == digest
    }


def _signed(installation: Installation, scratch: Path) -> dict[str, Path]:
    """Revocations, states of release channels, and every licence, a line each, by their names in a state."""
    found: dict[str, Path] = {}
    if installation.paths.revocations.is_file():
        found[REVOCATIONS] = installation.paths.revocations
    for state in sorted(installation.paths.release.glob("*.json")):
        found[f"{CHANNEL_PREFIX}{state.name}"] = state
    licenses = sorted(installation.paths.licenses.glob(f"*/*{LICENSE_SUFFIX}"))
    if licenses:
        found[LICENSES] = scratch / LICENSES
        with files.storage_errors(found[LICENSES]), found[LICENSES].open("wb") as stream:
            for path in licenses:
                stream.write(files.read_limited(path, size_max=LICENSE_BYTES_MAX, what="the licence"))
    return found


def _slots(installation: Installation, scratch: Path) -> dict[str, Path]:
    """The file of what was spent on encrypted queries, by its name in a state, where there is one."""
    source = installation.paths.directory / SLOTS_FILE
    with files.storage_errors(source):
        exists = source.exists()
    if not exists:
        return {}
    copy_slots(source, scratch / SLOTS_FILE)
    return {SLOTS_FILE: scratch / SLOTS_FILE}


def _claim(folder: Path, publisher: bytes) -> None:
    """Make `folder` this owner's, or see that it is."""
    path = folder / PUBLISHER_FILE
    with files.storage_errors(path):
        exists = path.exists()
    if exists:
        if read_publisher(folder) != publisher:
            raise ConflictError(f"{folder} holds the backups of another owner", "choose another folder")
        return
    files.make_private_directory(folder)
    files.write_atomically(path, f"{publisher_text(publisher)}\n".encode(), mode=0o644)


def _copy_versions(
    installation: Installation, versions: Sequence[Version], folder: Path, progress: Progress | None
) -> tuple[int, int]:
    """Copy the sealed files of which no whole copy is there yet; returns how many, and of how many there was one."""
    copied = present = 0
    files.make_private_directory(folder)
    for version, kind, sealed in sealed_files(versions):
        copy = folder / copy_name(sealed)
        if _is_whole(copy, sealed, installation.publishers(), progress):
            present += 1
            continue
        # a damaged file must not replace what may be left of its copy
        verify_version(installation, version, kind, progress=progress)
        files.copy_file(installation.paths.sealed / sealed.path, copy, replace=True)
        copied += 1
    return copied, present


def _is_whole(copy: Path, sealed: SealedFile, publishers: Sequence[bytes], progress: Progress | None) -> bool:
    """Whether `copy` is that sealed file, every byte: media forget bytes and keep size and time."""
    if copy.is_symlink():
        return False
    try:
        info = verify_file(copy, publishers, progress=progress)
    except PalladionError:
        return False  # then it is copied, or the backup fails
    return (info.header_digest, info.root) == (sealed.header_digest, sealed.digest)


def _pack(ledger: LedgerWriter, folder: Path, target: Path) -> None:
    """A ledger is thousands of small files: one archive of them, without its lock and what a crash left there.

    Only what a checkpoint replaces has to be of one moment. Full tiles, nearly all of the ledger, never change again:
    they are packed afterwards, so that a process that serves need not hold its checkpoints back for so long.
    """
    # dereference: else two names of one file, as hard-linking copies make them, become a file and a link to it
    with files.storage_errors(target), tarfile.open(target, "w", dereference=True) as archive:
        with ledger.frozen():
            found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
            parts = sorted(name for name in found if ledger_bytes_max(name) is not None)
            _add(archive, found, [name for name in parts if not _is_full_tile(found[name])])
        _add(archive, found, [name for name in parts if _is_full_tile(found[name])])


def _is_full_tile(path: Path) -> bool:
    return path.parent.suffix != ".p" and path.name.isdecimal()


def _add(archive: tarfile.TarFile, found: dict[str, Path], parts: Sequence[str]) -> None:
    for name in parts:
        archive.add(found[name], name)
