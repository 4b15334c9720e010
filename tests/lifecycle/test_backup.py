"""A backup is whole when it says so, replaces nothing that was, and can be read by whoever has a key alone."""

import os
import stat
import tarfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from palladion.errors import BusyError, ConflictError, KeysError, StorageError, TamperError
from palladion.ledger.record import Record, decode_record
from palladion.lifecycle import backup
from palladion.lifecycle.backup import back_up, ledger_bytes_max, read_publisher
from palladion.lifecycle.doctor import examine
from palladion.lifecycle.installation import Installation
from palladion.seal.reader import open_sealed
from palladion.seal.recipients import FileIdentity
from tests.models import onnx_bytes

from .backups import add_version, backed_up, flip, restored, with_two_versions
from .installations import ACTOR, NOW, OWNER, Made, kinds, make, served

pytestmark = pytest.mark.slow  # makes and seals installations by the dozen


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return with_two_versions(tmp_path / "first")


def _copies(folder: Path) -> list[Path]:
    return sorted((folder / "sealed").iterdir())


def _copy_of(made: Made, folder: Path, number: int) -> Path:
    with made.installation.open_registry() as registry, registry.read() as records:
        return folder / "sealed" / f"{records.versions.get('fraud', number).served.header_digest}.sealed"


def test_a_second_backup_copies_only_what_is_new(tmp_path: Path, made: Made) -> None:
    first = back_up(made.installation, made.owner, [OWNER.recipient], tmp_path / "backup", actor=ACTOR)
    assert (first.copied, first.present) == (4, 0)
    add_version(made, tmp_path, 3)
    second = back_up(made.installation, made.owner, [OWNER.recipient], tmp_path / "backup", actor=ACTOR)
    assert (second.copied, second.present) == (2, 4)
    assert len(_copies(tmp_path / "backup")) == 6


def test_nothing_of_a_backup_can_be_read_without_a_key(tmp_path: Path, made: Made) -> None:
    state = backed_up(made, tmp_path / "backup")
    host_identity = made.installation.paths.host_identity.read_bytes()
    for path in (tmp_path / "backup").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for secret in (host_identity[-40:], onnx_bytes(1)[20:60], b"fraud@1"):
            assert secret not in content
    with pytest.raises(KeysError):
        restored(state, tmp_path / "second", made, FileIdentity.generate())
    assert not (tmp_path / "second").exists()


