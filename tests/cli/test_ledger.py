"""What `palladion ledger` does that a session cannot show: entries that no honest writer makes, and exact bytes."""

import json
from pathlib import Path

import pytest

from palladion.cli.main import main
from palladion.ledger import writer
from tests.ledger.ledgers import KEY, make


@pytest.fixture
def ledger(tmp_path: Path) -> list[str]:
    """A ledger of five entries, as options."""
    make(tmp_path / "ledger", 5)
    return ["--ledger", str(tmp_path / "ledger"), "--key", str(KEY)]


@pytest.mark.slow
@pytest.mark.parametrize("entry", [b"not json", b"[" * 20_000, b'{"v":1}', b"\xff"])
@pytest.mark.parametrize("command", [["tail"], ["tail", "--json"], ["show", "0"], ["verify"]])
def test_a_signed_entry_that_is_no_record_is_a_finding(
    command: list[str],
    entry: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(writer, "encode_record", lambda _: entry)
    make(tmp_path / "ledger", 1)
    assert main(["ledger", *command, "--ledger", str(tmp_path / "ledger"), "--key", str(KEY)]) == 1
    assert capsys.readouterr().err.startswith("palladion: error: entry 0 ")


def test_the_printed_checkpoint_is_the_file_byte_for_byte(
    ledger: list[str], tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(["ledger", "checkpoint", *ledger]) == 0
    assert capsysbinary.readouterr().out == (tmp_path / "ledger" / "checkpoint").read_bytes()


@pytest.mark.parametrize("count", [1, 3, 100])
def test_tail_and_its_json_show_the_same_entries(
    count: int, ledger: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ledger", "tail", "-n", str(count), *ledger]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert main(["ledger", "tail", "-n", str(count), "--json", *ledger]) == 0
    entries = json.loads(capsys.readouterr().out)["entries"]
    columns = ("index", "time", "kind", "subject", "actor")
    assert shown == [[str(entry[column]) for column in columns] for entry in entries]


def test_a_proof_that_was_written_is_checked_and_a_changed_one_is_a_finding_in_json(
    ledger: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ledger", "prove", "2", "--out", str(tmp_path), *ledger]) == 0
    check = ["ledger", "check", str(tmp_path / "entry-2.tlog-proof"), str(tmp_path / "entry-2.json")]
    assert main([*check, "--key", str(KEY)]) == 0
    (tmp_path / "entry-2.json").write_bytes(b"{}")
    capsys.readouterr()
    assert main([*check, "--key", str(KEY), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False
