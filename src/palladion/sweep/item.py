"""One file as the sweep sees it: a name, a size, and its bytes by ranges, wherever it lies."""

import io
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from palladion.errors import FormatError

HEAD_BYTES = 64 * 1024  # of every file; whoever needs more asks again
SNIFF_BYTES = 1024 * 1024  # of those that the head leaves open: ONNX has no magic number
READ_BYTES_MAX = 256 * 1024 * 1024  # in one go, by a reader of archives that believes what a file says of its tables

Read = Callable[[int, int], bytes]  # (offset, size) -> at most so many bytes


@dataclass(frozen=True)
class Access:
    """Who may do what with a file of this machine. `writable` names the folders above it that anybody may write to."""

    mode: int
    owner: int
    writable: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Item:
    """A file: `place` names it for people, `name` is its last part, `parent` the folder it lies in.

    `context` says more of where that is (an image's layer, a revision on the Hub), `cached` that it is a copy of
    something that the Hub gives out. `open_to` says by what a bucket shows it to strangers. `path` is there where it is
    a file of this machine, and `access` with it. `whole` is false where only the beginning can be read.
    """

    place: str
    name: str
    size: int
    read: Read = field(repr=False)
    parent: str = ""
    context: str = ""
    cached: bool = False
    open_to: tuple[str, ...] = ()
    path: Path | None = None
    access: Access | None = None
    whole: bool = True

    def head(self, size: int = HEAD_BYTES) -> bytes:
        """Its first bytes."""
        return self.read(0, min(size, self.size))


class Ranged(io.RawIOBase):
    """The bytes of an item as a file that can be sought in, for the standard library's readers of archives."""

    def __init__(self, item: Item) -> None:
        self._item = item
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place in it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._item.size}[whence]
        if base + offset < 0:
            raise OSError("a place before the beginning")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """Where it stands."""
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """As of any file. Raises OSError on more at once than a table of an archive has."""
        left = max(0, self._item.size - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > READ_BYTES_MAX:
            raise OSError(f"a part of {wanted} bytes, at most {READ_BYTES_MAX} are read at once")
        data = self._item.read(self._at, wanted) if wanted else b""
        self._at += len(data)
        return data

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what io calls it with
        """Fill the buffer, as far as there is something left."""
        size = max(0, min(len(buffer), self._item.size - self._at))
        data = self._item.read(self._at, size) if size else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def read_path(path: Path) -> tuple[os.stat_result, Read]:
    """A regular file of this machine, and how its bytes are read; no link is followed.

    It is opened for each read: a sweep meets more files than may be open. Raises OSError, FormatError.
    """
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise FormatError(f"{path} is not a regular file")

    def read(offset: int, size: int) -> bytes:
        # not blocking: what was a file could be a named pipe by now
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb", buffering=0) as stream:
            parts, left = [], size
            while left and (part := os.pread(stream.fileno(), left, offset)):
                parts.append(part)
                offset += len(part)
                left -= len(part)
            return b"".join(parts)

    return status, read


def held(data: bytes) -> Read:
    """How bytes that are in memory are read."""
    return lambda offset, size: data[offset : offset + size]
