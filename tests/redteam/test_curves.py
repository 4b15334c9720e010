"""The curve of a version: registered beside its calibration, recorded, and read again as it was measured."""

from datetime import timedelta
from hashlib import sha256

import pytest

from palladion import canonical
from palladion.errors import ConflictError, PalladionError
from palladion.gate.curves import load_curve
from palladion.gate.served import newest_calibration
from palladion.ledger.record import decode_record
from palladion.lifecycle.open import find_version
from palladion.lifecycle.protect import protect
from palladion.policy import RoutePolicy
from palladion.redteam import curves
from palladion.redteam.calibrate import calibrate_version
from palladion.redteam.curves import measure_version
from palladion.redteam.learning_curve import CurvePlan
from palladion.redteam.validation import Validation
from palladion.watch.learning_curve import LearningCurve, encode_curve
from tests.lifecycle.installations import ACTOR, Made, make
from tests.models import onnx_bytes, write
from tests.redteam.test_calibrate import PLAN, quiet, validation

pytestmark = pytest.mark.slow

CURVES = CurvePlan(seeds=3, others=0, steps=5)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """An installation with a calibrated version."""
    folder = tmp_path_factory.mktemp("curves")
    made = make(folder)
    protect(made.installation, made.owner, write(folder / "model.onnx", onnx_bytes(1)), "fraud", actor=ACTOR)
    return made


def measure(made: Made, data: Validation) -> LearningCurve:
    return measure_version(
        made.installation,
        "fraud",
        data,
        CURVES,
        route=RoutePolicy(model="fraud"),
        actor=ACTOR,
        progress=quiet,
        cpu_seconds=lambda: 0.0,
    )[0]


def calibrate(made: Made) -> None:
    made.clock.advance(timedelta(seconds=1))  # no two are made at the same moment
    calibrate_version(
        made.installation, "fraud", validation(), PLAN, route=RoutePolicy(model="fraud"), actor=ACTOR, progress=quiet
    )


def test_a_version_without_calibration_has_no_buckets_to_measure_in(made: Made) -> None:
    with pytest.raises(ConflictError, match="fraud@1 has no calibration"):
        measure(made, validation(400))


def test_a_curve_is_registered_and_recorded(made: Made) -> None:
    calibrate(made)
    measured = measure(made, validation(400))

    row = newest_calibration(made.installation, find_version(made.installation, "fraud"))
    assert row is not None
    assert load_curve(row) == measured
    record = decode_record(list(made.installation.read_ledger().entries())[-1][1], what="it")
    assert (record.kind, record.actor, record.subject) == ("watch.measured", ACTOR, "fraud@1")
    assert record.details["calibration"] == row.digest == measured.calibration
    assert record.details["curve"] == sha256(canonical.encode(encode_curve(measured))).hexdigest()


def test_a_calibration_that_was_replaced_meanwhile_gets_no_curve(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    calibrate(made)
    before = newest_calibration(made.installation, find_version(made.installation, "fraud"))
    first = measure(made, validation(400))
    monkeypatch.setattr(curves, "newest_calibration", lambda *_: before)  # as it was without the curve
    with pytest.raises(ConflictError, match="calibrated anew"):
        measure(made, validation(500))
    monkeypatch.undo()
    assert load_curve(newest_calibration(made.installation, find_version(made.installation, "fraud"))) == first


def test_too_few_rows_say_so_and_register_nothing(made: Made) -> None:
    size = made.installation.read_ledger().size
    with pytest.raises(PalladionError, match="too few"):
        measure(made, validation(200))
    assert made.installation.read_ledger().size == size
