"""ZIP archives (PKWARE APPNOTE 6.3.10), so strictly that every reader sees the same files.

Readers disagree on which of two headers counts, what a flag means and where an archive begins: a scanner that reads
one way is passed by a file made for readers that go the other (CVE-2025-10156, CVE-2025-1944). Here both headers have
to agree, entries must neither overlap nor leave room between them, and nothing may stand before or after.
"""

import bz2
import lzma
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from palladion.errors import FormatError
from palladion.scan.look import HELD_BYTES_MAX, Look
from palladion.scan.source import PIECE_BYTES, Held, LimitError, Part, Source, pieces

END = b"PK\x05\x06"
_END64, _LOCATOR64, _CENTRAL, _LOCAL = b"PK\x06\x06", b"PK\x06\x07", b"PK\x01\x02", b"PK\x03\x04"
_COMMENT_BYTES_MAX = 65_535
_CENTRAL_BYTES_MAX = 64 * 2**20
NAME_BYTES_MAX = 4096
_ENCRYPTED, _DESCRIPTOR, _LEVEL, _UTF8 = 0x0001, 0x0008, 0x0006, 0x0800
_FLAGS_KNOWN = _DESCRIPTOR | _LEVEL | _UTF8
_STORED, _DEFLATED, _BZIP2, _LZMA = 0, 8, 12, 14
_RATIO_MAX = 1032  # that deflate can reach; what claims more lies about its size
_DESCRIPTOR_BYTES_MAX = 24
_WINDOW_BYTES_MAX = 64 * 2**20  # of LZMA: memory that is taken at once


@dataclass(frozen=True)
class Entry:
    """A file of an archive as its central header says, and where its bytes lie."""

    name: str
    method: int
    flags: int
    crc: int
    packed: int
    size: int
    offset: int
    mode: int
    data_begin: int = 0

    @property
    def is_folder(self) -> bool:
        """Whether it is a mere folder."""
        return self.name.endswith("/") and not self.size


def end_of_archive(source: Source) -> int | None:
    """Where the end record of an archive stands at the end of `source`; None if there is none."""
    begin = max(0, source.size - 22 - _COMMENT_BYTES_MAX)
    tail = source.read(begin, source.size - begin)
    place = tail.rfind(END)
    while place >= 0:
        # a comment may hold the mark: only that counts whose comment ends the file
        if len(tail) - place >= 22 and place + 22 + int.from_bytes(tail[place + 20 : place + 22], "little") == len(
            tail
        ):
            return begin + place
        place = tail.rfind(END, 0, place)
    return None


def entries(source: Source, look: Look, where: str) -> list[Entry]:
    """The files of an archive, checked; reports what is odd. Raises FormatError where no reader could go on."""
    end = end_of_archive(source)
    if end is None:
        raise FormatError("a ZIP archive has no end record, or bytes follow it")
    count, size, offset, first = _end_record(source, end)
    if size > _CENTRAL_BYTES_MAX:
        raise LimitError(f"the directory of an archive has {size} bytes")
    if offset + size != first:
        look.add("structure", where, f"{where}: the directory does not end where the end record begins")
    found = list(_central(source.read(offset, size), count, look, where))
    spans = []
    checked = []
    for entry in found:
        local = _local(source, entry, look, where)
        checked.append(local)
        spans.append((entry.offset, local.data_begin + entry.packed, entry.flags))
    _gaps(sorted(spans), offset, source, look, where)
    _names(checked, look, where)
    return checked


def _end_record(source: Source, end: int) -> tuple[int, int, int, int]:
    """Count of entries, size and offset of the directory, and where the end records begin."""
    disk, start, here, count, size, offset, _ = struct.unpack("<4H2IH", source.read(end + 4, 18))
    first = end
    locator = source.read(end - 20, 20) if end >= 20 else b""
    if locator[:4] == _LOCATOR64:
        (place,) = struct.unpack("<Q", locator[8:16])
        record = source.read(place, 56)
        if len(record) < 56 or record[:4] != _END64 or place > end - 20:
            raise FormatError("the ZIP64 end record is not where it should be")
        disk64, start64, here64, count64, size64, offset64 = struct.unpack("<2I4Q", record[16:56])
        # a reader that knows no ZIP64 must see the same, or see that it cannot read it
        pairs = (
            (here, here64, 0xFFFF),
            (count, count64, 0xFFFF),
            (size, size64, 2**32 - 1),
            (offset, offset64, 2**32 - 1),
        )
        if any(short not in {long, most} for short, long, most in pairs) or disk64 or start64:
            raise FormatError("the two end records of a ZIP archive contradict each other")
        here, count, size, offset, first = here64, count64, size64, offset64, place
        disk = start = 0
    if disk or start or here != count:
        raise FormatError("a ZIP archive is spread over several files")
    return count, size, offset, first


