"""`palladion watch budget`, and what other commands say of copies: by the curve, or that there is none."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palladion.cli.main import main
from palladion.cli.watch_budget import at_most, curve_document
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import find_version
from palladion.lifecycle.protect import protect
from palladion.registry import CalibrationRow
from palladion.watch.learning_curve import encode_curve
from tests.gate.gates import add_calibration, tiny_calibration
from tests.lifecycle.installations import ACTOR, Made, make
from tests.models import onnx_bytes, write
from tests.watch.curves import CURVE


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """An installation with a calibrated version that has no curve yet."""
    made = make(tmp_path)
    protect(made.installation, made.owner, write(tmp_path / "1.onnx", onnx_bytes(1)), "fraud", actor=ACTOR)
    add_calibration(made.installation, tiny_calibration(find_version(made.installation, "fraud").content_digest))
    return made


def _row(installation: Installation) -> CalibrationRow:
    with installation.open_registry() as registry, registry.read() as records:
        (row,) = records.calibrations.all()
    return row


@pytest.fixture
def curved(made: Made) -> Made:
    """The same with a curve."""
    row = _row(made.installation)
    with made.installation.open_registry() as registry, registry.write() as records:
        records.calibrations.add_curve(row, encode_curve(replace(CURVE, calibration=row.digest)))
    return made


def _run(made: Made, *arguments: str, code: int = 0) -> None:
    assert main(["--home", str(made.installation.paths.home), *arguments]) == code


@pytest.mark.slow
def test_without_a_curve_it_says_how_to_measure_one(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    _run(made, "watch", "budget", "fraud", code=2)
    told = capsys.readouterr().err
    assert "fraud@1 has no learning curve" in told
    assert "palladion watch budget fraud@1 --measure FILE" in told


@pytest.mark.slow
def test_a_curve_is_shown_and_a_fidelity_turned_into_buckets(curved: Made, capsys: pytest.CaptureFixture[str]) -> None:
    _run(curved, "watch", "budget", "fraud", "--fidelity", "0.65", "--json")
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    expected = {"version": "fraud@1", **curve_document(CURVE), "fidelity": 0.65, "budget": 20}
    assert document == {**expected, "clients": None, "beyond": None}
    _run(curved, "watch", "budget", "fraud@1", "--fidelity", "0.9")
    told = capsys.readouterr().out
    assert "80.0%" in told
    assert "mixed" in told
    assert "at most 90.0%: 30 buckets" in told
    assert "as far as it was measured" in told


@pytest.mark.slow
def test_clients_of_the_running_gate_beyond_a_budget_are_counted(
    curved: Made, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = [{"models": [{"model": "fraud", "group_buckets": buckets}]} for buckets in (20, 21, 400)]
    other = {"models": [{"model": "other", "group_buckets": 999}]}
    monkeypatch.setattr(Installation, "server_status", lambda self: {"clients": [*clients, other]})
    _run(curved, "watch", "budget", "fraud", "--fidelity", "0.65")
    assert "2 of 3 clients of the running gate have covered more" in capsys.readouterr().out


@pytest.mark.slow
def test_the_policy_cannot_limit_copies_without_a_curve(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    policy = made.installation.paths.policy
    policy.write_text('[[route]]\nmodel = "fraud"\n[watch]\nfidelity_max = 0.7\n')
    _run(made, "policy", "check", code=2)
    assert "watch.fidelity_max needs a learning curve, and fraud@1 has none" in capsys.readouterr().err
    row = _row(made.installation)
    with made.installation.open_registry() as registry, registry.write() as records:
        records.calibrations.add_curve(row, encode_curve(replace(CURVE, calibration=row.digest)))
    _run(made, "policy", "check")


@pytest.mark.slow
def test_what_a_client_could_have_is_shown_beside_what_it_covered(
    made: Made, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {
        "model": "fraud",
        "queries": 9,
        "p_value": 0.5,
        "campaign_p_value": 0.5,
        "group": ["1", "2"],
        "linked": 1,
        "buckets": 4,
        "group_buckets": 8,
        "reasons": [],
        "fidelity": 0.706,
        "discovery": False,
    }
    client = {"id": "1", "client": "acme/acme", "pseudonym": "client:1", "standing": "trusted", "models": [model]}
    campaign = {"model": "fraud", "members": ["1", "2"], "size": 2, "links": [], "p_value": 0.5, "queries": 9}
    status = {
        "clients": [client],
        "clients_total": 1,
        "answered": 9,
        "campaigns": [{**campaign, "covered": 8, "reasons": [], "fidelity": 0.706}],
        "campaigns_total": 1,
        "drift": {"fraud": {"tested": True, "left_at": None, "clients": 2, "moved": []}},
    }
    monkeypatch.setattr(Installation, "server_status", lambda self: status)
    for command in (["live", "--once"], ["explain", "acme"], ["campaigns"]):
        _run(made, "watch", *command)
        assert "≤ 71%" in capsys.readouterr().out
    # a gate of before, or a model without a curve
    del model["fidelity"], status["campaigns"][0]["fidelity"]  # type: ignore[index]
    for command in (["live", "--once"], ["explain", "acme"], ["campaigns"]):
        _run(made, "watch", *command)
        assert "copy" not in capsys.readouterr().out
    assert at_most(None) == ""


@pytest.mark.slow
def test_calibrating_measures_a_curve_unless_it_is_told_not_to(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from palladion.redteam import learning_curve

    monkeypatch.setattr(learning_curve, "QUERIES", (25, 50, 100))
    rows = np.random.default_rng(1).standard_normal((400, 4)) @ np.random.default_rng(2).standard_normal((4, 4))
    np.savez(tmp_path / "data.npz", x=rows)
    np.savez(tmp_path / "few.npz", x=rows[:250])
    small = ["--clients", "100", "--organisations", "20", "--horizon", "16", "--json"]

    def calibrated(file: str, *more: str) -> Any:
        _run(made, "watch", "calibrate", "fraud", "--validation", str(tmp_path / file), *small, *more)
        return json.loads(capsys.readouterr().out).get("curve")

    assert calibrated("data.npz", "--no-curve") is None
    assert "250 rows are too few" in calibrated("few.npz")["missing"]
    _run(made, "watch", "budget", "fraud", "--measure", str(tmp_path / "data.npz"), "--seeds", "3")
    told = capsys.readouterr().out
    assert "3 thieves, up to 100 queries, 120 rows" in told
    _run(made, "watch", "budget", "fraud")
    assert capsys.readouterr().out == told
