"""CBOR as far as Nitro's module speaks it (RFC 8949): read strictly, within limits that are checked first, and written.

Integers, byte and text strings, arrays, maps and null, each in its one shortest form and of stated length. Everything
else is refused: indefinite lengths, floats, tags but COSE's outermost, keys that occur twice.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Never, TypeAlias

from palladion.errors import FormatError

BYTES_MAX: Final = 32 * 1024  # a document has 4.5 KiB; 16 more certificates and PCRs would still fit
DEPTH_MAX: Final = 4  # a map with an array or a map in it has 2
ITEMS_MAX: Final = 256  # of everything: a document has about 60
COSE_SIGN1_TAG: Final = 18
_NULL = 0xF6
_ARGUMENT_BYTES = {24: 1, 25: 2, 26: 4, 27: 8}

Value: TypeAlias = "int | bytes | str | list[Value] | dict[int | str, Value] | None"
Writable: TypeAlias = "int | bytes | str | Sequence[Writable] | Mapping[str, Writable] | None"


def decode(data: bytes, *, what: str) -> Value:
    """The one value that `data` is, a COSE_Sign1 tag in front of it left out. Raises FormatError, naming `what`."""
    if len(data) > BYTES_MAX:
        raise FormatError(f"{what} has {len(data)} bytes, at most {BYTES_MAX} are read")
    reader = _Reader(data, what)
    if data[:1] == bytes([0xC0 | COSE_SIGN1_TAG]):
        reader.offset = 1
    value = reader.value(DEPTH_MAX)
    if reader.offset != len(data):
        reader.refuse("bytes after its end")
    return value


def encode(value: Writable) -> bytes:
    """`value` in CBOR, in the forms that `decode` reads. Maps keep their order."""
    if value is None:
        return bytes([_NULL])
    if isinstance(value, int):
        return _head(0, value) if value >= 0 else _head(1, -1 - value)
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, str):
        return _head(3, len(value.encode())) + value.encode()
    if isinstance(value, Mapping):
        return _head(5, len(value)) + b"".join(encode(key) + encode(one) for key, one in value.items())
    return _head(4, len(value)) + b"".join(encode(one) for one in value)


class _Reader:
    """A place in CBOR that is being read, and how many values were read so far."""

    def __init__(self, data: bytes, what: str) -> None:
        self.data = data
        self.what = what
        self.offset = 0
        self.items = 0

    def refuse(self, problem: str) -> Never:
        raise FormatError(f"{self.what} is not the CBOR that is read here: {problem} at byte {self.offset}")

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.offset:
            self.refuse("cut off")
        self.offset += size
        return self.data[self.offset - size : self.offset]

    def value(self, depth: int) -> Value:
        self.items += 1
        if self.items > ITEMS_MAX or depth == 0:
            self.refuse(f"more than {ITEMS_MAX} values, or values {DEPTH_MAX} deep")
        first = self.take(1)[0]
        if first == _NULL:
            return None
        major, size = first >> 5, self._argument(first & 0x1F)
        if major in (0, 1):
            return size if major == 0 else -1 - size
        if major in (2, 3):
            return self.take(size) if major == 2 else self._text(size)
        # a count is believed one value at a time, so that a short input cannot claim much memory
        count = min(size, ITEMS_MAX + 1)
        if major == 4:
            return [self.value(depth - 1) for _ in range(count)]
        if major != 5:
            self.refuse("a type that Nitro does not use")
        return self._map(count, depth)

    def _argument(self, short: int) -> int:
        if short < 24:
            return short
        size = _ARGUMENT_BYTES.get(short)
        if size is None:
            self.refuse("a length that is not stated")
        number = int.from_bytes(self.take(size), "big")
        if number < (24 if size == 1 else 1 << 4 * size):
            self.refuse("a number longer than it need be")
        return number

    def _text(self, size: int) -> str:
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            self.refuse("text that is not UTF-8")

    def _map(self, size: int, depth: int) -> dict[int | str, Value]:
        found: dict[int | str, Value] = {}
        for _ in range(size):
            key = self.value(1)
            if not isinstance(key, int | str) or key in found:
                self.refuse("a key that is no number or text, or occurs twice")
            found[key] = self.value(depth - 1)
        return found


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    short, size = next((short, size) for short, size in _ARGUMENT_BYTES.items() if number < 1 << 8 * size)
    return bytes([major << 5 | short]) + number.to_bytes(size, "big")
