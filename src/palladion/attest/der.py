"""DER (X.690), read strictly: what the certificates of hardware vendors need, and no encoding but the canonical one.

Bytes in, nodes out. Vendors' certificates have serial number 0 and extensions that are no ASN.1, which general
libraries refuse or are about to; and what a broken one does to our parser has to be a refusal.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Never

from palladion.errors import FormatError

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
ENUMERATED, UTC_TIME, GENERALIZED_TIME = 0x0A, 0x17, 0x18
SEQUENCE, SET = 0x30, 0x31
_CHILDREN_MAX = 64  # of one node: the longest in a certificate are its extensions, some dozen
_INTEGER_BYTES_MAX = 1025  # the modulus of an RSA key of 8,192 bits, and its sign


@dataclass(frozen=True, slots=True)
class Node:
    """One value: its tag byte, its content, and the bytes of both."""

    tag: int
    content: bytes
    raw: bytes


def read(data: bytes, *, what: str) -> Node:
    """The one value that `data` is. Raises FormatError for anything else, and for bytes after it."""
    node, end = _read(data, 0, what)
    if end != len(data):
        refuse(what, f"{len(data) - end} bytes follow it")
    return node


def children(node: Node, tag: int, *, what: str, most: int = _CHILDREN_MAX) -> list[Node]:
    """What a constructed value holds, in order, up to `most`. Raises FormatError unless its tag is `tag`."""
    expect(node, tag, what=what)
    found: list[Node] = []
    offset = 0
    while offset < len(node.content):
        if len(found) == most:
            refuse(what, f"more than {most} parts")
        child, offset = _read(node.content, offset, what)
        found.append(child)
    return found


def expect(node: Node, tag: int, *, what: str) -> bytes:
    """The content of a node of that tag. Raises FormatError for another."""
    if node.tag != tag:
        refuse(what, f"tag {node.tag:#04x} was got, {tag:#04x} was expected")
    return node.content


def integer(node: Node, *, what: str, tag: int = INTEGER) -> int:
    """A whole number in its shortest form. Raises FormatError."""
    content = expect(node, tag, what=what)
    if not 0 < len(content) <= _INTEGER_BYTES_MAX:
        refuse(what, f"a number of {len(content)} bytes")
    if len(content) > 1 and content[0] in (0x00, 0xFF) and (content[0] ^ content[1]) < 0x80:
        refuse(what, "a number in a longer form than it needs")
    return int.from_bytes(content, "big", signed=True)


def small(node: Node, *, what: str, most: int) -> int:
    """A whole number from 0 to `most`. Raises FormatError."""
    value = integer(node, what=what)
    if not 0 <= value <= most:
        refuse(what, f"a number outside 0 to {most}")
    return value


def boolean(node: Node, *, what: str) -> bool:
    """Raises FormatError for any but the two canonical bytes."""
    content = expect(node, BOOLEAN, what=what)
    if content not in (b"\x00", b"\xff"):
        refuse(what, "a truth value that is neither")
    return content == b"\xff"


def oid(node: Node, *, what: str) -> str:
    """An object identifier with dots. Raises FormatError."""
    content = expect(node, OID, what=what)
    if not 0 < len(content) <= 64 or content[-1] & 0x80:
        refuse(what, "an object identifier that is cut off, or too long")
    numbers, value, begun = [], 0, False
    for byte in content:
        if not begun and byte == 0x80:
            refuse(what, "an object identifier in a longer form than it needs")
        value, begun = value << 7 | byte & 0x7F, True
        if not byte & 0x80:
            numbers.append(value)
            value, begun = 0, False
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))


def bits(node: Node, *, what: str) -> bytes:
    """A bit string of whole bytes, as keys and signatures are. Raises FormatError."""
    content = expect(node, BIT_STRING, what=what)
    if not content or content[0] != 0:
        refuse(what, "a bit string that is not of whole bytes")
    return content[1:]


def flags(node: Node, *, what: str) -> frozenset[int]:
    """The numbers of the bits that are set, from 0, in a named bit list. Raises FormatError."""
    content = expect(node, BIT_STRING, what=what)
    if not 0 < len(content) <= 5 or content[0] > 7 or (len(content) == 1 and content[0]):
        refuse(what, "a list of bits that is broken")
    return frozenset(
        8 * place + bit for place, byte in enumerate(content[1:]) for bit in range(8) if byte & (0x80 >> bit)
    )


def moment(node: Node, *, what: str) -> datetime:
    """A time in UTC, in one of the two forms that RFC 5280 §4.1.2.5 has. Raises FormatError."""
    try:
        text = node.content.decode("ascii")
        if node.tag == UTC_TIME and len(text) == 13:
            text = ("19" if text[:2] >= "50" else "20") + text
        elif node.tag != GENERALIZED_TIME or len(text) != 15:
            raise ValueError
        if not text[:14].isdecimal():
            raise ValueError
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        refuse(what, "a time that is none")


def refuse(what: str, reason: str) -> Never:
    """Raise FormatError for `what`."""
    raise FormatError(f"{what} is not canonical DER: {reason}")


def _read(data: bytes, offset: int, what: str) -> tuple[Node, int]:
    """The value that begins at `offset`, and where it ends."""
    head = data[offset : offset + 2]
    if len(head) < 2:
        refuse(what, "it is cut off")
    tag, length, start = head[0], head[1], offset + 2
    if tag & 0x1F == 0x1F:
        refuse(what, "a tag of several bytes")
    if length >= 0x80:
        count = length & 0x7F
        if not 1 <= count <= 4:
            refuse(what, "a length without an end, or of too many bytes")
        size = data[start : start + count]
        length, start = int.from_bytes(size, "big"), start + count
        if len(size) < count or length < 0x80 or size[0] == 0:
            refuse(what, "a length in a longer form than it needs")
    end = start + length
    if end > len(data):
        refuse(what, "it is cut off")
    return Node(tag, data[start:end], data[offset:end]), end
