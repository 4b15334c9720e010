"""The way back from a backup: chooses one, and makes of it an installation in a new home, verified before it stands.

Nothing that exists is overwritten, and nothing is written outside the new home but the host identity.
"""

import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec

from palladion import files, keys
from palladion.clock import Clock
from palladion.errors import (
    ConflictError,
    FormatError,
    KeysError,
    MissingExtraError,
    NotFoundError,
    PalladionError,
    TamperError,
)
from palladion.host.host import LICENSE_SUFFIX
from palladion.keys import Identity, Root
from palladion.ledger.audit import LedgerReport, verify_ledger
from palladion.ledger.record import Record
from palladion.lifecycle.backup import (
    CALIBRATION_PREFIX,
    CHANNEL_PREFIX,
    GATE,
    HOST_IDENTITY,
    LEDGER,
    LICENSES,
    OWNER,
    REGISTRY,
    REVOCATIONS,
    SEALED_FOLDER,
    STATE_FILES,
    all_versions,
    copy_name,
    ledger_bytes_max,
    sealed_files,
)
from palladion.lifecycle.create import new_installation
from palladion.lifecycle.installation import TEXT_CALIBRATION, Installation, Paths, owner_identity, paths_of
from palladion.lifecycle.open import verify_version
from palladion.lifecycle.slots import SLOTS_FILE, verify_slots
from palladion.policy import POLICY_FILE, Policy, parse_policy, settings, template
from palladion.policy.template import toml_literal
from palladion.registry import Registry, Version
from palladion.seal.license import verify_license
from palladion.seal.manifest import check_name
from palladion.seal.reader import open_sealed
from palladion.seal.recipients import TpmIdentity, read_identity
from palladion.seal.recipients.file import IDENTITY_FILE_BYTES_MAX
from palladion.seal.revocations import verify_revocations
from palladion.seal.sign import parse_publisher
from palladion.seal.structure import Progress, opened


@dataclass(frozen=True)
class Newest:
    """The newest backup in a folder, and the files there that look like one and are damaged or another publisher's."""

    state: Path
    passed_over: tuple[Path, ...]


@dataclass(frozen=True)
class Restored:
    """What `restore` put back, all of it verified. `moved` are settings that led elsewhere: where that lies now.

    `locked_out` says that the host identity is a key in a TPM that does not open the gate root here: another machine's.
    """

    installation: Installation
    state: Path
    publisher: bytes
    ledger: LedgerReport
    versions: int
    moved: Mapping[str, Path]
    locked_out: bool = False


