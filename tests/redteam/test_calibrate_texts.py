"""Calibrating the watch of a language model: written where the gate looks for it, recorded, and the same each time."""

import json
from pathlib import Path

import pytest

from palladion.errors import PalladionError
from palladion.gate.chat.calibrated import read_calibration
from palladion.lifecycle.installation import Installation
from palladion.policy import RoutePolicy
from palladion.redteam.calibrate import Plan
from palladion.redteam.calibrate_texts import calibrate_model
from palladion.redteam.prompts import Prompts
from palladion.watch.calibration import QUERIES_OF_CLIENT_MIN
from tests.lifecycle.installations import make
from tests.watch.talkers import MODEL, prompts

PLAN = Plan(clients=160, organisations=20, horizon=20, group_horizon=8)

pytestmark = pytest.mark.slow


def run(installation: Installation, plan: Plan = PLAN, texts: Prompts | None = None) -> tuple[str, list[str]]:
    """The digest, and the stages that were told of."""
    stages: list[str] = []
    _, digest, _ = calibrate_model(
        installation,
        MODEL,
        texts or prompts(),
        plan,
        actor="user:test",
        progress=lambda done, total, stage="": stages.append(stage),
    )
    return digest, list(dict.fromkeys(stages))


def test_the_gate_reads_what_was_written_and_the_ledger_tells_of_it(tmp_path: Path) -> None:
    installation = make(tmp_path).installation

    digest, stages = run(installation)

    route = RoutePolicy(model=MODEL, protocol="openai", upstream="http://127.0.0.1:1", calibration=digest)
    about = read_calibration(installation.paths.calibrations, route).about
    assert (about.model, about.simulated, about.fitted, about.clients) == (MODEL, True, 40, 120)
    assert (about.organisations, about.horizon, about.created) == (20, 20, installation.clock.now())
    assert stages == ["simulated clients", "simulated organisations"]
    (record,) = [
        json.loads(entry)
        for _, entry in installation.read_ledger().entries()
        if json.loads(entry)["kind"] == "watch.calibrated"
    ]
    assert (record["subject"], record["details"]["digest"], record["details"]["clients"]) == (MODEL, digest, 120)
    # a calibration follows from its seed
    assert run(installation)[0] == digest


def test_clients_who_ask_too_little_cannot_be_calibrated_on(tmp_path: Path) -> None:
    plan = Plan(clients=100, organisations=20, horizon=QUERIES_OF_CLIENT_MIN - 1, group_horizon=4)

    with pytest.raises(PalladionError, match="cannot be calibrated on"):
        run(make(tmp_path).installation, plan)
