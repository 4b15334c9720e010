"""Lines of recorded traffic from a file, packed or not, or from a stream: one at a time, however long either is.

Owns the limits of a line and what happens to those that cannot be read. What a line means is in `recorded`.
"""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from palladion import files
from palladion.errors import FormatError
from palladion.watch.recorded import LINE_BYTES_MAX, NATIVE, Layout, Recorded, parse_line

_GZIP = b"\x1f\x8b"
_DRAIN_BYTES = 1024 * 1024


@dataclass(eq=False)
class Source:
    """Where lines come from. `size` is 0 where nobody knows it; `broken` counts lines that could not be used."""

    stream: BinaryIO
    raw: BinaryIO
    size: int = 0
    lines: int = 0
    requests: int = 0
    broken: int = 0
    first_broken: FormatError | None = None

    @property
    def done(self) -> int:
        """How many bytes were taken, as they lie in the file."""
        return self.raw.tell() if self.size else 0

    def break_on(self, error: FormatError, *, strict: bool) -> None:
        """Take note of a line that cannot be used. Raises it where `strict`."""
        if strict:
            raise error
        self.broken += 1
        self.first_broken = self.first_broken or error


@contextmanager
def open_lines(path: Path, stdin: BinaryIO) -> Iterator[Source]:
    """The lines of a file, unpacked where it is gzip; `-` stands for `stdin`. Raises StorageError."""
    if str(path) == "-":
        yield Source(stdin, stdin)
        return
    with files.storage_errors(path):
        raw = path.open("rb")
    with raw:
        with files.storage_errors(path):
            size = path.stat().st_size
            packed = raw.read(len(_GZIP)) == _GZIP
            raw.seek(0)
        stream = gzip.GzipFile(fileobj=raw) if packed else raw
        yield Source(stream, raw, size)  # type: ignore[arg-type]  # GzipFile reads as any file does


def read_requests(source: Source, layout: Layout = NATIVE, *, strict: bool = True) -> Iterator[Recorded]:
    """The requests of a source, in the order of its lines.

    Raises FormatError at the first line that cannot be used; without `strict` such are counted, and passed.
    """
    for number, line in _numbered(source, strict=strict):
        try:
            request = parse_line(line, number, layout)
        except FormatError as error:
            source.break_on(error, strict=strict)
            continue
        if request is not None:
            source.requests += 1
            yield request


def _numbered(source: Source, *, strict: bool) -> Iterator[tuple[int, bytes]]:
    while True:
        try:
            line = source.stream.readline(LINE_BYTES_MAX + 1)
            whole = line.endswith(b"\n") or len(line) <= LINE_BYTES_MAX
            if not whole:
                _skip_rest(source.stream)
        except (OSError, EOFError, zlib.error) as error:
            # of what was packed and broken off, nothing that follows can be trusted
            reason = str(error) or type(error).__name__
            source.break_on(FormatError(f"the lines end after line {source.lines}: {reason}"), strict=strict)
            return
        if not line:
            return
        source.lines += 1
        if not whole:
            source.break_on(
                FormatError(
                    f"line {source.lines} has more than {LINE_BYTES_MAX} bytes", "split requests with many rows"
                ),
                strict=strict,
            )
            continue
        yield source.lines, line


def _skip_rest(stream: BinaryIO) -> None:
    while (part := stream.readline(_DRAIN_BYTES)) and not part.endswith(b"\n"):
        pass
