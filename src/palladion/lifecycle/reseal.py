"""Seals a version anew under fresh file keys: for a file key that came into wrong hands. The content stays.

Rewrapping would not help then: whoever has a file key opens every copy of the file. What was opened before stays known,
so the old sealed files go on the list of revocations, and copies that were delivered are not touched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from palladion import files
from palladion.keys import Identity, Recipient, Root
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation, gate_identity, owner_identity
from palladion.lifecycle.open import find_version, open_payload, sealed_kinds
from palladion.lifecycle.reconcile import statement
from palladion.lifecycle.revoke import extend
from palladion.registry import SealedFile, Version
from palladion.registry.rows import SealedKind
from palladion.seal.header import new_header
from palladion.seal.reader import OpenedFiles
from palladion.seal.recipients import parse_recipient
from palladion.seal.structure import Progress, SealedInfo
from palladion.seal.writer import seal_files


@dataclass(frozen=True)
class Resealed:
    """What `reseal` made: the version as it is listed now, its new files, and wraps of whom nobody here has the key."""

    version: Version
    infos: tuple[SealedInfo, ...]
    lost: tuple[str, ...]
    receipt: Receipt


def reseal(
    installation: Installation,
    owner: Root,
    text: str,
    *,
    reason: str,
    actor: str,
    progress: Progress | None = None,
) -> Resealed:
    """Seal the version `text` (`fraud@2`) anew, to whom it was sealed before, and revoke its old sealed files.

    A registered recipient who was revoked meanwhile is left out, and so is one who was given as a key and never
    registered: a wrap does not hold the key it was made with. Holds the model in memory.
    """
    version = find_version(installation, text)
    gate = installation.open_gate_root()
    places: dict[SealedKind, tuple[Path, SealedInfo]] = {}
    lost: list[str] = []
    try:
        for kind in sealed_kinds(version):
            with _opened(installation, owner, gate, version, kind) as opened:
                known, unknown = _recipients(installation, owner, gate, opened.info)
                lost += unknown
                places[kind] = _write(installation, owner, opened, known, progress)
        listed, receipt = _register(installation, gate, version, places, reason=reason, actor=actor)
    except BaseException:
        for path, _ in places.values():
            path.unlink(missing_ok=True)
        raise
    old = [sealed for sealed in (version.served, version.original) if sealed is not None]
    extend(
        installation,
        owner,
        subject=f"{version.model}@{version.number}",
        reason=reason,
        actor=actor,
        sealed={sealed.header_digest: reason for sealed in old},
    )
    for sealed in old:
        (installation.paths.sealed / sealed.path).unlink(missing_ok=True)
    return Resealed(listed, tuple(info for _, info in places.values()), tuple(lost), receipt)


def _opened(installation: Installation, owner: Root, gate: Root, version: Version, kind: SealedKind) -> OpenedFiles:
    # what `protect` serves opens for the gate alone; everything else opens for the owner
    by_gate = kind == "served" and version.original is not None
    identity: Identity = gate_identity(gate) if by_gate else owner_identity(owner)
    return open_payload(installation, version, identity, kind=kind)


def _recipients(
    installation: Installation, owner: Root, gate: Root, info: SealedInfo
) -> tuple[list[Recipient], list[str]]:
    """Those to whom a file was sealed and whose key is known here, and the wraps of the others."""
    with installation.open_registry() as registry, registry.read() as records:
        rows = records.recipients.all()
    candidates: list[Recipient] = [
        gate_identity(gate).recipient,
        owner_identity(owner).recipient,
        *installation.escrow_recipients(),
        *(parse_recipient(row.public_key) for row in rows if row.revoked_at is None),
    ]
    by_key = {(candidate.kind, candidate.key_id): candidate for candidate in candidates}
    known = [by_key[wrap.kind, wrap.key_id] for wrap in info.wraps if (wrap.kind, wrap.key_id) in by_key]
    lost = [f"{wrap.kind} {wrap.key_id}" for wrap in info.wraps if (wrap.kind, wrap.key_id) not in by_key]
    return known, lost


def _write(
    installation: Installation,
    owner: Root,
    opened: OpenedFiles,
    recipients: Sequence[Recipient],
    progress: Progress | None,
) -> tuple[Path, SealedInfo]:
    before = opened.info.header
    header = new_header(
        kind=before.kind,
        purpose=before.purpose,
        publisher=before.publisher,
        created=installation.clock.now(),
        model=before.model,
        version=before.version,
        previous=before.previous,
        content=before.content,
        base=before.base,
        license_required=before.license == "required",
    )
    suffix = "original.sealed" if before.purpose == "original" else "sealed"
    path = installation.paths.sealed / before.model / f"{before.version}.{header.file_id[:8]}.{suffix}"
    contents = list(opened.files.items())
    return path, seal_files(contents, header, recipients, owner.signer("publisher"), path, progress=progress)


def _register(
    installation: Installation,
    gate: Root,
    version: Version,
    places: dict[SealedKind, tuple[Path, SealedInfo]],
    *,
    reason: str,
    actor: str,
) -> tuple[Version, Receipt]:
    with installation.recording(gate) as (ledger, records):
        for kind, (path, info) in places.items():
            relative = path.relative_to(installation.paths.sealed).as_posix()
            sealed = SealedFile(relative, info.root, info.header_digest)
            version = records.versions.reseal(version.model, version.number, kind, sealed)
        files.sync_directory(installation.paths.sealed / version.model)
        subject = f"{version.model}@{version.number}"
        details = {**statement(version), "reason": reason}
        record = Record("model.resealed", installation.clock.now(), actor, subject, details)
        return version, ledger.append([record])[0]