def test_everything_in_a_backup_but_the_publisher_is_private(tmp_path: Path, made: Made) -> None:
    made.installation.paths.served("fraud", 1).chmod(0o644)
    backed_up(made, tmp_path / "backup")
    exposed = [path.name for path in (tmp_path / "backup").rglob("*") if stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert exposed == ["publisher.txt"]


def test_a_folder_with_the_backups_of_somebody_else_is_left_alone(tmp_path: Path, made: Made) -> None:
    other = make(tmp_path / "other")
    backed_up(other, tmp_path / "backup")
    with pytest.raises(ConflictError, match="backups of another owner"):
        backed_up(made, tmp_path / "backup")
    assert read_publisher(tmp_path / "backup") == other.owner.public().keys["publisher"]


def test_a_backup_is_recorded_with_its_digests_once_it_is_there(tmp_path: Path, made: Made) -> None:
    state = backed_up(made, tmp_path / "backup")
    assert kinds(made.installation)[-1] == "backup.made"
    record = decode_record(made.installation.read_ledger().tail(1)[0][1], what="it")
    with open_sealed(state, [OWNER], made.installation.publishers()) as opened:
        assert record.details["root"] == opened.info.root
        assert record.details["header"] == opened.info.header_digest
    assert record.subject == state.name


def test_a_backup_that_failed_is_not_recorded(tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(backup, "seal_files", fail)
    with pytest.raises(StorageError, match="the disk is full"):
        backed_up(made, tmp_path / "backup")
    assert "backup.made" not in kinds(made.installation)


def test_a_damaged_version_fails_the_backup_and_leaves_what_is_there(tmp_path: Path, made: Made) -> None:
    folder = tmp_path / "backup"
    state = backed_up(made, folder)
    add_version(made, tmp_path, 3)
    before = {path: path.read_bytes() for path in _copies(folder)}
    flip(made.installation.paths.original("fraud", 3))
    with pytest.raises(TamperError, match=r"3\.original\.sealed was altered"):
        backed_up(made, folder)
    assert {path: path.read_bytes() for path in before} == before
    assert kinds(made.installation)[-1] == "model.protected"
    restored(state, tmp_path / "second", made)


def test_a_version_that_was_damaged_after_it_was_copied_takes_no_copys_place(tmp_path: Path, made: Made) -> None:
    folder = tmp_path / "backup"
    first = backed_up(made, folder)
    before = {path: path.read_bytes() for path in _copies(folder)}
    flip(made.installation.paths.original("fraud", 1))
    second = backed_up(made, folder)
    assert {path: path.read_bytes() for path in _copies(folder)} == before
    for number, state in enumerate((first, second)):
        assert restored(state, tmp_path / str(number), made).versions == 2


@pytest.mark.parametrize("kind", ["rotted", "cut", "empty", "gone", "a link"])
def test_a_copy_that_is_not_whole_any_more_is_made_again(tmp_path: Path, made: Made, kind: str) -> None:
    folder = tmp_path / "backup"
    backed_up(made, folder)
    copy = _copy_of(made, folder, 1)
    if kind == "rotted":
        flip(copy)
    elif kind == "cut":
        os.truncate(copy, 100)
    elif kind == "empty":
        os.truncate(copy, 0)
    else:
        copy.unlink()
        if kind == "a link":
            copy.symlink_to(made.installation.paths.served("fraud", 1))
    again = back_up(made.installation, made.owner, [OWNER.recipient], folder, actor=ACTOR)
    assert (again.copied, again.present) == (1, 3)
    assert not copy.is_symlink()
    assert restored(again.state, tmp_path / "second", made).versions == 2


def test_a_planted_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path, made: Made) -> None:
    folder = tmp_path / "backup"
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    victim.chmod(0o644)
    copy = _copy_of(made, folder, 1)
    copy.parent.mkdir(parents=True)
    for name in (copy.name, f".{copy.name}.tmp"):
        (copy.parent / name).symlink_to(victim)
    backed_up(made, folder)
    assert not copy.is_symlink()
    assert (victim.read_bytes(), stat.S_IMODE(victim.stat().st_mode)) == (b"mine", 0o644)


def test_a_stick_without_links_takes_a_backup(tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def refuse(source: Path, target: Path) -> None:
        if target.is_relative_to(tmp_path / "stick"):
            raise PermissionError(1, "Operation not permitted")
        link(source, target)

    monkeypatch.setattr(os, "link", refuse)
    state = backed_up(made, tmp_path / "stick")
    assert restored(state, tmp_path / "second", made).versions == 2


def test_what_a_killed_backup_left_is_removed_by_the_next(tmp_path: Path, made: Made) -> None:
    left = made.installation.paths.directory / backup.SCRATCH_FOLDER
    left.mkdir()
    (left / "registry.sqlite").write_bytes(b"half")
    backed_up(made, tmp_path / "backup")
    assert not left.exists()


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("checkpoint", True),
        ("checkpoint.witnessed", True),
        ("checkpoint.witnessed2", False),
        ("journal", True),
        ("tile/0/000", True),
        ("tile/7/x001/x234/067.p/255", True),
        ("tile/entries/x001/000", True),
        ("tile/kept/x001/000", True),
        ("pruned", True),
        ("pruned.1100", True),
        ("pruned.x", False),
        ("lock", False),
        (".checkpoint.12.ab.tmp", False),
        ("tile/8/000", False),
        ("tile/0/0000", False),
        ("tile/0/000/../../../x", False),
        ("tile/0/٠٠٠", False),
        ("../checkpoint", False),
        ("/checkpoint", False),
        ("checkpoint\n", False),
        ("", False),
    ],
)
def test_a_ledgers_files_are_known_by_name(name: str, known: bool) -> None:
    assert (ledger_bytes_max(name) is not None) is known


