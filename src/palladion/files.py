"""Files that survive a power cut and strangers' eyes: atomic replacement, private modes, one-writer locks.

Knows nothing of what it writes. Every write is durable when the call returns (file and directory are fsynced).
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from palladion.errors import BusyError, FormatError, StorageError

PRIVATE_DIRECTORY = 0o700
PRIVATE_FILE = 0o600


def make_private_directory(path: Path) -> None:
    """Make `path` and whatever of its parents is missing, each readable by its owner only."""
    with storage_errors(path):
        # mkdir gives its mode to the last folder alone
        for folder in reversed([path, *path.parents]):
            if not folder.is_dir():
                folder.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)


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
                os.link(temporary, path)
                temporary.unlink()
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames and new names inside `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_limited(path: Path, *, size_max: int, what: str) -> bytes:
    """The whole of a regular file of at most `size_max` bytes. Raises FormatError if it is larger or not a file."""
    with storage_errors(path), path.open("rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise FormatError(f"{what} {path} is not a regular file")
        data = stream.read(size_max + 1)
    if len(data) > size_max:
        raise FormatError(f"{what} {path} is larger than the {size_max} bytes allowed")
    return data


@contextmanager
def exclusive_lock(path: Path, *, what: str) -> Iterator[None]:
    """Hold the lock file `path` for the length of the block; raises BusyError at once if another process holds it.

    The kernel drops the lock when the process dies, so a crash never leaves it stuck.
    """
    with storage_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_FILE)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"{what} is being written by another process", "wait for it to end, or stop it") from None
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
