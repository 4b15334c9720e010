"""Reads sealed files: what one says about itself, whether it is what its publisher signed, and into memory.

The order of the checks is that of docs/format.md §8. There is no way to open a file without a pinned publisher, and
none to get a plain file opened in place of a sealed one.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Self

from palladion.keys import Identity
from palladion.seal import floe
from palladion.seal.layout import PARAMETERS
from palladion.seal.manifest import Manifest, decode_manifest
from palladion.seal.memory import PrivateMemory
from palladion.seal.opening import Accept, Opening, accept_unlicensed, begun
from palladion.seal.source import Place
from palladion.seal.structure import Progress, SealedInfo, SegmentPass, opened


class OpenedFiles:
    """The decrypted files of a sealed file, in private memory, as read-only views by name; a context manager.

    `close` wipes the memory. Arrays made over a view then hold zeros: let go of them first.
    """

    def __init__(self, info: SealedInfo, memory: PrivateMemory, manifest: Manifest) -> None:
        self.info = info
        self._memory = memory
        self._size = manifest.payload_bytes
        self._closed = False
        with memory.view.toreadonly() as payload:
            self._views = {entry.name: payload[entry.offset : entry.end] for entry in manifest.entries}
        self.files: Mapping[str, memoryview] = MappingProxyType(self._views)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<OpenedFiles {list(self._views)}{' closed' if self._closed else ''}>"

    def close(self) -> None:
        """Wipe the payload and give its memory back; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._memory.wipe(self._size)
        for view in self._views.values():
            try:
                view.release()
            except BufferError:
                # an array still looks at it, and sees zeros
                continue
        self._memory.release()


def inspect_file(place: Place) -> SealedInfo:
    """What the sealed file at `place` says about itself. Needs no key and verifies nothing but its shape.

    Raises FormatError if it is not a whole sealed file, TamperError if its trailer is damaged.
    """
    with opened(place) as (_, structure):
        return structure.info


def verify_file(
    place: Place, publishers: Sequence[bytes], *, threads: int | None = None, progress: Progress | None = None
) -> SealedInfo:
    """Check, without a file key, that every byte of the payload is what one of `publishers` (raw keys) signed.

    Raises FormatError or TamperError. That wraps open is not checked: only their recipients can.
    """
    with opened(place) as (source, structure):
        structure.verify_publisher(list(publishers))
        SegmentPass(source, structure, lambda _index, _segment: None, progress).run(threads)
        return structure.info


def open_sealed(
    place: Place,
    identities: Sequence[Identity],
    publishers: Sequence[bytes],
    *,
    accept: Accept = accept_unlicensed,
    threads: int | None = None,
    progress: Progress | None = None,
) -> OpenedFiles:
    """Decrypt the sealed file at `place` into private memory, if one of `publishers` (raw keys) signed it.

    Nothing is returned before the last byte is verified; on any error what was decrypted is wiped. Raises FormatError,
    TamperError, KeysError if none of `identities` opens it, or what `accept` raises, which is asked before any key is
    touched: whether the version is recent enough, say. Takes about as much memory as the payload has bytes.
    """
    # 1 to 4. the publisher, the caller's wishes, the file key, and that this payload is encrypted under it
    with begun(place, identities, publishers, accept=accept) as opening:
        size, what = opening.structure.layout.plaintext_bytes, opening.structure.what
        # 5. every segment: digest, then AES-GCM, into one mapping
        memory = PrivateMemory(size)
        segments = SegmentPass(opening.source, opening.structure, _decrypter(opening, memory), progress)
        try:
            segments.run(threads)
            # 6. what the payload holds
            return OpenedFiles(opening.info, memory, decode_manifest(memory.view, what=what))
        except BaseException:
            memory.wipe(min(segments.begun * PARAMETERS.capacity, size))
            memory.release()
            raise


def _decrypter(opening: Opening, memory: PrivateMemory) -> Callable[[int, memoryview], None]:
    def decrypt(index: int, segment: memoryview) -> None:
        begin = index * PARAMETERS.capacity
        end = begin + len(segment) - floe.OVERHEAD_BYTES
        memory.prepare(end - 1)
        with memory.view[begin:end] as plaintext:
            opening.decrypt(index, segment, plaintext)

    return decrypt
