"""The stage: a folder of its own, commands as a person types them."""

from pathlib import Path

import pytest

from palladion import __version__
from palladion.demo.stage import Stage
from palladion.errors import InconclusiveError

pytestmark = pytest.mark.slow  # runs commands of the demo


def test_a_folder_that_holds_something_is_not_played_in(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(InconclusiveError, match="is not empty"):
        Stage(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_without_a_folder_it_takes_a_new_one() -> None:
    first, second = Stage(None), Stage(None)
    assert first.folder != second.folder
    for stage in (first, second):
        stage.folder.rmdir()


def test_a_command_is_shown_with_what_it_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Stage(tmp_path / "new").run("--version")
    assert capsys.readouterr().out == f"   $ palladion --version\n   palladion {__version__}\n"


def test_a_command_that_ends_otherwise_than_told_ends_the_demo(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.run("model list", exit_code=2)
    with pytest.raises(InconclusiveError, match="ended with 2, expected 0"):
        stage.run("model list")


def test_a_quiet_command_gives_its_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = Stage(tmp_path)
    made = stage.quietly("recipient", "new", str(tmp_path / "it.identity"))
    assert made["recipient"].startswith("pallr1")
    assert capsys.readouterr().out == ""
    with pytest.raises(InconclusiveError, match=r"model list failed: .*no palladion\.toml"):
        stage.quietly("model", "list")


def test_a_gate_that_does_not_start_is_told_with_its_reason(tmp_path: Path) -> None:
    with (
        pytest.raises(InconclusiveError, match=r"the gate did not start: .*no palladion\.toml"),
        Stage(tmp_path).serving(),
    ):
        pytest.fail("nothing serves here")
