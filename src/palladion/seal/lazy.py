"""Reads single files, or pieces of them, out of a sealed file: only the segments that they lie in are fetched.

Whatever is returned is verified: its segment's digest stands in the list that the publisher signed. What is not asked
for is neither read nor checked, so damage elsewhere in the file is not noticed here.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Self

from palladion.keys import Identity
from palladion.seal.layout import PARAMETERS
from palladion.seal.manifest import Entry, check_padding
from palladion.seal.opening import Accept, Opening, accept_any, begin
from palladion.seal.source import Place
from palladion.seal.structure import SealedInfo

SEGMENTS_KEPT = 8  # decrypted ones, 8 MiB: neighbouring pieces share a segment, and several threads read at once


class LazyFiles:
    """A sealed file whose files, `entries` by name, are decrypted piece by piece and from any thread."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._manifest = opening.manifest()
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, bytearray] = OrderedDict()
        self.entries: Mapping[str, Entry] = MappingProxyType({entry.name: entry for entry in self._manifest.entries})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<LazyFiles {list(self.entries)}>"

    @property
    def info(self) -> SealedInfo:
        """What the sealed file says of itself, verified."""
        return self._opening.info

    def read(self, name: str, begin: int = 0, size: int | None = None) -> bytearray:
        """`size` bytes of the file `name` from `begin` on, or all that follow. Raises KeyError, ValueError."""
        entry = self.entries[name]
        buffer = bytearray(entry.size - begin if size is None else size)
        self.read_into(name, memoryview(buffer), begin)
        return buffer

    def read_into(self, name: str, buffer: memoryview, begin: int = 0) -> None:
        """Fill `buffer` with the bytes of the file `name` from `begin` on."""
        entry = self.entries[name]
        if not 0 <= begin <= begin + len(buffer) <= entry.size:
            raise ValueError(f"bytes {begin} to {begin + len(buffer)} of {name}, which has {entry.size}")
        position, done = entry.offset + begin, 0
        while done < len(buffer):
            index, skipped = divmod(position + done, PARAMETERS.capacity)
            piece = memoryview(self._segment(index))[skipped : skipped + len(buffer) - done]
            buffer[done : done + len(piece)] = piece
            done += len(piece)

    def close(self) -> None:
        """Wipe what is kept, and let go of the source; safe to call twice."""
        with self._lock:
            while self._kept:
                _wipe(self._kept.popitem()[1])
        self._opening.close()

    def _segment(self, index: int) -> bytearray:
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
        # outside the lock: fetching may take long, and two threads that want one segment merely fetch it twice
        plaintext = self._opening.read(index)
        position = index * PARAMETERS.capacity
        check_padding(self._manifest, position, memoryview(plaintext), what=self._opening.structure.what)
        with self._lock:
            self._kept[index] = plaintext
            if len(self._kept) > SEGMENTS_KEPT:
                # not wiped here: another thread may be copying out of it
                self._kept.popitem(last=False)
        return plaintext


def open_lazily(
    place: Place, identities: Sequence[Identity], publishers: Sequence[bytes], *, accept: Accept = accept_any
) -> LazyFiles:
    """The files of the sealed file at `place`, to be read by pieces, if one of `publishers` (raw keys) signed it.

    Reads header, digests, trailer and the first segment; a source that is handed in is closed with the result. Raises
    as `open_sealed` does.
    """
    opening = begin(place, identities, publishers, accept=accept)
    try:
        return LazyFiles(opening)
    except BaseException:
        opening.close()
        raise


def _wipe(data: bytearray) -> None:
    data[:] = bytes(len(data))
