"""Universal Binary JSON (UBJSON draft 12), XGBoost's own format of models: mere data, followed to the last byte."""

from palladion.errors import FormatError
from palladion.scan.look import Look
from palladion.scan.pickles.strings import Strings
from palladion.scan.source import Source

MAGIC = b"{L\x00\x00\x00\x00"  # an object whose first key is short
ITEMS_MAX = 3_000_000
DEPTH_MAX = 64
_SIZES = {"Z": 0, "N": 0, "T": 0, "F": 0, "i": 1, "U": 1, "C": 1, "I": 2, "l": 4, "d": 4, "L": 8, "D": 8}
_COUNTS = frozenset("iUIlL")


class _Walk:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.at = 0
        self.texts: list[tuple[int, int]] = []
        self.items = ITEMS_MAX
        self._begin = 0
        self._window = b""

    def take(self, count: int) -> bytes:
        offset = self.at - self._begin
        if not 0 <= offset <= len(self._window) - count:
            self._begin, offset = self.at, 0
            self._window = self.source.read(self.at, max(count, 65_536))
        if len(self._window) - offset < count:
            raise FormatError("UBJSON ends within a value")
        self.at += count
        return self._window[offset : offset + count]

    def mark(self) -> str:
        return self.take(1).decode("latin-1")

    def count(self) -> int:
        mark = self.mark()
        if mark not in _COUNTS:
            raise FormatError("a length in UBJSON is no whole number")
        number = int.from_bytes(self.take(_SIZES[mark]), "big", signed=mark != "U")
        if not 0 <= number <= self.source.size:
            raise FormatError("a length in UBJSON is none")
        return number

    def skip(self, count: int) -> None:
        if self.at + count > self.source.size:
            raise FormatError("UBJSON ends within a value")
        self.at += count

    def text(self) -> None:
        size = self.count()
        self.texts.append((self.at, size))
        self.skip(size)

    def value(self, mark: str, depth: int) -> None:
        self.items -= 1
        if self.items < 0 or depth > DEPTH_MAX:
            raise FormatError("UBJSON has more, or deeper, values than a scan follows")
        if mark in _SIZES:
            self.skip(_SIZES[mark])
        elif mark in {"S", "H"}:
            self.text()
        elif mark in {"[", "{"}:
            self.container(mark, depth)
        else:
            raise FormatError(f"UBJSON has no value {mark!r}")

    def container(self, mark: str, depth: int) -> None:
        end = "]" if mark == "[" else "}"
        kind, number = "", -1
        head = self.mark()
        if head == "$":
            kind, head = self.mark(), self.mark()
            if head != "#":
                raise FormatError("UBJSON gives a type without a number")
        if head == "#":
            number = self.count()
            if mark == "[" and kind in _SIZES:
                self.skip(number * _SIZES[kind])
                return
        else:
            self.at -= 1
        while number != 0:
            if number < 0 and self.mark() == end:
                return
            if number < 0:
                self.at -= 1
            if mark == "{":
                self.text()
            self.value(kind or self.mark(), depth + 1)
            number -= 1 if number > 0 else 0


def scan_ubjson(source: Source, look: Look, where: str) -> str:
    """Follow every value, and look at the texts. Raises FormatError where it is none, or something follows."""
    walk = _Walk(source)
    walk.value(walk.mark(), 0)
    if walk.at != source.size:
        raise FormatError(f"{source.size - walk.at} bytes follow the UBJSON")
    strings = Strings(look, where)
    for begin, size in walk.texts:
        strings.look_at_range(source, begin, size, text=True)
    return "ubjson"