def newest_state(folder: Path, publisher: bytes) -> Newest:
    """The newest backup in `folder`, by the time that `publisher` signed: names and dates of files are anybody's.

    Raises NotFoundError if there is none.
    """
    states: list[tuple[str, Path]] = []
    passed_over: list[Path] = []
    for path in sorted(folder.glob("state-*.sealed")):
        try:
            # the signature covers the header; what it covers besides is checked when the backup is opened
            with opened(path) as (_, structure):
                structure.verify_publisher([publisher])
                states.append((structure.header.created, path))
        except PalladionError:
            passed_over.append(path)
    if not states:
        found = f", and {len(passed_over)} that are damaged or signed by another publisher" if passed_over else ""
        raise NotFoundError(f"no backup in {folder}{found}", "a folder written by palladion backup was expected")
    return Newest(max(states)[1], tuple(passed_over))


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

    `publisher` is the raw public key that must have signed. Everybody can seal to a public key: unless `identities`
    hold a secret that only the owner knows, `publisher` has to come from elsewhere than the backup. `host_identity`
    puts that file elsewhere than the policy says. Raises InstallationError if there is an installation already,
    TamperError if anything does not fit together; then `home` is as empty as it was.
    """
    # 1. open the state: signature, passphrase, every byte
    with open_sealed(state, identities, [publisher], progress=progress) as sealed:
        if sealed.info.header.kind != "backup" or tuple(sealed.files)[: len(STATE_FILES)] != STATE_FILES:
            raise FormatError(f"{state} is a sealed {sealed.info.header.kind}, a backup was expected")
        # 2. what says where things go, and whose they are, before anything is written
        text, moved = _policy_for(bytes(sealed.files[POLICY_FILE]), home, host_identity)
        policy = parse_policy(text.encode(), POLICY_FILE)
        gate = _open_roots(sealed.files, identities, policy, publisher)
        identity = bytes(sealed.files[HOST_IDENTITY])
        _refuse_other_identity(paths_of(home, policy).host_identity, identity)
        with new_installation(home, text, clock) as draft:
            # 3. write it, and the sealed versions that it speaks of
            _write(sealed.files, draft.paths)
            with draft.open_registry() as registry:
                registry.verify()
                versions = all_versions(registry)
                _write_calibrations(sealed.files, registry, draft.paths.calibrations)
            _write_signed(sealed.files, draft)
            _write_slots(sealed.files, draft.paths.directory / SLOTS_FILE)
            # 4. check what was written: a restore that was not verified is a hope
            _copy_versions(state.parent / SEALED_FOLDER, versions, draft, progress)
            report = verify_ledger(draft.paths.ledger, draft.ledger_key())
            # 5. record it
            with draft.lock_ledger(gate) as ledger:
                details = {"file_id": sealed.info.header.file_id, "entries": report.size}
                ledger.append([Record("backup.restored", clock.now(), actor, state.name, details)])
            # 6. the host identity, the only thing that is written outside
            _place_host_identity(draft.paths.host_identity, identity)
            locked_out = not _opens(draft)
    installation = Installation.find(home, clock, exact=True)
    places = {
        "installation.directory": installation.paths.directory,
        "keys.owner": installation.paths.owner,
        "registry.url": installation.paths.registry,
    }
    moved_to = {name: places[name] for name in moved}
    return Restored(installation, state, publisher, report, len(versions), moved_to, locked_out)


def unpack_ledger(archive_bytes: memoryview, folder: Path) -> None:
    """Write the files of a ledger's archive into the new folder `folder`, private, and not durable before a sync.

    Raises FormatError on anything but the regular files of a ledger.
    """
    files.make_private_directory(folder)
    try:
        # uncompressed: the archive's own size is the limit for all of it
        with tarfile.open(fileobj=BytesIO(archive_bytes), mode="r:") as archive:
            for member in archive:
                bytes_max = ledger_bytes_max(member.name)
                content = archive.extractfile(member) if member.isreg() and not member.issparse() else None
                if bytes_max is None or content is None or member.size > bytes_max:
                    raise FormatError(f"the backup's ledger holds {member.name[:80]!r}, which is no file of a ledger")
                path = folder / member.name
                files.make_private_directory(path.parent)
                _write_new(path, content.read())
    except (tarfile.TarError, ValueError, RecursionError) as error:
        raise FormatError(f"the backup's ledger is no archive: {error}") from None


def _policy_for(data: bytes, home: Path, host_identity: str | None) -> tuple[str, list[str]]:
    """The policy text for the new home, and the settings that led out of it: they go back to their defaults."""
    policy = parse_policy(data, POLICY_FILE)
    leads_elsewhere = {
        "installation.directory": not _is_below(home, policy.installation.directory),
        # in their own places these two are part of the installation folder
        "keys.owner": policy.keys.owner != "",
        "registry.url": policy.registry.url != "",
    }
    moved = [name for name, elsewhere in leads_elsewhere.items() if elsewhere]
    changes = {setting.name: setting.default for setting in settings() if setting.name in moved}
    if host_identity is not None:
        changes["keys.host_identity"] = host_identity
    return _policy_text(policy, changes) if changes else data.decode(), moved


def _is_below(home: Path, text: str) -> bool:
    try:
        place = (home / Path(text).expanduser()).resolve()
    except RuntimeError:
        return False  # the folder of somebody who is not known here
    return home.resolve() in place.parents


def _policy_text(policy: Policy, changes: Mapping[str, Any]) -> str:
    """The text of `policy` with `changes`. However it was written before, it then says just that; comments are lost."""
    sections = msgspec.structs.asdict(policy)
    several = {name: tables for name, tables in sections.items() if isinstance(tables, tuple)}
    values = {
        setting.name: value
        for setting in settings()
        if setting.section not in several
        and (value := changes.get(setting.name, getattr(sections[setting.section], setting.key))) != setting.default
    }
    lines = []
    for section, tables in several.items():
        for table in tables:
            literals = {key: toml_literal(value) for key, value in msgspec.structs.asdict(table).items()}
            lines += ["", f"[[{section}]]", *(f"{key} = {literal}" for key, literal in literals.items())]
    return template(values) + "".join(f"{line}\n" for line in lines)


def _open_roots(
    contents: Mapping[str, memoryview], identities: Sequence[Identity], policy: Policy, publisher: bytes
) -> Root:
    """The gate root of a backup, whose owner root opens it and is the one that signed the backup."""
    owner = keys.open_root(bytes(contents[OWNER]), identities, what="the owner root of the backup")
    if owner.name != "owner" or owner.public().keys["publisher"] != publisher:
        raise TamperError("the backup is signed by another publisher than the owner whose keys it holds")
    if publisher not in [parse_publisher(text) for text in policy.trust.publishers]:
        raise TamperError("the policy of the backup does not trust the publisher who signed the backup")
    gate = keys.open_root(bytes(contents[GATE]), [owner_identity(owner)], what="the gate root of the backup")
    if gate.name != "gate":
        raise TamperError(f"the backup holds the {gate.name} root where the gate root was expected")
    return gate


def _write(contents: Mapping[str, memoryview], paths: Paths) -> None:
    for name, path in ((OWNER, paths.owner), (GATE, paths.gate), (REGISTRY, paths.registry)):
        _write_new(path, contents[name])
    unpack_ledger(contents[LEDGER], paths.ledger)


def _write_calibrations(contents: Mapping[str, memoryview], registry: Registry, folder: Path) -> None:
    """Write what the state holds besides `STATE_FILES`. Raises FormatError unless it is what the registry lists."""
    with registry.read() as records:
        listed = {f"{CALIBRATION_PREFIX}{row.path}": row.digest for row in records.calibrations.all()}
    for name, content in list(contents.items())[len(STATE_FILES) :]:
        if name in {REVOCATIONS, LICENSES, SLOTS_FILE} or name.startswith(CHANNEL_PREFIX):
            continue
        digest = sha256(content).hexdigest()
        # those of language models have their digests for names, and the policy chooses among them
        if name != f"{CALIBRATION_PREFIX}{TEXT_CALIBRATION.format(digest)}" and listed.get(name) != digest:
            raise FormatError(f"the backup holds {name[:80]!r}, which its registry does not list")
        path = name.removeprefix(CALIBRATION_PREFIX)
        check_name(path)
        files.make_private_directory((folder / path).parent)
        _write_new(folder / path, content)


def _write_signed(contents: Mapping[str, memoryview], draft: Installation) -> None:
    """Write revocations and licences, each one verified, and each to where its own content says."""
    if REVOCATIONS in contents:
        data = bytes(contents[REVOCATIONS])
        verify_revocations(data, draft.publishers(), what="the backup's list of revocations")
        _write_new(draft.paths.revocations, data)
    for name, content in contents.items():
        if name.startswith(CHANNEL_PREFIX):
            # it is verified when it is used next, against the keys in it
            files.make_private_directory(draft.paths.release)
            _write_new(draft.paths.release / name.removeprefix(CHANNEL_PREFIX).replace("/", "_"), content)
    for line in bytes(contents.get(LICENSES, b"")).splitlines(keepends=True):
        terms = verify_license(line, draft.publishers(), what="a licence in the backup")
        path = draft.paths.licenses / terms.serial / f"{terms.sequence}{LICENSE_SUFFIX}"
        files.make_private_directory(path.parent)
        _write_new(path, line)


def _write_slots(contents: Mapping[str, memoryview], path: Path) -> None:
    """Write what was spent on encrypted queries. Raises TamperError on a damaged one: its budgets would begin anew."""
    if SLOTS_FILE in contents:
        _write_new(path, contents[SLOTS_FILE])
        verify_slots(path)


def _write_new(path: Path, content: bytes | memoryview) -> None:
    with files.storage_errors(path):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, files.PRIVATE_FILE), "wb") as stream:
            stream.write(content)


def _copy_versions(folder: Path, versions: Sequence[Version], draft: Installation, progress: Progress | None) -> None:
    for version, kind, sealed in sealed_files(versions):
        what = f"the {kind} file of version {version.number} of {version.model}"
        try:
            check_name(sealed.path)
            copy = folder / copy_name(sealed)
        except ValueError as error:
            raise FormatError(f"the registry of the backup misplaces {what}: {error}") from None
        with files.storage_errors(copy):
            if copy.is_symlink() or not copy.is_file():
                raise TamperError(f"the backup lacks {copy}, {what}")
        target = draft.paths.sealed / sealed.path
        files.make_private_directory(target.parent)
        files.copy_file(copy, target)
        try:
            verify_version(draft, version, kind, progress=progress)
        except (FormatError, TamperError) as error:
            raise TamperError(f"{copy} is no longer {what}: {error.message}", "another backup may hold it") from None


def _opens(draft: Installation) -> bool:
    """Whether the host identity opens the gate root. Raises if it should: False is for a key in a TPM alone."""
    try:
        draft.open_gate_root()
    except (KeysError, NotFoundError, MissingExtraError):
        if not isinstance(read_identity(draft.paths.host_identity), TpmIdentity):
            raise
        return False
    return True


def _refuse_other_identity(path: Path, identity: bytes) -> None:
    if os.path.lexists(path):
        found = files.read_limited(path, size_max=IDENTITY_FILE_BYTES_MAX, what="the host identity")
        if not compare_digest(found, identity):
            hint = "put the restored one elsewhere: --host-identity FILE"
            raise ConflictError(f"{path} is another host's identity", hint)


def _place_host_identity(path: Path, identity: bytes) -> None:
    if not os.path.lexists(path):
        files.make_private_directory(path.parent)
        with files.atomic_writer(path, replace=False) as stream:
            stream.write(identity)
    _refuse_other_identity(path, identity)
