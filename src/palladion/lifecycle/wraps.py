"""Changes to whom one sealed file opens, in seconds: body and signature stay as they are, byte for byte.

For a recipient's or escrow's new key. It takes back nothing: whoever opened the file before, or kept an old copy, still
can; `reseal` is for a file key that got out.
"""

from collections.abc import Sequence
from pathlib import Path

from palladion.approvals.quorum import Wanted
from palladion.errors import ConflictError, KeysError, NotFoundError, TamperError
from palladion.host.host import Host
from palladion.keys import Root
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.approvals import NOTHING, Permit, authorise, conclude
from palladion.lifecycle.asking import named_by
from palladion.lifecycle.installation import Installation, owner_identity
from palladion.lifecycle.open import find_version
from palladion.lifecycle.seal import find_recipients
from palladion.seal.reader import inspect_file
from palladion.seal.recipients import parse_recipient
from palladion.seal.rewrap import RenewableKey, renew_wraps, replace_wraps, rewrap_file
from palladion.seal.structure import SealedInfo


def rewrap_version(
    installation: Installation,
    owner: Root,
    text: str,
    *,
    add: Sequence[str],
    drop: Sequence[str],
    actor: str,
    permit: Permit = NOTHING,
) -> tuple[SealedInfo, Receipt]:
    """Wrap the version `text` to the recipients `add` too (names, or keys as text) and no more to the key ids `drop`.

    Only for what was sealed without marks. Raises ApprovalError where others have to agree to a new recipient, each of
    whom needs a request of his own. Raises ConflictError for a version that is delivered in marked copies, and
    if owner or escrow were to be dropped; NotFoundError for a key id that it is not wrapped to.
    """
    version = find_version(installation, text)
    if version.original is not None:
        raise ConflictError(
            f"{version.model}@{version.number} is marked, and each recipient gets a copy of his own",
            f"palladion deliver {version.model}@{version.number} --to RECIPIENT",
            "for a new passphrase, host identity or escrow recipient: palladion key rewrap",
        )
    added = find_recipients(installation, add)
    stay = {owner_identity(owner).recipient.key_id, *(r.key_id for r in installation.escrow_recipients())}
    if stay & set(drop):
        raise ConflictError("owner and escrow stay: without them the version could be lost")
    path = installation.paths.sealed / version.served.path
    looked_at = inspect_file(path)
    before = looked_at.wraps
    unknown = set(drop) - {wrap.key_id for wrap in before}
    if unknown:
        shown = ", ".join(wrap.key_id for wrap in before)
        raise NotFoundError(f"{text} is not wrapped to {sorted(unknown)[0]}", f"it is wrapped to {shown}")
    if permit.request and len(added) > 1:
        # before the request is used up for nothing
        raise ConflictError("one recipient at a time: each has a request of his own", "--to once, with its --approval")
    approved = None
    for text_of, recipient in zip(add, added, strict=True):
        named = named_by(text_of, recipient)
        subject = f"{version.model}@{version.number}"
        hint = f"palladion approval request --version {subject} --purpose rewrap --recipient {text_of} --reason TEXT"
        wanted = Wanted("rewrap", looked_at.header.file_id, named, str(recipient))
        approved = authorise(installation, permit, wanted, subject=subject, hint=hint, actor=actor)
    names = [f"{wrap.kind} {wrap.key_id}" for wrap in before if wrap.key_id not in drop]
    names += [f"{recipient.kind} {recipient.key_id}" for recipient in added]
    gate = installation.open_gate_root()
    with installation.open_ledger(gate) as ledger:
        by = conclude(installation, gate, approved)
        if inspect_file(path).header_digest != looked_at.header_digest:
            raise TamperError(f"{text} is not the file that was here a moment ago", "somebody exchanged it")
        details = {"header": version.served.header_digest, "recipients": list(dict.fromkeys(names)), **by}
        subject = f"{version.model}@{version.number}"
        receipt = ledger.append([Record("model.rewrapped", installation.clock.now(), actor, subject, details)])[0]
        info = rewrap_file(
            path,
            [owner_identity(owner)],
            installation.publishers(),
            add=added,
            keep=lambda wrap: wrap.key_id not in drop,
        )
        if info.header_digest != looked_at.header_digest:
            raise TamperError(f"{text} was exchanged while it was wrapped: restore its sealed file from a backup")
    return info, receipt


def rewrap_on_host(host: Host, path: Path, recipients: Sequence[str]) -> SealedInfo:
    """Wrap the sealed file at `path` to `recipients` (keys as text) in place of the host's own identities.

    For whoever holds a copy and changes his key. Raises KeysError if the host does not open it.
    """
    keys = [parse_recipient(text) for text in recipients]
    return replace_wraps(path, host.identities(), host.publishers(), keys)


def renew_version(
    installation: Installation, text: str, keys: Sequence[str], *, actor: str
) -> tuple[SealedInfo, Receipt]:
    """`renew_on_host` for a version's served file, on record; needs no owner passphrase, since nothing is opened."""
    version = find_version(installation, text)
    path = installation.paths.sealed / version.served.path
    renewable = _renewable(keys)
    with installation.open_ledger(installation.open_gate_root()) as ledger:
        wraps = [f"{wrap.kind} {wrap.key_id}" for wrap in inspect_file(path).wraps]
        details = {"header": version.served.header_digest, "recipients": wraps, "renewed": list(keys)}
        subject = f"{version.model}@{version.number}"
        receipt = ledger.append([Record("model.rewrapped", installation.clock.now(), actor, subject, details)])[0]
        return renew_wraps(path, installation.publishers(), renewable), receipt


def renew_on_host(host: Host, path: Path, keys: Sequence[str]) -> SealedInfo:
    """Have key services (`keys` as text) wrap anew, under the newest version of their key, what they wrapped before.

    Raises KeysError for a key that cannot do that, or to which the file is not wrapped.
    """
    return renew_wraps(path, host.publishers(), _renewable(keys))


def _renewable(texts: Sequence[str]) -> list[RenewableKey]:
    found: list[RenewableKey] = []
    for text in texts:
        key = parse_recipient(text)
        if not isinstance(key, RenewableKey):
            raise KeysError(
                f"{text} cannot wrap anew without opening: only AWS KMS and Vault do that",
                "palladion rewrap --to, with an identity that opens the file",
            )
        found.append(key)
    return found
