"""Memory for decrypted payloads: private, anonymous, left out of core dumps, wiped when it is given back."""

import mmap

from palladion.errors import PalladionError

_WIPE_BYTES = 1024 * 1024
_ZEROS = bytes(_WIPE_BYTES)


class PrivateMemory:
    """`size` bytes that no file and no other process shares. It is never printed.

    Against other programs of other users and against core dumps; not against root, ptrace or swap.
    """

    def __init__(self, size: int) -> None:
        try:
            # without flags Python maps shared memory, which the kernel books as a file; huge pages are left alone:
            # asking for them cost 4-6 s of compaction for 2 GiB
            self._mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, MemoryError, OverflowError):
            raise PalladionError(
                f"there is no memory for {size} bytes of payload", "use a machine with more, or raise its limit"
            ) from None
        self._mapping.madvise(mmap.MADV_DONTDUMP)
        self.view = memoryview(self._mapping)

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
