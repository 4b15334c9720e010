"""`palladion redteam run MODEL` with what only the owner has: the keys, and the folder that the model came with."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palladion.cli.main import main
from palladion.redteam.audit.removal import NO_KEYS
from palladion.redteam.removal import trial
from palladion.redteam.removal.attacks import GRID
from tests.models import onnx_bytes, write

pytestmark = pytest.mark.slow

OWNER = ("--passphrase-file", "pass")


@pytest.fixture
def audited(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation with a model that carries a mark and one that does not, and rows for both."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(trial, "GRID", tuple(attack for attack in GRID if attack.kind == "noise"))
    write(folder / "wide.onnx", onnx_bytes(3, inputs=400, classes=8))
    assert main(["init", *OWNER]) == 0
    for name, file in (("wide", "wide.onnx"), ("small", "v1.onnx")):
        assert main(["protect", file, "--name", name, *OWNER]) == 0
    for name, inputs in (("wide", 400), ("small", 4)):
        rows = np.random.default_rng(4).standard_normal((320, inputs)).astype(np.float32)
        np.savez(folder / f"{name}.npz", x=rows, y=np.zeros(320, np.int64))
    return folder


def _stages(folder: Path, *arguments: str) -> dict[str, Any]:
    model = arguments[0]
    command = ["redteam", "run", *arguments, "--rows", f"{model}.npz", "--out", "out"]
    assert main([*command, "--only", "removal", "--only", "supply-chain", "--only", "surface"]) in {0, 1, 3}
    document = json.loads((folder / "out" / "report.json").read_bytes())
    return {stage["stage"]: stage for stage in document["stages"]} | {"bars": document["bars"]}


def test_without_keys_the_mark_is_left_and_with_them_attacked(audited: Path) -> None:
    found = _stages(audited, "wide")
    assert found["removal"]["reasons"] == [NO_KEYS]
    found = _stages(audited, "wide", *OWNER)
    assert found["removal"]["outcome"] == "done"
    assert len(found["removal"]["details"]["attacks"]) == 3
    assert b"removal.noise.5-%" in (audited / "out" / "report.json").read_bytes()


def test_the_bar_is_held_where_the_keys_are(audited: Path) -> None:
    policy = audited / "palladion.toml"
    policy.write_text(policy.read_text().replace("# removal_log10_p = 0.0", "removal_log10_p = -9.0"))
    assert _stages(audited, "wide")["bars"] == []
    assert [item["key"] for item in _stages(audited, "wide", *OWNER)["bars"]] == ["removal.log10_p"]


def test_a_version_without_a_mark_is_skipped_and_says_why(audited: Path) -> None:
    found = _stages(audited, "small", *OWNER)
    assert found["removal"]["outcome"] == "skipped"
    assert "carries no mark" in found["removal"]["reasons"][0]


def test_the_folder_beside_the_model_is_scanned_each_time(audited: Path) -> None:
    (audited / "beside").mkdir()
    write(audited / "beside" / "config.json", b"{}")
    assert _stages(audited, "wide", "--files", "beside")["supply-chain"]["observations"] == []
    write(audited / "beside" / "weights.bin", pickle.dumps(1, protocol=2))
    found = _stages(audited, "wide", "--files", "beside")
    assert [item["where"] for item in found["supply-chain"]["observations"]] == ["weights.bin"]
    assert all(item["rule"] != "supply-chain" for item in found["surface"]["observations"])
    report = json.loads((audited / "out" / "report.sarif").read_bytes())
    assert [item["level"] for item in report["runs"][0]["results"] if item["ruleId"] == "supply-chain"] == ["error"]


def test_rows_are_needed_for_what_is_no_language_model(audited: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["redteam", "run", "wide"]) == 2
    assert "--rows is missing" in capsys.readouterr().err
    assert main(["redteam", "run", "https://a.example/predict", "--i-am-authorised", "--no-key"]) == 2
    assert "--rows is missing" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--files", "."), ("--passphrase-file", "pass")])
def test_what_is_of_a_model_here_does_not_go_with_an_address(
    audited: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    command = ["redteam", "run", "https://a.example/predict", "--rows", "wide.npz", "--i-am-authorised", "--no-key"]
    assert main([*command, option, value]) == 2
    assert f"{option} is for a model of this installation" in capsys.readouterr().err
