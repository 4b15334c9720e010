"""Which version is served: promote and roll back, each recorded before it takes effect."""

from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.revoke import require_unrevoked
from palladion.registry import Promotion


def promote(installation: Installation, model: str, number: int, *, actor: str) -> tuple[Promotion, Receipt]:
    """Serve version `number` of `model` from now on.

    Raises NotFoundError, ConflictError if it is served already or was revoked.
    """
    require_unrevoked(installation, model, number)
    gate = installation.open_gate_root()
    with installation.recording(gate) as (ledger, records):
        event = records.promotions.promote(model, number, actor=actor)
        return event, ledger.append([Record("model.promoted", event.at, actor, f"{model}@{number}")])[0]


def roll_back(installation: Installation, model: str, *, actor: str) -> tuple[Promotion, Receipt]:
    """Serve again what was served before. Raises ConflictError if nothing was, or if that was revoked."""
    gate = installation.open_gate_root()
    with installation.recording(gate) as (ledger, records):
        event = records.promotions.rollback(model, actor=actor)
        require_unrevoked(installation, model, event.number)
        return event, ledger.append([Record("model.rolled-back", event.at, actor, f"{model}@{event.number}")])[0]
