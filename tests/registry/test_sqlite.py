"""Files, settings, copies, and what SQLite's errors become."""

import sqlite3
import stat
from pathlib import Path

import pytest

from palladion.clock import ManualClock
from palladion.errors import FormatError, StorageError
from palladion.registry import Registry
from tests.registry.factories import add_model, dump


@pytest.mark.usefixtures("durable")
def test_every_connection_is_set_up_for_durability_and_references(tmp_path: Path, clock: ManualClock) -> None:
    registry = Registry.open(tmp_path / "registry.sqlite", clock)
    with registry._engine.connect() as connection:
        values = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout", "trusted_schema")
        }
    registry.close()
    full = 2
    assert values == {
        "journal_mode": "wal",
        "foreign_keys": 1,
        "synchronous": full,
        "busy_timeout": 5000,
        "trusted_schema": 0,
    }


def test_a_registry_that_vanishes_while_open_is_not_made_anew(registry: Registry) -> None:
    registry.close()
    registry.path.unlink()
    with pytest.raises(StorageError), registry.read() as records:
        records.models.all()
    assert not registry.path.exists()


def test_a_name_with_special_characters_is_a_name(tmp_path: Path, clock: ManualClock) -> None:
    folder = tmp_path / "100% ?mode=memory#ü"
    folder.mkdir()
    with Registry.open(folder / "r.sqlite", clock), Registry.open(folder / "r.sqlite", clock, create=False):
        assert (folder / "r.sqlite").is_file()


def test_a_planted_link_is_not_followed_into_a_new_file(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "registry.sqlite").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError):
        Registry.open(tmp_path / "registry.sqlite", clock)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.slow
@pytest.mark.parametrize("page", range(1, 40, 3))
def test_a_page_of_noise_never_shows_a_strangers_error(registry: Registry, clock: ManualClock, page: int) -> None:
    with registry.write() as records:
        add_model(records, "digits", *"abcdef")
    registry.close()
    data = bytearray(registry.path.read_bytes())
    start = (page - 1) * 4096 + (100 if page == 1 else 0)
    assert start < len(data)
    data[start : page * 4096] = b"\xa5" * (page * 4096 - start)
    registry.path.write_bytes(data)
    with pytest.raises(FormatError), Registry.open(registry.path, clock, create=False) as damaged:
        damaged.verify()


def test_a_dangling_reference_is_found(registry: Registry) -> None:
    connection = sqlite3.connect(registry.path)
    with connection:
        connection.execute(
            "INSERT INTO promotion VALUES (1, 'gone', 1, 'promote', 'eve', '2026-11-24T09:30:00.000000Z')"
        )
    connection.close()
    with pytest.raises(FormatError, match="promotion refers to a missing version"):
        registry.verify()


@pytest.mark.parametrize("code", [sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR])
def test_what_the_disk_refuses_is_a_storage_error(registry: Registry, code: int) -> None:
    error = sqlite3.OperationalError("attempt to write a readonly database")
    error.sqlite_errorcode = code
    with pytest.raises(StorageError, match=r"registry\.sqlite: attempt to write"), registry.write():
        raise error


def test_a_mistake_in_our_own_calls_is_not_dressed_up(registry: Registry) -> None:
    with pytest.raises(sqlite3.ProgrammingError), registry.read():
        raise sqlite3.ProgrammingError("Cannot operate on a closed cursor.")


def test_a_copy_is_private_consistent_and_made_while_others_write(
    registry: Registry, tmp_path: Path, clock: ManualClock
) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a")
    with registry.write() as records:
        add_model(records, "unfinished")
        registry.copy_to(tmp_path / "copy.sqlite")
    assert stat.S_IMODE((tmp_path / "copy.sqlite").stat().st_mode) == 0o600
    with Registry.open(tmp_path / "copy.sqlite", clock, create=False) as copy:
        copy.verify()
        with copy.read() as records:
            assert [model.name for model in records.models.all()] == ["digits"]


def test_a_copy_replaces_nothing(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "copy.sqlite").write_bytes(b"precious")
    before = dump(registry)
    with pytest.raises(StorageError, match="file exists"):
        registry.copy_to(tmp_path / "copy.sqlite")
    assert (tmp_path / "copy.sqlite").read_bytes() == b"precious"
    assert sorted(item.name for item in tmp_path.iterdir() if item.suffix == ".tmp") == []
    assert dump(registry) == before


def test_statements_in_errors_carry_no_values(registry: Registry) -> None:
    assert registry._engine.hide_parameters
    assert repr(registry) == f"<Registry {registry.path}>"
