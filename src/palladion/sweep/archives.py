"""Files in archives, archives in archives: zip and tar, plain or compressed, to a depth and a size. Nothing is written.

What lies uncompressed is read where it lies. What is compressed is taken into memory up to a size, and of what is
larger only the beginning is there.
"""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

from palladion.sweep.finding import Finding, found
from palladion.sweep.item import SNIFF_BYTES, Item, Ranged, held

DEPTH_MAX = 5  # an image's layer in an archive in a wheel
MEMBERS_MAX = 200_000  # of one archive; images of whole systems have 100,000 files
UNPACKED_BYTES_MAX = 64 * 2**30  # of one file, with all archives in it: beyond, it is a bomb
HELD_BYTES_MAX = 256 * 2**20  # of one compressed member: it has to be in memory to be compared with what is ours
EXTENSION_BYTES_MAX = 1024 * 1024  # of what a tar archive says of one member beside its header
RATIO_MAX = 2000  # what deflate makes at most is 1032, and xz far more out of zeros
_STREAMS = frozenset({"gzip", "bzip2", "xz", "lzma", "zstd", "zlib"})

Report = Callable[[Finding], None]
_EXTENSIONS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)


class TarMember(tarfile.TarInfo):
    """A member of a tar archive whose long names and other extensions are of a size that such have."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _EXTENSIONS and self.size > EXTENSION_BYTES_MAX:
            raise ValueError(f"a name of it has {self.size} bytes")
        return cast("tarfile.TarInfo", super()._proc_member(archive))  # type: ignore[misc]  # not in the stubs


@dataclass
class Allowance:
    """What a file, and all archives in it together, may still unpack."""

    left: int

    def take(self, size: int) -> None:
        """Take so many bytes. Raises ValueError if there are fewer left."""
        self.left -= size
        if self.left < 0:
            raise ValueError("it unpacks to more than is looked into")


def allowance() -> Allowance:
    """What one file that lies in no archive may unpack."""
    return Allowance(UNPACKED_BYTES_MAX)


def members(
    item: Item,
    format: str,  # noqa: A002 (an archive's)
    report: Report,
    allowed: Allowance | None = None,
) -> Iterator[Item]:
    """The files in an archive; what cannot be read of it is reported, and ends it.

    `allowed` is what is left to the file that it lies in: archives in archives multiply.
    """
    allowed = allowed or allowance()
    try:
        if format == "zip":
            yield from _zip(item, report, allowed)
        elif format == "tar":
            yield from tar(item)
        elif format == "deb":
            yield from _deb(item)
        elif format in _STREAMS:
            yield from _compressed(item, format, allowed)
        else:
            report(found("not-read", item.place, f"a {format} archive, which cannot be read here"))
    except BROKEN as error:
        report(found("not-read", item.place, f"a {format} archive that is broken or too large: {said(error)}"))


def said(error: BaseException) -> str:
    """What a library says that could not read an archive, cut to a line."""
    return str(error)[:200].lower() or type(error).__name__


def _zip(item: Item, report: Report, allowed: Allowance) -> Iterator[Item]:
    if not item.whole:
        raise ValueError("it is compressed within another archive, and too large to be taken apart there")
    with zipfile.ZipFile(Ranged(item)) as archive:
        listed = archive.infolist()
        if len(listed) > MEMBERS_MAX:
            raise ValueError(f"it has {len(listed)} members")
        for member in listed:
            if member.is_dir():
                continue
            allowed.take(min(member.file_size, HELD_BYTES_MAX))
            try:
                inside = _zipped(item, archive, member)
            except BROKEN as error:
                # one that was locked or broken does not hide the others
                report(found("not-read", f"{item.place}!{member.filename}", f"in a zip archive: {said(error)}"))
                continue
            yield inside


def _zipped(item: Item, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Item:
    if member.flag_bits & 1:
        raise RuntimeError("it is encrypted")
    if member.file_size > RATIO_MAX * max(member.compress_size, 1):
        raise ValueError(f"it says that it unpacks to {member.file_size} bytes")
    with archive.open(member) as stream:
        return _inside(item, member.filename, member.file_size, stream)


def tar(item: Item, *, prefix: str = "") -> Iterator[Item]:
    """The files in a tar archive that lies uncompressed, each read where it lies."""
    return (file for _, file in tar_at(item, prefix=prefix))


def tar_at(item: Item, *, prefix: str = "") -> Iterator[tuple[int, Item]]:
    """The same, each with where its bytes begin."""
    if not item.whole:
        raise ValueError("it is compressed within another archive, and too large to be taken apart there")
    with tarfile.open(fileobj=cast("IO[bytes]", Ranged(item)), mode="r:", tarinfo=TarMember) as archive:
        for count, member in enumerate(archive):
            if count >= MEMBERS_MAX:
                raise ValueError(f"it has more than {MEMBERS_MAX} members")
            if member.sparse is not None and (content := archive.extractfile(member)) is not None:
                yield member.offset_data, _inside(item, member.name, member.size, content, prefix=prefix)
            elif member.isreg():
                offset, size = member.offset_data, min(member.size, max(item.size - member.offset_data, 0))
                yield offset, _named(item, member.name, size, part(item, offset, size), prefix=prefix)
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep all of them


def part(item: Item, begin: int, size: int) -> Callable[[int, int], bytes]:
    """How a part of an item is read."""
    return lambda offset, count: item.read(begin + offset, max(0, min(count, size - offset)))


def _deb(item: Item) -> Iterator[Item]:
    """The parts of a Debian package, an `ar` archive: each has a header of 60 bytes, and begins at an even place."""
    at = 8
    while at + 60 <= item.size:
        header = item.read(at, 60)
        if header[58:] != b"`\n":
            raise ValueError("a header of it is broken")
        size = int(header[48:58])
        if not 0 <= size <= item.size - at - 60:
            raise ValueError("it ends early")
        name = header[:16].decode("utf-8", "replace").rstrip(" /")
        yield _named(item, name, size, part(item, at + 60, size))
        at += 60 + size + size % 2


def is_tar(start: bytes) -> bool:
    """Whether a file begins with the header of a tar archive, also of one from before it had a magic number."""
    if start[257:262] == b"ustar":
        return True
    if len(start) < 512 or not start[0] or start[345:512].strip(b"\0"):
        return False
    told = start[148:156].strip(b" \0")
    if not told or told.strip(b"01234567"):
        return False
    return int(told, 8) == sum(start[:148]) + 8 * 32 + sum(start[156:512])  # its own field counts as spaces


def _compressed(item: Item, format: str, allowed: Allowance) -> Iterator[Item]:  # noqa: A002
    """A stream that is an archive of many files, or one file."""
    if not item.whole:
        raise ValueError("it is compressed within another archive, and too large to be taken apart there")
    with opened(item, format) as stream:
        start = stream.read(512)
    if is_tar(start):
        with opened(item, format) as stream:
            yield from streamed(item, stream, allowed=allowed)
        return
    with opened(item, format) as stream:
        name = item.name.rpartition(".")[0] or item.name
        data = stream.read(HELD_BYTES_MAX + 1)
        allowed.take(len(data))
        whole = len(data) <= HELD_BYTES_MAX
        yield _named(item, name, len(data), held(data), whole=whole)


def streamed(item: Item, stream: Any, *, prefix: str = "", allowed: Allowance | None = None) -> Iterator[Item]:
    """The files in a tar archive that comes as a stream."""
    allowed = allowed or allowance()
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=TarMember) as archive:
        for count, member in enumerate(archive):
            if count >= MEMBERS_MAX:
                raise ValueError(f"it has more than {MEMBERS_MAX} members")
            allowed.take(member.size)
            archive.members.clear()  # type: ignore[attr-defined]
            if member.isreg() and (content := archive.extractfile(member)) is not None:
                yield _inside(item, member.name, member.size, content, prefix=prefix)


def opened(item: Item, format: str) -> Any:  # noqa: A002
    """A compressed file as a stream of what is in it. Raises ValueError without the library for zstd."""
    raw = cast("Any", Ranged(item))
    if format == "gzip":
        return gzip.GzipFile(fileobj=raw, mode="rb")
    if format == "bzip2":
        return bz2.BZ2File(raw)
    if format in {"xz", "lzma"}:
        return lzma.LZMAFile(raw)
    if format == "zlib":
        return _Inflated(item)
    try:
        import zstandard
    except ImportError:
        raise ValueError("it is compressed with zstd: pip install 'palladion[zstd]'") from None
    return zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(raw)


class _Inflated(io.RawIOBase):
    """What zlib packed without a header of gzip, as a stream."""

    def __init__(self, item: Item) -> None:
        self._source, self._inflater = Ranged(item), zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts, left = [], HELD_BYTES_MAX + 1 if size < 0 else size
        while left and not self._inflater.eof:
            packed = self._inflater.unconsumed_tail or self._source.read(SNIFF_BYTES)
            data = self._inflater.decompress(packed, left)
            if not packed and not data:
                raise EOFError("it ends early")
            parts.append(data)
            left -= len(data)
        return b"".join(parts)


def _inside(item: Item, name: str, size: int, stream: IO[bytes], *, prefix: str = "") -> Item:
    """A member that comes as a stream: in memory where it is not too large, else its beginning."""
    whole = size <= HELD_BYTES_MAX
    data = stream.read(size if whole else SNIFF_BYTES)
    return _named(item, name, size, held(data), whole=whole and len(data) == size, prefix=prefix)


def _named(
    item: Item, name: str, size: int, read: Callable[[int, int], bytes], *, whole: bool = True, prefix: str = ""
) -> Item:
    place = f"{item.place}!{prefix}{name}"
    parent, _, last = place.rpartition("/")
    return Item(
        place,
        last,
        size,
        read,
        parent=parent,
        context=item.context,
        cached=item.cached,
        open_to=item.open_to,
        whole=whole,
    )
