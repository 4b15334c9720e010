"""`palladion dlp`: rules are written once, and say what is in a file."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from palladion.cli.dlp import check, export
from palladion.cli.main import main
from palladion.clock import SystemClock
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import open_version
from tests.cli.session import chdir
from tests.sweep.known import weights_bytes

pytestmark = pytest.mark.slow


def _run(*arguments: str) -> tuple[int, str]:
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        code = main(list(arguments))
    return code, output.getvalue()


def _json(*arguments: str) -> Any:
    return json.loads(_run(*arguments, "--json")[1])


def test_rules_are_written_and_know_a_copy(folder: Path) -> None:
    (folder / "big.safetensors").write_bytes(weights_bytes())
    with chdir(folder):
        _run("init", "--passphrase-file", "pass")
        _run("protect", "big.safetensors", "--name", "fraud", "--passphrase-file", "pass")
        code, told = _run("dlp", "export", "fraud@1", "--out", "fraud.yar")
        assert code == 0, told
        assert (folder / "fraud.yar").read_text().count("rule palladion_fraud_1") == 1
        code, told = _run("dlp", "export", "fraud@1", "--out", "fraud.yar")
        assert (code, "exists" in told) == (2, True)
        made = _json("dlp", "export", "--format", "json", "--out", "fraud.json", "--passphrase-file", "pass")
        assert made["versions"] == ["fraud@1"]
        nothing = {"file": "pass", "finding": False, "versions": []}
        assert _json("dlp", "check", "pass", "--rules", "fraud.json") == nothing
        code, told = _run("dlp", "check", "pass", "--rules", "fraud.json")
        assert (code, told) == (0, "pass: nothing of fraud.json is in it\n")
        # the unmarked original: what carries no mark is the same in it, and less than a hundredth of all
        assert _run("dlp", "check", "big.safetensors", "--rules", "fraud.json")[0] == 0
        with open_version(Installation.find(folder, SystemClock()), "fraud@1") as opened:
            (folder / "copy").write_bytes(opened.model.files[0].data)
        code, told = _run("dlp", "check", "copy", "--rules", "fraud.json")
        assert code == 1
        assert told.splitlines()[1].split()[:2] == ["fraud@1", "float32"]
        assert _run("dlp", "check", "pass", "--rules", "pass")[0] == 1


def test_both_commands_say_what_they_are_for() -> None:
    assert export.help
    assert check.help
