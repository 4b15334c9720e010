"""Reads single files, or pieces of them, out of a sealed file: only the segments that they lie in are fetched.

Whatever is returned is verified: its segment's digest stands in the list that the publisher signed. What is not asked
for is neither read nor checked, so damage elsewhere in the file is not noticed here.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Self

from palladion.keys import Identity
from palladion.seal.layout import PARAMETERS
from palladion.seal.manifest import Entry, check_padding
from palladion.seal.memory import PrivateMemory
from palladion.seal.opening import Accept, Opening, accept_unlicensed, begin
from palladion.seal.source import Place
from palladion.seal.structure import SealedInfo

SEGMENTS_KEPT = 8  # decrypted ones, 8 MiB: neighbouring pieces share a segment, and several threads read at once
SPARES_MAX = 2  # memories of segments let go of, to be used again: with fresh pages reading takes half as long again


class LazyFiles:
    """A sealed file whose files, `entries` by name, are decrypted piece by piece and from any thread."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._manifest = opening.manifest()
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, _Segment] = OrderedDict()
        self._spare: list[PrivateMemory] = []
        self._closed = False
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
        size = entry.size - begin if size is None else size
        _check_range(entry, begin, size)  # before there is memory for it
        buffer = bytearray(size)
        self.read_into(name, memoryview(buffer), begin)
        return buffer

    def read_into(self, name: str, buffer: memoryview, begin: int = 0) -> None:
        """Fill `buffer` with the bytes of the file `name` from `begin` on; partly, if this raises."""
        entry = self.entries[name]
        _check_range(entry, begin, len(buffer))
        position, done = entry.offset + begin, 0
        while done < len(buffer):
            index, skipped = divmod(position + done, PARAMETERS.capacity)
            done += self._copy_segment(index, skipped, buffer[done:])

    def close(self) -> None:
        """Wipe what is kept, and let go of the source; safe to call twice. A later read raises ValueError."""
        with self._lock:
            self._closed = True
            while self._kept:
                _wipe(self._kept.popitem()[1].memory)
            while self._spare:
                _wipe(self._spare.pop())
        self._opening.close()

    def _copy_segment(self, index: int, skipped: int, target: memoryview) -> int:
        """Copy what segment `index` holds from `skipped` on, as far as `target` has room; returns how much it was."""
        with self._lock:
            if self._closed:
                raise ValueError(f"{self._opening.structure.what} is closed")
            if index in self._kept:
                self._kept.move_to_end(index)
                # under the lock, or it could be wiped meanwhile; the interpreter lets nobody else run in a copy anyway
                return _copy(self._kept[index].plaintext, skipped, target)
            memory = (
                self._spare.pop() if self._spare else PrivateMemory(self._opening.structure.layout.segment_bytes(0))
            )
        # outside the lock: fetching may take long, and two threads that want one segment merely fetch it twice
        try:
            plaintext = self._opening.read(index, memory.view)
            position = index * PARAMETERS.capacity
            check_padding(self._manifest, position, plaintext, what=self._opening.structure.what)
            copied = _copy(plaintext, skipped, target)
        except BaseException:
            _wipe(memory)
            raise
        self._keep(index, _Segment(memory, plaintext))
        return copied

    def _keep(self, index: int, segment: "_Segment") -> None:
        with self._lock:
            gone: _Segment | None = segment
            if not self._closed:
                gone = self._kept.pop(index, None)
                self._kept[index] = segment
                if gone is None and len(self._kept) > SEGMENTS_KEPT:
                    gone = self._kept.popitem(last=False)[1]
            if gone is None:
                return
            if self._closed or len(self._spare) == SPARES_MAX:
                _wipe(gone.memory)
            else:
                self._spare.append(gone.memory)


def open_lazily(
    place: Place, identities: Sequence[Identity], publishers: Sequence[bytes], *, accept: Accept = accept_unlicensed
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


@dataclass(frozen=True)
class _Segment:
    """A decrypted segment in private memory, whose padding has been looked at."""

    memory: PrivateMemory
    plaintext: memoryview


def _copy(plaintext: memoryview, skipped: int, target: memoryview) -> int:
    piece = plaintext[skipped : skipped + len(target)]
    target[: len(piece)] = piece
    return len(piece)


def _wipe(memory: PrivateMemory) -> None:
    memory.wipe(len(memory.view))
    memory.release()


def _check_range(entry: Entry, begin: int, size: int) -> None:
    if not 0 <= begin <= begin + size <= entry.size:
        raise ValueError(f"bytes {begin} to {begin + size} of {entry.name}, which has {entry.size}")
