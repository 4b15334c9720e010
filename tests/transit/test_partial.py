"""The file of a download: kept for the next run, never trusted, never somebody else's, and named in one step."""

import errno
import os
from pathlib import Path

import pytest

from palladion.errors import BusyError, ConflictError, FormatError, StorageError
from palladion.seal.source import FileSource
from palladion.seal.structure import Structure, read_structure
from palladion.transit.partial import Partial, partial_path
from tests.transit.factories import Sealed, sealed


def _structure(made: Sealed) -> Structure:
    return read_structure(FileSource(made.path))


def test_a_new_one_is_private_and_lacks_everything(tmp_path: Path) -> None:
    structure = _structure(sealed(tmp_path))
    with Partial.held(tmp_path / "t") as partial:
        partial.reserve(structure.layout.file_bytes)
        assert partial.path == tmp_path / ".t.partial"
        assert partial.path.stat().st_mode & 0o777 == 0o600
        assert partial.size == structure.layout.file_bytes
        assert partial.missing(structure) == [0, 1, 2]


def test_segments_that_an_earlier_run_left_are_kept_if_they_are_the_signed_ones(tmp_path: Path) -> None:
    made = sealed(tmp_path, segments=5)
    structure = _structure(made)
    layout = structure.layout
    with Partial.held(tmp_path / "t") as partial:
        partial.reserve(layout.file_bytes)
        for index in (0, 2, 3):
            begin = layout.segment_offset(index)
            partial.write(made.data[begin : begin + layout.segment_bytes(index)], begin)
        partial.write(b"torn", layout.segment_offset(3) + 100)
    with Partial.held(tmp_path / "t") as partial:
        partial.reserve(layout.file_bytes)
        assert partial.missing(structure) == [1, 3, 4]


def test_one_that_is_longer_or_of_another_file_is_of_no_harm(tmp_path: Path) -> None:
    made, other = sealed(tmp_path), sealed(tmp_path, segments=6, name="other")
    partial_path(tmp_path / "t").write_bytes(other.data)
    structure = _structure(made)
    with Partial.held(tmp_path / "t") as partial:
        partial.reserve(structure.layout.file_bytes)
        assert partial.size == structure.layout.file_bytes
        assert partial.missing(structure) == [0, 1, 2]


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL])
def test_a_disk_that_cannot_reserve_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with Partial.held(tmp_path / "t") as partial:
        partial.reserve(5000)
        assert partial.size == 5000


def test_a_disk_that_cannot_tell_holes_has_everything_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sealed(tmp_path)

    def refuse(*_: int) -> int:
        raise OSError(errno.EINVAL, "no")

    monkeypatch.setattr(os, "lseek", refuse)
    with Partial.held(tmp_path / "t") as partial:
        partial.write(made.data, 0)
        assert partial.missing(_structure(made)) == []
        partial.empty()
        assert partial.missing(_structure(made)) == [0, 1, 2]


def test_a_full_disk_is_told_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with Partial.held(tmp_path / "t") as partial, pytest.raises(StorageError, match="no space left") as caught:
        partial.reserve(5000)
    assert caught.value.hints == ("free some space and run it again",)


def test_it_reads_what_it_holds_and_says_when_it_ends(tmp_path: Path) -> None:
    with Partial.held(tmp_path / "t") as partial:
        partial.write(b"content", 3)
        buffer = bytearray(4)
        partial.read_into(memoryview(buffer), 3)
        assert buffer == b"cont"
        with pytest.raises(FormatError, match="ends before"):
            partial.read_into(memoryview(buffer), 8)
        partial.close()
        assert partial.size == 10


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    with Partial.held(tmp_path / "t"), pytest.raises(BusyError, match="another process"), Partial.held(tmp_path / "t"):
        pass


def test_one_that_was_finished_while_we_waited_for_it_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    real = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        partial_path(tmp_path / "t").rename(tmp_path / "t")
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(BusyError, match="just now"), Partial.held(tmp_path / "t"):
        pass


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    partial_path(tmp_path / "t").symlink_to(tmp_path / "victim")
    with pytest.raises(StorageError), Partial.held(tmp_path / "t"):
        pass
    partial_path(tmp_path / "t").unlink()
    partial_path(tmp_path / "t").hardlink_to(tmp_path / "victim")
    with pytest.raises(StorageError, match="of one name"), Partial.held(tmp_path / "t"):
        pass
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_a_planted_file_of_another_user_or_pipe_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(partial_path(tmp_path / "t"))
    with pytest.raises(StorageError), Partial.held(tmp_path / "t"):
        pass
    partial_path(tmp_path / "t").unlink()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(StorageError, match="of your own"), Partial.held(tmp_path / "t"):
        pass


def test_finishing_gives_it_the_name_and_leaves_nothing(tmp_path: Path) -> None:
    with Partial.held(tmp_path / "t") as partial:
        partial.write(b"content", 0)
        partial.finish(replace=False)
    assert [path.name for path in tmp_path.iterdir()] == ["t"]
    assert (tmp_path / "t").read_bytes() == b"content"


def test_finishing_takes_no_name_that_is_taken_meanwhile(tmp_path: Path) -> None:
    with Partial.held(tmp_path / "t") as partial:
        partial.write(b"new", 0)
        (tmp_path / "t").write_bytes(b"old")
        with pytest.raises(ConflictError, match="exists already"):
            partial.finish(replace=False)
        assert (tmp_path / "t").read_bytes() == b"old"
        partial.finish(replace=True)
    assert (tmp_path / "t").read_bytes() == b"new"


def test_a_disk_without_links_gives_names_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with Partial.held(tmp_path / "t") as partial:
        partial.write(b"new", 0)
        (tmp_path / "t").write_bytes(b"old")
        with pytest.raises(ConflictError):
            partial.finish(replace=False)
        (tmp_path / "t").unlink()
        partial.finish(replace=False)
    assert (tmp_path / "t").read_bytes() == b"new"
