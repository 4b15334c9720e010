"""Where the bytes of a sealed file come from: a file on this machine, or whatever else can be read by ranges.

What is read is copied once into the reader's own memory and checked there: a source may change, lie or fail.
"""

import os
import stat
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from palladion.errors import FormatError
from palladion.files import storage_errors


class Source(Protocol):
    """A sealed file's bytes, readable from several threads at once."""

    @property
    def what(self) -> str:
        """Its name for messages."""
        ...

    @property
    def size(self) -> int:
        """Its size in bytes, as it was when it was opened."""
        ...

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the bytes from `offset` on.

        Raises FormatError if the source has become too short, StorageError if it cannot be read.
        """
        ...

    def close(self) -> None:
        """Let go of it; safe to call twice."""
        ...


Place = Path | Source


class FileSource:
    """A regular file on this machine, held open."""

    def __init__(self, path: Path) -> None:
        self.what = str(path)
        self._path = path
        with storage_errors(path):
            # not blocking: a named pipe must not make us wait for ever
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        # once, whoever comes first: two threads, or the collector where nobody closes it
        self._close = weakref.finalize(self, os.close, self.descriptor)
        status = os.fstat(self.descriptor)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise FormatError(f"{path} is not a regular file")
        self.mode = stat.S_IMODE(status.st_mode)
        self.size = status.st_size

    def __repr__(self) -> str:
        return f"<FileSource {self.what}>"

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the bytes from `offset` on. Raises FormatError or StorageError."""
        done = 0
        if not self._close.alive:
            # another file may have its number by now
            raise ValueError(f"{self.what} is closed")
        with storage_errors(self._path):
            while done < len(buffer):
                count = os.preadv(self.descriptor, [buffer[done:]], offset + done)
                if count == 0:
                    raise FormatError(f"{self.what} became shorter while it was read")
                done += count

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._close()


def open_source(place: Place) -> Source:
    """The source at `place`: a path is opened, a source is handed through. The caller closes it."""
    return FileSource(place) if isinstance(place, Path) else place


@contextmanager
def opened_source(place: Place) -> Iterator[Source]:
    """`open_source` for the length of a block; a source that was handed in stays open."""
    source = open_source(place)
    try:
        yield source
    finally:
        if source is not place:
            source.close()


def read(source: Source, size: int, offset: int) -> bytes:
    """`size` bytes from `offset` on."""
    buffer = bytearray(size)
    source.read_into(memoryview(buffer), offset)
    return bytes(buffer)
