"""A canary is recorded before it takes effect, said aloud where nobody would be watched, and ended for good."""

from pathlib import Path

import msgspec
import pytest

from palladion.errors import ConflictError
from palladion.lifecycle.canary import begin_canary, current_canary, end_canary
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.promote import loses_calibration, promote
from palladion.lifecycle.protect import protect
from palladion.lifecycle.reconcile import recorded, registered, unrecorded, unserved
from palladion.policy import RoutePolicy
from tests.lifecycle.installations import ACTOR, kinds, make
from tests.models import onnx_bytes, write

HERE = RoutePolicy(model="fraud")


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    """An installation with two versions, the first of them promoted, and a route."""
    made = make(tmp_path)
    for seed in (1, 2):
        protect(made.installation, made.owner, write(tmp_path / f"{seed}.onnx", onnx_bytes(seed)), "fraud", actor=ACTOR)
    return _routed(made.installation, HERE)


def _routed(installation: Installation, *routes: RoutePolicy) -> Installation:
    policy = msgspec.structs.replace(installation.policy, route=routes)
    return Installation(installation.paths, policy, installation.clock)


def _begin(installation: Installation, *, uncalibrated: bool = True) -> None:
    begin_canary(installation, "fraud", 2, percent=5, uncalibrated=uncalibrated, actor=ACTOR)


def _calibrate(installation: Installation, number: int) -> None:
    with installation.open_registry() as registry, registry.write() as records:
        records.calibrations.add("fraud", number, path=f"{number}", digest=64 * "a", simulated=True, clients=100)


@pytest.mark.slow
def test_it_is_recorded_and_ends_as_it_was(installation: Installation) -> None:
    _begin(installation)
    canary = current_canary(installation, "fraud")
    assert canary is not None
    assert (canary.number, canary.percent) == (2, 5)
    ended, standing, _ = end_canary(installation, "fraud", actor=ACTOR)
    assert (ended.number, standing, current_canary(installation, "fraud")) == (2, 1, None)
    assert kinds(installation)[-2:] == ["model.canary", "model.rolled-back"]


@pytest.mark.slow
def test_an_uncalibrated_one_has_to_be_meant(installation: Installation) -> None:
    with pytest.raises(ConflictError, match="would not be watched"):
        _begin(installation, uncalibrated=False)
    assert current_canary(installation, "fraud") is None
    _calibrate(installation, 2)
    _begin(installation, uncalibrated=False)
    assert current_canary(installation, "fraud") is not None


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["flipped", "abstain"])
def test_where_answers_are_marked_or_refused_it_has_to_be_calibrated(installation: Installation, setting: str) -> None:
    route = _routed(installation, msgspec.structs.replace(HERE, **{setting: 0.01}))
    with pytest.raises(ConflictError, match="answers are marked or refused by a calibration"):
        _begin(route)


def test_a_model_behind_an_upstream_has_none(installation: Installation) -> None:
    there = RoutePolicy(model="fraud", protocol="open-inference", upstream="http://127.0.0.1:1")
    with pytest.raises(ConflictError, match="no route of"):
        _begin(_routed(installation, there))


def test_promoting_ends_it(installation: Installation) -> None:
    _begin(installation)
    promote(installation, "fraud", 2, actor=ACTOR)
    assert current_canary(installation, "fraud") is None
    with pytest.raises(ConflictError, match="has no canary"):
        end_canary(installation, "fraud", actor=ACTOR)


def test_registry_and_ledger_agree_on_it(installation: Installation) -> None:
    _begin(installation)
    end_canary(installation, "fraud", actor=ACTOR)
    gate = installation.open_gate_root()
    with installation.open_registry() as registry, registry.read() as records:
        told = registered(records)
    ledger = recorded(installation, gate)
    assert list(unrecorded(told, ledger)) == []
    assert list(unserved(told, ledger, told)) == []


def test_one_that_the_ledger_does_not_know_is_found(installation: Installation) -> None:
    with installation.open_registry() as registry:
        with registry.write() as records:
            records.canaries.begin("fraud", 2, percent=50, actor="mallory")
        with registry.read() as records:
            told = registered(records)
    (found,) = unrecorded(told, recorded(installation, installation.open_gate_root()))
    assert "canary" in found.message


@pytest.mark.slow
def test_promoting_what_is_not_calibrated_ends_the_watch(installation: Installation) -> None:
    assert not loses_calibration(installation, "fraud", 2)
    _calibrate(installation, 1)
    assert loses_calibration(installation, "fraud", 2)
    _calibrate(installation, 2)
    assert not loses_calibration(installation, "fraud", 2)
