"""Atomic writes, private modes, locks."""

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