def _central(data: bytes, count: int, look: Look, where: str) -> Iterator[Entry]:
    at = 0
    for _ in range(count):
        look.entry()
        head = data[at : at + 46]
        if len(head) < 46 or head[:4] != _CENTRAL:
            raise FormatError("the directory of a ZIP archive is broken")
        (
            _,
            _,
            flags,
            method,
            _,
            _,
            crc,
            packed,
            size,
            name_size,
            extra_size,
            comment_size,
            disk,
            _,
            external,
            offset,
        ) = struct.unpack("<6H3I5H2I", head[4:46])
        behind = at + 46 + name_size
        name, extra = data[at + 46 : behind], data[behind : behind + extra_size]
        size, packed, offset = _zip64(extra, size, packed, offset)
        if disk not in {0, 0xFFFF} or len(name) < name_size or not 0 < name_size <= NAME_BYTES_MAX:
            raise FormatError("the directory of a ZIP archive is broken")
        yield Entry(_text(name, flags), method, flags, crc, packed, size, offset, external >> 16)
        at += 46 + name_size + extra_size + comment_size
    if at != len(data):
        look.add("structure", where, f"{where}: {len(data) - at} bytes of the directory belong to no file")


def _text(name: bytes, flags: int) -> str:
    return name.decode("utf-8" if flags & _UTF8 else "cp437", "replace")


