"""Files that are compressed as a whole: by gzip, bzip2, xz, lzma, zlib, and by zstd or lz4 where a library is there."""

import bz2
import lzma
import secrets
import zlib
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from palladion.errors import FormatError
from palladion.scan.look import HELD_BYTES_MAX, Look
from palladion.scan.source import PIECE_BYTES, Held, LimitError, Part, Source, pieces
from palladion.scan.zips import expanded, inflated

MEMBERS_MAX = 1000  # of a gzip file; bgzip writes one for every 64 KiB
WINDOW_BYTES_MAX = 256 * 2**20
END_BYTES = 16  # that nobody guesses
_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"ZF0x", "joblib-zlib"),
)


def compression_of(source: Source) -> str | None:
    """How `source` is compressed, by its first bytes; None if it is not."""
    head = source.read(0, 16)
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    # zlib: method 8, a window of up to 32 KiB, and a sum that divides by 31; no preset dictionary
    zlib_head = len(head) > 8 and head[0] in {0x38, 0x48, 0x58, 0x68, 0x78} and not (head[0] << 8 | head[1]) % 31
    if zlib_head and not head[1] & 0x20 and _inflates(source):
        return "zlib"
    if head[:3] == b"\x5d\x00\x00" and len(head) > 13:
        return "lzma"
    return None


def _inflates(source: Source) -> bool:
    try:
        return bool(zlib.decompressobj().decompress(source.read(0, 4096), 16))
    except zlib.error:
        return False


def uncompressed(source: Source, how: str, look: Look) -> Source:
    """What is compressed, in memory as far as it is kept. Raises FormatError, LimitError."""
    held, size = bytearray(), 0
    for piece in _pieces(source, how):
        look.unpack(len(piece))
        size += len(piece)
        if len(held) < HELD_BYTES_MAX:
            held += piece[: HELD_BYTES_MAX - len(held)]
    return Held(bytes(held), size)


def _pieces(source: Source, how: str) -> Iterator[bytes]:
    match how:
        case "gzip":
            return _gzip(source)
        case "zlib":
            return inflated(zlib.decompressobj(), source)
        case "joblib-zlib":
            # joblib before 0.10: the mark, the length in hexadecimal digits in 20 bytes, zlib
            return inflated(zlib.decompressobj(), Part(source, 21 if source.read(21, 1) == b"x" else 22, source.size))
        case "bzip2":
            return expanded(bz2.BZ2Decompressor(), source)
        case "xz":
            return expanded(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=WINDOW_BYTES_MAX), source)
        case "lzma":
            return expanded(lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=WINDOW_BYTES_MAX), source)
        case _:
            return _library(source, how)


def _gzip(source: Source) -> Iterator[bytes]:
    """Every member of a gzip file."""
    machine = zlib.decompressobj(31)
    members = 1
    try:
        for piece in pieces(source):
            data = piece
            while data:
                if machine.eof:
                    members += 1
                    if members > MEMBERS_MAX:
                        raise LimitError(f"a gzip file has more than {MEMBERS_MAX} members")
                    machine = zlib.decompressobj(31)
                yield machine.decompress(data, PIECE_BYTES)
                data = machine.unused_data if machine.eof else machine.unconsumed_tail
    except zlib.error:
        raise FormatError("what is compressed is broken, or bytes follow it") from None
    if not machine.eof:
        raise FormatError("what is compressed ends too early")


def _library(source: Source, how: str) -> Iterator[bytes]:
    name = {"zstd": "zstandard", "lz4": "lz4"}[how]
    if find_spec(name) is None:
        raise FormatError(f"{how} cannot be looked into here", f"pip install {name}")
    machine: Any
    end = b""
    if how == "zstd":
        zstandard: Any = import_module("zstandard")
        machine = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX)
        errors: Any = zstandard.ZstdError
        # the library says nothing of a frame that is cut: one of our own comes out whole only behind a whole one
        end = secrets.token_bytes(END_BYTES)
        last = zstandard.ZstdCompressor(write_checksum=True).compress(end)
        stream: Any = machine.stream_reader(_Reader(source, last), read_across_frames=True)
    else:
        frame: Any = import_module("lz4.frame")
        errors = RuntimeError
        stream = frame.LZ4FrameFile(_Reader(source))
    try:
        yield from _without_end(iter(lambda: stream.read(PIECE_BYTES), b""), end)
    except (errors, EOFError, OSError):
        raise FormatError("what is compressed is broken, or bytes follow it") from None


def _without_end(pieces_: Iterator[bytes], end: bytes) -> Iterator[bytes]:
    """The pieces without the `end` of them all. Raises FormatError where they have another one."""
    held = b""
    for piece in pieces_:
        held += piece
        whole = len(held) - len(end)
        if whole > 0:
            yield held[:whole]
            held = held[whole:]
    if held != end:
        raise FormatError("what is compressed ends too early")


class _Reader:
    """A source as a file object that is read front to back."""

    def __init__(self, source: Source, then: bytes = b"") -> None:
        """`then` comes after the source."""
        self._source = source
        self._then = then
        self._position = 0

    def read(self, count: int = PIECE_BYTES) -> bytes:
        """The next `count` bytes."""
        data = self._source.read(self._position, count if count >= 0 else self._source.size)
        if not data:
            beyond = self._position - self._source.size
            data = self._then[beyond : beyond + count] if count >= 0 else self._then[beyond:]
        self._position += len(data)
        return data

    def seek(self, position: int, whence: int = 0) -> int:
        """Only to where it is, and to the beginning."""
        self._position = position if whence == 0 else self._position + position
        return self._position

    def tell(self) -> int:
        """Where it is."""
        return self._position

    def seekable(self) -> bool:
        """It is."""
        return True

    def readable(self) -> bool:
        """It is."""
        return True
