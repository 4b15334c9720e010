"""A sealed file while it arrives: beside its target under a hidden name, and under the target's name once it is whole.

There is no note of what has arrived. After a crash such a note could be wrong, so every segment that is there is held
against the signed digest again, at the speed of the disk.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from palladion import files
from palladion.errors import BusyError, ConflictError, FormatError, StorageError, TamperError
from palladion.seal.layout import PARAMETERS
from palladion.seal.structure import Progress, Structure, read_segment

_NO_PREALLOCATION = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})


class Partial:
    """The file of one download, held by one process; also a `Source` of what it holds so far."""

    def __init__(self, target: Path, descriptor: int) -> None:
        self.path = partial_path(target)
        self.what = str(target)
        self._target = target
        self._descriptor = descriptor

    def __repr__(self) -> str:
        return f"<Partial of {self._target}>"

    @classmethod
    @contextmanager
    def held(cls, target: Path) -> Iterator[Self]:
        """The partial file of `target`, new or left by an earlier run, for the length of the block.

        Raises BusyError if another process is at it, StorageError if it is not this user's own regular file.
        """
        path = partial_path(target)
        with files.storage_errors(path):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(path, flags, files.PRIVATE_FILE)
        try:
            _lock(path, descriptor)
            yield cls(target, descriptor)
        finally:
            os.close(descriptor)

    @property
    def size(self) -> int:
        """Bytes of the file as it is now."""
        return os.fstat(self._descriptor).st_size

    def reserve(self, size: int) -> None:
        """Make it `size` bytes long and have the disk keep room for all of them. Raises StorageError if it cannot."""
        with files.storage_errors(self.path):
            os.ftruncate(self._descriptor, min(size, self.size))
            try:
                # a full disk is told before the download and not after half of it
                os.posix_fallocate(self._descriptor, 0, size)
            except OSError as error:
                if error.errno not in _NO_PREALLOCATION:
                    raise
                os.ftruncate(self._descriptor, size)

    def empty(self) -> None:
        """Throw away what it holds."""
        with files.storage_errors(self.path):
            os.ftruncate(self._descriptor, 0)

    def missing(self, structure: Structure, progress: Progress | None = None) -> list[int]:
        """The segments that are not here yet: all that do not have the signed digest."""
        layout = structure.layout
        buffer = memoryview(bytearray(PARAMETERS.segment_bytes))
        absent: list[int] = []
        for index in range(layout.segments):
            try:
                if not self._has_data(layout.segment_offset(index), layout.segment_bytes(index)):
                    absent.append(index)
                    continue
                read_segment(self, structure, index, buffer)
            except (TamperError, FormatError):
                absent.append(index)
            if progress:
                progress(layout.segment_offset(index), layout.file_bytes)
        return absent

    def write(self, data: bytes | memoryview, offset: int) -> None:
        """Write from `offset` on; from any thread. Raises StorageError."""
        view, done = memoryview(data), 0
        with files.storage_errors(self.path):
            while done < len(view):
                done += os.pwrite(self._descriptor, view[done:], offset + done)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the bytes from `offset` on. Raises FormatError or StorageError."""
        done = 0
        with files.storage_errors(self.path):
            while done < len(buffer):
                count = os.preadv(self._descriptor, [buffer[done:]], offset + done)
                if count == 0:
                    raise FormatError(f"{self.what} ends before its lengths say")
                done += count

    def close(self) -> None:
        """Nothing: `held` closes it."""

    def finish(self, *, replace: bool) -> None:
        """Give it the target's name, durably, in one step. Raises ConflictError if that is taken, unless `replace`."""
        with files.storage_errors(self._target):
            os.fsync(self._descriptor)
            if replace:
                self.path.replace(self._target)
            else:
                self._take_free_name()
            files.sync_directory(self._target.parent)

    def discard(self) -> None:
        """Remove it: what it holds is of no use to a later run."""
        self.path.unlink(missing_ok=True)

    def _take_free_name(self) -> None:
        try:
            os.link(self.path, self._target)
        except FileExistsError:
            raise taken(self._target) from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # no hard links here: two downloads to one name are told apart by the lock, others not in this instant
            if os.path.lexists(self._target):
                raise taken(self._target) from None
            self.path.rename(self._target)
        else:
            self.path.unlink()

    def _has_data(self, offset: int, size: int) -> bool:
        """Whether anything was written there: what is only reserved need not be read."""
        try:
            return os.lseek(self._descriptor, offset, os.SEEK_DATA) < offset + size
        except OSError as error:
            return error.errno != errno.ENXIO  # nothing from there on; anything else: this disk cannot tell


def partial_path(target: Path) -> Path:
    """Where a file is while it arrives."""
    return target.with_name(f".{target.name}.partial")


def taken(target: Path) -> ConflictError:
    """The refusal to write over a file."""
    return ConflictError(f"{target} exists already", "name another file, or use --replace")


def _lock(path: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BusyError(f"{path} is being written by another process", "wait for it to end, or stop it") from None
    status = os.fstat(descriptor)
    # whoever owns it could change it after it was checked, and have it renamed to a name that is trusted
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink > 1:
        raise StorageError(f"{path} is not a regular file of your own, and of one name", "remove it")
    # who held it before may have renamed it just now: then this is the finished file, and not to be written to
    try:
        named = path.lstat()
    except FileNotFoundError:
        named = None
    if named is None or (named.st_dev, named.st_ino) != (status.st_dev, status.st_ino):
        raise BusyError(f"{path} was being written by another process just now", "run it again")
