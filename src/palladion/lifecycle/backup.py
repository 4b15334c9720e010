"""Backups: everything that an installation cannot make again, in one folder that may lie anywhere; and back from it.

The folder holds the sealed versions as they are (they are encrypted already, and copied once), and for each backup one
sealed file with the rest: both keyrings, host identity, policy, registry and ledger. That file is sealed to the owner
passphrase and the escrow recipients, and signed by the owner.
"""

import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from palladion import files
from palladion.clock import Clock
from palladion.errors import ConflictError, FormatError, InstallationError, NotFoundError, TamperError
from palladion.keys import Identity, Recipient, Root
from palladion.ledger.audit import LedgerReport, verify_ledger
from palladion.ledger.record import Record
from palladion.ledger.writer import LOCK_FILE
from palladion.lifecycle.installation import Installation, paths_of
from palladion.lifecycle.open import verify_version
from palladion.policy import POLICY_FILE, parse_policy, toml_string
from palladion.registry import Records, SealedFile
from palladion.seal.header import new_header
from palladion.seal.reader import open_sealed
from palladion.seal.sign import parse_publisher, publisher_id, publisher_text
from palladion.seal.structure import Progress
from palladion.seal.writer import seal_files

PUBLISHER_FILE = "publisher.txt"
SEALED_FOLDER = "sealed"
HOST_IDENTITY, OWNER, GATE, REGISTRY, LEDGER = (
    "host.identity",
    "owner.json",
    "gate.json",
    "registry.sqlite",
    "ledger.tar",
)
STATE_FILES = (POLICY_FILE, HOST_IDENTITY, OWNER, GATE, REGISTRY, LEDGER)


@dataclass(frozen=True)
class BackedUp:
    """What a backup wrote: the sealed state, how many sealed versions it copied, and how many lay there already."""

    state: Path
    copied: int
    present: int


@dataclass(frozen=True)
class Restored:
    """What `restore` put back, all of it verified."""

    installation: Installation
    state: Path
    publisher: bytes
    ledger: LedgerReport
    versions: int


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

    Holds the ledger's lock, so that all of it is of one moment. Raises BusyError while another process writes,
    ConflictError if the folder holds the backups of another owner.
    """
    signer = owner.signer("publisher")
    _claim(folder, signer.public_key)
    now = installation.clock.now()
    header = new_header(kind="backup", purpose="backup", publisher=publisher_id(signer.public_key), created=now)
    recipients = [*wraps, *installation.escrow_recipients()]
    state = folder / f"state-{now:%Y%m%dT%H%M%S.%f}-{header.file_id[:8]}.sealed"
    with installation.open_ledger(installation.open_gate_root()) as ledger, installation.open_registry() as registry:
        # 1. the record first, so that the backup itself says that it was made
        details = {"file_id": header.file_id, "sealed_to": [f"{r.kind} {r.key_id}" for r in recipients]}
        ledger.append([Record("backup.made", now, actor, state.name, details)])
        ledger.checkpoint()
        # 2. the sealed versions, before the state that speaks of them
        with registry.read() as records:
            copied, present = _copy_versions(installation.paths.sealed, folder / SEALED_FOLDER, _sealed_files(records))
        # 3. the state, under one signature
        with tempfile.TemporaryDirectory(dir=installation.paths.directory, prefix=".backup-") as temporary:
            registry.copy_to(Path(temporary) / REGISTRY)
            _pack(installation.paths.ledger, Path(temporary) / LEDGER)
            sources = {
                POLICY_FILE: installation.paths.policy,
                HOST_IDENTITY: installation.paths.host_identity,
                OWNER: installation.paths.owner,
                GATE: installation.paths.gate,
                REGISTRY: Path(temporary) / REGISTRY,
                LEDGER: Path(temporary) / LEDGER,
            }
            seal_files(list(sources.items()), header, recipients, signer, state, progress=progress)
    return BackedUp(state, copied, present)


def newest_state(folder: Path) -> Path:
    """The newest backup in `folder`. Raises NotFoundError if it holds none."""
    states = sorted(folder.glob("state-*.sealed"))
    if not states:
        raise NotFoundError(f"no backup in {folder}", "a folder written by palladion backup was expected")
    return states[-1]


def read_publisher(folder: Path) -> bytes:
    """The public key that the backups in `folder` claim to be signed by; as trustworthy as the folder."""
    text = files.read_limited(folder / PUBLISHER_FILE, size_max=1024, what="the publisher's key")
    return parse_publisher(text.decode("ascii", errors="replace").strip())


def restore(
    state: Path,
    home: Path,
    identities: Sequence[Identity],
    *,
    publisher: bytes,
    actor: str,
    clock: Clock,
    host_identity: str | None = None,
    progress: Progress | None = None,
) -> Restored:
    """Put the installation of a backup back into the folder `home`, which must not hold one, and verify all of it.

    `publisher` is the raw public key that must have signed. `host_identity` puts that file elsewhere than the policy
    says. Raises InstallationError if there is an installation already, TamperError if anything does not fit together.
    """
    # 1. open the state: signature, passphrase, every byte
    with open_sealed(state, identities, [publisher], progress=progress) as opened:
        if opened.info.header.kind != "backup" or tuple(opened.files) != STATE_FILES:
            raise FormatError(f"{state} is a sealed {opened.info.header.kind}, a backup was expected")
        file_id = opened.info.header.file_id
        # 2. write it, and the sealed versions beside it
        installation = _write(opened.files, home, host_identity, clock)
    sealed = state.parent / SEALED_FOLDER
    if sealed.is_dir():
        shutil.copytree(sealed, installation.paths.sealed, dirs_exist_ok=True)
    # 3. check what was written: a restore that was not verified is a hope
    owner = installation.open_owner_root(identities)
    if owner.public().keys["publisher"] != publisher:
        raise TamperError(f"{state} is signed by another publisher than the owner whose keys it holds")
    report = verify_ledger(installation.paths.ledger, installation.ledger_key())
    with installation.open_registry() as registry:
        registry.verify()
        with registry.read() as records:
            versions = [version for model in records.models.all() for version in records.versions.all(model.name)]
    for version in versions:
        verify_version(installation, version, "served")
        if version.original is not None:
            verify_version(installation, version, "original")
    # 4. record it
    with installation.open_ledger(installation.open_gate_root()) as ledger:
        details = {"file_id": file_id, "entries": report.size}
        ledger.append([Record("backup.restored", clock.now(), actor, state.name, details)])
    return Restored(installation, state, publisher, report, len(versions))


def _claim(folder: Path, publisher: bytes) -> None:
    """Make `folder` this owner's, or see that it is."""
    path = folder / PUBLISHER_FILE
    if path.exists():
        if read_publisher(folder) != publisher:
            raise ConflictError(f"{folder} holds the backups of another owner", "choose another folder")
        return
    files.make_private_directory(folder)
    files.write_atomically(path, f"{publisher_text(publisher)}\n".encode(), mode=0o644)


