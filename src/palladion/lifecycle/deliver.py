"""A copy for one recipient: stamped with its fingerprint on the way, sealed to it alone, signed, recorded.

Whoever opens it holds a stamped copy and never an unstamped one: unsealing stamps nothing, so there is nothing to skip.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from palladion import files
from palladion.approvals.quorum import Wanted
from palladion.errors import ConflictError, StorageError, TamperError
from palladion.keys import Root
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.approvals import NOTHING, Approved, Permit, authorise, conclude
from palladion.lifecycle.egress import leaving
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.marked import delivered_as, require_unmarked
from palladion.lifecycle.marking import fingerprint, ownership_of, unmarked
from palladion.lifecycle.open import find_version, record_opened, sealed_file
from palladion.lifecycle.reading import Progress, digested
from palladion.lifecycle.recipients import refuse_revoked
from palladion.lifecycle.revoke import require_unrevoked
from palladion.registry import Delivery, Recipient, SealedFile, Version
from palladion.seal.header import new_header
from palladion.seal.reader import inspect_file
from palladion.seal.recipients import parse_recipient
from palladion.seal.sign import publisher_id
from palladion.seal.structure import SealedInfo
from palladion.seal.writer import seal_files


@dataclass(frozen=True)
class Delivered:
    """What `deliver` wrote: the sealed file, its row, its receipt, and how sure a copy of it can be traced.

    `predicted_log10_p` is what a test of an unchanged copy would find, before it pays for the number of recipients;
    where weights have few bits, symbols make it more.
    """

    path: Path
    delivery: Delivery
    receipt: Receipt
    predicted_log10_p: float


@dataclass(frozen=True)
class _Terms:
    """What a copy was asked for with, and whether it gets a fingerprint.

    `header` is the digest of the header of the original that may be copied, `approved` who agreed to it, if anybody
    has to.
    """

    header: str
    approved: Approved | None
    base: str
    license_required: bool
    fingerprinted: bool


def deliver(
    installation: Installation,
    owner: Root,
    version: str,
    recipient: str,
    out: Path,
    *,
    actor: str,
    base: str = "",
    without_fingerprint: bool = False,
    license_required: bool = False,
    permit: Permit = NOTHING,
    progress: Progress = lambda _stage, _done, _total: None,
) -> Delivered:
    """Write the copy of `version` (`fraud@2`, or `fraud` for the promoted one) for `recipient` to the new file `out`.

    An adapter names the digest of the model it fits: `base` is that of the recipient's own copy, which is stamped too.
    Raises ConflictError for a revoked recipient or version, and for a model too small to carry a fingerprint unless
    that is asked for; StorageError if `out` exists. What cannot be recorded is not left behind. That the original was
    opened is on record before anything is written. Stamps weights tensor by tensor, twice: for the digest in the
    header, and for the file. Raises ApprovalError, before anything is opened, where others have to agree to this
    recipient and `permit` does not show it; ConflictError where the policy lets no more leave.
    """
    if os.path.lexists(out):
        raise StorageError(f"{out} exists already", "name a new file: nothing is overwritten")
    row = _recipient(installation, recipient)
    named = find_version(installation, version)
    require_unrevoked(installation, named.model, named.number)
    version = f"{named.model}@{named.number}"  # another may be promoted meanwhile
    if ownership_of(named) is None and not without_fingerprint:
        raise ConflictError(
            f"version {named.number} of {named.model} is too small for a fingerprint: a leak could not be traced",
            "--without-fingerprint delivers it all the same",
        )
    require_unmarked(installation, named)
    # before a request is used up for what may not leave
    with leaving(installation, "deliver", row.name, subject=version, actor=actor):
        header, approved = _approved(installation, named, row, permit, license_required=license_required, actor=actor)
        terms = _Terms(header, approved, base, license_required, fingerprinted=ownership_of(named) is not None)
        return _delivered(installation, owner, version, row, out, terms=terms, actor=actor, progress=progress)


def _delivered(
    installation: Installation,
    owner: Root,
    version: str,
    row: Recipient,
    out: Path,
    *,
    terms: _Terms,
    actor: str,
    progress: Progress,
) -> Delivered:
    with unmarked(installation, owner, version) as (original, found):
        if original.info.header_digest != terms.header or (ownership_of(found) is not None) != terms.fingerprinted:
            raise TamperError(f"the original of {version} is not the file that was here a moment ago")
        _record_opened(installation, original.info, row.name, actor=actor)
        stamp = fingerprint(original.model, found, owner, row.public_key, progress=progress)
        copy = stamp.copy if stamp is not None else digested(original.model, progress)
        signer = owner.signer("publisher")
        header = new_header(
            kind=original.model.format,
            purpose="delivery",
            publisher=publisher_id(signer.public_key),
            created=installation.clock.now(),
            model=found.model,
            version=found.number,
            content=copy.content,
            recipient=row.name,
            base=terms.base or original.info.header.base,
            license_required=terms.license_required,
        )
        files.make_private_directory(out.parent)
        info = seal_files(
            copy.contents(),
            header,
            [parse_recipient(row.public_key)],
            signer,
            out,
            progress=lambda done, total: progress("seal", done, total),
        )
    try:
        delivery, receipt = _register(
            installation, info, row, fingerprinted=stamp is not None, approved=terms.approved, actor=actor
        )
    except BaseException:
        # nobody would look for the fingerprint of a copy that is not on record
        out.unlink(missing_ok=True)
        raise
    return Delivered(out, delivery, receipt, stamp.predicted_log10_p if stamp else 0.0)


def _approved(
    installation: Installation, version: Version, row: Recipient, permit: Permit, *, license_required: bool, actor: str
) -> tuple[str, Approved | None]:
    """The digest of the header of the original that may be delivered to `row`, which nobody verified yet; by whom."""
    info = inspect_file(installation.paths.sealed / sealed_file(version, "original").path)
    subject = f"{version.model}@{version.number}"
    hint = f"palladion approval request --version {subject} --purpose deliver --recipient {row.name} --reason TEXT"
    hint += " --license-required" if license_required else ""
    asked = delivered_as(version, license_required=license_required)
    # the key too: the name may be given to another key while people think about it
    wanted = Wanted("deliver", info.header.file_id, row.name, row.public_key, subject=asked)
    return info.header_digest, authorise(installation, permit, wanted, subject=subject, hint=hint, actor=actor)


def _record_opened(installation: Installation, info: SealedInfo, recipient: str, *, actor: str) -> None:
    record = record_opened(info, at=installation.clock.now(), actor=actor, reason=f"to make the copy for {recipient}")
    with installation.open_ledger(installation.open_gate_root()) as ledger:
        ledger.append([record])


def _register(
    installation: Installation,
    info: SealedInfo,
    recipient: Recipient,
    *,
    fingerprinted: bool,
    approved: Approved | None,
    actor: str,
) -> tuple[Delivery, Receipt]:
    header, gate = info.header, installation.open_gate_root()
    with installation.recording(gate) as (ledger, records):
        by = conclude(installation, gate, approved)
        sealed = SealedFile("", info.root, info.header_digest)
        delivery = records.deliveries.add(
            header.model, header.version, recipient.name, sealed=sealed, fingerprinted=fingerprinted, actor=actor
        )
        details = {
            "recipient": recipient.name,
            "public_key": recipient.public_key,
            "fingerprinted": fingerprinted,
            "file_id": header.file_id,
            "content": header.content,
            "root": info.root,
            "header": info.header_digest,
            **by,
        }
        record = Record("model.delivered", delivery.at, actor, f"{header.model}@{header.version}", details)
        return delivery, ledger.append([record])[0]


def _recipient(installation: Installation, name: str) -> Recipient:
    with installation.open_registry() as registry, registry.read() as records:
        row = records.recipients.get(name)
    refuse_revoked(row)
    return row
