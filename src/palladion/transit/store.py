"""What a place for sealed files can do, whichever protocol it speaks; and a local file as it goes there: verified."""

import io
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from palladion.errors import ConflictError, FormatError, NotFoundError
from palladion.files import read_limited
from palladion.seal.header import encode_prefix
from palladion.seal.layout import PARAMETERS
from palladion.seal.source import FileSource, Source
from palladion.seal.structure import Progress, SegmentPass, Structure, read_segment, read_structure
from palladion.seal.writer import write_end

# licence, OpenSSF signature bundle, time stamp: they lie beside a sealed file under its name and one of these
SIDECARS = (".license", ".sig", ".tsr")
SIDECAR_BYTES_MAX = 4 * 1024 * 1024  # a signature bundle of many files has some 100 KB


class Store(Protocol):
    """One address at which a sealed file lies, or will."""

    @property
    def what(self) -> str:
        """Its name for messages, without anything secret."""
        ...

    @property
    def sha256(self) -> str | None:
        """What the sealed file's digest is said to be, in hex, where the address or the protocol says so."""
        ...

    def open(self) -> Source:
        """The sealed file there, to be read by ranges. Raises NotFoundError, StorageError, FormatError."""
        ...

    def sidecar(self, suffix: str) -> bytes | None:
        """The small file beside it, at most SIDECAR_BYTES_MAX, or None if there is none."""
        ...

    def put(
        self,
        whole: "Whole",
        sidecars: Mapping[str, bytes],
        *,
        replace: bool,
        progress: Progress | None = None,
    ) -> None:
        """Send the sealed file and what lies beside it.

        Raises ConflictError if something is there, unless `replace`, as far as the protocol can tell; StorageError.
        """
        ...


class Whole:
    """A local sealed file that one of `publishers` signed, handed out in pieces that are verified as they are read.

    What is sent is what was verified, whatever happens to the file meanwhile. Close it.
    """

    def __init__(self, path: Path, publishers: Sequence[bytes]) -> None:
        self.path = path
        self._source = FileSource(path)
        try:
            self.structure = read_structure(self._source)
            self.structure.verify_publisher(list(publishers))
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<Whole {self.path}>"

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.structure.layout.file_bytes

    def verify(self, progress: Progress | None = None) -> None:
        """Raise TamperError unless every segment is the one that was signed."""
        SegmentPass(self._source, self.structure, lambda _index, _segment: None, progress).run()

    def digest(self, progress: Progress | None = None) -> str:
        """SHA-256 of the whole file, in hex. Raises TamperError as `verify` does."""
        hasher, done = sha256(), 0
        for piece in self.pieces():
            hasher.update(piece)
            done += len(piece)
            if progress:
                progress(done, self.size)
        return hasher.hexdigest()

    def pieces(self, segments: range | None = None) -> Iterator[bytes | memoryview]:
        """The file in order, or the part of it that these segments stand for; a piece is valid until the next one.

        The part of the first segment begins with what is before the body, that of the last ends with what follows it.
        """
        count = self.structure.layout.segments
        buffer = memoryview(bytearray(PARAMETERS.segment_bytes))
        for index in range(count) if segments is None else segments:
            if index == 0:
                yield before_body(self.structure)
            yield read_segment(self._source, self.structure, index, buffer)
            if index == count - 1:
                yield after_body(self.structure)

    def part(self, segments: range) -> bytearray:
        """What `pieces` of these segments are, in memory of its own."""
        data = bytearray()
        for piece in self.pieces(segments):
            data += piece
        return data

    def part_bytes(self, segments: range) -> int:
        """How many bytes `pieces` of these segments have."""
        layout = self.structure.layout
        size = sum(map(layout.segment_bytes, segments))
        if segments.start == 0:
            size += layout.body_offset
        if segments.stop == layout.segments:
            size += layout.file_bytes - layout.digests_offset
        return size

    def sidecars(self) -> dict[str, bytes]:
        """What lies beside the file, by suffix."""
        paths = {suffix: beside(self.path, suffix) for suffix in SIDECARS}
        return {
            suffix: read_limited(path, size_max=SIDECAR_BYTES_MAX, what="the file beside it,")
            for suffix, path in paths.items()
            if path.is_file()
        }

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._source.close()


def beside(path: Path, suffix: str) -> Path:
    """Where the sidecar of a sealed file lies."""
    return path.with_name(path.name + suffix)


def before_body(structure: Structure) -> bytes:
    """The bytes of a sealed file before its first segment."""
    return encode_prefix(len(structure.encoded_header)) + structure.encoded_header + structure.floe_header


def after_body(structure: Structure) -> bytes:
    """The bytes of a sealed file after its last segment."""
    stream = io.BytesIO()
    write_end(stream, structure.layout, structure.digests, structure.trailer)
    return stream.getvalue()


def is_same(one: Structure, other: Structure) -> bool:
    """Whether two structures are of the same sealed file, with the same recipients."""
    return before_body(one) == before_body(other) and after_body(one) == after_body(other)


def find(store: Store) -> Structure | None:
    """The structure of what lies there; None if nothing does. Raises ConflictError if that is no sealed file."""
    try:
        source = store.open()
    except NotFoundError:
        return None
    try:
        return read_structure(source)
    except FormatError as error:
        raise ConflictError(error.message) from None
    finally:
        source.close()


def sent_pieces(
    whole: Whole, progress: Progress | None, segments: range | None = None, done: int = 0
) -> Iterator[bytes | memoryview]:
    """The verified file, or a part of it, with progress told as it is sent; `done` bytes were before."""
    for piece in whole.pieces(segments):
        yield piece
        done += len(piece)
        if progress:
            progress(done, whole.size)
