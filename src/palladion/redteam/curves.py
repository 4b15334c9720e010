"""Measures the learning curve of a version in the buckets of its newest calibration, registers and records it.

A running gate takes it over; what is known of clients stays, because the calibration does.
"""

from collections.abc import Callable
from hashlib import sha256

from palladion import canonical
from palladion.errors import ConflictError, PalladionError
from palladion.gate.contract import make_contract
from palladion.gate.served import load_calibration, newest_calibration
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import open_version
from palladion.model.run import open_session
from palladion.policy import RoutePolicy
from palladion.redteam.calibrate import Progress
from palladion.redteam.learning_curve import CurvePlan, measure_curve
from palladion.redteam.respondent import Respondent
from palladion.redteam.validation import Validation
from palladion.watch.learning_curve import LearningCurve, encode_curve


def measure_version(
    installation: Installation,
    model: str,
    validation: Validation,
    plan: CurvePlan,
    *,
    route: RoutePolicy,
    actor: str,
    progress: Progress,
    cpu_seconds: Callable[[], float],
) -> tuple[LearningCurve, Receipt]:
    """Measure the promoted version of `model` (or `model@3`). Raises ConflictError where it has no calibration.

    Raises PalladionError where the data do not fit the model or are too few, and for models without classes.
    """
    with open_version(installation, model) as opened:
        session, version = open_session(opened.model), opened.version
    subject = f"{version.model}@{version.number}"
    row = newest_calibration(installation, version)
    if row is None:
        raise ConflictError(
            f"{subject} has no calibration, whose buckets coverage is counted in",
            f"palladion watch calibrate {subject} --validation FILE",
        )
    instruments = load_calibration(installation, version, row).instruments
    respondent = Respondent(session, make_contract(route, session.outputs), validation)
    try:
        curve = measure_curve(
            respondent, instruments, row.digest, validation, plan, progress=progress, cpu_seconds=cpu_seconds
        )
    except ValueError as error:
        raise PalladionError(f"no learning curve can be measured on these data: {error}") from None
    document = encode_curve(curve)
    details = {
        "calibration": row.digest,
        "curve": sha256(canonical.encode(document)).hexdigest(),
        "seeds": list(curve.seeds),
        "queries": curve.queries[-1],
        "buckets": curve.coverage[-1],
    }
    with installation.recording(installation.open_gate_root()) as (ledger, records):
        if records.calibrations.newest(version.model, version.number) != row:
            raise ConflictError(f"{subject} was calibrated anew meanwhile", "measure again")
        records.calibrations.add_curve(row, document)
        record = Record("watch.measured", installation.clock.now(), actor, subject, details)
        return curve, ledger.append([record])[0]
