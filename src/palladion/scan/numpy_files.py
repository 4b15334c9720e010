"""NumPy's .npy arrays (NEP 1): a header in Python's words, and numbers; arrays of objects are pickles."""

import ast
import re
import warnings
from math import prod
from typing import Any

from palladion.errors import FormatError
from palladion.scan.look import Look
from palladion.scan.pickles.streams import scan_pickles
from palladion.scan.source import Part, Source

MAGIC = b"\x93NUMPY"
HEADER_BYTES_MAX = 10_000  # NumPy itself parses no longer one from a file that is not trusted
DIMENSIONS_MAX = 64
_CODE = re.compile(r"[<>|=]?(?:([?bBiufcSUVmM])(\d{0,9})(?:\[[\w/]+\])?|([?bBhHiIlLqQefdg]))")
_LONG = re.compile(r"\b(\d{1,20})L(?=[,)])")  # as Python 2 writes numbers, and NumPy still reads them
_LETTERS = {
    "b": 1, "B": 1, "h": 2, "H": 2, "i": 4, "I": 4, "l": 8, "L": 8, "q": 8, "Q": 8, "e": 2, "f": 4, "d": 8,
    "g": 16, "?": 1,
}  # fmt: skip


def scan_array(source: Source, look: Look, where: str) -> None:
    """Report an array whose header is odd, whose size is another one, or that holds objects."""
    try:
        begin, document = _header(source)
        size = _numbers(document)
    except FormatError as error:
        look.add("structure", where, f"{where}: {error.message}")
        return
    if size is None:
        # objects are a pickle, read by numpy.load(allow_pickle=True) alone
        scan_pickles(Part(source, begin, source.size), look, where)
        return
    if begin + size > source.size:
        look.add("structure", where, f"{where} ends within its numbers")
    elif begin + size < source.size:
        rest = Part(source, begin + size, source.size)
        if rest.read(0, len(MAGIC)) == MAGIC:
            look.examine(rest, where)
        else:
            look.add("structure", where, f"{where}: {rest.size} bytes follow the array")


def _header(source: Source) -> tuple[int, dict[str, Any]]:
    head = source.read(0, 12)
    if len(head) < 12 or head[:6] != MAGIC or head[6] not in {1, 2, 3}:
        raise FormatError("the header of a NumPy file is broken")
    width = 2 if head[6] == 1 else 4
    length = int.from_bytes(head[8 : 8 + width], "little")
    if length > HEADER_BYTES_MAX:
        raise FormatError(f"the header of a NumPy file has {length} bytes, at most {HEADER_BYTES_MAX} allowed")
    text = source.read(8 + width, length).decode("latin-1")
    # words of data alone reach the parser: nested brackets without end would exhaust it
    if len(text) < length or text.count("(") + text.count("[") > 1000:
        raise FormatError("the header of a NumPy file is cut off, or nested without end")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that mean nothing
            document = ast.literal_eval(_LONG.sub(r"\1", text).strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        raise FormatError("the header of a NumPy file is not a dictionary of data") from None
    if not isinstance(document, dict) or set(document) != {"descr", "fortran_order", "shape"}:
        raise FormatError("the header of a NumPy file has other keys than descr, fortran_order and shape")
    return 8 + width + length, document


def _numbers(document: dict[str, Any]) -> int | None:
    """Bytes of the numbers; None if they are objects."""
    shape = document["shape"]
    if not isinstance(shape, tuple) or len(shape) > DIMENSIONS_MAX:
        raise FormatError("a NumPy file has no shape")
    if any(not isinstance(item, int) or item < 0 or item > 2**62 for item in shape):
        raise FormatError("a NumPy file has an impossible shape")
    size = _item_bytes(document["descr"], 0)
    return None if size is None else size * prod(shape)


def _item_bytes(descr: Any, depth: int) -> int | None:
    if isinstance(descr, str):
        if "O" in descr:
            return None
        found = _CODE.fullmatch(descr)
        if found is None:
            raise FormatError(f"a NumPy file has numbers of the unknown type {descr[:40]!r}")
        if found.group(3):
            return _LETTERS[found.group(3)]
        size = int(found.group(2) or "1")
        return 4 * size if found.group(1) == "U" else size
    if isinstance(descr, tuple) and len(descr) == 2 and isinstance(descr[1], tuple):
        inner = _item_bytes(descr[0], depth + 1)
        return None if inner is None else inner * prod(item for item in descr[1] if isinstance(item, int))
    if not isinstance(descr, list) or depth > 8 or len(descr) > 10_000:
        raise FormatError("a NumPy file has numbers of an unknown type")
    total = 0
    for field in descr:
        if not isinstance(field, tuple) or len(field) not in {2, 3}:
            raise FormatError("a NumPy file has a field of an unknown type")
        each = _item_bytes(field[1], depth + 1)
        if each is None:
            return None
        times = field[2] if len(field) == 3 else 1
        total += each * (prod(times) if isinstance(times, tuple) else int(times))
    return total
