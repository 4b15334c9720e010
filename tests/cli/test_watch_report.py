"""`palladion watch report` over a ledger with something in it: names, shares, promises, and a reader's view alone."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palladion.access.pseudonyms import pseudonym
from palladion.cli.main import main
from palladion.cli.watch_report import discovered, print_discoveries
from palladion.clock import SystemClock
from palladion.incident.cases import open_case
from palladion.incident.verdicts import close_case
from palladion.ledger.record import Record
from palladion.lifecycle.clients import add_client
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import find_version
from palladion.lifecycle.protect import protect
from palladion.watch.drift import Drift
from palladion.watch.drift_store import DriftStore
from tests.gate.gates import PATH, add_calibration, tiny_calibration
from tests.lifecycle.installations import ACTOR, make
from tests.models import onnx_bytes, write
from tests.watch import factories

GONE = "client:" + "0" * 20  # of another registry


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An installation whose ledger tells of a thief, an honest client and somebody whom the registry does not know."""
    made = make(tmp_path)
    installation = made.installation
    protect(installation, made.owner, write(tmp_path / "1.onnx", onnx_bytes(1)), "fraud", actor=ACTOR)
    names = installation.open_gate_root().derive("pseudonyms")
    ids = {}
    for name in ("acme", "thief"):
        client, _, _ = add_client(installation, name, name, models=[], environment="test", expires=None, actor=ACTOR)
        ids[name] = pseudonym(names, client.id)
    add_calibration(installation, tiny_calibration(find_version(installation, "fraud").content_digest))
    now = datetime.now(UTC)
    step = {"from": "trusted", "to": "throttled", "reason": "unlike honest queries", "route": PATH}
    given = {"queries": 2, "mode": "observe", "standing": "trusted"}
    old = Record("standing.proposed", now - timedelta(days=30), "watch", ids["acme"], step)
    new = [
        Record("answer.given", now, ids["acme"], "fraud@1", given),
        Record("standing.proposed", now, "watch", ids["thief"], step),
        Record("answer.given", now, ids["thief"], "fraud@1", given),
        Record("standing.proposed", now, "watch", GONE, {**step, "to": "watched"}),
        Record("answer.given", now, GONE, "fraud@1", given),
        Record("answer.refused", now, "gate", GONE, {"reason": "rate-limited", "requests": 7}),
    ]
    with installation.recording(installation.open_gate_root()) as (ledger, _):
        ledger.append([old])
        ledger.append(new)
    policy = installation.paths.policy
    policy.write_text(f'{policy.read_text()}\n[[route]]\nmodel = "fraud"\n')
    return installation.paths.home


def _run(home: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["--home", str(home), "watch", "report", *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.slow
def test_the_document_names_whom_the_registry_knows_and_gives_shares(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found: dict[str, Any] = json.loads(_run(home, capsys, "--json"))
    (route,) = found["routes"]
    assert (route["route"], route["model"], route["enforced"], route["mode_now"]) == (PATH, "fraud", False, "observe")
    assert (route["clients"], route["answers"], route["clients_disturbed"]) == (3, 3, 1)
    assert (route["share_of_clients"], route["share_of_answers"]) == (1 / 3, 1 / 3)
    assert [item["client"] for item in found["clients"]] == ["thief/thief", None]
    assert found["clients"][1]["pseudonym"] == GONE
    assert found["refused"] == {"rate-limited": 7}
    assert found["promised"]["fraud"]["calibrated_on"] == 40
    assert found["promised"]["fraud"]["enforces"] is False


@pytest.mark.slow
def test_the_text_says_what_would_have_been_and_what_was_promised(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = _run(home, capsys)
    assert "thief/thief" in text
    assert "would have" in text
    assert "33.33%" in text
    assert "nobody by suspicion, because the calibration is simulated" in text


@pytest.mark.slow
def test_looking_back_further_finds_more(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(_run(home, capsys, "--since", "40d", "--json"))
    assert sorted(str(item["client"]) for item in found["clients"]) == ["None", "acme/acme", "thief/thief"]


def _withdraw(home: Path) -> Drift:
    """Calibrate on clients who can tell whether traffic leaves, which it does."""
    installation = Installation.find(home, SystemClock())
    known = factories.calibration()
    content = find_version(installation, "fraud").content_digest
    calibration = replace(known, about=replace(known.about, version=1, content=content))
    add_calibration(installation, calibration)
    store = DriftStore(installation.paths.directory)
    drift = store.watch("fraud", calibration)
    assert drift is not None
    for _ in range(40):
        drift.take(9.0, np.full(len(known.words), 9.0), now=1_780_000_000.0)
    store.write(store.changes())
    return drift


@pytest.mark.slow
def test_no_rate_is_promised_where_traffic_has_left_the_calibration(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drift = _withdraw(home)
    found = json.loads(_run(home, capsys, "--json"))
    withdrawn = found["promised"]["fraud"]["withdrawn"]
    moved = drift.moved(factories.calibration().words)
    assert withdrawn == {"since": "2026-05-28T20:26:40.000000Z", "clients": 40, "moved": moved}
    assert found["discoveries"] is None
    assert main(["--home", str(home), "watch", "report"]) == 0
    told = capsys.readouterr()
    assert "has left the calibration since 2026-05-28T20:26:40.000000Z: no rate is promised" in told.err
    assert moved[0] in " ".join(told.out.split())
    assert "promised of honest clients" not in told.out


@pytest.mark.slow
def test_a_promise_stands_where_nothing_moved(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(_run(home, capsys, "--json"))["promised"]["fraud"]["withdrawn"] is None


@pytest.mark.slow
def test_who_was_found_to_be_honest_is_counted(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "found to be honest" not in _run(home, capsys)
    installation = Installation.find(home, SystemClock())
    case, _ = open_case(installation, "a case", ["thief"], text="", actor=ACTOR)
    close_case(installation, case.id, "a load test", "false-alarm", actor=ACTOR)
    assert json.loads(_run(home, capsys, "--json"))["found_honest"] == 1
    assert "found to be honest by people: 1 clients" in _run(home, capsys)


def test_discoveries_of_a_running_gate_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    model = {"model": "fraud", "p_value": 0.001}
    status = {
        "clients": [
            {"client": "thief/thief", "models": [{**model, "discovery": True}, {**model, "discovery": False}]},
            {"client": "acme/acme", "models": []},
        ]
    }
    print_discoveries(discovered(status))
    assert capsys.readouterr().out.strip().endswith("at most 5 % are honest: thief/thief on fraud (p = 0.001)")
    print_discoveries([])
    assert capsys.readouterr().out.strip().endswith(": nobody")
