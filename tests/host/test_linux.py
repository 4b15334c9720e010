"""What the kernel is asked for by number: each call does what its name says."""

import errno
import mmap
import os
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from palladion.host import linux


def _in_child(work: Callable[[], None]) -> int:
    """The exit code of a process of its own that does `work`: 0, the number of an OSError, or 255."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            work()
            code = 0
        except OSError as error:
            code = error.errno or 255
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _locked_kib() -> int:
    return int(Path("/proc/self/status").read_text().partition("VmLck:")[2].split()[0])


def test_a_child_of_any_name_is_found() -> None:
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        with suppress(OSError):
            Path("/proc/self/comm").write_text("a) S 1 (b")
        os.write(done, b"x")
        signal.pause()
    try:
        os.read(ready, 1)
        assert linux.command_name(pid) == "a) S 1 (b"
        assert pid in linux.children(os.getpid())
        assert pid not in linux.children(1)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert pid not in linux.children(os.getpid())
    assert linux.command_name(pid) == "?"


def test_memory_is_told_from_other_file_systems() -> None:
    assert linux.is_tmpfs(Path("/dev/shm"))
    assert not linux.is_tmpfs(Path("/proc"))
    with pytest.raises(FileNotFoundError):
        linux.is_tmpfs(Path("/no/such/folder"))


def test_memory_is_locked_and_more_than_the_limit_refused() -> None:
    with mmap.mmap(-1, mmap.PAGESIZE) as mapping, memoryview(mapping) as view:
        before = _locked_kib()
        linux.lock_memory(view)
        assert _locked_kib() == before + mmap.PAGESIZE // 1024

    def exceed() -> None:
        os.setgroups([])
        os.setresuid(65534, 65534, 65534)  # root may lock whatever it likes
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (mmap.PAGESIZE, mmap.PAGESIZE))
        view = memoryview(mmap.mmap(-1, 64 * mmap.PAGESIZE))
        linux.lock_memory(view)

    if os.geteuid() == 0:
        assert _in_child(exceed) == errno.ENOMEM


def test_what_is_dumped_is_chosen_and_put_back() -> None:
    before = linux.set_dumped(0x11)
    assert linux.set_dumped(before) == 0x11
    assert linux.set_dumped(before) == before


def test_what_is_set_for_a_process_is_read_again() -> None:
    def work() -> None:
        for wanted in (False, True):
            linux.set_dumpable(wanted)
            linux.set_subreaper(wanted)
            if (linux.is_dumpable(), linux.is_subreaper()) != (wanted, wanted):
                raise OSError(errno.EIO, "not as set")

    assert _in_child(work) == 0


def test_a_private_mount_is_read_only_by_its_path_and_unseen_by_others(tmp_path: Path) -> None:
    def work() -> None:
        linux.enter_private_mounts()
        descriptor, _ = linux.mount_memory(tmp_path, 1 << 20)
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=descriptor))
        if not (tmp_path / "file").is_file() or not linux.is_tmpfs(tmp_path):
            raise OSError(errno.EIO, "not mounted")
        try:
            os.open(tmp_path / "file", os.O_WRONLY)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
        else:
            raise OSError(errno.EIO, "writable")
        linux.unmount_memory(tmp_path)
        if list(tmp_path.iterdir()):
            raise OSError(errno.EIO, "still mounted")

    code = _in_child(work)
    if code in (errno.EPERM, errno.ENOSPC, errno.EACCES):
        pytest.skip("this system lets this user have no mounts of his own")
    assert code == 0
    assert list(tmp_path.iterdir()) == []
