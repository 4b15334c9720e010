"""Opening a registry, and everything that can be wrong with what is there."""

import os
import stat
from pathlib import Path

import pytest

from palladion.clock import ManualClock
from palladion.errors import BusyError, FormatError, InstallationError, PolicyError, StorageError
from palladion.registry import Registry
from tests.registry.factories import add_model


def test_a_new_registry_is_private_and_whole(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "registry.sqlite"
    with Registry.open(path, clock) as registry:
        with registry.write() as records:
            add_model(records)
        for item in tmp_path.iterdir():
            assert stat.S_IMODE(item.stat().st_mode) == 0o600, item.name
        registry.verify()
    assert [item.name for item in tmp_path.iterdir()] == ["registry.sqlite"]


def test_what_was_written_is_there_after_opening_again(registry: Registry, clock: ManualClock) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a")
    registry.close()
    for location in (registry.path, str(registry.path), f"sqlite:///{registry.path}"):
        with Registry.open(location, clock, create=False) as again, again.read() as records:
            assert records.versions.get("digits", 1).number == 1


def test_a_lost_registry_is_not_taken_for_an_empty_one(tmp_path: Path, clock: ManualClock) -> None:
    with pytest.raises(InstallationError, match="no registry at") as caught:
        Registry.open(tmp_path / "registry.sqlite", clock, create=False)
    assert caught.value.hints == ("palladion restore brings back the last backup",)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_a_sentence(tmp_path: Path, clock: ManualClock) -> None:
    with pytest.raises(StorageError, match="no such file or directory") as caught:
        Registry.open(tmp_path / "missing" / "registry.sqlite", clock)
    assert caught.value.hints == ("check the path",)


def test_a_folder_in_its_place_is_a_sentence(tmp_path: Path, clock: ManualClock) -> None:
    with pytest.raises(StorageError, match="unable to open database file"):
        Registry.open(tmp_path, clock)


@pytest.mark.parametrize("content", [b"not a database, whatever its name says" * 100, b"\x00" * 4096])
def test_a_file_that_is_no_database_is_a_sentence(tmp_path: Path, clock: ManualClock, content: bytes) -> None:
    (tmp_path / "registry.sqlite").write_bytes(content)
    with pytest.raises(FormatError, match="is damaged, a SQLite database was expected") as caught:
        Registry.open(tmp_path / "registry.sqlite", clock)
    assert caught.value.hints == ("palladion restore brings back the last backup",)
    assert (tmp_path / "registry.sqlite").read_bytes() == content


def test_an_emptied_file_is_not_taken_for_a_new_registry(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "registry.sqlite").touch()
    with pytest.raises(FormatError, match="not a Palladion registry"):
        Registry.open(tmp_path / "registry.sqlite", clock)


def test_a_truncated_registry_is_a_sentence(registry: Registry, clock: ManualClock) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a")
    registry.close()
    os.truncate(registry.path, registry.path.stat().st_size // 2)
    with pytest.raises(FormatError), Registry.open(registry.path, clock) as damaged:
        damaged.verify()


def test_a_second_writer_waits_and_is_then_told(registry: Registry, clock: ManualClock) -> None:
    with (
        Registry.open(registry.path, clock, busy_timeout_ms=1) as other,
        registry.write(),
        pytest.raises(BusyError, match="being written by another process"),
        other.write(),
    ):
        pytest.fail("two writers at once")


def test_a_reader_does_not_wait_for_a_writer(registry: Registry, clock: ManualClock) -> None:
    with Registry.open(registry.path, clock, busy_timeout_ms=1) as other, registry.write() as records:
        add_model(records)
        with other.read() as seen:
            assert seen.models.all() == []


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:secret@db.example.com/palladion",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:////tmp/registry.sqlite?mode=memory&secret=1",
        "ada:secret://",
    ],
)
def test_a_url_that_cannot_be_opened_is_refused_without_its_password(url: str, clock: ManualClock) -> None:
    with pytest.raises(PolicyError, match="the URL of the registry") as caught:
        Registry.open(url, clock)
    assert "secret" not in " ".join([caught.value.message, *caught.value.hints])
