"""Which version a share of the clients is served: begun and ended by people, each recorded before it takes effect.

The gate ends one by itself where it fails (`palladion.gate.trial`), and records that in the same way.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from palladion.errors import ConflictError
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.revoke import require_unrevoked
from palladion.registry import Canary


def begin_canary(
    installation: Installation, model: str, number: int, *, percent: int, uncalibrated: bool, actor: str
) -> tuple[Canary, Receipt]:
    """Serve version `number` of `model` to `percent` of the clients.

    Raises NotFoundError; ConflictError where it is served already or was revoked, where no route runs the model here,
    where routes mark answers or refuse queries and the version has no calibration; and unless `uncalibrated`, wherever
    it has none.
    """
    require_unrevoked(installation, model, number)
    routes = [route for route in installation.policy.route if route.model == model and not route.upstream]
    if not routes:
        raise ConflictError(
            f"no route of {installation.paths.policy} runs {model} here, so that no share of its clients can be chosen",
            "a model behind an upstream is exchanged there",
        )
    gate = installation.open_gate_root()
    with installation.recording(gate) as (ledger, records):
        event = records.canaries.begin(model, number, percent=percent, actor=actor)
        calibrated = records.calibrations.newest(model, number) is not None
        if not calibrated and (not uncalibrated or any(route.flipped > 0 or route.abstain > 0 for route in routes)):
            marking = "" if not uncalibrated else ", and answers are marked or refused by a calibration"
            raise ConflictError(
                f"version {number} of {model} is not calibrated: clients who are served it would not be watched"
                + marking,
                f"palladion watch calibrate {model}@{number}",
                *([] if uncalibrated else ["or say --uncalibrated"]),
            )
        details = {"percent": percent, "calibrated": calibrated}
        return event, ledger.append([Record("model.canary", event.at, actor, f"{model}@{number}", details)])[0]


def current_canary(installation: Installation, model: str) -> Canary | None:
    """The canary of a model, or None."""
    with installation.open_registry() as registry, registry.read() as records:
        return records.canaries.current(model)


def end_canary(installation: Installation, model: str, *, actor: str) -> tuple[Canary, int, Receipt]:
    """Serve the promoted version to all clients again, whose number this returns.

    Raises ConflictError if there is no canary.
    """
    with installation.recording(installation.open_gate_root()) as (ledger, records):
        event = records.canaries.end(model, reason="rolled back", actor=actor)
        standing = records.promotions.current(model)
        if standing is None:  # `begin` wants one, and none is ever taken away
            raise ConflictError(f"no version of {model} is promoted")
        record = ended_record(event, standing=standing.number, at=event.at, actor=actor)
        return event, standing.number, ledger.append([record])[0]


def ended_record(
    canary: Canary, *, standing: int, at: datetime, actor: str, figures: Mapping[str, Any] | None = None
) -> Record:
    """The ledger record of a canary that was rolled back: its subject is the version that all are served again."""
    details = {"canary": canary.number, "percent": canary.percent, **(figures or {})}
    return Record("model.rolled-back", at, actor, f"{canary.model}@{standing}", details)
