"""The bytes of a pickle, front to back, by the rules of frames (PEP 3154): no instruction crosses the end of one."""

from palladion.errors import FormatError
from palladion.scan.source import LimitError, Source

WINDOW_BYTES = 256 * 1024
LINE_BYTES = 64 * 1024  # of a text argument that are read at first: names and numbers are shorter
LINE_BYTES_MAX = 32 * 2**20


class PickleError(FormatError):
    """No Python reads on here: the bytes are no pickle, or a broken one."""


class Reader:
    """Takes bytes at `position`; every length is checked against what is there before anything is read."""

    def __init__(self, source: Source, position: int) -> None:
        self.source = source
        self.position = position
        self.frame_end: int | None = None
        self._window = b""
        self._begin = position

    @property
    def left(self) -> int:
        """Bytes up to the end."""
        return self.source.size - self.position

    def code(self) -> int:
        """The next instruction. Raises PickleError at the end."""
        if self.frame_end is not None and self.position >= self.frame_end:
            self.frame_end = None
        offset = self.position - self._begin
        if offset >= len(self._window):
            self._window = self.source.read(self.position, WINDOW_BYTES)
            self._begin, offset = self.position, 0
            if not self._window:
                raise PickleError("it ends before its last instruction")
        self.position += 1
        return self._window[offset]

    def take(self, count: int) -> bytes:
        """`count` bytes."""
        self._advance(count)
        begin = self.position - count - self._begin
        if begin >= 0 and begin + count <= len(self._window):
            return self._window[begin : begin + count]
        if count > WINDOW_BYTES:
            return self.source.read(self.position - count, count)
        self._begin = self.position - count
        self._window = self.source.read(self._begin, WINDOW_BYTES)
        return self._window[:count]

    def skip(self, count: int) -> tuple[int, int]:
        """Pass `count` bytes without reading them; gives where they lie."""
        self._advance(count)
        return self.position - count, count

    def _advance(self, count: int) -> None:
        if count > self.left:
            raise PickleError(f"an instruction needs {count} bytes, and {self.left} are left")
        if self.frame_end is not None and self.position + count > self.frame_end:
            raise PickleError("an instruction crosses the end of a frame")
        self.position += count

    def number(self, count: int, *, signed: bool = False) -> int:
        """A little-endian number of `count` bytes."""
        return int.from_bytes(self.take(count), "little", signed=signed)

    def line(self) -> bytes:
        """Up to the next line feed, without it."""
        begin = self.position
        offset = begin - self._begin
        end = self._window.find(b"\n", offset) if 0 <= offset < len(self._window) else -1
        if end >= 0:
            self._advance(end - offset + 1)
            return self._window[offset:end]
        size = LINE_BYTES
        while (end := (head := self.source.read(begin, size)).find(b"\n")) < 0:
            if len(head) < size:
                raise PickleError("a text argument does not end")
            if size >= LINE_BYTES_MAX:
                raise LimitError("a text argument is longer than a scan reads")
            size *= 8
        self._advance(end + 1)
        return head[:end]

    def frame(self, size: int) -> None:
        """Begin a frame of `size` bytes."""
        if self.frame_end is not None and self.position < self.frame_end:
            raise PickleError("a frame begins within another")
        if size > self.left:
            raise PickleError(f"a frame claims {size} bytes, and {self.left} are left")
        self.frame_end = self.position + size
