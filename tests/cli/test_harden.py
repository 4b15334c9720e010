"""`palladion harden`: what it writes, and when it writes nothing."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palladion.cli.main import main
from palladion.clock import SystemClock
from palladion.ledger.record import decode_record
from palladion.lifecycle.installation import Installation
from palladion.redteam.extraction import Interval
from palladion.redteam.harden import harden as room
from palladion.redteam.harden.harden import Hardened, Honest
from palladion.redteam.harden.leftover import Leftover, Robbed, Student
from tests.redteam.harden.networks import network, read, table

ARGUMENTS = ("harden", "net.onnx", "--training", "rows.npz", "--out", "hardened.onnx")


@pytest.fixture
def work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network and rows that it knows."""
    monkeypatch.chdir(folder)
    rows, labels = table(400)
    np.savez(folder / "rows.npz", x=rows, y=labels)
    (folder / "net.onnx").write_bytes(network())
    return folder


def found(outcome: Any) -> Hardened:
    """A hardening that came to that, with one budget."""
    robbed = [Robbed(1000, (Student("own rows", "raw", (0.8,) * 5, (0.75,) * 5),), (0.9,) * 5) for _ in range(2)]
    gain = Interval(0.02, 0.01, 0.03)
    left = Leftover(robbed[0], robbed[1], gain, gain, "benefit" if outcome == "benefit" else "no benefit")
    honest = Honest(200, 0.9, 0.894, Interval(0.006, -0.001, 0.013))
    return Hardened("nasty", 0.02, read(network(seed=5)), honest, () if outcome == "too dear" else (left,), outcome)


@pytest.fixture
def outcome(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    monkeypatch.setattr(room, "harden", lambda *_arguments, **_options: found(request.param))
    return request.param


@pytest.mark.parametrize("outcome", ["benefit"], indirect=True)
def test_a_benefit_is_written_and_said_with_its_price(
    work: Path, outcome: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*ARGUMENTS, "--report", "report.json"]) == 0
    said = capsys.readouterr().out
    assert "lost 0.6 (-0.1 to 1.3) points" in said
    assert "further behind the model by 2.0 (1.0 to 3.0) points: benefit" in said
    assert (work / "hardened.onnx").read_bytes() == network(seed=5)
    document = json.loads((work / "report.json").read_bytes())
    assert (document["outcome"], document["written"], document["seeds"]) == (outcome, "hardened.onnx", [1, 5])


@pytest.mark.parametrize("outcome", ["no benefit", "worse", "too dear"], indirect=True)
def test_what_is_worth_nothing_is_not_written(work: Path, outcome: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ARGUMENTS]) == 1
    said = capsys.readouterr().out
    assert f"\n{outcome}: " in said
    assert "nothing was written" in said
    assert not (work / "hardened.onnx").exists()


@pytest.mark.slow
@pytest.mark.parametrize("outcome", ["no benefit"], indirect=True)
def test_a_try_is_recorded_for_a_name(work: Path, outcome: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--passphrase-file", "pass"]) == 0
    capsys.readouterr()
    assert main([*ARGUMENTS, "--name", "fraud", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["written"] is None
    entries = Installation.find(work, SystemClock()).read_ledger().entries()
    record = [decode_record(entry, what="it") for _, entry in entries][-1]
    assert (record.kind, record.subject, record.details["outcome"]) == ("redteam.run", "fraud", outcome)
    assert record.details["students"] == {"1000": "no benefit"}


def test_no_file_is_overwritten(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "hardened.onnx").write_bytes(b"mine")
    assert main([*ARGUMENTS]) == 2
    assert "hardened.onnx is there already" in capsys.readouterr().err
    assert (work / "hardened.onnx").read_bytes() == b"mine"
    assert main([*ARGUMENTS[:-1], "new", "--report", "new"]) == 2


@pytest.mark.torch
@pytest.mark.slow
def test_a_network_is_hardened_from_end_to_end(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    # the room's own tests say what more steps come to
    monkeypatch.setattr(room, "harden", partial(room.harden, steps=30))
    monkeypatch.setattr("palladion.redteam.harden.objectives.STUDENT_STEPS", 60)
    code = main([*ARGUMENTS, "--queries", "60", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert code == (0 if document["outcome"] == "benefit" else 1)
    assert (work / "hardened.onnx").exists() == (code == 0)
    assert [item["queries"] for item in document["students"]] == ([] if document["outcome"] == "too dear" else [60])
