"""`palladion inspect` on what is no file."""

import os
from pathlib import Path

import pytest

from palladion.cli.main import main


def test_a_named_pipe_is_refused_and_keeps_nobody_waiting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert main(["inspect", str(tmp_path / "pipe")]) == 1
    assert capsys.readouterr().err.endswith("pipe is not a regular file\n")
