"""The entry point: exit codes, what goes to which stream, and that start-up stays light."""

import re
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


@pytest.mark.slow
def test_the_module_runs_and_prints_its_version(tmp_path: Path) -> None:
    done = _run("--version", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"palladion {__version__}\n", "")


@pytest.mark.slow
def test_errors_go_to_standard_error_and_reports_to_standard_output(tmp_path: Path) -> None:
    done = _run("model", "list", "--json", folder=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("palladion: error: no palladion.toml in")


@pytest.mark.slow
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


@pytest.mark.slow
def test_output_into_a_pipe_that_closes_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m palladion --help | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.stdout.startswith("Usage: palladion")
    assert done.stderr == ""


def _raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(entry.palladion, "main", fail)


def test_what_no_command_expected_is_called_a_bug_and_shown_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(entry.TRACEBACK, raising=False)
    _raising(monkeypatch, KeyError("a\nb\x1b[2J" + "x" * 10_000))
    assert entry.main([]) == 70
    first, second, rest = capsys.readouterr().err.split("\n")
    assert first.startswith(r"palladion: error: this is a bug: KeyError: 'a\nb\x1b[2Jxxx")
    assert first.endswith("…")
    assert len(first) < 2100
    assert "SECURITY.md" in second
    assert rest == ""


def test_a_bug_shows_its_traceback_when_asked_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(entry.TRACEBACK, "1")
    _raising(monkeypatch, RecursionError("too\ndeep"))
    assert entry.main([]) == 70
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):\n")
    assert "palladion: error: this is a bug: RecursionError: too" in shown


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PermissionError(13, "Permission denied", "a\nfolder"), r"a\nfolder: permission denied"),
        (FileExistsError(17, "File exists", b"folder\xff"), r"folder\udcff: file exists"),
        (PermissionError(13, "Permission denied", 7), "7: permission denied"),
        (OSError(28, "No space left on device"), "no space left on device"),
        (OSError("something else"), "something else"),
        (MemoryError(), "there is not enough memory for this"),
    ],
)
def test_what_the_system_refuses_is_a_sentence_and_no_bug(
    error: BaseException, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _raising(monkeypatch, error)
    assert entry.main([]) == 2
    assert capsys.readouterr().err.split("\n")[0] == f"palladion: error: {sentence}"


def test_an_argument_that_is_no_text_where_text_is_needed_is_a_mistake_of_the_caller(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _raising(monkeypatch, UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "surrogates not allowed"))
    assert entry.main(["model", "show", "a\udcff"]) == 2
    assert "an argument holds bytes that are no UTF-8" in capsys.readouterr().err
    assert entry.main(["model", "show", "é"]) == 70


def test_choices_that_click_puts_below_each_other_become_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["client", "standing", "acme", "--reason", "x"]) == 2
    assert re.match(r"palladion: error: missing argument '.*'\. Choose from: \w+, ", capsys.readouterr().err)


def test_a_message_of_a_megabyte_is_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _raising(monkeypatch, TamperError("x" * 10**6, "y" * 10**6))
    assert entry.main([]) == 1
    assert len(capsys.readouterr().err) < 5000


@pytest.mark.slow
def test_a_full_disk_behind_the_output_is_told_once(tmp_path: Path) -> None:
    command = f"{sys.executable} -m palladion --help > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "palladion: error: no space left on device\n")


@pytest.mark.slow
def test_a_full_disk_behind_everything_leaves_the_exit_code(tmp_path: Path) -> None:
    command = f"{sys.executable} -m palladion model list 2> /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
