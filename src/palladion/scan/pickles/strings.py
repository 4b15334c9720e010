"""Text and bytes inside of a file that are something else: pickles, in plain or in base64, torch files, program text.

They are data unless something loads them, so what is found in them is suspicious; a whole torch file, as tensors in a
plain pickle are kept, is looked at like any other.
"""

import re
from typing import TYPE_CHECKING, Any

from palladion.errors import FormatError
from palladion.scan.pickles.hidden import hidden_in, is_code_object
from palladion.scan.pickles.programs import NAMED, program_in
from palladion.scan.pickles.reader import Reader
from palladion.scan.source import PIECE_BYTES, Held, Part, Source

if TYPE_CHECKING:
    from palladion.scan.look import Look

ZIP_MAGIC = b"PK\x03\x04"
_NUMBER = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch's magic number, as a pickle of any protocol that has it
_FRAME = b"\x95\x0d\x00\x00\x00\x00\x00\x00\x00"
LEGACY_MAGICS = (
    b"\x80\x02" + _NUMBER, b"\x80\x03" + _NUMBER, b"\x80\x04" + _FRAME + _NUMBER, b"\x80\x05" + _FRAME + _NUMBER,
)  # fmt: skip
TORCH_MAGIC = (ZIP_MAGIC, *LEGACY_MAGICS)
SEARCHED_BYTES_MAX = 8 * 2**20  # of one string: what hides in the weights of a large array nobody loads by accident
NESTED_OPCODES_MAX = 200_000
NAMED_SHARE = 16  # names are searched so many times as fast as programs


class Strings:
    """Looks at the strings of one pickle, or of one text."""

    def __init__(self, look: "Look", where: str) -> None:
        self._look = look
        self._where = where

    def look_at(self, value: str | bytes) -> None:
        """Look at a whole string or bytes object."""
        if isinstance(value, bytes):
            self._bytes(Held(value), 0, len(value))
        else:
            self._text(value[:SEARCHED_BYTES_MAX])

    def look_at_range(self, source: Source, begin: int, size: int, *, text: bool) -> None:
        """Look at a string (`text`, UTF-8) or bytes object that lies in a source."""
        if size < 8:
            return
        if text:
            self._text(source.read(begin, min(size, SEARCHED_BYTES_MAX)).decode("utf-8", "replace"))
        else:
            self._bytes(source, begin, size)

    def _text(self, text: str) -> None:
        if program_in(text, self._look):
            self._add("embedded-code", "text holds program text that runs commands or code")
        encoded(self._look, self._where, text)
        if "\n" in text or "\x93" in text:
            self._named(text.encode("latin-1", "replace"))

    def _bytes(self, source: Source, begin: int, size: int) -> None:
        head = source.read(begin, min(size, 32))
        part = Part(source, begin, size)
        if head.startswith(TORCH_MAGIC):
            self._look.examine(part, f"{self._where}, bytes")
            return
        if (found := pickled(self._look, part)) is not None:
            self._add("nested-pickle", f"bytes hold a pickle{found}")
            return
        for place in range(0, min(size, SEARCHED_BYTES_MAX), PIECE_BYTES):
            piece = part.read(place, PIECE_BYTES + 256)
            if self._named(piece):
                return
            if size <= PIECE_BYTES:
                self._hidden(piece)
            if size <= PIECE_BYTES and (nested := _beginning(piece)) and pickled(self._look, Held(nested)) is not None:
                self._add("nested-pickle", "bytes hold a pickle")
                return

    def _hidden(self, piece: bytes) -> None:
        if piece.isascii():
            if program_in(piece.decode(), self._look):
                self._add("embedded-code", "bytes hold program text that runs commands or code")
        elif is_code_object(piece):
            self._add("embedded-code", "bytes hold compiled Python")
        encoded(self._look, self._where, piece)

    def _named(self, data: bytes) -> bool:
        self._look.search(len(data) // NAMED_SHARE)
        found = NAMED.search(data)
        if found is not None:
            self._add(
                "nested-pickle", "text or bytes hold the names that a pickle would import to run commands or code"
            )
        return found is not None

    def _add(self, rule: str, message: str) -> None:
        self._look.add(rule, self._where, f"{self._where}: {message}", "suspicious")


def _beginning(data: bytes) -> bytes:
    """From where a pickle could begin within `data`."""
    found = re.search(rb"\x80[\x02-\x05](?:\x95.{6}\x00\x00|[\x7dc\x5d(\x8c])", data[1:], re.DOTALL)
    return data[1 + found.start() :] if found else b""


def encoded(look: "Look", where: str, text: str | bytes) -> None:
    """Report pickles and program text that hide in `text`: in base64, compressed, compiled, and the like."""
    if (found := hidden_in(look, text)) is not None:
        look.add(found[0], where, f"{where}: text holds {found[1]}", "suspicious")


def pickled(look: "Look", source: Source, *, whole: bool = True) -> str | None:
    """What a pickle that begins `source` would do, as the end of a sentence; None if no pickle begins there.

    `whole`: without a protocol mark it has to be a pickle up to its STOP.
    """
    from palladion.scan.look import DEPTH_MAX, Look
    from palladion.scan.pickles.machine import Machine

    head = source.read(0, 2)
    marked = len(head) == 2 and head[0] == 0x80 and 2 <= head[1] <= 5
    if not marked and (not head or head[:1] not in b"(c]}i\x80" or source.size > PIECE_BYTES):
        return None
    if look.depth >= DEPTH_MAX:
        return None
    allowed = min(look.opcodes_left, NESTED_OPCODES_MAX)
    own = Look(look.inside, opcodes_left=allowed, depth=look.depth + 1, searched=look.searched)
    machine: Any = Machine(Reader(source, 0), own, "within")
    ended = False
    try:
        machine.run()
        ended = True
    except FormatError:
        pass
    look.opcodes_left -= allowed - own.opcodes_left
    against = [item for item in own.findings if item.rule.startswith("pickle-")]
    if against:
        return (
            f", which {against[0].message.removeprefix('within: ')}" if ended or machine.calls_made or marked else None
        )
    return "" if ended and (marked or machine.calls_made) and machine.steps > 3 else None
