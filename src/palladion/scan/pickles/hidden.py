"""Program text and pickles that hide in text or bytes: encoded, compressed, compiled, or written backwards.

Every layer is taken off in memory, a few deep, and nothing in it is run. What comes out by chance is no text, so that
only what reads as a program or a pickle is told. Malware of package indexes and model hubs stacks just these layers.
"""

import base64
import binascii
import bz2
import codecs
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from palladion.scan.pickles.programs import CODE, NAMED, program_in
from palladion.scan.source import Held

if TYPE_CHECKING:
    from palladion.scan.look import Look

LAYERS_MAX = 5
INNER_SHARE = 8  # what comes out is looked at so many times as fast as text is searched for programs
WORK_BYTES_MAX = 16 * 2**20  # that are taken apart, of one text
PIECES_MAX = 20_000  # the same, in places
SLOW_BYTES_MAX = 2**18  # in base 85, which Python decodes itself
TURNED_BYTES_MAX = 2**20  # that are read backwards, and with letters moved
_EXPANDED_MAX = 2**20  # programs are short
_LINE = r"(?:\\r|\\n|\r|\n)+[ \t]*"  # between lines of one encoding, as JSON and Python write it too
_BASE64 = re.compile(rf"[A-Za-z0-9+/_-]{{20,}}={{0,2}}(?:{_LINE}[A-Za-z0-9+/_-]{{4,}}={{0,2}})*")
_SHIFTED_MIN = 48
_LINES = re.compile(r"(?:\\r|\\n|\s)+")
_BASE32 = re.compile(r"[A-Z2-7]{32,}={0,6}")
_HEX = re.compile(r"[0-9a-fA-F]{32,}")
# Nothing here is tried in a second way (possessive): of spaces that fit two places there are 2**16 of them.
_BYTES = re.compile(r"(?:(?<![0-9A-Za-z])(?:0x)?+[0-9a-fA-F]{2}[ \t\n]?+,?+[ \t\n]?+){16,}+")
# Of bytes that are text, or begin what is compressed or compiled, one has a decimal digit in front.
_PAIR = re.compile(r"[0-9][0-9a-fA-F][ \t\n]?+,?+[ \t\n]?+(?:0x)?+[0-9a-fA-F]{2}")
_ESCAPES = re.compile(r"(?:\\{1,2}(?:x|u00)[0-9a-fA-F]{2}){8,}")
_NUMBERS = re.compile(r"(?<!\d)\d{1,3}+(?:[ \t\r\n]?+,[ \t\r\n]*+\d{1,3}+){15,}+")
_CHARACTERS = re.compile(r"(?:\bchr\(\d{1,3}\)[^\w\n]{0,5}){4,}")
_BASE85 = re.compile(r"[0-9A-Za-z!#$%&()*+;<=>?@^_`{|}~-]{30,}")
_ASCII85 = re.compile(r"<~[!-uz\s]{20,}~>")
_ASCII85_WHOLE = re.compile(r"[!-uz]{30,}")
_LONG_WORD = re.compile(r"[!-~]{20}")
_ROT13 = {ord(a): codecs.encode(a, "rot13") for a in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"}
# One of these stands in every program that is looked for.
_WORDS = (
    "import", "exec", "eval", "system", "popen", "spawn", "subprocess", "pickle", "marshal", "socket", "CDLL",
    "__subclasses__", "__builtins__", "getoutput",
)  # fmt: skip
_MOVED = tuple(word.translate(_ROT13) for word in _WORDS)
_BACKWARDS = tuple(word[::-1] for word in _WORDS)
_CODE_AT = (17, 21, 25)  # where instructions follow the numbers of a code object, by version of Python
_CODE_ITEMS = (0x73, 0xF3)  # a bytes object, as marshal writes it


def hidden_in(look: "Look", data: str | bytes) -> tuple[str, str] | None:
    """What hides in `data`: (rule, words for a message); None if nothing does."""
    work = [WORK_BYTES_MAX, PIECES_MAX, SLOW_BYTES_MAX]
    waiting: list[tuple[str | bytes, str, int]] = [(data, "", 0)]
    while waiting:
        value, how, depth = waiting.pop()
        if depth and (found := _harmful(look, value)) is not None:
            return found[0], f"{found[1]}{how}"
        if depth >= LAYERS_MAX:
            continue
        for label, inner in _layers(value, work):
            look.search(len(inner) // INNER_SHARE)
            work[0] -= len(inner)
            work[1] -= 1
            if work[0] < 0 or work[1] < 0:
                return None
            waiting.append((inner, f" in {label}" if label else how, depth + 1))
    return None


def is_code_object(data: bytes) -> bool:
    """Whether compiled Python begins here (Python/marshal.c): numbers, all small, and then instructions."""
    if len(data) < 40 or data[0] not in {0x63, 0xE3}:
        return False
    return any(
        data[place] in _CODE_ITEMS and all(data[at + 3] == 0 and data[at + 2] < 16 for at in range(1, place, 4))
        for place in _CODE_AT
    )


def _harmful(look: "Look", value: str | bytes) -> tuple[str, str] | None:
    from palladion.scan.pickles.strings import pickled  # which looks into strings by this module

    if isinstance(value, bytes):
        if is_code_object(value):
            return "embedded-code", "compiled Python"
        if pickled(look, Held(value), whole=False) is not None or NAMED.search(value):
            return "nested-pickle", "a pickle"
        if not value.isascii():
            return None
        value = value.decode()
    if program_in(value, look):
        return "embedded-code", "program text"
    return None


def _layers(value: str | bytes, work: list[int]) -> Iterator[tuple[str, str | bytes]]:
    """What comes out of `value` when one layer is taken off, with its name."""
    if isinstance(value, bytes):
        if (inner := _expanded(value)) is not None:
            yield "what is compressed", inner
        elif is_code_object(value):
            yield "compiled Python", b""
        elif value.isascii():
            yield "", value.decode()
        elif value[1:2] == b"\x00" and not any(value[1:2048:2]):
            yield "UTF-16", value[::2]
        return
    if value[1:2] == "\x00":
        yield "UTF-16", value[::2]
    yield from _encoded(value, work)
    if (found := turned(value)) is not None:
        yield found


def turned(text: str) -> tuple[str, str] | None:
    """A program written backwards or with its letters moved by 13, with the words for it; None if there is none.

    Commands of shells are not looked for: their words are too short.
    """
    if len(text) > TURNED_BYTES_MAX:
        return None
    if any(word in text for word in _MOVED) and CODE.search(text.translate(_ROT13)):
        return "letters that are moved", text.translate(_ROT13)
    if any(word in text for word in _BACKWARDS) and CODE.search(text[::-1]):
        return "text written backwards", text[::-1]
    return None


def _encoded(text: str, work: list[int]) -> Iterator[tuple[str, bytes]]:
    words = _LONG_WORD.search(text) is not None
    if words:
        yield from _in_base64(text)
    for pattern, label, decode, possible in _CODES:
        for found in pattern.finditer(text) if possible(text, words) else ():
            try:
                yield label, decode(found.group())
            except (ValueError, binascii.Error):
                continue
    for run, decode in _in_base85(text, words):
        work[2] -= len(run)
        if work[2] < 0:
            return
        try:
            yield "base 85", decode(run)
        except ValueError:
            continue


def _in_base85(text: str, words: bool) -> Iterator[tuple[str, Callable[[str], bytes]]]:
    if words:
        yield from ((found.group(), base64.b85decode) for found in _BASE85.finditer(text))
    if "<~" in text:
        yield from ((found.group(), _ascii85) for found in _ASCII85.finditer(text))
    elif words and _ASCII85_WHOLE.fullmatch(text):
        yield text, _ascii85


def _in_base64(text: str) -> Iterator[tuple[str, bytes]]:
    for found in _BASE64.finditer(text):
        run = found.group()
        parts = _LINES.split(run)
        whole = "".join(parts)
        data = _base64(whole)
        yield "base64", data
        if len(whole) >= _SHIFTED_MIN and not data.isascii():
            # letters before it that belong to something else
            yield from (("base64", _base64(whole[begin:])) for begin in (1, 2, 3))
        if len(parts) > 1:
            yield from (("base64", _base64(part)) for part in parts if len(part) >= 20)


def _base64(letters: str) -> bytes:
    """What base64 letters stand for, as far as they are whole."""
    digits = letters.replace("-", "+").replace("_", "/").rstrip("=")
    digits = digits[: len(digits) - (len(digits) % 4 == 1)]
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4))
    except (binascii.Error, ValueError):
        return b""