def _zip64(extra: bytes, size: int, packed: int, offset: int | None) -> Any:
    """Sizes and offset, from the ZIP64 extra field where the header says that they stand there."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack("<2H", extra[at : at + 4])
        body = extra[at + 4 : at + 4 + length]
        if kind == 1:
            values = [int.from_bytes(body[i : i + 8], "little") for i in range(0, len(body) - 7, 8)]
            if size == 2**32 - 1 and values:
                size = values.pop(0)
            if packed == 2**32 - 1 and values:
                packed = values.pop(0)
            if offset == 2**32 - 1 and values:
                offset = values.pop(0)
        at += 4 + length
    return size, packed, offset


def _local(source: Source, entry: Entry, look: Look, where: str) -> Entry:
    """The entry with the place of its bytes; its two headers have to say the same."""
    head = source.read(entry.offset, 30)
    if len(head) < 30 or head[:4] != _LOCAL:
        raise FormatError(f"{entry.name} has no header where the directory says")
    _, flags, method, _, _, crc, packed, size, name_size, extra_size = struct.unpack("<5H3I2H", head[4:30])
    name = source.read(entry.offset + 30, name_size)
    size, packed, _ = _zip64(source.read(entry.offset + 30 + name_size, extra_size), size, packed, None)
    shown = f"{where}/{entry.name}"
    if (flags | entry.flags) & ~_FLAGS_KNOWN:
        look.add("archive-encrypted", shown, f"{shown} is encrypted, or has flags that no model's archive has")
    late = flags & _DESCRIPTOR and (crc, packed, size) in {(0, 0, 0), (0, 2**32 - 1, 2**32 - 1)}
    same = late or (crc, packed, size) == (entry.crc, entry.packed, entry.size)
    if _text(name, flags) != entry.name or method != entry.method or flags != entry.flags or not same:
        look.add("structure", shown, f"{shown}: the two headers of a file contradict each other")
    begin = entry.offset + 30 + name_size + extra_size
    if begin + entry.packed > source.size:
        raise FormatError(f"{entry.name} is cut off")
    if entry.method == _STORED and entry.packed != entry.size:
        look.add("structure", shown, f"{shown} is not compressed, and has two sizes")
    if entry.size > _RATIO_MAX * max(entry.packed, 64) and entry.method == _DEFLATED:
        look.add("archive-bomb", shown, f"{shown} claims {entry.size} bytes of {entry.packed}")
    return Entry(
        entry.name, entry.method, entry.flags, entry.crc, entry.packed, entry.size, entry.offset, entry.mode, begin
    )


def _gaps(spans: list[tuple[int, int, int]], directory: int, source: Source, look: Look, where: str) -> None:
    position = 0
    for begin, end, flags in [*spans, (directory, directory, 0)]:
        if begin < position:
            look.add("archive-bomb", where, f"{where}: files of an archive overlap")
            return
        if begin > position:
            kind = "before the first file of" if position == 0 else "between the files of"
            look.add("polyglot", where, f"{where}: {begin - position} bytes stand {kind} the archive")
            return
        # sizes may follow the bytes
        follow = source.read(end, _DESCRIPTOR_BYTES_MAX) if flags & _DESCRIPTOR else b""
        position = end + _descriptor(follow, source, end)


def _descriptor(follow: bytes, source: Source, end: int) -> int:
    """Bytes of a data descriptor: with or without its mark, with sizes of four or eight bytes."""
    if not follow:
        return 0
    for length in (16, 24, 12, 20):
        if source.read(end + length, 4) in {_LOCAL, _CENTRAL, _END64, END}:
            return length
    return 0


def _names(found: list[Entry], look: Look, where: str) -> None:
    seen: set[str] = set()
    for entry in found:
        shown = f"{where}/{entry.name}"
        plain = entry.name.casefold().rstrip("/")
        if plain in seen:
            look.add("archive-entry", shown, f"{shown} is there twice: readers disagree on which counts")
        seen.add(plain)
        if not is_sound_name(entry.name):
            look.add("archive-entry", shown, f"{shown} is a name that leads out of the archive, or is hard to see")
        if entry.mode and (entry.mode & 0o170000) not in {0, 0o100000, 0o040000}:
            look.add("archive-entry", shown, f"{shown} is a link or a device")


def is_sound_name(name: str) -> bool:
    """Whether a name stays within its archive, and is the same for every reader."""
    parts = name.rstrip("/").split("/")
    return not (
        not name or name.startswith("/") or "\\" in name or ":" in parts[0] or not name.isprintable()
        or "\ufffd" in name or any(part in {"", ".", ".."} for part in parts)
    )  # fmt: skip


def unpacked(source: Source, entry: Entry, look: Look) -> Source:
    """The bytes of an entry. Raises FormatError where they are broken, or not what the header says."""
    part = Part(source, entry.data_begin, entry.packed)
    if entry.method == _STORED:
        crc = 0
        for piece in pieces(part):
            crc = zlib.crc32(piece, crc)
        if crc != entry.crc:
            raise FormatError(f"{entry.name} has another checksum than its header says")
        return part
    reader = _decompressor(entry, part)
    held, size, crc = bytearray(), 0, 0
    for piece in reader:
        look.unpack(len(piece))
        size += len(piece)
        if size > entry.size:
            raise FormatError(f"{entry.name} unpacks to more than the {entry.size} bytes that its header says")
        crc = zlib.crc32(piece, crc)
        if len(held) < HELD_BYTES_MAX:
            held += piece[: HELD_BYTES_MAX - len(held)]
    if size != entry.size or crc != entry.crc:
        raise FormatError(f"{entry.name} has another size or checksum than its header says")
    return Held(bytes(held), size)


def _decompressor(entry: Entry, part: Source) -> Iterator[bytes]:
    begin = 0
    machine: Any
    if entry.method == _DEFLATED:
        machine = zlib.decompressobj(-15)
        return inflated(machine, part)
    if entry.method == _BZIP2:
        machine = bz2.BZ2Decompressor()
    elif entry.method == _LZMA:
        head = part.read(0, 4)
        size = int.from_bytes(head[2:4], "little")
        properties = part.read(4, size)
        if size != 5 or len(properties) != 5 or properties[0] >= 9 * 5 * 5:
            raise FormatError(f"{entry.name} has LZMA properties of {size} bytes, expected 5")
        rest, lc = divmod(properties[0], 9)
        pb, lp = divmod(rest, 5)
        window = int.from_bytes(properties[1:5], "little")
        if window > _WINDOW_BYTES_MAX or lc + lp > 4:
            raise LimitError(f"{entry.name} needs a window of {window} bytes")
        filters = [{"id": lzma.FILTER_LZMA1, "lc": lc, "lp": lp, "pb": pb, "dict_size": window}]
        machine, begin = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters), 9
    else:
        raise FormatError(f"{entry.name} is compressed by method {entry.method}, which cannot be looked into")
    return expanded(machine, part, begin)


def inflated(machine: Any, part: Source) -> Iterator[bytes]:
    """What zlib unpacks, in pieces; nothing may follow. Raises FormatError."""
    try:
        for piece in pieces(part):
            data = piece
            while data:
                yield machine.decompress(data, PIECE_BYTES)
                data = machine.unconsumed_tail
                if machine.unused_data:
                    raise FormatError("bytes follow what is compressed")
        while not machine.eof and (rest := machine.decompress(machine.unconsumed_tail, PIECE_BYTES)):
            yield rest
    except zlib.error:
        raise FormatError("what is compressed is broken") from None
    if not machine.eof:
        raise FormatError("what is compressed ends too early")


def expanded(machine: Any, part: Source, begin: int = 0) -> Iterator[bytes]:
    """What bz2 or lzma unpack, in pieces; nothing may follow. Raises FormatError."""
    try:
        for piece in pieces(part, begin):
            if machine.eof:
                raise FormatError("bytes follow what is compressed")
            yield machine.decompress(piece, PIECE_BYTES)
            while not machine.eof and not machine.needs_input:
                yield machine.decompress(b"", PIECE_BYTES)
            if machine.unused_data:
                raise FormatError("bytes follow what is compressed")
    except (OSError, EOFError, lzma.LZMAError, ValueError):
        raise FormatError("what is compressed is broken") from None
    if not machine.eof:
        raise FormatError("what is compressed ends too early")
