"""Wraps both roots and every original anew: after a changed passphrase, host identity or escrow recipient."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from palladion import files, keys
from palladion.keys import Recipient, Root
from palladion.ledger.record import Record
from palladion.lifecycle.approvers import require_escrow
from palladion.lifecycle.installation import Installation, owner_identity
from palladion.seal.recipients import FileIdentity, StoredIdentity, read_identity, write_identity
from palladion.seal.rewrap import rewrap_file


@dataclass(frozen=True)
class Rewrapped:
    """What was wrapped anew, and to whom: key kinds and ids of the owner root's wraps; a host identity if it is new."""

    owner_wraps: tuple[str, ...]
    originals: int
    new_host_identity: Path | None


def rewrap(installation: Installation, owner: Root, owner_wraps: Sequence[Recipient], *, actor: str) -> Rewrapped:
    """Wrap the owner root to `owner_wraps` and the escrow recipients of the policy; gate root and originals likewise.

    The gate root is wrapped to the host identity that is there now; where there is none, one is made. Old copies of the
    files still open for whoever could open them. Raises BusyError while another process writes, ApprovalError if the
    policy names an escrow recipient to whom the approvers did not agree.
    """
    escrow = installation.escrow_recipients()
    now = installation.clock.now()
    # the owner opens the gate root too, so that a host identity that was lost or replaced does not stand in the way
    gate = installation.open_gate_root([owner_identity(owner)])
    require_escrow(installation, gate)
    host, is_new = _host_identity(installation.paths.host_identity)
    owner_recipient = owner_identity(owner).recipient
    wrapped_to = tuple(f"{r.kind} {r.key_id}" for r in [*owner_wraps, *escrow])
    with installation.open_ledger(gate) as ledger, installation.open_registry() as registry:
        with registry.read() as records:
            originals = [
                version.original.path
                for model in records.models.all()
                for version in records.versions.all(model.name)
                if version.original is not None
            ]
        # 1. the record: what is done from here on can be run again if it is interrupted, and has to be on record
        details = {
            "owner": list(wrapped_to),
            "gate": [f"{host.recipient.kind} {host.recipient.key_id}"],
            "originals": len(originals),
        }
        ledger.append([Record("keys.rewrapped", now, actor, "both roots", details)])
        # 2. the originals, while the owner still opens everything as before
        for path in originals:
            rewrap_file(
                installation.paths.sealed / path,
                [owner_identity(owner)],
                installation.publishers(),
                add=[owner_recipient, *escrow],
                keep=lambda _wrap: False,
            )
        # 3. the roots
        if is_new:
            files.make_private_directory(installation.paths.host_identity.parent)
            write_identity(installation.paths.host_identity, host, created=now)
        gate_file = keys.wrap_root(gate, [host.recipient, owner_recipient, *escrow], created=now)
        owner_file = keys.wrap_root(owner, [*owner_wraps, *escrow], created=now)
        files.write_atomically(installation.paths.gate, gate_file)
        files.write_atomically(installation.paths.owner, owner_file)
    return Rewrapped(wrapped_to, len(originals), installation.paths.host_identity if is_new else None)


def _host_identity(path: Path) -> tuple[StoredIdentity, bool]:
    """The identity at `path`, or a new one that is not written yet, and whether it is new."""
    with files.storage_errors(path):
        is_new = not path.exists()
    return (FileIdentity.generate(), True) if is_new else (read_identity(path), False)