def _base32(letters: str) -> bytes:
    digits = letters.rstrip("=")
    return base64.b32decode(digits[: len(digits) // 8 * 8]) if len(digits) >= 8 else b""


def _hexadecimal(digits: str) -> bytes:
    return bytes.fromhex(digits[: len(digits) // 2 * 2])


def _escaped(text: str) -> bytes:
    return bytes.fromhex("".join(re.findall(r"(?:x|u00)([0-9a-fA-F]{2})", text)))


def _separate(text: str) -> bytes:
    return bytes.fromhex("".join(re.findall(r"(?:0x)?([0-9a-fA-F]{2})(?![0-9a-fA-F])", text)))


def _numbers(text: str) -> bytes:
    return bytes(int(number) for number in re.findall(r"\d+", text))  # ValueError above 255


def _ascii85(text: str) -> bytes:
    return base64.a85decode(text.removeprefix("<~").removesuffix("~>"))


def _worded(_: str, words: bool) -> bool:
    return words


# The last of each says quickly that there is none; it is told whether there is a word of 20 letters.
_CODES: tuple[tuple["re.Pattern[str]", str, Callable[[str], bytes], Callable[[str, bool], bool]], ...] = (
    (_BASE32, "base32", _base32, _worded), (_HEX, "hexadecimal digits", _hexadecimal, _worded),
    (_ESCAPES, "escapes", _escaped, lambda text, _: "\\" in text),
    (_BYTES, "hexadecimal digits", _separate, lambda text, _: _PAIR.search(text) is not None),
    (_NUMBERS, "numbers", _numbers, lambda text, _: text.count(",") >= 15),
    (_CHARACTERS, "numbers of characters", _numbers, lambda text, _: "chr(" in text),
)  # fmt: skip


def _expanded(data: bytes) -> bytes | None:
    """The first bytes of what was compressed; None if nothing was."""
    machine: Any
    if data[:2] == b"\x1f\x8b":
        machine = zlib.decompressobj(31)
    elif len(data) > 8 and data[0] in {0x78, 0x58, 0x48, 0x38} and (data[0] << 8 | data[1]) % 31 == 0:
        machine = zlib.decompressobj()
    elif data[:3] == b"BZh":
        machine = bz2.BZ2Decompressor()
    elif data[:6] == b"\xfd7zXZ\x00" or data[:3] == b"\x5d\x00\x00":
        machine = lzma.LZMADecompressor(memlimit=64 * 2**20)
    else:
        return None
    try:
        return bytes(machine.decompress(data, _EXPANDED_MAX)) or None
    except (zlib.error, OSError, lzma.LZMAError, EOFError, ValueError):
        return None
