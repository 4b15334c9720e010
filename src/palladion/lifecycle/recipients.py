"""Registers and revokes recipients, each recorded before it takes effect."""

from palladion.errors import ConflictError
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.registry import Recipient
from palladion.seal.recipients import parse_recipient


def add_recipient(
    installation: Installation, name: str, public_key: str, *, note: str, actor: str
) -> tuple[Recipient, Receipt]:
    """Register a recipient. Raises FormatError on a key that is none, ConflictError if name or key is taken.

    The key is kept in the one way of writing it: bech32 reads capitals too, and one key must not have two names.
    """
    recipient = parse_recipient(public_key)
    with installation.recording(installation.open_gate_root()) as (ledger, records):
        row = records.recipients.add(name, kind=recipient.kind, public_key=str(recipient), note=note)
        record = Record("recipient.added", row.created, actor, name, {"public_key": row.public_key})
        return row, ledger.append([record])[0]


def refuse_revoked(row: Recipient) -> None:
    """Raise ConflictError if a recipient was revoked."""
    if row.revoked_at is not None:
        raise ConflictError(f"recipient {row.name} was revoked on {row.revoked_at:%Y-%m-%d} and gets nothing")


def revoke_recipient(installation: Installation, name: str, *, actor: str) -> tuple[Recipient, Receipt]:
    """Deliver nothing to this recipient any more. Raises NotFoundError, ConflictError if that is so already."""
    with installation.recording(installation.open_gate_root()) as (ledger, records):
        row = records.recipients.revoke(name)
        record = Record("recipient.revoked", row.revoked_at or installation.clock.now(), actor, name)
        return row, ledger.append([record])[0]
