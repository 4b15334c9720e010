"""Reads the parts of a sealed file around its body, and the body's segments; knows no key (docs/format.md §2).

Everything is copied into this process before it is checked: whoever can write to the file cannot change it between the
check and the use.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from blake3 import blake3

from palladion.errors import FormatError, TamperError
from palladion.keys import Wrap
from palladion.seal import floe
from palladion.seal.header import PREFIX_BYTES, Header, decode_header, decode_prefix, header_digest
from palladion.seal.layout import DIGEST_BYTES, FOOTER_BYTES, Footer, Layout
from palladion.seal.memory import private_buffer
from palladion.seal.sign import verify_signature
from palladion.seal.source import Place, Source, opened_source, read
from palladion.seal.trailer import Trailer, decode_trailer, signed_message

Progress = Callable[[int, int], None]  # bytes done, bytes in all; may be called from any thread, one call at a time

# of 16 cores, eight brought 4 GiB onto a GPU 1.6 times as fast as four (1.1 times into memory), sixteen no faster
THREADS_MAX = 8


@dataclass(frozen=True)
class SealedInfo:
    """What can be known of a sealed file without a key. From `inspect_file` these are claims; else they are verified.

    `header_digest` is what the next version's header names as `previous`, `root` the BLAKE3 root of the body; both hex.
    """

    header: Header
    header_digest: str
    root: str
    wraps: tuple[Wrap, ...]
    segments: int
    payload_bytes: int
    file_bytes: int


@dataclass(frozen=True)
class Structure:
    """The parts of a sealed file around its body: well-formed, and nothing more, until `verify_publisher`."""

    what: str
    layout: Layout
    header: Header
    encoded_header: bytes
    floe_header: bytes
    digests: bytes
    trailer: Trailer

    @property
    def info(self) -> SealedInfo:
        """What a caller gets to see."""
        return SealedInfo(
            header=self.header,
            header_digest=header_digest(self.encoded_header),
            root=blake3(self.digests).hexdigest(),
            wraps=self.trailer.wraps,
            segments=self.layout.segments,
            payload_bytes=self.layout.plaintext_bytes,
            file_bytes=self.layout.file_bytes,
        )

    def verify_publisher(self, pinned: list[bytes]) -> None:
        """Raise TamperError unless one of the `pinned` keys signed header and digests."""
        message = signed_message(
            self.encoded_header,
            self.floe_header,
            segments=self.layout.segments,
            body_bytes=self.layout.body_bytes,
            digests=self.digests,
        )
        verify_signature(
            message, self.trailer.signature, publisher=self.header.publisher, pinned=pinned, what=self.what
        )


@contextmanager
def opened(place: Place) -> Iterator[tuple[Source, Structure]]:
    """The sealed file at `place`, and its structure. Raises StorageError or FormatError."""
    with opened_source(place) as source:
        yield source, read_structure(source)


def read_structure(source: Source) -> Structure:
    """The structure of the sealed file in `source`. Raises FormatError, or TamperError if its trailer is damaged."""
    what, size = source.what, source.size
    header_bytes = decode_prefix(read(source, min(size, PREFIX_BYTES), 0), what=what)
    if size < PREFIX_BYTES + header_bytes + FOOTER_BYTES:
        raise FormatError(f"{what} is cut off: it has {size} bytes, fewer than its header and footer take")
    footer = Footer.decode(read(source, FOOTER_BYTES, size - FOOTER_BYTES), what=what)
    layout = Layout.of_file(header_bytes, footer, size, what=what)
    encoded_trailer = read(source, layout.trailer_bytes, layout.trailer_offset)
    if blake3(encoded_trailer).digest() != footer.trailer_digest:
        raise TamperError(f"{what} is damaged: its list of recipients is not the one that was written")
    encoded_header = read(source, header_bytes, PREFIX_BYTES)
    return Structure(
        what=what,
        layout=layout,
        header=decode_header(encoded_header, what=what),
        encoded_header=encoded_header,
        floe_header=read(source, floe.HEADER_BYTES, layout.floe_header_offset),
        digests=read(source, layout.segments * DIGEST_BYTES, layout.digests_offset),
        trailer=decode_trailer(encoded_trailer, what=what),
    )


def read_segment(source: Source, structure: Structure, index: int, buffer: memoryview) -> memoryview:
    """Segment `index`, read into the beginning of `buffer`. Raises TamperError if it is not the one that is listed."""
    layout = structure.layout
    segment = buffer[: layout.segment_bytes(index)]
    source.read_into(segment, layout.segment_offset(index))
    place = index * DIGEST_BYTES
    # a digest is public: nothing to learn from the time this takes
    if blake3(segment).digest() != structure.digests[place : place + DIGEST_BYTES]:
        raise TamperError(
            f"{structure.what} was altered: segment {index} of {layout.segments} is not the one listed",
            "get the file again from its source",
        )
    return segment


class SegmentPass:
    """One pass over all segments, on several threads: each is read, held against its digest, and handed to `use`.

    `use` gets index and segment and may be called from several threads at once, in any order; the segment is its own
    until it returns. After an error no further segment is begun.
    """

    def __init__(
        self,
        source: Source,
        structure: Structure,
        use: Callable[[int, memoryview], None],
        progress: Progress | None = None,
    ) -> None:
        self._source = source
        self._structure = structure
        self._use = use
        self._progress = progress
        self._lock = threading.Lock()
        self._stopped = False
        self._bytes_done = 0
        self.begun = 0

    def run(self, threads: int | None = None) -> None:
        """Raises TamperError at a segment that is not the signed one, and whatever `use` raises."""
        count = min(threads or threads_here(), self._structure.layout.segments)
        if count == 1:
            self._work()
            return
        with ThreadPoolExecutor(count) as pool:
            futures = [pool.submit(self._work) for _ in range(count)]
            try:
                for future in futures:
                    future.result()
            finally:
                self._stopped = True

    def _work(self) -> None:
        try:
            # private: `use` may decrypt in place, and ordinary memory would keep the last segment after it is freed
            with private_buffer(self._structure.layout.segment_bytes(0)) as buffer:
                while (index := self._begin()) is not None:
                    segment = read_segment(self._source, self._structure, index, buffer)
                    self._use(index, segment)
                    self._report(len(segment))
        except BaseException:
            self._stopped = True
            raise

    def _begin(self) -> int | None:
        with self._lock:
            if self._stopped or self.begun == self._structure.layout.segments:
                return None
            self.begun += 1
            return self.begun - 1

    def _report(self, size: int) -> None:
        with self._lock:
            self._bytes_done += size
            if self._progress:
                self._progress(self._bytes_done, self._structure.layout.body_bytes)


def threads_here() -> int:
    """How many threads share a pass: as many as this process has cores, and no more than help."""
    return min(THREADS_MAX, len(os.sched_getaffinity(0)))
