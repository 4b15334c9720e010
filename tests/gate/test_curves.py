"""Curves at the gate: only of the calibration that is served, and asked for where the policy limits copies."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from palladion.clock import ManualClock
from palladion.errors import FormatError, PolicyError, TamperError
from palladion.gate.curves import check_curves, load_curve, require_curve
from palladion.policy import Policy, RoutePolicy, WatchPolicy
from palladion.registry import CalibrationRow, Registry
from palladion.watch.learning_curve import encode_curve
from tests.registry.factories import add_model
from tests.watch.curves import CURVE

BARE = CalibrationRow(
    "fraud", 1, "fraud/1-a.safetensors", CURVE.calibration, True, 999, datetime(2026, 6, 1, tzinfo=UTC)
)
ROW = replace(BARE, curve=encode_curve(CURVE))
LIMIT = WatchPolicy(fidelity_max=0.7)


def test_a_curve_comes_with_its_calibration() -> None:
    assert load_curve(ROW) == CURVE
    assert load_curve(BARE) is load_curve(None) is None


def test_a_curve_of_other_buckets_or_a_broken_one_is_refused() -> None:
    with pytest.raises(TamperError, match="other buckets"):
        load_curve(replace(ROW, digest="cd" * 32))
    with pytest.raises(FormatError):
        load_curve(replace(ROW, curve={"format": "x"}))


def test_a_limit_of_copies_needs_a_curve() -> None:
    require_curve(LIMIT, "fraud@1", ROW)
    require_curve(WatchPolicy(), "fraud@1", None)
    for row, words in ((None, "has no calibration"), (BARE, "and fraud@1 has none")):
        with pytest.raises(PolicyError, match=words) as caught:
            require_curve(LIMIT, "fraud@1", row)
        assert "palladion watch" in caught.value.hints[0]


def test_a_limit_below_what_nobody_has_to_ask_for_is_refused() -> None:
    with pytest.raises(PolicyError, match="no client could be answered"):
        require_curve(WatchPolicy(fidelity_max=0.2), "fraud@1", ROW)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(tmp_path / "registry.sqlite", ManualClock(BARE.at)) as opened:
        yield opened


def test_every_model_in_numbers_that_is_served_is_checked(registry: Registry) -> None:
    text = RoutePolicy(model="words", protocol="openai", upstream="http://127.0.0.1:1")
    policy = Policy(watch=LIMIT, route=(text, RoutePolicy(model="fraud")))
    with pytest.raises(PolicyError, match="fraud has no calibration"):
        check_curves(policy, registry)
    with registry.write() as records:
        add_model(records, "fraud", "a")
        records.promotions.promote("fraud", 1, actor="ada")
        row = records.calibrations.add("fraud", 1, path=ROW.path, digest=ROW.digest, simulated=True, clients=999)
    with pytest.raises(PolicyError, match="fraud@1 has none"):
        check_curves(policy, registry)
    with registry.write() as records:
        records.calibrations.add_curve(row, encode_curve(CURVE))
    check_curves(policy, registry)
    check_curves(Policy(route=(RoutePolicy(model="unknown"),)), registry)
