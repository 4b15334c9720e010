"""`palladion protect --delete-plaintext` says what became of the plaintext, and its exit code does too."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from palladion.cli.main import main
from tests.cli import session
from tests.private.dp.statements import statement


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


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_too_few_rows_are_told_with_how_many_are_wanted(
    folder: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    # of a width that is refused, so that nothing is taught
    few, enough = (np.zeros((count, 5), np.float32) for count in (199, 200))
    with session.chdir(folder):
        assert main(["init", "--passphrase-file", "pass"]) == 0
        for rows, warned in ((few, True), (enough, False)):
            np.savez("rows.npz", x=rows) if suffix == "npz" else np.save("rows.npy", rows)
            capsys.readouterr()
            main(["protect", "v1.onnx", "--name", "m", "--rows", f"rows.{suffix}", "--passphrase-file", "pass"])
            told = capsys.readouterr().err
            assert (f"palladion: warning: rows.{suffix} has 199 rows, and at least 200 are wanted" in told) == warned
            assert ("are wanted" in told) == warned


def test_rows_that_are_none_are_not_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with session.chdir(folder):
        assert main(["init", "--passphrase-file", "pass"]) == 0
        for data in (b"", b"PK\x03\x04", b"\x80\x04N.", b"\x93NUMPY\x01\x00"):
            Path("rows.npy").write_bytes(data)
            capsys.readouterr()
            assert main(["protect", "v1.onnx", "--name", "m", "--rows", "rows.npy", "--passphrase-file", "pass"]) == 1
            assert "are wanted" not in capsys.readouterr().err


def test_a_privacy_statement_is_shown_as_a_claim_wherever_the_version_is(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with session.chdir(folder):
        Path("privacy.json").write_bytes(statement().encode())
        assert main(["init", "--passphrase-file", "pass"]) == 0
        arguments = ["protect", "v1.onnx", "--name", "fraud", "--passphrase-file", "pass"]
        assert main([*arguments, "--privacy", "privacy.json"]) == 0
        claim = "ε = 4 at δ = 1e-4 for each example, stated by user:"
        printed = capsys.readouterr().out
        assert claim in printed
        assert "(not proved)" in printed
        assert main(["model", "show", "fraud@1"]) == 0
        assert claim in capsys.readouterr().out
        assert main(["model", "show", "fraud@1", "--json"]) == 0
        (shown,) = json.loads(capsys.readouterr().out)["versions"]
        assert (shown["privacy"]["epsilon"], shown["privacy"]["noise"]) == ("4", "cryptographic")
        assert main(["model", "list"]) == 0
        assert "ε 4, δ 1e-4" in capsys.readouterr().out
        # whoever no longer trusts the publisher is shown no claim of his
        policy = Path("palladion.toml")
        policy.write_text(re.sub(r"(?m)^publishers = .*$", "publishers = []", policy.read_text()))
        assert main(["model", "list"]) == 0
        assert "does not verify" in capsys.readouterr().out
        assert main(["model", "show", "fraud@1"]) == 1


def test_a_statement_below_its_own_figures_protects_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with session.chdir(folder):
        Path("privacy.json").write_bytes(statement(epsilon="0.5").encode())
        assert main(["init", "--passphrase-file", "pass"]) == 0
        arguments = ["protect", "v1.onnx", "--name", "fraud", "--passphrase-file", "pass"]
        assert main([*arguments, "--privacy", "privacy.json"]) != 0
        assert "its own figures" in capsys.readouterr().err
        assert main(["model", "list"]) == 0
        assert "no models yet" in capsys.readouterr().out
