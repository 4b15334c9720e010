"""Budgets of encrypted queries outlive the machine that counted them."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from palladion.errors import StorageError, TamperError
from palladion.lifecycle.slots import SLOTS_FILE, copy_slots, verify_slots
from tests.lifecycle.backups import backed_up, restored, with_two_versions


def counted(path: Path, slots: int) -> sqlite3.Connection:
    """A file as the gate has it open: what it wrote last is not in the file itself yet."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE IF NOT EXISTS spent (model TEXT, client TEXT, slots INTEGER)")
    database.execute("INSERT INTO spent VALUES ('m', 'c', ?)", (slots,))
    return database


def read(path: Path) -> list[tuple[int]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT slots FROM spent").fetchall()


def test_a_copy_holds_what_a_running_gate_has_just_written(tmp_path: Path) -> None:
    with closing(counted(tmp_path / "first?mode=memory", 7)):
        copy_slots(tmp_path / "first?mode=memory", tmp_path / "copy")
    verify_slots(tmp_path / "copy")
    assert read(tmp_path / "copy") == [(7,)]


def test_what_is_no_such_file_is_not_copied_and_not_put_back(tmp_path: Path) -> None:
    (tmp_path / "broken").write_bytes(b"this is no database, and longer than its header is" * 10)
    with pytest.raises(StorageError, match="not a database"):
        copy_slots(tmp_path / "broken", tmp_path / "copy")
    with pytest.raises(TamperError, match="damaged"):
        verify_slots(tmp_path / "broken")
    with closing(sqlite3.connect(tmp_path / "empty")) as database:
        database.execute("CREATE TABLE other (a)")
    with pytest.raises(TamperError, match="damaged"):
        verify_slots(tmp_path / "empty")


@pytest.mark.slow
def test_a_restored_installation_has_no_new_budget(tmp_path: Path) -> None:
    made = with_two_versions(tmp_path / "first")
    before = restored(backed_up(made, tmp_path / "without"), tmp_path / "second", made).installation
    assert not (before.paths.directory / SLOTS_FILE).exists()
    with closing(counted(made.installation.paths.directory / SLOTS_FILE, 7)):
        state = backed_up(made, tmp_path / "backup")
    back = restored(state, tmp_path / "third", made).installation.paths.directory
    assert read(back / SLOTS_FILE) == [(7,)]
    assert (back / SLOTS_FILE).stat().st_mode & 0o077 == 0
