"""What must not be opened any more: the publisher's signed list, kept in the installation and handed out to hosts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from palladion import files
from palladion.errors import ConflictError, NotFoundError
from palladion.keys import Root
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import parse_version
from palladion.registry import Records, names
from palladion.seal.reader import verify_file
from palladion.seal.revocations import (
    REVOCATIONS_BYTES_MAX,
    Revocations,
    RevokedVersions,
    encode_revocations,
    revised,
    verify_revocations,
)
from palladion.seal.sign import publisher_id


def read_revocations(installation: Installation) -> Revocations | None:
    """The installation's list, verified; None before anything was revoked. Raises TamperError."""
    path = installation.paths.revocations
    if not path.exists():
        return None
    data = files.read_limited(path, size_max=REVOCATIONS_BYTES_MAX, what="the list of revocations")
    return verify_revocations(data, installation.publishers(), what=str(path))


def revoke_version(
    installation: Installation, owner: Root, text: str, *, reason: str, actor: str
) -> tuple[Revocations, Receipt]:
    """Let nobody who has the new list open version `text` (`fraud@2`) any more, and promote and deliver it no more.

    Raises ConflictError if it is promoted, or revoked already.
    """
    model, number = parse_version(text)
    if number is None:
        raise NotFoundError(f"{text!r} names no version", f"one such as {text}@1 was expected")
    with installation.open_registry() as registry, registry.read() as records:
        version = records.versions.get(model, number)
        _require_unpromoted(records, model, number)
    if version_reason(read_revocations(installation), model, number) is not None:
        raise ConflictError(f"{text} is revoked already")
    row = RevokedVersions(model, version.number, version.number, reason)
    return extend(installation, owner, subject=text, reason=reason, actor=actor, versions=[row])


def revoke_file(
    installation: Installation, owner: Root, path: Path, *, reason: str, actor: str
) -> tuple[Revocations, Receipt]:
    """Let nobody who has the new list open the one sealed file at `path` any more. Raises TamperError."""
    info = verify_file(path, installation.publishers())
    subject = f"{info.header.model}@{info.header.version}"
    return extend(installation, owner, subject=subject, reason=reason, actor=actor, sealed={info.header_digest: reason})


def extend(
    installation: Installation,
    owner: Root,
    *,
    subject: str,
    reason: str,
    actor: str,
    sealed: Mapping[str, str] | None = None,
    versions: Sequence[RevokedVersions] = (),
    serials: Mapping[str, str] | None = None,
    kind: str = "model.revoked",
) -> tuple[Revocations, Receipt]:
    """Sign a list with more on it, recorded as `kind` before it takes effect; files by header digest."""
    names.label(reason, what="the reason")
    signer = owner.signer("publisher")
    with installation.open_ledger(installation.open_gate_root()) as ledger:
        # with the ledger held, nobody else changes the list
        now = installation.clock.now()
        new = revised(
            read_revocations(installation),
            publisher=publisher_id(signer.public_key),
            issued=now,
            serials=serials,
            files=sealed,
            versions=versions,
        )
        data = encode_revocations(new, signer)
        details = {
            "reason": reason,
            "sequence": new.sequence,
            "files": sorted(sealed or ()),
            "versions": [f"{row.model}@{row.first}" for row in versions],
            "licenses": sorted(serials or ()),
        }
        receipt = ledger.append([Record(kind, now, actor, subject, details)])[0]
        files.write_atomically(installation.paths.revocations, data)
    return new, receipt


def require_unrevoked(installation: Installation, model: str, number: int, header_digest: str | None = None) -> None:
    """Raise ConflictError if a version, or the one sealed file of that digest, was revoked."""
    listed = read_revocations(installation)
    reason = version_reason(listed, model, number)
    if reason is None and listed is not None and header_digest is not None:
        reason = listed.files.get(header_digest)
    if reason is not None:
        raise ConflictError(f"version {number} of {model} was revoked: {reason}", "use another version")


def version_reason(listed: Revocations | None, model: str, number: int) -> str | None:
    """Why a version was revoked; None if it was not."""
    rows = listed.versions if listed is not None else ()
    return next((row.reason for row in rows if row.model == model and row.first <= number <= row.last), None)


def _require_unpromoted(records: Records, model: str, number: int) -> None:
    current = records.promotions.current(model)
    if current is not None and current.number == number:
        raise ConflictError(
            f"{model}@{number} is the version that is served",
            f"palladion model promote {model} NUMBER, with another one, first",
        )
    canary = records.canaries.current(model)
    if canary is not None and canary.number == number:
        raise ConflictError(
            f"{model}@{number} is served to {canary.percent} % of the clients",
            f"palladion model rollback {model}, first",
        )
