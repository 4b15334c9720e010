"""Limits of what leaves, as people meet them: a refusal with a reason, on record, and what doctor says of them."""

from pathlib import Path

import pytest

from palladion.cli.main import main
from palladion.errors import USAGE

pytestmark = pytest.mark.slow

UNSEAL = ("unseal", "fraud@1", "--reason", "retraining", "--passphrase-file", "pass", "--out")


def _run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(list(arguments)) == code
    shown = capsys.readouterr()
    return shown.out + shown.err


def test_a_second_plaintext_of_the_day_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    _run(capsys, "init", "--passphrase-file", "pass")
    _run(capsys, "protect", "v1.onnx", "--name", "fraud", "--passphrase-file", "pass")
    policy = folder / "palladion.toml"
    policy.write_text(policy.read_text().replace("\n[egress]\n", "\n[egress]\nunseal_per_day = 1\n"))
    _run(capsys, *UNSEAL, "1.onnx")
    said = _run(capsys, *UNSEAL, "2.onnx", code=USAGE)
    assert "1 models have left within 24 hours for user:" in said
    assert "and egress.unseal_per_day is 1" in said
    assert not (folder / "2.onnx").exists()
    assert "egress.refused" in _run(capsys, "ledger", "query", "--kind", "egress.refused")
    doctor = _run(capsys, "doctor")
    assert "ok      egress: fraud@1 has " in doctor
    assert "no limit of what leaves holds it up" in doctor
    assert "ok      egress: 1 models have left within 24 hours, in plaintext or as copies" in doctor