def _sealed_files(records: Records) -> Iterator[SealedFile]:
    for model in records.models.all():
        for version in records.versions.all(model.name):
            yield version.served
            if version.original is not None:
                yield version.original


def _copy_versions(source: Path, target: Path, sealed: Iterator[SealedFile]) -> tuple[int, int]:
    """Copy the sealed files that are not there yet, or that were wrapped anew; returns how many, and how many were."""
    copied = present = 0
    for file in sealed:
        data, copy = source / file.path, target / file.path
        with files.storage_errors(data):
            status = data.stat()
            if copy.exists() and (copy.stat().st_size, copy.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns):
                present += 1
                continue
            files.make_private_directory(copy.parent)
            temporary = copy.with_name(f".{copy.name}.tmp")
            shutil.copy2(data, temporary)
            temporary.replace(copy)
        copied += 1
    return copied, present


def _pack(folder: Path, target: Path) -> None:
    """A ledger is thousands of small files: one archive, without its lock."""
    with files.storage_errors(target), tarfile.open(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name != LOCK_FILE:
                archive.add(path, path.relative_to(folder).as_posix())


def _write(contents: Mapping[str, memoryview], home: Path, host_identity: str | None, clock: Clock) -> Installation:
    text = bytes(contents[POLICY_FILE]).decode("utf-8")
    if host_identity is not None:
        text = _with_host_identity(text, host_identity)
    policy = parse_policy(text.encode(), POLICY_FILE)
    paths = paths_of(home, policy)
    for path in (paths.policy, paths.directory):
        if path.exists():
            raise InstallationError(f"{path} exists already", "restore into a folder without an installation")
    identity = bytes(contents[HOST_IDENTITY])
    if paths.host_identity.exists() and paths.host_identity.read_bytes() != identity:
        raise ConflictError(
            f"{paths.host_identity} is another host's identity", "put the restored one elsewhere: --host-identity FILE"
        )
    files.make_private_directory(paths.directory / "keys")
    files.make_private_directory(paths.sealed)
    for path, name in ((paths.gate, GATE), (paths.owner, OWNER), (paths.registry, REGISTRY)):
        files.make_private_directory(path.parent)
        files.write_atomically(path, bytes(contents[name]))
    with files.storage_errors(paths.ledger), tarfile.open(fileobj=BytesIO(contents[LEDGER])) as archive:
        files.make_private_directory(paths.ledger)
        archive.extractall(paths.ledger, filter="data")
        for folder in paths.ledger.rglob("*/"):
            # the archive holds files alone, and folders on the way get the process's default mode
            folder.chmod(files.PRIVATE_DIRECTORY)
    if not paths.host_identity.exists():
        files.make_private_directory(paths.host_identity.parent)
        files.write_atomically(paths.host_identity, identity)
    files.write_atomically(paths.policy, text.encode(), mode=0o644)
    return Installation(paths, policy, clock)


def _with_host_identity(text: str, path: str) -> str:
    """The policy text with that setting replaced."""
    lines = text.splitlines()
    place = next((i for i, line in enumerate(lines) if line.startswith("host_identity =")), None)
    if place is None:
        raise FormatError("the policy of the backup does not set keys.host_identity", "restore without --host-identity")
    lines[place] = f"host_identity = {toml_string(path)}"
    return "\n".join(lines) + "\n"
