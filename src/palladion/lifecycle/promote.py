"""Which version is served: promote and roll back, each recorded before it takes effect."""

from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.revoke import require_unrevoked
from palladion.registry import Promotion


def promote(installation: Installation, model: str, number: int, *, actor: str) -> tuple[Promotion, Receipt]:
    """Serve version `number` of `model` to all clients from now on; that ends a canary.

    Raises NotFoundError, ConflictError if it is served already or was revoked.
    """
    require_unrevoked(installation, model, number)
    gate = installation.open_gate_root()
    with installation.recording(gate) as (ledger, records):
        event = records.promotions.promote(model, number, actor=actor)
        if records.canaries.current(model) is not None:
            # it was on trial against the version before
            records.canaries.end(model, reason=f"version {number} was promoted", actor=actor)
        return event, ledger.append([Record("model.promoted", event.at, actor, f"{model}@{number}")])[0]


def roll_back(installation: Installation, model: str, *, actor: str) -> tuple[Promotion, Receipt]:
    """Serve again what was served before. Raises ConflictError if nothing was, or if that was revoked."""
    gate = installation.open_gate_root()
    with installation.recording(gate) as (ledger, records):
        event = records.promotions.rollback(model, actor=actor)
        require_unrevoked(installation, model, event.number)
        return event, ledger.append([Record("model.rolled-back", event.at, actor, f"{model}@{event.number}")])[0]


def loses_calibration(installation: Installation, model: str, number: int) -> bool:
    """Whether the version that is served is calibrated and `number` is not: then promoting it ends the watch."""
    with installation.open_registry() as registry, registry.read() as records:
        current = records.promotions.current(model)
        newest = records.calibrations.newest
        return current is not None and newest(model, current.number) is not None and newest(model, number) is None
