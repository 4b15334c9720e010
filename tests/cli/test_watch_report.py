"""`palladion watch report` over a ledger with something in it: names, shares, promises, and a reader's view alone."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from palladion.access.pseudonyms import pseudonym
from palladion.cli.main import main
from palladion.ledger.record import Record
from palladion.lifecycle.clients import add_client
from palladion.lifecycle.open import find_version
from palladion.lifecycle.protect import protect
from tests.gate.gates import PATH, add_calibration, tiny_calibration
from tests.lifecycle.installations import ACTOR, make
from tests.models import onnx_bytes, write

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


def test_the_text_says_what_would_have_been_and_what_was_promised(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = _run(home, capsys)
    assert "thief/thief" in text
    assert "would have" in text
    assert "33.33%" in text
    assert "nobody by suspicion, because the calibration is simulated" in text


def test_looking_back_further_finds_more(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(_run(home, capsys, "--since", "40d", "--json"))
    assert sorted(str(item["client"]) for item in found["clients"]) == ["None", "acme/acme", "thief/thief"]
