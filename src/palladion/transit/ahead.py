"""A remote source in few and large steps: both ends are kept, and what a steady reader will want is fetched early.

A round trip to an object store takes as long as a megabyte does. Nothing here is verified: whoever reads checks.
"""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import cast

from palladion.errors import PalladionError
from palladion.seal.layout import DIGEST_BYTES, PARAMETERS
from palladion.seal.source import FileSource, Source
from palladion.transit.ranges import Remote

# beyond the digests, whose size follows from the file's: trailer with a few wraps, footer
TAIL_BYTES = 16 * 1024
WINDOW_MAX = 8  # pieces fetched early, 8 MiB: at 50 ms a round trip, four connections reach 80 MB/s with it
EAGERNESS = 4  # one piece early for each four that were read in a row: at most a quarter too much is fetched
NEIGHBOURS = 8  # by how many pieces several threads that read one file get out of order


def read_ahead(source: Source, *, connections: int) -> Source:
    """`source` in few and large steps; a local file as it is, which has no round trips to save."""
    return source if isinstance(source, FileSource) else Ahead(cast(Remote, source), connections=connections)


class Ahead:
    """`remote`, read early where that helps; closes it."""

    def __init__(self, remote: Remote, *, connections: int) -> None:
        self._remote = remote
        self.what = remote.what
        self.size = remote.size
        digests = self.size // PARAMETERS.segment_bytes * DIGEST_BYTES
        self._tail_offset = max(len(remote.head), self.size - digests - TAIL_BYTES)
        self._tail: bytes | None = None
        self._connections = connections
        self._lock = threading.Lock()
        self._tail_lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._early: dict[int, Future[bytearray]] = {}
        self._piece = 0
        self._next = 0  # up to here everything has been asked for since the run began
        self._begun: set[int] = set()  # pieces beyond that, by threads that are ahead of others
        self._run = 0

    def __repr__(self) -> str:
        return f"<Ahead of {self.what}>"

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the bytes from `offset` on. Raises what the remote source raises."""
        end = offset + len(buffer)
        head = self._remote.head
        if not buffer:
            return
        if end <= len(head):
            buffer[:] = head[offset:end]
        elif self._tail_offset <= offset and end <= self.size:
            buffer[:] = self._ending()[offset - self._tail_offset : end - self._tail_offset]
        else:
            self._read_body(buffer, offset)

    def close(self) -> None:
        """Stop fetching and let go of the remote source; safe to call twice."""
        with self._lock:
            pool, self._pool = self._pool, None
            early = list(self._early.values())
            self._early.clear()
        for future in early:
            future.cancel()
        # before waiting for the threads: it makes them stop waiting
        self._remote.close()
        if pool is not None:
            pool.shutdown()

    def _ending(self) -> bytes:
        with self._tail_lock:
            if self._tail is None:
                tail = bytearray(self.size - self._tail_offset)
                self._remote.read_into(memoryview(tail), self._tail_offset)
                self._tail = bytes(tail)
            return self._tail

    def _read_body(self, buffer: memoryview, offset: int) -> None:
        with self._lock:
            early = self._early.pop(offset, None)
            # a foreseen piece that is shorter is the body's last: others may still come for those before it
            if early is None or len(buffer) == self._piece:
                self._foresee(offset, len(buffer))
        if early is not None:
            try:
                piece = early.result()
            except PalladionError:
                piece = bytearray()  # asked for again below, where somebody hears of it
            if len(piece) >= len(buffer):
                buffer[:] = memoryview(piece)[: len(buffer)]
                return
        self._remote.read_into(buffer, offset)

    def _foresee(self, offset: int, size: int) -> None:
        """Count how many pieces have been read without a gap, and fetch as many more as that promises."""
        distance = offset - self._next
        if size != self._piece or distance % size or abs(distance) > NEIGHBOURS * size:
            self._piece, self._next, self._run = size, offset, 0
            self._begun.clear()
            self._forget(self.size)
        if offset >= self._next:
            self._begun.add(offset)
        while self._next in self._begun:
            self._begun.remove(self._next)
            self._next += size
            self._run += 1
        self._forget(self._next - NEIGHBOURS * size)
        for number in range(min(self._run // EAGERNESS, WINDOW_MAX)):
            position = self._next + number * size
            length = min(size, self.size - position)
            known = position in self._early or position in self._begun
            if position < self._tail_offset and not known and len(self._early) < WINDOW_MAX:
                self._pool = self._pool or ThreadPoolExecutor(self._connections, "palladion-ahead")
                self._early[position] = self._pool.submit(self._fetch, position, length)

    def _forget(self, position: int) -> None:
        """Drop what was fetched early and lies before `position`: nobody came for it."""
        for key in [key for key in self._early if key < position]:
            self._early.pop(key).cancel()

    def _fetch(self, position: int, length: int) -> bytearray:
        piece = bytearray(length)
        self._remote.read_into(memoryview(piece), position)
        return piece