def test_a_ledger_is_packed_without_what_a_crash_left_and_without_links(tmp_path: Path, made: Made) -> None:
    paths = made.installation.paths
    (paths.ledger / ".checkpoint.7.ab.tmp").write_bytes(b"half")
    tile = paths.ledger / "tile/entries/000.p"
    moved = next(tile.iterdir())
    # as hard-linking copies and a full disk leave them
    os.link(moved, tile / "9")
    moved.rename(tmp_path / "moved")
    moved.symlink_to(tmp_path / "moved")
    state = backed_up(made, tmp_path / "backup")
    with open_sealed(state, [OWNER], made.installation.publishers()) as opened:
        (tmp_path / "ledger.tar").write_bytes(opened.files["ledger.tar"])
    with tarfile.open(tmp_path / "ledger.tar") as archive:
        members = {member.name: member for member in archive}
    assert all(member.isreg() for member in members.values())
    assert {name for name in members if "tile" not in name} == {"checkpoint", "journal"}
    assert f"tile/entries/000.p/{moved.name}" in members


def test_an_old_backup_does_not_look_new_after_one_that_failed(tmp_path: Path, made: Made) -> None:
    backed_up(made, tmp_path / "backup")
    made.clock.advance(timedelta(days=40))
    flip(made.installation.paths.served("fraud", 1))
    _copy_of(made, tmp_path / "backup", 1).unlink()
    with pytest.raises(TamperError):
        backed_up(made, tmp_path / "backup")
    assert "the last backup is 40 days old" in [check.message for check in examine(made.installation)]


def _opened(number: int) -> Record:
    return Record("model.opened", NOW, ACTOR, f"fraud@{number}")


def test_a_backup_while_a_process_serves_holds_what_was_acknowledged_and_comes_back(tmp_path: Path, made: Made) -> None:
    journal = made.installation.paths.ledger / "journal"
    with served(made.installation) as running:
        # answers go on while nothing is published: they are in the journal, and the last batch is half written
        def answer() -> None:
            running.port.ledger.append([_opened(1)])
            running.port.ledger.append([_opened(2), _opened(3)])
            with journal.open("ab") as stream:
                stream.write(b"\x10\x00\x00\x00 half a batch"[:7])

        def mend() -> None:
            with journal.open("r+b") as stream:
                stream.truncate(journal.stat().st_size - 7)

        running.port.on_freeze, running.port.on_thaw = answer, mend
        state = backed_up(made, tmp_path / "backup")
        running.port.on_freeze = running.port.on_thaw = lambda: None
        running.port.ledger.append([_opened(4)])

    back = restored(state, tmp_path / "second", made)

    # the journal goes on from the checkpoint
    assert back.ledger.size == 6
    assert kinds(back.installation)[6:] == [*["model.opened"] * 3, "backup.restored"]


def test_full_tiles_are_packed_although_checkpoints_go_on(tmp_path: Path, made: Made) -> None:
    with served(made.installation) as running:
        ledger = running.port.ledger
        ledger.append([_opened(number) for number in range(600)])
        ledger.checkpoint()

        def publish() -> None:
            ledger.append([_opened(number) for number in range(600)])
            ledger.checkpoint()

        running.port.on_thaw = publish
        state = backed_up(made, tmp_path / "backup")
        running.port.on_thaw = lambda: None
    back = restored(state, tmp_path / "second", made)
    assert back.ledger.size == 606
    assert len(kinds(back.installation)) == 607


def test_a_backup_during_which_a_checkpoint_was_published_is_no_backup(tmp_path: Path, made: Made) -> None:
    with served(made.installation) as running:

        def too_busy() -> None:
            running.port.ledger.append([_opened(1)])
            running.port.ledger.checkpoint()
            running.port.held = False

        running.port.on_freeze = too_busy
        with pytest.raises(BusyError, match="the ledger was too busy to copy"):
            backed_up(made, tmp_path / "backup")
        assert list((tmp_path / "backup").glob("*.sealed")) == []
        assert not (made.installation.paths.directory / backup.SCRATCH_FOLDER).exists()
        assert "backup.made" not in kinds(Installation.find(made.home, made.clock))
        running.port.on_freeze = lambda: None
        restored(backed_up(made, tmp_path / "backup"), tmp_path / "second", made)
