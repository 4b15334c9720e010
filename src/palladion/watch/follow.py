"""Lines of a log that is being written, also over its rotation; and of a stream that somebody else writes.

Hands out whole lines as they come, and None where there is nothing new: waiting is the caller's affair. A log that is
renamed is read to its end before the new one; one that is cut in place begins anew. What was rotated away twice between
two looks is not seen.
"""

import os
import select
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from palladion import files
from palladion.errors import FormatError, StorageError
from palladion.watch.recorded import LINE_BYTES_MAX

SIBLINGS_MAX = 10_000  # of a log, among which the one that it was is looked for
STREAM_BYTES = 64 * 1024


@dataclass(frozen=True)
class Position:
    """How far a log was read: which file, and up to which byte."""

    device: int
    inode: int
    offset: int


@dataclass(frozen=True)
class Line:
    """One line, and where the next one begins; None for a stream, which cannot be read again."""

    data: bytes
    position: Position | None


class FileLines:
    """The lines of a log. `gap` says that the file which was read up to `position` is not there any more."""

    def __init__(self, path: Path, position: Position | None, *, follow: bool) -> None:
        """Begins after `position`, or at the beginning of what is there now. Without `follow`, ends where that ends."""
        self._path = path
        self._follow = follow
        self._file: BinaryIO | None = None
        self._begin: Position | None = None
        self.gap = False
        if position is not None:
            self._resume(position)

    def __iter__(self) -> Iterator[Line | None]:
        """Lines, and None where there is nothing new. Raises StorageError or FormatError where it cannot be read."""
        try:
            while True:
                if self._file is None and not self._open_current():
                    if not self._follow:
                        return
                    yield None
                    continue
                yield from self._whole_lines()
                if self._was_replaced():
                    # what was written between the last look and the renaming, and a last line without an end
                    yield from self._whole_lines(last=True)
                    self.close()
                elif not self._follow:
                    yield from self._whole_lines(last=True)
                    return
                else:
                    yield None
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _whole_lines(self, *, last: bool = False) -> Iterator[Line]:
        if self._file is None or self._begin is None:
            return
        while True:
            with files.storage_errors(self._path):
                data = self._file.readline(LINE_BYTES_MAX + 1)
                ended = data.endswith(b"\n")
                if len(data) > LINE_BYTES_MAX and not ended:
                    # it is handed out too long to be parsed, and its rest never
                    ended = self._skip_rest() or last
                if not data or not (ended or last):
                    self._file.seek(self._begin.offset)
                    return
                self._begin = Position(self._begin.device, self._begin.inode, self._file.tell())
            yield Line(data, self._begin)

    def _skip_rest(self) -> bool:
        """Whether the line that was begun has an end."""
        while self._file is not None and (part := self._file.readline(STREAM_BYTES)):
            if part.endswith(b"\n"):
                return True
        return False

    def _open_current(self) -> bool:
        try:
            with files.storage_errors(self._path):
                file = self._path.open("rb")
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError) and self._follow:
                return False  # between a renaming and the first line after it
            raise
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise FormatError(f"{self._path} is no regular file, so that it cannot be read on later", "pipe it in: -")
        self._take(file, 0)
        return True

    def _take(self, file: BinaryIO, offset: int) -> None:
        state = os.fstat(file.fileno())
        file.seek(offset)
        self._file, self._begin = file, Position(state.st_dev, state.st_ino, offset)

    def _was_replaced(self) -> bool:
        """Whether the log is another file now; one that was cut in place is begun anew."""
        if self._file is None or self._begin is None:
            return True
        try:
            state = self._path.stat()
        except OSError:
            return False  # renamed, and the new one is not there yet
        if (state.st_dev, state.st_ino) != (self._begin.device, self._begin.inode):
            return True
        if state.st_size < self._begin.offset:
            self._take(self._file, 0)
        return False

    def _resume(self, position: Position) -> None:
        """Go on after `position`, in whichever file that is by now."""
        with files.storage_errors(self._path):
            for number, path in enumerate(self._candidates()):
                if number > SIBLINGS_MAX:
                    break
                try:
                    file = path.open("rb")
                except OSError:
                    continue
                state = os.fstat(file.fileno())
                if (state.st_dev, state.st_ino) == (position.device, position.inode):
                    # a file that was cut, or an inode that another file has now, is read from its beginning
                    self._take(file, position.offset if state.st_size >= position.offset else 0)
                    return
                file.close()
        self.gap = True

    def _candidates(self) -> Iterator[Path]:
        yield self._path
        for path in self._path.parent.iterdir():
            if path.name.startswith(self._path.name) and path.is_file():
                yield path


class StreamLines:
    """The lines of a stream, such as standard input: until it ends."""

    def __init__(self, stream: BinaryIO, *, wait_seconds: float) -> None:
        """Without anything new for `wait_seconds`, None is handed out."""
        self._descriptor = stream.fileno()
        self._wait_seconds = wait_seconds

    def __iter__(self) -> Iterator[Line | None]:
        """Lines, and None where there is nothing new."""
        waiting, too_long = b"", False
        while True:
            if not select.select([self._descriptor], [], [], self._wait_seconds)[0]:
                yield None
                continue
            data = os.read(self._descriptor, STREAM_BYTES)
            *whole, waiting = (waiting + data).split(b"\n")
            for line in whole:
                if too_long:
                    too_long = False
                else:
                    yield Line(line + b"\n", None)
            if len(waiting) > LINE_BYTES_MAX:
                if not too_long:
                    yield Line(waiting, None)  # too long to be parsed, so that it is counted
                waiting, too_long = b"", True
            if not data:
                if waiting and not too_long:
                    yield Line(waiting, None)
                return
