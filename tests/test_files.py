"""Atomic writes, private modes, locks."""

import errno
import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from palladion import files
from palladion.errors import BusyError, FormatError, StorageError


def test_a_written_file_is_private_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "key"
    files.write_atomically(path, b"content")
    assert path.read_bytes() == b"content"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_failed_write_leaves_the_old_content_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "key"
    files.write_atomically(path, b"old")
    with pytest.raises(TypeError), files.atomic_writer(path) as stream:
        stream.writelines([b"half", "not bytes"])  # type: ignore[list-item]
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("operation", ["open", "fsync", "replace"])
def test_every_failing_step_of_a_write_keeps_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    path = tmp_path / "key"
    files.write_atomically(path, b"old")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path if operation == "replace" else os, operation, fail)
        with pytest.raises(StorageError, match="no space left") as caught:
            files.write_atomically(path, b"new")
    assert caught.value.hints == ("free some space and run it again",)
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["key"]


def test_an_existing_file_is_not_replaced_when_that_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "version"
    with files.atomic_writer(path, replace=False) as stream:
        stream.write(b"first")
    with pytest.raises(StorageError, match="file exists"), files.atomic_writer(path, replace=False) as stream:
        stream.write(b"second")
    assert path.read_bytes() == b"first"
    assert [item.name for item in tmp_path.iterdir()] == ["version"]


def _refuse_links(*_: Any, **__: Any) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_where_no_links_can_be_made_a_new_file_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", _refuse_links)
    path = tmp_path / "identity"
    with files.atomic_writer(path, replace=False) as stream:
        stream.write(b"first")
    with pytest.raises(StorageError, match="file exists"), files.atomic_writer(path, replace=False) as stream:
        stream.write(b"second")
    assert path.read_bytes() == b"first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in tmp_path.iterdir()] == ["identity"]


def test_where_no_links_can_be_made_a_failed_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", _refuse_links)
    monkeypatch.setattr(Path, "replace", _refuse_links)
    with (
        pytest.raises(StorageError, match="not permitted"),
        files.atomic_writer(tmp_path / "identity", replace=False) as stream,
    ):
        stream.write(b"first")
    assert list(tmp_path.iterdir()) == []


def test_other_refusals_of_a_link_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(StorageError, match="no space"), files.atomic_writer(tmp_path / "x", replace=False) as stream:
        stream.write(b"first")
    assert list(tmp_path.iterdir()) == []


def test_a_copy_is_private_and_replaces_a_planted_link_and_not_what_it_leads_to(tmp_path: Path) -> None:
    source, target, victim = tmp_path / "source", tmp_path / "target", tmp_path / "victim"
    source.write_bytes(b"content")
    source.chmod(0o644)
    victim.write_bytes(b"mine")
    target.symlink_to(victim)
    with pytest.raises(StorageError, match="file exists"):
        files.copy_file(source, target)
    files.copy_file(source, target, replace=True)
    assert (target.read_bytes(), target.is_symlink(), victim.read_bytes()) == (b"content", False, b"mine")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_only_regular_files_are_copied(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="not a regular file"):
        files.copy_file(tmp_path / "pipe", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_read_stops_at_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * 11)
    with pytest.raises(FormatError, match="larger than the 10 bytes"):
        files.read_limited(path, size_max=10, what="the file")
    assert files.read_limited(path, size_max=11, what="the file") == b"x" * 11


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is a directory"):
        files.read_limited(tmp_path, size_max=10, what="the file")
    with pytest.raises(FormatError, match="not a regular file"):
        files.read_limited(Path("/dev/zero"), size_max=10, what="the file")


def test_a_second_process_is_refused_the_lock_and_gets_it_after_a_crash(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib\nfrom palladion import files\n"
        "with files.exclusive_lock(pathlib.Path(sys.argv[1]), what='it'):\n"
        "    print('held', flush=True); sys.stdin.readline(); os._exit(1)\n"
    )
    lock = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match="it is being written"), files.exclusive_lock(lock, what="it"):
            pass
        holder.communicate("die\n")
    with files.exclusive_lock(lock, what="it"):
        pass


def test_every_folder_that_is_made_is_for_its_owner_only(tmp_path: Path) -> None:
    files.make_private_directory(tmp_path / "a" / "b")
    files.make_private_directory(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


def test_a_folder_can_be_locked_itself_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    with (
        files.exclusive_lock(tmp_path, what="the folder"),
        pytest.raises(BusyError, match="the folder is being written"),
        files.exclusive_lock(tmp_path, what="the folder"),
    ):
        pass
    with files.exclusive_lock(tmp_path, what="the folder"):
        assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_cannot_lock_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(StorageError, match="no locks available"), files.exclusive_lock(tmp_path, what="the folder"):
        pass


def _record_syncs(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    synced: set[Path] = set()
    original = os.fsync

    def sync(descriptor: int) -> None:
        synced.add(Path(f"/proc/self/fd/{descriptor}").readlink())
        original(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    return synced


def test_the_name_of_every_new_folder_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = _record_syncs(monkeypatch)
    files.make_private_directory(tmp_path / "a" / "b")
    assert synced == {tmp_path, tmp_path / "a"}
    synced.clear()
    files.make_private_directory(tmp_path / "a" / "b")
    assert synced == set()


def test_a_tree_is_synced_to_its_last_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"x")
    synced = _record_syncs(monkeypatch)
    files.sync_tree(tmp_path)
    assert synced == {tmp_path, *tmp_path.rglob("*")}


def test_a_scratch_folder_is_new_private_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "scratch"
    path.mkdir()
    (path / "left by a crash").write_bytes(b"x")
    with files.scratch_directory(path) as folder:
        assert list(folder.iterdir()) == []
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "file").write_bytes(b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_folder_goes_when_the_block_fails_and_stays_where_it_was_moved(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), files.scratch_directory(tmp_path / "scratch"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with files.scratch_directory(tmp_path / "scratch") as folder:
        folder.rename(tmp_path / "kept")
    assert [item.name for item in tmp_path.iterdir()] == ["kept"]


def test_a_link_planted_for_a_scratch_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "file").write_bytes(b"x")
    (tmp_path / "scratch").symlink_to(tmp_path / "victim")
    with pytest.raises(StorageError), files.scratch_directory(tmp_path / "scratch"):
        pass
    assert (tmp_path / "victim" / "file").exists()
