"""`palladion redteam run URL`: only for who states that he may, recorded, and never twice the same question."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palladion.cli.main import main
from palladion.clock import SystemClock
from palladion.ledger.record import decode_record
from palladion.lifecycle.installation import Installation
from palladion.redteam.audit import stages
from palladion.redteam.audit.noticed import NOTICED
from palladion.redteam.audit.stage import Allowance, Plan
from palladion.redteam.audit.subject import Subject
from tests.lifecycle.apis import Reply, Suspect, suspect
from tests.redteam.audit.subjects import done, stage

pytestmark = pytest.mark.slow

ROWS = np.random.default_rng(5).standard_normal((320, 4)).astype(np.float32)
KEY = "palladion-test-key"


@pytest.fixture
def thief(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation, rows, a key, and two stages: one that asks all rows, one that says what happened."""
    monkeypatch.chdir(folder)
    assert main(["init", "--passphrase-file", "pass"]) == 0
    np.savez(folder / "rows.npz", x=ROWS, y=(ROWS[:, 0] > 0).astype(int))
    (folder / "key").write_text(KEY)

    def asks(subject: Subject, plan: Plan, allowance: Allowance) -> Any:
        assert subject.door("deployed").ask(subject.rows).shape == (320, 2)
        return done("extraction", details={"answers": subject.doors[0].answers})

    monkeypatch.setattr(stages, "STAGES", (stage("extraction", asks), NOTICED))
    return folder


def _scores(document: Any) -> Any:
    first = np.array(document["inputs"])[:, 0]
    return {"outputs": {"probabilities": [[1 - value, value] for value in (1 / (1 + np.exp(-first))).tolist()]}}


def _run(service: Suspect, *more: str, authorised: bool = True) -> int:
    command = ["redteam", "run", str(service.url), "--rows", "rows.npz", "--key-file", "key", "--out", "out"]
    command += [
        "--per-second",
        "1000",
        "--per-request",
        "100",
        "--capture",
        f"c{len(list(Path().glob('c*.jsonl')))}.jsonl",
        *more,
    ]
    return main([*command, *(["--i-am-authorised"] if authorised else [])])


def _records(folder: Path) -> list[Any]:
    found = [
        decode_record(entry, what="it") for _, entry in Installation.find(folder, SystemClock()).read_ledger().entries()
    ]
    return [record for record in found if record.kind == "redteam.run"]


def test_nothing_is_asked_of_whom_nobody_gave_leave_for(thief: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with suspect(_scores) as service:
        assert _run(service, authorised=False) == 2
        assert not service.asked
    assert "needs the leave of whoever runs it" in capsys.readouterr().err
    assert not _records(thief)


def test_it_is_recorded_before_and_after_and_goes_on_without_asking_again(
    thief: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with suspect(_scores) as service:
        assert _run(service) == 0
        asked = len(service.asked)
        assert service.rows == 320 + 2 * 8
        assert _run(service) == 0
        assert len(service.asked) == asked
        assert _run(service, "--anew") == 0
        assert service.rows == 2 * (320 + 2 * 8)
    document = json.loads((thief / "out" / "report.json").read_bytes())
    assert document["subject"]["doors"] == [{"name": "deployed", "answers": "probabilities"}]
    assert [item["queries"] for item in document["stages"]] == [264, 72]
    planned, answered = [record.details for record in _records(thief)[:2]]
    assert (planned["stage"], answered["stage"]) == ("planned", "answered")
    assert planned["authorised"].startswith("stated by ")
    assert answered["capture"]
    assert KEY not in capsys.readouterr().out


def test_a_service_that_suspends_us_is_a_finding_and_no_error(thief: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = [0]

    def answer(document: Any) -> Any:
        seen[0] += len(document["inputs"])
        return _scores(document) if seen[0] <= 250 else Reply(status=403)

    with suspect(answer) as service:
        assert _run(service) == 3
    said = capsys.readouterr().out
    assert "extraction: inconclusive" in said
    document = json.loads((thief / "out" / "report.json").read_bytes())
    (figure,) = document["stages"][1]["figures"]
    assert (figure["key"], figure["value"]) == ("noticed.queries.deployed", service.rows)


def test_a_wrong_wrapper_is_inconclusive(thief: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with suspect(lambda document: {"outputs": {"label": [1] * len(document["inputs"])}}) as service:
        assert _run(service) == 3
    assert "the same answer" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--i-am-authorised"], ["--per-second", "2"], ["--per-request", "2"], ["--no-key"]])
def test_what_is_for_addresses_is_refused_for_a_model(
    thief: Path, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    assert main(["redteam", "run", "fraud", "--rows", "rows.npz", *option]) == 2
    assert f"{option[0]} is for an address" in capsys.readouterr().err


def test_plain_http_to_others_needs_to_be_allowed(thief: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["redteam", "run", "http://models.example/predict", "--rows", "rows.npz", "--i-am-authorised"]
    assert main(command) == 2
    assert "not encrypted" in capsys.readouterr().err


def test_several_keys_share_the_harvest_and_the_report_says_how_far_each_came(
    thief: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (thief / "key-2").write_text("palladion-test-key-2")
    rows = {"Bearer palladion-test-key": 0, "Bearer palladion-test-key-2": 0}

    def answer(document: Any) -> Any:
        # its headers were kept before it is answered
        key = service.headers[-1]["authorization"]
        rows[key] += len(document["inputs"])
        return _scores(document) if rows[key] <= 150 else Reply(status=403)

    with suspect(answer) as service:
        assert _run(service, "--key-file", "key-2", "--per-request", "20") == 3
    document = json.loads((thief / "out" / "report.json").read_bytes())
    values = {item["key"]: item["value"] for item in document["stages"][1]["figures"]}
    assert [values[f"noticed.account.{number}.deployed"] for number in (1, 2)] == list(rows.values())
    assert values["noticed.all.deployed"] == sum(rows.values()) > values["noticed.queries.deployed"]
    assert "2 accounts took turns" in capsys.readouterr().out
