"""`palladion disclose measure`: two tables, or JSON, and no word that promises more than was tried."""

import json
from pathlib import Path

import numpy as np
import pytest

from palladion.cli.main import main

ROWS = 320


@pytest.fixture
def measured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    assert main(["init", "--passphrase-file", "pass"]) == 0
    assert main(["protect", "v1.onnx", "--name", "fraud", "--passphrase-file", "pass"]) == 0
    rows = np.random.default_rng(5).standard_normal((ROWS, 4)).astype(np.float32)
    np.save(folder / "rows.npy", rows)
    np.save(folder / "few.npy", rows[:50])
    np.save(folder / "labels.npy", rows[:, 0] > 0)
    return folder


def _measure(*more: str) -> int:
    return main(["disclose", "measure", "fraud", "--rows", "rows.npy", "--queries", "60", "--seeds", "2", *more])


@pytest.mark.slow
def test_what_it_prints_are_costs_of_both_sides(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert _measure("--labels", "labels.npy") == 0
    printed = capsys.readouterr().out
    assert "96 of 320 rows held out" in printed
    for words in ("an honest user", "a thief with 60 queries", "undefended", "trusted", "throttled", "degraded"):
        assert words in printed
    assert "intervals of 95 % over seeds 1 to 2" in printed
    assert "protected" not in printed


@pytest.mark.slow
def test_the_same_comes_as_json(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert _measure("--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["version"], document["kind"], document["seeds"]) == ("fraud@1", "classes", [1, 2])
    assert [step["standing"] for step in document["steps"]] == ["trusted", "throttled", "degraded"]
    assert set(document["undefended"]["ways"]) == {"raw", "averaged", "labels"}
    assert document["steps"][0]["thief"]["ways"]["labels"] == document["steps"][2]["thief"]["ways"]["labels"]


@pytest.mark.slow
def test_too_few_rows_are_refused_in_a_sentence(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["disclose", "measure", "fraud", "--rows", "few.npy"]) == 2
    assert "50 rows are too few to measure on: at least 300 were expected" in capsys.readouterr().err


@pytest.mark.slow
def test_more_queries_than_rows_are_refused_in_a_sentence(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _measure("--queries", "300") == 2
    printed = capsys.readouterr().err
    assert "300 queries cannot be measured: 224 of the 320 rows are not held out" in printed
    assert "--queries between 40 and 224" in printed
