"""The entry point: exit codes, what goes to which stream, and that start-up stays light."""

import subprocess
import sys
from pathlib import Path

import pytest

from palladion import __version__
from palladion.cli import main as entry
from palladion.errors import TamperError


def _run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "palladion", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, stdin=subprocess.DEVNULL)


def test_the_module_runs_and_prints_its_version(tmp_path: Path) -> None:
    done = _run("--version", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"palladion {__version__}\n", "")


def test_errors_go_to_standard_error_and_reports_to_standard_output(tmp_path: Path) -> None:
    done = _run("model", "list", "--json", folder=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("palladion: error: no palladion.toml in")


def test_help_loads_neither_the_runtime_nor_the_database(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom palladion.cli.main import main\nmain(['--help'])\nmain(['protect', '--help'])\n"
        "heavy = {'onnxruntime', 'sqlalchemy', 'alembic', 'rich', 'ml_dtypes'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_finding_keeps_its_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object, **__: object) -> None:
        raise TamperError("it was changed", "get another", "or mend it")

    monkeypatch.setattr(entry.palladion, "main", fail)
    assert entry.main([]) == 1
    assert capsys.readouterr().err == (
        "palladion: error: it was changed\npalladion: hint: get another\npalladion: hint: or mend it\n"
    )


def test_an_interrupt_and_a_closed_pipe_end_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(entry.palladion, "main", interrupt)
    assert entry.main([]) == entry.INTERRUPTED


def test_output_into_a_pipe_that_closes_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m palladion --help | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.stdout.startswith("Usage: palladion")
    assert done.stderr == ""
