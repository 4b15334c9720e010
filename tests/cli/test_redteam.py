"""`palladion redteam`: reports, a record, and an exit code that says whether the bars hold."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palladion.cli.main import main
from palladion.redteam.audit import stages
from palladion.redteam.audit.result import StageResult
from tests.redteam.audit.subjects import done, figure, stage

ROWS = np.random.default_rng(5).standard_normal((320, 4)).astype(np.float32)
KEY = "extraction.fidelity.1000.undefended"


@pytest.fixture
def attacked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation with a model, rows, and one stage whose figure the tests choose."""
    monkeypatch.chdir(folder)
    assert main(["init", "--passphrase-file", "pass"]) == 0
    assert main(["protect", "v1.onnx", "--name", "fraud", "--passphrase-file", "pass"]) == 0
    np.savez(folder / "rows.npz", x=ROWS, y=(ROWS[:, 0] > 0).astype(int))
    return folder


def _finds(monkeypatch: pytest.MonkeyPatch, result: StageResult) -> None:
    monkeypatch.setattr(stages, "STAGES", (stage(result.stage, lambda subject, plan, allowance: result),))


def _bar(folder: Path, fidelity: float) -> None:
    policy = folder / "palladion.toml"
    policy.write_text(policy.read_text().replace("# extraction_fidelity = 1.0", f"extraction_fidelity = {fidelity}"))


def _run(*more: str) -> int:
    return main(["redteam", "run", "fraud", "--rows", "rows.npz", "--out", "out", *more])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("result", "code", "words"),
    [
        (done("extraction", figure(KEY, 0.5, 0.4, 0.6), queries=9), 0, "holds: "),
        (done("extraction", figure(KEY, 0.95, 0.92, 0.97)), 1, "FAILS: "),
        (done("extraction", figure(KEY, 0.9, 0.8, 0.95)), 3, "undecided: "),
        (StageResult("extraction", "inconclusive", ("all answers are the same",)), 3, "all answers are the same"),
    ],
    ids=["within", "beyond", "straddling", "inconclusive"],
)
def test_the_exit_code_says_whether_the_bar_holds(
    attacked: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    result: StageResult,
    code: int,
    words: str,
) -> None:
    _finds(monkeypatch, result)
    _bar(attacked, 0.9)
    assert _run() == code
    assert words in capsys.readouterr().out
    assert json.loads((attacked / "out" / "report.json").read_bytes())["stages"] == [result.document()]
    assert len(json.loads((attacked / "out" / "report.sarif").read_bytes())["runs"][0]["results"]) == (code != 0) + (
        result.outcome == "inconclusive"
    )


@pytest.mark.slow
def test_what_got_worse_since_a_baseline_fails(
    attacked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _finds(monkeypatch, done("extraction", figure(KEY, 0.5, 0.45, 0.55)))
    assert _run() == 0
    (attacked / "out" / "report.json").rename(attacked / "before.json")
    _finds(monkeypatch, done("extraction", figure(KEY, 0.8, 0.75, 0.85)))
    capsys.readouterr()
    assert _run("--seed", "2", "--baseline", "before.json", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert [item["key"] for item in document["regressions"]] == [KEY]


@pytest.mark.slow
def test_it_is_recorded_and_shown_again(
    attacked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _finds(monkeypatch, done("extraction", figure(KEY, 0.5, 0.45, 0.55)))
    assert _run() == 0
    printed = capsys.readouterr().out
    assert main(["redteam", "show", "out/report.json"]) == 0
    assert capsys.readouterr().out.strip() in printed
    assert main(["ledger", "query", "--kind", "redteam.run", "--json"]) == 0
    found: Any = json.loads(capsys.readouterr().out)
    assert "redteam.run" in json.dumps(found)


@pytest.mark.slow
def test_a_stage_that_is_not_there_is_a_mistake(attacked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("--only", "guessing") == 2
    assert "no stage is called 'guessing'; there are surface, supply-chain, extraction" in capsys.readouterr().err


@pytest.mark.slow
def test_membership_needs_labels(attacked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(attacked / "training.npz", x=ROWS)
    assert _run("--training", "training.npz") == 1
    assert "membership needs labels" in capsys.readouterr().err


@pytest.mark.slow
def test_reports_are_written_in_every_form(
    attacked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "typst", None)
    _finds(monkeypatch, done("extraction", figure(KEY, 0.5, 0.45, 0.55)))
    assert _run() == 0
    said = capsys.readouterr()
    assert "wrote report.json, report.sarif, report.html, report.cdx.json to out" in said.out
    assert "no report.pdf: the pages of a report need typst" in said.err
    assert not (attacked / "out" / "report.pdf").exists()
    assert (attacked / "out" / "report.html").read_bytes().startswith(b"<!doctype html>")
    assert json.loads((attacked / "out" / "report.cdx.json").read_bytes())["specVersion"] == "1.6"


@pytest.mark.slow
def test_anew_forgets_what_was_found(attacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _finds(monkeypatch, done("extraction", figure(KEY, 0.5, 0.45, 0.55)))
    assert _run() == 0
    _finds(monkeypatch, done("extraction", figure(KEY, 0.7, 0.65, 0.75)))
    assert _run() == 0
    assert _value(attacked) == 0.5
    assert _run("--anew") == 0
    assert _value(attacked) == 0.7


def _value(folder: Path) -> float:
    document = json.loads((folder / "out" / "report.json").read_bytes())
    return float(document["stages"][0]["figures"][0]["value"])


@pytest.mark.slow
def test_the_surface_of_the_file_is_said(attacked: Path) -> None:
    assert _run("--only", "surface") == 0
    document = json.loads((attacked / "out" / "report.json").read_bytes())
    assert "names" in {seen["where"] for seen in document["stages"][0]["observations"]}
