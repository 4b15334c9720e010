"""Calibrations: the newest of a version counts, and none is ever changed."""

import pytest

from palladion.clock import ManualClock
from palladion.errors import NotFoundError, PalladionError
from palladion.registry import CalibrationRow, Registry
from tests.registry.factories import add_model, digest


def test_the_newest_calibration_of_a_version_counts(registry: Registry, clock: ManualClock) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a", "b")
        for number, path in ((1, "digits/1-1"), (1, "digits/1-2"), (2, "digits/2-1")):
            records.calibrations.add("digits", number, path=path, digest=digest(path), simulated=True, clients=999)
    with registry.read() as records:
        expected = CalibrationRow("digits", 1, "digits/1-2", digest("digits/1-2"), True, 999, clock.now())
        assert records.calibrations.newest("digits", 1) == expected
        assert records.calibrations.newest("digits", 3) is None
        assert [row.path for row in records.calibrations.all()] == ["digits/1-1", "digits/1-2", "digits/2-1"]


def test_the_newest_curve_of_a_calibration_comes_with_it(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a")
        rows = [
            records.calibrations.add("digits", 1, path=path, digest=digest(path), simulated=True, clients=999)
            for path in ("digits/1-1", "digits/1-2")
        ]
        assert records.calibrations.add_curve(rows[1], {"points": [1]}).curve == {"points": [1]}
        records.calibrations.add_curve(rows[1], {"points": [2]})
        records.calibrations.add_curve(rows[0], {"points": [3]})
    with registry.read() as records:
        newest = records.calibrations.newest("digits", 1)
    assert newest is not None
    assert (newest.path, newest.curve) == ("digits/1-2", {"points": [2]})


def test_a_calibration_of_no_version_or_of_no_digest_is_refused(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a")
        with pytest.raises(NotFoundError):
            records.calibrations.add("digits", 2, path="p", digest=digest("p"), simulated=False, clients=1)
        with pytest.raises(PalladionError, match="path of a calibration"):
            records.calibrations.add("digits", 1, path="a b", digest=digest("p"), simulated=False, clients=1)
        with pytest.raises(ValueError, match="digest"):
            records.calibrations.add("digits", 1, path="p", digest="p", simulated=False, clients=1)
