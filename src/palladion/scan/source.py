"""Bytes to look at, by ranges: a file, a part of one, or what was unpacked into memory."""

import os
from collections.abc import Callable, Iterator
from typing import Protocol

from palladion.errors import FormatError

PIECE_BYTES = 1024 * 1024


class LimitError(FormatError):
    """A scan would need more than it spends on one file."""


class Source(Protocol):
    """Bytes that are read by ranges."""

    @property
    def size(self) -> int:
        """How many bytes there are."""
        ...

    def read(self, begin: int, count: int) -> bytes:
        """Up to `count` bytes from `begin`; fewer only at the end. Raises LimitError where they were not kept."""
        ...


class Held:
    """Bytes in memory; of something unpacked that is larger, the first ones and its size."""

    def __init__(self, data: bytes | memoryview, size: int | None = None) -> None:
        self._data = data
        self.size = len(data) if size is None else size

    def read(self, begin: int, count: int) -> bytes:
        """See `Source`."""
        end = min(begin + count, self.size)
        if end > len(self._data) and end > begin:
            raise LimitError(f"it unpacks to {self.size} bytes, of which a scan keeps {len(self._data)}")
        return bytes(self._data[begin:end])


class Opened:
    """A file by its descriptor, which the caller keeps open."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def read(self, begin: int, count: int) -> bytes:
        """See `Source`."""
        parts = []
        end = min(begin + count, self.size)
        while begin < end:
            part = os.pread(self._descriptor, end - begin, begin)
            if not part:
                raise FormatError("it became shorter while it was read")
            parts.append(part)
            begin += len(part)
        return b"".join(parts)


class Ranged:
    """A file of a model that was read: `pieces(begin, end)` gives its bytes."""

    def __init__(self, pieces: Callable[[int, int], Iterator[memoryview]], size: int) -> None:
        self._pieces = pieces
        self.size = size

    def read(self, begin: int, count: int) -> bytes:
        """See `Source`."""
        end = min(begin + count, self.size)
        return b"".join(bytes(piece) for piece in self._pieces(begin, end)) if begin < end else b""


class Part:
    """A range of another source, as an archive holds a file that it does not compress."""

    def __init__(self, source: Source, begin: int, size: int) -> None:
        self._source = source
        self._begin = begin
        self.size = max(0, min(size, source.size - begin))

    def read(self, begin: int, count: int) -> bytes:
        """See `Source`."""
        return self._source.read(self._begin + begin, max(0, min(count, self.size - begin)))


def pieces(source: Source, begin: int = 0) -> Iterator[bytes]:
    """All bytes from `begin`, piece by piece."""
    while begin < source.size:
        piece = source.read(begin, PIECE_BYTES)
        begin += len(piece)
        yield piece
