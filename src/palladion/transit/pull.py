"""Gets a sealed file from anywhere: its publisher verified before the body is asked for, each segment as it arrives.

Decrypts nothing and needs no key. What a crash leaves is used by the next run, after it has been checked again.
"""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from blake3 import blake3

from palladion import files
from palladion.errors import TamperError
from palladion.seal.header import PREFIX_BYTES, decode_prefix
from palladion.seal.layout import DIGEST_BYTES, PARAMETERS
from palladion.seal.opening import Accept, accept_any
from palladion.seal.source import Source
from palladion.seal.structure import Progress, SealedInfo, SegmentPass, Structure, read_structure
from palladion.transit.ahead import read_ahead
from palladion.transit.connection import Limits
from palladion.transit.partial import Partial, taken
from palladion.transit.places import parse_place
from palladion.transit.ranges import NoRangesError
from palladion.transit.store import SIDECARS, Store, after_body, before_body, beside
from palladion.transit.web_store import WebStore

RUN_SEGMENTS_MAX = 8  # asked for at once: 8 MiB take longer than a round trip, and memory stays below 32 MiB
# without ranges nothing is known of a file before all of it is here, and nothing can be resumed
STREAM_BYTES_MAX = 16 * 1024**3


@dataclass(frozen=True)
class Pulled:
    """What came: the file verified, with how many bytes of its body fetched now and how many there already."""

    info: SealedInfo
    path: Path
    fetched_bytes: int
    kept_bytes: int
    sidecars: tuple[Path, ...]


