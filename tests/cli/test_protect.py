"""`palladion protect --delete-plaintext` says what became of the plaintext, and its exit code does too."""

from pathlib import Path

import pytest

from palladion.cli.main import main
from tests.cli import session


def test_a_link_is_not_called_deleted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "link.onnx").symlink_to("v1.onnx")
    with session.chdir(folder):
        assert main(["init", "--passphrase-file", "pass"]) == 0
        capsys.readouterr()
        arguments = ["protect", "link.onnx", "--name", "fraud", "--passphrase-file", "pass", "--delete-plaintext"]
        assert main(arguments) == 1
    printed = capsys.readouterr()
    assert "protected fraud version 1" in printed.out
    assert "deleted" not in printed.out
    assert "palladion: warning: link.onnx was not deleted: it is a link" in printed.err
    assert (folder / "v1.onnx").exists()
