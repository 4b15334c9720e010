"""`python -m bench`: which scripts there are, what is printed for one and for several, and what a crash does."""

import json
import subprocess
from typing import Any

import pytest

from bench import __main__ as bench


class Scripts:
    """Stands in for the processes: each script prints its name as its document; some crash."""

    def __init__(self, *crashing: str) -> None:
        self.crashing = crashing
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], **_options: Any) -> "subprocess.CompletedProcess[str]":
        self.commands.append(command[1:])
        name = command[2].removeprefix("bench.")
        failed = name in self.crashing
        return subprocess.CompletedProcess(command, 1 if failed else 0, "" if failed else json.dumps({"name": name}))


def _replace(monkeypatch: pytest.MonkeyPatch, *crashing: str) -> Scripts:
    scripts = Scripts(*crashing)
    monkeypatch.setattr(subprocess, "run", scripts)
    return scripts


def test_every_script_is_known_and_the_frame_is_none() -> None:
    assert {"install", "ledger", "model", "seal"} <= set(bench.SCRIPTS)
    assert "report" not in bench.SCRIPTS


@pytest.mark.parametrize("arguments", [["nonsense"], ["install", "--fast"], ["install", "report"]])
def test_an_unknown_name_or_flag_is_a_mistake_of_the_caller(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    scripts = _replace(monkeypatch)
    assert bench.main(arguments) == 2
    assert "usage: python -m bench [activations|answers|" in capsys.readouterr().err
    assert scripts.commands == []


def test_without_a_name_every_script_runs_with_the_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = _replace(monkeypatch)
    assert bench.main(["--quick"]) == 0
    assert scripts.commands == [["-m", f"bench.{name}", "--quick"] for name in bench.SCRIPTS]


def test_one_script_prints_its_own_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _replace(monkeypatch)
    assert bench.main(["seal", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "seal"}


def test_several_scripts_print_one_document_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _replace(monkeypatch)
    assert bench.main(["seal", "install", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"seal": {"name": "seal"}, "install": {"name": "install"}}


def test_a_crash_is_named_and_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _replace(monkeypatch, "seal")
    assert bench.main(["seal", "install"]) == 1
    printed = capsys.readouterr()
    assert printed.err == "crashed: seal\n"
    assert json.loads(printed.out) == {"name": "install"}


def test_half_of_the_figures_is_no_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _replace(monkeypatch, "seal")
    assert bench.main(["seal", "install", "--json"]) == 1
    assert capsys.readouterr().out == ""
