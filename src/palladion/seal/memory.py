"""Memory for decrypted payloads: private, anonymous, left out of core dumps, wiped when it is given back."""

import mmap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from palladion.errors import PalladionError

_WIPE_BYTES = 1024 * 1024
_ZEROS = bytes(_WIPE_BYTES)

# Faults of 4 KiB pages are the main cost of a load (0.6 s of CPU for 1 GiB); with 2 MiB pages they cost a quarter.
# On a machine whose memory is in pieces the kernel first moves pages about to make room for a large one, 2 to 3 s for
# 1 GiB: so they are asked for block by block, and no longer once they come more slowly than small ones would. A block
# is small because the interpreter waits for it: a gate that swaps a version goes on serving meanwhile.
BLOCK_BYTES = 8 * 1024 * 1024
_BYTES_PER_SECOND_MIN = 2 * 10**9  # as fast as small pages come, on one core of 2024
_HICCUP_SECONDS = 0.03  # what a few blocks may take longer
_MADV_POPULATE_WRITE = 23  # Linux 5.14; Python has no name for it


class PrivateMemory:
    """`size` bytes that no file and no other process shares. It is never printed.

    Against other programs of other users and against core dumps; not against root, ptrace or swap.
    """

    def __init__(self, size: int, *, cpu_seconds: Callable[[], float] = time.thread_time) -> None:
        self._size = size
        self._cpu_seconds = cpu_seconds
        self._lock = threading.Lock()
        self._block = 0
        self._spent = 0.0
        try:
            # without flags Python maps shared memory, which the kernel books as a file
            self._mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, MemoryError, OverflowError):
            raise PalladionError(
                f"there is no memory for {size} bytes of payload", "use a machine with more, or raise its limit"
            ) from None
        self._mapping.madvise(mmap.MADV_DONTDUMP)
        self.view = memoryview(self._mapping)

    def prepare(self, position: int) -> None:
        """Make pages ready around `position`, which is about to be written; positions come roughly in order.

        Never needed: what it leaves out comes as small pages when it is touched. May be called from several threads.
        """
        with self._lock:
            begin = self._block * BLOCK_BYTES
            if not begin <= position:
                return
            self._block += 1
        length = min(BLOCK_BYTES, self._size - begin)
        started = self._cpu_seconds()
        try:
            self._mapping.madvise(mmap.MADV_HUGEPAGE, begin, length)
            self._mapping.madvise(_MADV_POPULATE_WRITE, begin, length)
        except OSError:
            # an older kernel, or one without large pages
            self._stop_asking()
            return
        with self._lock:
            self._spent += self._cpu_seconds() - started
            slow = self._spent > self._block * BLOCK_BYTES / _BYTES_PER_SECOND_MIN + _HICCUP_SECONDS
        if slow:
            self._stop_asking()

    def wipe(self, size: int) -> None:
        """Overwrite the first `size` bytes with zeros. Untouched memory behind them stays unallocated."""
        for begin in range(0, size, _WIPE_BYTES):
            end = min(begin + _WIPE_BYTES, size)
            self.view[begin:end] = _ZEROS[: end - begin]

    def release(self) -> None:
        """Give the memory back. Where arrays still look at it, it stays until the last of them is gone."""
        self.view.release()
        try:
            self._mapping.close()
        except BufferError:
            # wiped already; the kernel takes it back with the last array
            return

    def _stop_asking(self) -> None:
        with self._lock:
            self._block = self._size // BLOCK_BYTES + 1


@contextmanager
def private_buffer(size: int) -> Iterator[memoryview]:
    """Private memory for the length of a block, and wiped at its end: for plaintext on its way to somewhere else."""
    memory = PrivateMemory(size)
    try:
        yield memory.view
    finally:
        memory.wipe(size)
        memory.release()
