"""An escrow key in shares: as many as are needed set a new passphrase, fewer do nothing."""

import io
import json
import stat
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from palladion.cli.main import main
from tests.cli.session import chdir

pytest.importorskip("shamir_mnemonic", reason="this needs the split extra")
pytestmark = pytest.mark.slow


def _run(*arguments: str) -> tuple[int, str]:
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        code = main(list(arguments))
    return code, output.getvalue()


def _split(folder: str = "shares") -> str:
    code, printed = _run("key", "split", "--shares", "4", "--needed", "3", "--out", folder, "--json")
    assert code == 0, printed
    return str(json.loads(printed)["recipient"])


def _shares(*numbers: int, folder: str = "shares") -> list[str]:
    return [f"{folder}/share-{number}-of-4.txt" for number in numbers]


def test_enough_shares_set_a_new_passphrase(folder: Path) -> None:
    with chdir(folder):
        recipient = _split()
        assert all(stat.S_IMODE(Path(name).stat().st_mode) == 0o600 for name in _shares(1, 2, 3, 4))
        assert _run("init", "--passphrase-file", "pass", "--escrow", recipient)[0] == 0
        assert _run("protect", "v1.onnx", "--name", "fraud", "--passphrase-file", "pass")[0] == 0
        joining = ("--new-passphrase-file", "pass2")
        code, printed = _run("key", "join", *_shares(1, 2), *joining)
        assert code == 2
        assert "2 different shares were given, 3 are needed" in printed
        code, printed = _run("key", "join", *_shares(4, 1, 3), *joining)
        assert code == 0, printed
        opening = ("unseal", "fraud@1", "--out", "back.onnx", "--reason", "r", "--passphrase-file")
        assert _run(*opening, "pass")[0] == 2
        assert _run(*opening, "pass2")[0] == 0


def test_shares_of_nobody_here_are_refused(folder: Path) -> None:
    with chdir(folder):
        recipient = _split()
        _split("other")
        assert _run("init", "--passphrase-file", "pass", "--escrow", recipient)[0] == 0
        code, printed = _run("key", "join", *_shares(1, 2, 3, folder="other"), "--new-passphrase-file", "pass2")
        assert code == 2
        assert "is no escrow recipient here" in printed
        code, printed = _run(
            "key", "join", *_shares(1, 2), *_shares(3, folder="other"), "--new-passphrase-file", "pass2"
        )
        assert code == 2
        assert "different splits" in printed


def test_a_joined_key_goes_to_a_file_where_a_backup_is_restored(folder: Path) -> None:
    with chdir(folder):
        recipient = _split()
        wanted = ("key", "join", *_shares(2, 3, 4), "--out", "joined.identity")
        code, printed = _run(*wanted, "--recipient", _split("other"))
        assert code == 2
        assert not Path("joined.identity").exists()
        code, printed = _run(*wanted, "--recipient", recipient)
        assert code == 0, printed
        assert f"# recipient: {recipient}" in Path("joined.identity").read_text()


def test_without_a_folder_the_shares_are_printed_once(folder: Path) -> None:
    with chdir(folder):
        code, printed = _run("key", "split", "--shares", "3", "--needed", "2")
        assert code == 0
        assert sum(len(line.split()) == 33 for line in printed.splitlines()) == 3
        assert "shown this once" in printed
        code, printed = _run("key", "split", "--shares", "2", "--needed", "3")
        assert code == 2
        assert "3 of 2 shares were asked for" in printed


def test_nothing_is_overwritten_and_no_other_reads_a_share(folder: Path) -> None:
    with chdir(folder):
        _split()
        assert _run("key", "split", "--shares", "4", "--needed", "3", "--out", "shares")[0] == 2
        Path(_shares(1)[0]).chmod(0o644)
        code, printed = _run("key", "join", *_shares(1, 2, 3), "--out", "x")
        assert code == 2
        assert "others may read it" in printed
