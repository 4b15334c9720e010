"""Manifest of a payload: which files it holds, and where each lies (docs/format.md §5). Bytes in, bytes out.

Offsets follow from the sizes and are not written down: two statements of one fact could disagree.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Self

import msgspec
from cryptography.utils import Buffer

from palladion import canonical
from palladion.errors import FormatError
from palladion.seal.header import HIDDEN_CHARACTERS
from palladion.seal.layout import PARAMETERS, SEGMENTS_MAX

ALIGNMENT_BYTES = 4096  # a page, so that loaders can map a file of the payload where it lies
MANIFEST_BYTES_MAX = 8 * 1024 * 1024  # FILES_MAX names of NAME_BYTES_MAX, and their sizes
FILES_MAX = 4096  # a sharded model has hundreds
NAME_BYTES_MAX = 1024  # and 255 for each part of a path, as file systems have it
_PART_BYTES_MAX = 255
_PARTS_MAX = 32  # folders in folders; a hub's repository has two or three


@dataclass(frozen=True)
class Entry:
    """One file of a payload: its name, its size, and where it begins in the decrypted payload."""

    name: str
    size: int
    offset: int

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.offset + self.size


@dataclass(frozen=True)
class Manifest:
    """The files of a payload in their order; `head` is what stands in front of them."""

    head: bytes
    entries: tuple[Entry, ...]

    @property
    def payload_bytes(self) -> int:
        """Size of the whole payload."""
        return self.entries[-1].end

    @cached_property
    def gaps(self) -> tuple[tuple[int, int], ...]:
        """Where the padding lies: nothing but zeros may stand there."""
        ends = [len(self.head), *(entry.end for entry in self.entries)]
        return tuple((end, entry.offset) for end, entry in zip(ends, self.entries, strict=False) if end != entry.offset)

    @classmethod
    def of_files(cls, files: Sequence[tuple[str, int]]) -> Self:
        """The manifest of files given as name and size. Raises ValueError on names or sizes that readers refuse."""
        if not 0 < len(files) <= FILES_MAX:
            raise ValueError(f"{len(files)} files, expected 1 to {FILES_MAX}")
        _check_names([name for name, _ in files])
        document = canonical.encode({"files": [{"name": name, "size": size} for name, size in files]})
        head = len(document).to_bytes(4, "little") + document
        entries: list[Entry] = []
        end = len(head)
        for name, size in files:
            offset = -(-end // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
            entries.append(Entry(name, size, offset))
            end = offset + size
        return cls(head, tuple(entries))


def decode_manifest(payload: memoryview, *, what: str) -> Manifest:
    """The manifest at the beginning of a whole, authenticated payload.

    Raises FormatError, naming `what`, unless its files and zeros make up exactly the payload.
    """
    length = head_bytes(payload[:4], len(payload), what=what)
    manifest = decode_head(bytes(payload[:length]), len(payload), what=what)
    check_padding(manifest, 0, payload, what=what)
    return manifest


def head_bytes(start: Buffer, payload_bytes: int, *, what: str) -> int:
    """How many bytes the manifest and its length take, by the first four of a payload. Raises FormatError."""
    length = int.from_bytes(memoryview(start)[:4], "little")
    if not 0 < length <= min(MANIFEST_BYTES_MAX, payload_bytes - 4):
        raise FormatError(f"{what} claims a manifest of {length} bytes in a payload of {payload_bytes}")
    return 4 + length


def decode_head(head: bytes, payload_bytes: int, *, what: str) -> Manifest:
    """The manifest of an authenticated payload, by its first bytes alone; padding is for `check_padding`.

    Raises FormatError, naming `what`, unless its files and zeros would make up exactly the payload.
    """
    document = canonical.decode(head[4:], size_max=MANIFEST_BYTES_MAX, what=f"the manifest of {what}")
    try:
        files = msgspec.convert(document, _ManifestDocument, strict=True).files
        manifest = Manifest.of_files([(file.name, file.size) for file in files])
    except (msgspec.ValidationError, ValueError) as error:
        raise FormatError(f"{what} has a manifest that this version does not know: {error}") from None
    if manifest.payload_bytes != payload_bytes:
        raise FormatError(
            f"{what} has a payload of {payload_bytes} bytes, but its files end at {manifest.payload_bytes}"
        )
    return manifest


def check_padding(manifest: Manifest, position: int, piece: memoryview, *, what: str) -> None:
    """Raise FormatError unless all padding that lies in `piece`, which begins at `position` of the payload, is zero."""
    gaps = manifest.gaps
    end = position + len(piece)
    for begin, stop in gaps[bisect_right(gaps, position, key=lambda gap: gap[1]) :]:
        if begin >= end:
            return
        if any(piece[max(begin, position) - position : min(stop, end) - position]):
            raise FormatError(f"{what} hides something between its files, where only zeros may stand")


def check_name(name: str) -> None:
    """Raise ValueError unless `name` is a plain relative path that can be written below a folder."""
    if not 0 < len(name.encode()) <= NAME_BYTES_MAX or "\\" in name or HIDDEN_CHARACTERS.search(name):
        raise ValueError(f"file name {name[:80]!r} is empty, too long, or holds characters that are not allowed")
    parts = name.split("/")
    if len(parts) > _PARTS_MAX:
        raise ValueError(f"file name {name[:80]!r} has more than {_PARTS_MAX} parts")
    for part in parts:
        if part in ("", ".", "..") or len(part.encode()) > _PART_BYTES_MAX:
            raise ValueError(f"file name {name[:80]!r} is not a plain relative path")


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        check_name(name)
    folders = {name[:place] for name in names for place, character in enumerate(name) if character == "/"}
    if len(set(names)) != len(names) or folders.intersection(names):
        raise ValueError("two files of one name, or a file that is also a folder")


class _File(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    size: Annotated[int, msgspec.Meta(ge=0, le=SEGMENTS_MAX * PARAMETERS.capacity)]


class _ManifestDocument(msgspec.Struct, forbid_unknown_fields=True):
    files: list[_File]
