"""`palladion redteam schedule`: what is written and told, and that what a job ran is no longer overdue."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palladion.cli.main import main
from palladion.redteam.audit import stages
from palladion.redteam.audit.schedule import SECRET_BYTES_MAX
from tests.redteam.audit.subjects import done, figure, stage

ROWS = np.random.default_rng(5).standard_normal((320, 4)).astype(np.float32)
SCHEDULE = ["redteam", "schedule", "fraud", "--rows", "rows.npz"]

pytestmark = pytest.mark.slow


@pytest.fixture
def home(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """An installation with a model, whose gate can be reached from another pod, and rows."""
    monkeypatch.chdir(folder)
    assert main(["init", "--passphrase-file", "pass"]) == 0
    assert main(["protect", "v1.onnx", "--name", "fraud", "--passphrase-file", "pass"]) == 0
    policy = folder / "palladion.toml"
    text = policy.read_text().replace("[gate]\n", '[gate]\nlisten = "0.0.0.0:8710"\nbehind_proxy = true\n', 1)
    policy.write_text(f'{text}\n[[route]]\nmodel = "fraud"\n')
    np.savez(folder / "rows.npz", x=ROWS, y=(ROWS[:, 0] > 0).astype(int))
    capsys.readouterr()
    return folder


def _told(capsys: pytest.CaptureFixture[str], *more: str) -> Any:
    assert main([*SCHEDULE, *more, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_units_are_printed_or_written(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*SCHEDULE, "--every", "weekly", "--user", "palladion"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "OnCalendar=weekly" in printed
    assert f'"--rows" "{home.resolve() / "rows.npz"}"' in printed
    units = _told(capsys, "--every", "weekly", "--user", "palladion", "--out", "units")["units"]
    for name, text in units.items():
        assert (home / "units" / name).read_text() == text
        assert text in printed


def test_two_models_have_files_of_their_own(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for model in ("fraud", "scores"):
        assert main(["redteam", "schedule", model, "--rows", "rows.npz", "--out", "units"]) == 0
    assert len(list((home / "units").iterdir())) == 4
    assert '"redteam" "run" "fraud"' in (home / "units" / "palladion-redteam-fraud.service").read_text()


def test_a_component_is_told_with_its_secret(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(home / "my training.npz", x=ROWS)
    told = _told(capsys, "--training", "my training.npz", "--kubernetes", "--out", "audit")
    (need,) = told["needs"]
    assert need == (
        "kubectl create secret generic palladion-redteam-fraud --from-file=rows.npz=rows.npz "
        "--from-file=training.npz='my training.npz'"
    )
    assert told["files"].keys() == {"kustomization.yaml", "audit.yaml"}
    assert {path.name: path.read_text() for path in (home / "audit").iterdir()} == told["files"]
    assert main([*SCHEDULE, "--kubernetes"]) == 0
    shown = capsys.readouterr()
    assert '"/data/rows.npz"' in shown.out
    assert "needed: kubectl create secret" in shown.err


def test_more_than_a_secret_holds_needs_a_claim(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "large.npz").write_bytes(b"x" * (SECRET_BYTES_MAX + 1))
    large = ["--training", "large.npz", "--kubernetes", "--out", "audit"]
    assert main([*SCHEDULE, *large]) == 2
    assert "more than the 1048576 that a secret of Kubernetes holds" in capsys.readouterr().err
    assert not (home / "audit").exists()
    told = _told(capsys, *large, "--claim", "audits")
    assert told["needs"] == [
        "the claim audits holds rows.npz (rows.npz) and training.npz (large.npz), and can be mounted on the gate's node"
    ]
    assert (
        '"claimName": "audits"' in told["files"]["audit.yaml"] or 'claimName: "audits"' in told["files"]["audit.yaml"]
    )


def test_what_a_job_ran_is_in_the_ledger_and_not_overdue(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    yaml = pytest.importorskip("yaml", reason="this needs PyYAML")
    found = done("extraction", figure("extraction.fidelity.1000.undefended", 0.5, 0.45, 0.55))
    monkeypatch.setattr(stages, "STAGES", (stage("extraction", lambda subject, plan, allowance: found),))
    (job, _) = yaml.safe_load_all(_told(capsys, "--kubernetes")["files"]["audit.yaml"])
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    # as it is in the pod, with the folders of this machine in place of those that are mounted there
    arguments = [item.replace("/srv/palladion", str(home)).replace("/data", str(home)) for item in container["args"]]
    assert _overdue(capsys) == ("warning", "fraud@1 is served and was not audited so far")
    assert main(arguments) == 0
    capsys.readouterr()
    assert _overdue(capsys) == ("ok", "all 1 versions that are served were audited within 90 days")
    assert (home / ".palladion" / "audit-fraud" / "report.json").is_file()


def _overdue(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    main(["doctor", "--json"])
    told = json.loads(capsys.readouterr().out)
    checks = told["checks"] if isinstance(told, dict) else told
    return next((item["status"], item["message"]) for item in checks if item["name"] == "red team")
