"""Gives a model back as plaintext files: the one way in which what was sealed comes to lie on a disk again."""

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from palladion.approvals.quorum import Wanted
from palladion.approvals.request import Purpose
from palladion.errors import FormatError, StorageError, TamperError
from palladion.host.host import Host
from palladion.host.load import load_files
from palladion.keys import Identity
from palladion.ledger.writer import Receipt
from palladion.lifecycle.approvals import NOTHING, Approved, Permit, authorise, conclude
from palladion.lifecycle.decoy_touches import notice_sealed
from palladion.lifecycle.egress import in_plaintext, leaving
from palladion.lifecycle.export import free_paths, write_files
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.marked import is_marked
from palladion.lifecycle.open import find_version, open_payload, record_opened, sealed_file
from palladion.model.payload import PAYLOAD_KINDS
from palladion.registry import Version, names
from palladion.registry.rows import SealedKind
from palladion.seal.reader import OpenedFiles, inspect_file, open_sealed
from palladion.seal.sign import publisher_id
from palladion.seal.structure import SealedInfo

SUBJECT_CHARACTERS_MAX = 200  # of a path, in a record


@dataclass(frozen=True)
class Unsealed:
    """What was written: the verified statement of the sealed file, the files, and the record where one is kept."""

    info: SealedInfo
    files: tuple[Path, ...]
    receipt: Receipt | None


def unseal(
    installation: Installation,
    target: str | Path,
    identity: Identity,
    out: Path,
    *,
    reason: str,
    actor: str,
    permit: Permit = NOTHING,
) -> Unsealed:
    """Write what a sealed file (a path), or the original of a version (`fraud@3`), holds to the new file `out`.

    A model's external data goes beside it; a folder becomes the new folder `out`. The files are private and nothing is
    overwritten. That it was opened, by whom and why, is on record before anything is written. Raises KeysError if
    `identity` does not open it, TamperError unless it was signed by a trusted publisher, StorageError if a file of such
    a name exists, ApprovalError where others have to agree and `permit` does not show it; then nothing is left behind.
    ConflictError where the policy lets no more leave. What unmarks a model, an original, needs a request to `export`
    it; a marked version one to `unseal` it.
    """
    names.label(reason, what="the reason")
    if isinstance(target, Path):
        # a planted file opens for nobody, and fails below as any other does that is for somebody else
        notice_sealed(installation, target, actor=actor)
    version = find_version(installation, target) if isinstance(target, str) else None
    if os.path.lexists(out):
        # before a request is used up for nothing
        raise StorageError(f"{out}: a file of this name exists, or would exist twice", "name another folder")
    # before a request is used up for what may not leave
    subject = str(target) if version is None else f"{version.model}@{version.number}"
    with leaving(installation, "unseal", actor, subject=subject[:SUBJECT_CHARACTERS_MAX], actor=actor):
        looked_at = _approved(installation, target, version, permit, actor)
        return _written(installation, target, version, identity, out, looked_at=looked_at, reason=reason, actor=actor)


def _written(
    installation: Installation,
    target: str | Path,
    version: Version | None,
    identity: Identity,
    out: Path,
    *,
    looked_at: tuple[str, Approved | None],
    reason: str,
    actor: str,
) -> Unsealed:
    header_digest, approved = looked_at
    with _opened(installation, target, version, identity) as opened:
        if opened.info.header_digest != header_digest:
            raise TamperError(f"{target} is not the file that was here a moment ago", "somebody exchanged it")
        paths = free_paths(opened.info.header.kind, list(opened.files), out)
        gate = installation.open_gate_root()
        with installation.open_ledger(gate) as ledger:
            by = conclude(installation, gate, approved)
            record = record_opened(opened.info, at=installation.clock.now(), actor=actor, reason=reason)
            record = replace(record, details=record.details | by)
            record = in_plaintext(record, sum(len(data) for data in opened.files.values()))
            receipt = ledger.append([record])[0]
        write_files((path, iter([data])) for path, data in zip(paths, opened.files.values(), strict=True))
        return Unsealed(opened.info, tuple(paths), receipt)


def unseal_on_host(host: Host, path: Path, out: Path, *, allow_older: bool = False) -> Unsealed:
    """`unseal` where there is no installation, with the host's keys: nothing is recorded, and `receipt` is None."""
    with load_files(path, host=host, allow_older=allow_older) as opened:
        _require_model(path, opened.info)
        paths = free_paths(opened.info.header.kind, list(opened.files), out)
        write_files((path, iter([data])) for path, data in zip(paths, opened.files.values(), strict=True))
        return Unsealed(opened.info, tuple(paths), None)


@contextmanager
def _opened(
    installation: Installation, target: str | Path, version: Version | None, identity: Identity
) -> Iterator[OpenedFiles]:
    """The payload of a sealed file, or of a version."""
    if version is not None:
        opened = open_payload(installation, version, identity, kind=_kind(version))
    else:
        target = Path(target)
        opened = open_sealed(
            target,
            [identity],
            installation.publishers(),
            accept=lambda info: _accept(installation, target, identity, info),
        )
    with opened:
        yield opened


def _approved(
    installation: Installation, target: str | Path, version: Version | None, permit: Permit, actor: str
) -> tuple[str, Approved | None]:
    """The digest of the header of the file that may be opened, which nobody verified yet; by whom."""
    if version is not None:
        target = installation.paths.sealed / sealed_file(version, _kind(version)).path
    info = inspect_file(Path(target))
    header = info.header
    purpose: Purpose = "unseal" if is_marked(installation, info) else "export"
    subject = f"{header.model}@{header.version}"
    named = f"--file {shlex.quote(str(target))}" if version is None else f"--version {subject}"
    hint = f"palladion approval request {named} --purpose {purpose} --reason TEXT"
    wanted = Wanted(purpose, header.file_id, "")
    return info.header_digest, authorise(
        installation, permit, wanted, subject=subject, hint=hint, actor=actor, publisher=header.publisher
    )


def _kind(version: Version) -> SealedKind:
    # what was only sealed has no other original
    return "original" if version.original is not None else "served"


def _accept(installation: Installation, path: Path, identity: Identity, info: SealedInfo) -> None:
    _require_model(path, info)
    own = publisher_id(installation.public_keys("owner").keys["publisher"]) if installation.paths.owner.exists() else ""
    if info.header.publisher != own:
        # somebody else's file: his licence, his revocations and the version floor hold here as on any host
        host = Host.find(clock=installation.clock, identities=[identity], publishers=installation.publishers())
        host.accept(info, place=path)


def _require_model(path: Path, info: SealedInfo) -> None:
    if info.header.kind not in PAYLOAD_KINDS:
        raise FormatError(f"{path} is a sealed {info.header.kind}, a model was expected")