def pull(
    url: str,
    target: Path,
    publishers: Sequence[bytes],
    *,
    replace: bool = False,
    accept: Accept = accept_any,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Pulled:
    """Fetch the sealed file at `url` to `target`, if one of `publishers` (raw keys) signed it.

    `accept` is asked once the signature is verified, before the body is fetched. Nothing appears at `target` before all
    of it is verified; what arrived stays in a partial file and is used by the next call. Raises NotFoundError,
    ConflictError if `target` exists (unless `replace`), TamperError, FormatError, StorageError, what `accept` raises.
    """
    limits = limits or Limits()
    store = parse_place(url, limits)
    if not replace and os.path.lexists(target):
        raise taken(target)
    wish = _Wish(list(publishers), accept, progress)
    with Partial.held(target) as partial:
        try:
            source = store.open()
        except NoRangesError:
            if not isinstance(store, WebStore):
                raise
            structure, fetched = _stream(store, partial, wish)
        else:
            try:
                structure, fetched = _fetch(source, partial, wish, limits.connections)
            finally:
                source.close()
        _check_digest(store, partial)
        sidecars = _sidecars(store, target, replace=replace)
        partial.finish(replace=replace)
    for path, data in sidecars.items():
        files.write_atomically(path, data)
    kept = structure.layout.body_bytes - fetched
    return Pulled(structure.info, target, fetched, kept, tuple(sidecars))


@dataclass(frozen=True)
class _Wish:
    publishers: list[bytes]
    accept: Accept
    progress: Progress | None

    def check(self, structure: Structure) -> None:
        structure.verify_publisher(self.publishers)
        self.accept(structure.info)


def _fetch(source: Source, partial: Partial, wish: _Wish, connections: int) -> tuple[Structure, int]:
    # 1. all but the body, and who signed it; until then nothing is written, whatever the server claims
    structure = read_structure(read_ahead(source, connections=connections))
    wish.check(structure)
    # 2. what an earlier run left
    layout = structure.layout
    partial.reserve(layout.file_bytes)
    missing = partial.missing(structure)
    # 3. the rest of the body
    fetched = _Download(source, partial, structure, missing, wish.progress).run(connections)
    # 4. what is around it, as it was verified
    partial.write(before_body(structure), 0)
    partial.write(after_body(structure), layout.digests_offset)
    return structure, fetched


class _Download:
    """The missing segments, in runs, over several connections; each is verified before it is written."""

    def __init__(
        self, source: Source, partial: Partial, structure: Structure, missing: list[int], progress: Progress | None
    ) -> None:
        self._source = source
        self._partial = partial
        self._structure = structure
        self._progress = progress
        self._lock = threading.Lock()
        self._stopped = False
        self._runs = iter(runs(missing))
        layout = structure.layout
        self._wanted = sum(map(layout.segment_bytes, missing))
        self._done = layout.body_bytes - self._wanted

    def run(self, threads: int) -> int:
        with ThreadPoolExecutor(threads, "palladion-pull") as pool:
            futures = [pool.submit(self._work) for _ in range(threads)]
            try:
                for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                    future.result()
            except BaseException:
                # under the other threads: they need not wait for a slow server to learn that it is over
                self._stopped = True
                self._source.close()
                raise
        return self._wanted

    def _work(self) -> None:
        buffer = memoryview(bytearray(RUN_SEGMENTS_MAX * PARAMETERS.segment_bytes))
        layout = self._structure.layout
        try:
            while (run := self._next()) is not None:
                offset = layout.segment_offset(run.start)
                size = sum(map(layout.segment_bytes, run))
                self._source.read_into(buffer[:size], offset)
                for index in run:
                    begin = layout.segment_offset(index) - offset
                    self._keep(index, buffer[begin : begin + layout.segment_bytes(index)])
        except BaseException:
            self._stopped = True
            raise

    def _next(self) -> range | None:
        with self._lock:
            return None if self._stopped else next(self._runs, None)

    def _keep(self, index: int, segment: memoryview) -> None:
        check_segment(self._structure, index, segment)
        self._partial.write(segment, self._structure.layout.segment_offset(index))
        with self._lock:
            self._done += len(segment)
            if self._progress:
                self._progress(self._done, self._structure.layout.body_bytes)


def runs(indices: Sequence[int]) -> list[range]:
    """Ascending `indices` as ranges of neighbours, none longer than what is asked for at once."""
    found: list[range] = []
    for index in indices:
        if found and found[-1].stop == index and len(found[-1]) < RUN_SEGMENTS_MAX:
            found[-1] = range(found[-1].start, index + 1)
        else:
            found.append(range(index, index + 1))
    return found


def check_segment(structure: Structure, index: int, segment: memoryview) -> None:
    """Raise TamperError unless `segment` is the one that the publisher signed."""
    place = index * DIGEST_BYTES
    if blake3(segment).digest() != structure.digests[place : place + DIGEST_BYTES]:
        raise TamperError(
            f"{structure.what} was altered: segment {index} of {structure.layout.segments} is not the one listed",
            "what came before it is kept: run it again, or get it from another place",
        )


def _stream(store: WebStore, partial: Partial, wish: _Wish) -> tuple[Structure, int]:
    """From a server without ranges: from the first byte to the last, and verified then."""
    partial.empty()

    def write(data: memoryview, offset: int) -> None:
        if offset == 0:
            # a page that says "not found", say: no need to wait for its end
            decode_prefix(bytes(data[:PREFIX_BYTES]), what=store.what)
        partial.write(data, offset)

    try:
        store.stream(write, size_max=STREAM_BYTES_MAX, progress=wish.progress)
        structure = read_structure(partial)
        wish.check(structure)
        SegmentPass(partial, structure, lambda _index, _segment: None).run()
    except BaseException:
        # it cannot be continued, and was perhaps never meant to be a sealed file
        partial.discard()
        raise
    return structure, structure.layout.body_bytes


def _check_digest(store: Store, partial: Partial) -> None:
    """What a registry names by its digest has that digest: its recipients too, whom the publisher did not sign."""
    if store.sha256 is None:
        return
    hasher, offset = sha256(), 0
    buffer = memoryview(bytearray(PARAMETERS.segment_bytes))
    while offset < partial.size:
        piece = buffer[: partial.size - offset]
        partial.read_into(piece, offset)
        hasher.update(piece)
        offset += len(piece)
    if hasher.hexdigest() != store.sha256:
        raise TamperError(f"{store.what} is not what its digest names: {hasher.hexdigest()} came instead")


def _sidecars(store: Store, target: Path, *, replace: bool) -> dict[Path, bytes]:
    """What lies beside the file, but for what is here already: a licence may be newer than the store's."""
    found: dict[Path, bytes] = {}
    for suffix in SIDECARS:
        path = beside(target, suffix)
        if replace or not os.path.lexists(path):
            data = store.sidecar(suffix)
            if data is not None:
                found[path] = data
    return found
