"""Wraps both roots and every original anew: after a changed passphrase, host identity or escrow recipient."""

from collections.abc import Sequence
from dataclasses import dataclass

from palladion import files, keys
from palladion.keys import Recipient, Root
from palladion.ledger.record import Record
from palladion.lifecycle.installation import Installation, owner_identity
from palladion.seal.recipients import read_identity
from palladion.seal.rewrap import rewrap_file


@dataclass(frozen=True)
class Rewrapped:
    """What was wrapped anew, and to whom: key kinds and ids of the owner root's wraps."""

    owner_wraps: tuple[str, ...]
    originals: int


def rewrap(installation: Installation, owner: Root, owner_wraps: Sequence[Recipient], *, actor: str) -> Rewrapped:
    """Wrap the owner root to `owner_wraps` and the escrow recipients of the policy; gate root and originals likewise.

    Old copies of the files still open for whoever could open them. Raises BusyError while another process writes.
    """
    escrow = installation.escrow_recipients()
    gate = installation.open_gate_root()
    now = installation.clock.now()
    host = read_identity(installation.paths.host_identity).recipient
    owner_recipient = installation.owner_recipient()
    with installation.open_ledger(gate) as ledger, installation.open_registry() as registry:
        # 1. originals first: if this is interrupted, the owner still opens everything, and it can be run again
        with registry.read() as records:
            originals = [
                version.original.path
                for model in records.models.all()
                for version in records.versions.all(model.name)
                if version.original is not None
            ]
        for path in originals:
            rewrap_file(
                installation.paths.sealed / path,
                [owner_identity(owner)],
                installation.publishers(),
                add=[owner_recipient, *escrow],
                keep=lambda _wrap: False,
            )
        # 2. the roots
        gate_file = keys.wrap_root(gate, [host, owner_recipient, *escrow], created=now)
        owner_file = keys.wrap_root(owner, [*owner_wraps, *escrow], created=now)
        files.write_atomically(installation.paths.gate, gate_file)
        files.write_atomically(installation.paths.owner, owner_file)
        # 3. the record
        wrapped_to = tuple(f"{r.kind} {r.key_id}" for r in [*owner_wraps, *escrow])
        details = {"owner": list(wrapped_to), "gate": [f"{host.kind} {host.key_id}"], "originals": len(originals)}
        ledger.append([Record("keys.rewrapped", now, actor, "both roots", details)])
    return Rewrapped(wrapped_to, len(originals))
