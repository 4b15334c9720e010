"""Files that survive a power cut and strangers' eyes: atomic replacement, private modes, one-writer locks.

Knows nothing of what it writes. Every write is durable when the call returns (file and directory are fsynced).
"""

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from palladion.errors import BusyError, FormatError, StorageError

PRIVATE_DIRECTORY = 0o700
PRIVATE_FILE = 0o600
COPY_BYTES = 1024 * 1024  # in one read of a copy: larger ones are not faster
# what a file system without hard links says to one: FAT and exFAT, network shares, FUSE
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})


def make_private_directory(path: Path) -> None:
    """Make `path` and whatever of its parents is missing, each readable by its owner only."""
    with storage_errors(path):
        # mkdir gives its mode to the last folder alone
        for folder in reversed([path, *path.parents]):
            if not folder.is_dir():
                folder.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
                sync_directory(folder.parent)


@contextmanager
def scratch_directory(path: Path) -> Iterator[Path]:
    """A new private folder at `path` for the length of the block; what a killed process left there is removed first.

    The block may rename it away. That nobody else uses `path` meanwhile is for the caller to see to, with a lock.
    """
    if os.path.lexists(path):
        with storage_errors(path):
            shutil.rmtree(path)  # refuses a planted link
    make_private_directory(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def write_atomically(path: Path, data: bytes, *, mode: int = PRIVATE_FILE) -> None:
    """Replace `path` by `data` in one step: a reader, or a power cut, sees the old file or the new one, never a mix."""
    with atomic_writer(path, mode=mode) as stream:
        stream.write(data)


@contextmanager
def atomic_writer(path: Path, *, mode: int = PRIVATE_FILE, replace: bool = True) -> Iterator[BinaryIO]:
    """A stream whose content appears at `path` when the block ends well, and leaves nothing when it raises.

    With `replace=False` an existing `path` is an error (FileExistsError inside StorageError), also in a race.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    with storage_errors(path):
        # O_EXCL and O_NOFOLLOW: a planted link must not redirect a private file
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            if replace:
                temporary.replace(path)
            else:
                _take_free_name(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def copy_file(source: Path, target: Path, *, replace: bool = False) -> None:
    """Copy a regular file to the private file `target`, in one step; an existing one is an error unless `replace`."""
    with storage_errors(source):
        # not blocking: a named pipe must not make us wait for ever
        descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FormatError(f"{source} is not a regular file")
        with atomic_writer(target, replace=replace) as copy:
            shutil.copyfileobj(stream, copy, COPY_BYTES)


def sync_directory(path: Path) -> None:
    """Make renames and new names inside `path` durable."""
    _sync(path, os.O_DIRECTORY)


def sync_tree(folder: Path) -> None:
    """Make `folder` and every file and folder below it durable, however they were written. Links are refused."""
    with storage_errors(folder):
        for path in (folder, *folder.rglob("*")):
            _sync(path, os.O_NOFOLLOW)


def read_limited(path: Path, *, size_max: int, what: str) -> bytes:
    """The whole of a regular file of at most `size_max` bytes. Raises FormatError if it is larger or not a file."""
    # non-blocking: opening a FIFO that nobody writes to would hang
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    with storage_errors(path), os.fdopen(os.open(path, flags), "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise FormatError(f"{what} {path} is not a regular file")
        data = stream.read(size_max + 1)
    if len(data) > size_max:
        raise FormatError(f"{what} {path} is larger than the {size_max} bytes allowed")
    return data


@contextmanager
def exclusive_lock(path: Path, *, what: str) -> Iterator[None]:
    """Hold the lock file, or the folder, `path` for the block; raises BusyError at once if another process holds it.

    The kernel drops the lock when the process dies, so a crash never leaves it stuck.
    """
    with storage_errors(path):
        flags = os.O_RDONLY | os.O_DIRECTORY if path.is_dir() else os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        descriptor = os.open(path, flags | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        with storage_errors(path):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                hint = "wait for it to end, or stop it"
                raise BusyError(f"{what} is being written by another process", hint) from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals about `path` into a `StorageError` with a sentence."""
    try:
        yield
    except OSError as error:
        hints = {
            errno.ENOSPC: "free some space and run it again",
            errno.EROFS: "the file system is mounted read-only",
            errno.EACCES: "check the owner and the mode of the file and its folders",
            errno.ENOENT: "check the path",
        }
        hint = hints.get(error.errno or 0)
        reason = (error.strerror or str(error)).lower()
        raise StorageError(f"{path}: {reason}", *([hint] if hint else [])) from error


def _take_free_name(temporary: Path, path: Path) -> None:
    """Rename `temporary` to `path`. Raises FileExistsError if that is taken, also in a race."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        temporary.unlink()
        return
    # the name first, which one process alone gets, then its content; a crash in between leaves an empty file
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE))
    try:
        temporary.replace(path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _sync(path: Path, flag: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flag)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
