"""The ledger's journal: entries that are acknowledged and not yet in a checkpoint. One write and one sync per batch.

    journal = head || tag of the head || batch*
    head    = "palladion-journal-1" newline || u64 first index
    batch   = u32 length || u32 CRC-32 of the length || tag of the content || content
    content = entries, each with a two-byte big-endian length before it

A tag is HMAC-SHA-256 under the journal's key, cut to 16 bytes, over the tag before it and the content (for the head:
over the head alone). So each tag vouches for everything from the first index on, and without the key nobody adds,
changes, reorders or leaves out a batch, or moves one here from another journal. What is left to who can write to the
file is to cut its end off, as a crash can: a torn batch at the end was never acknowledged, so reading drops it, and
only a checkpoint or a receipt kept elsewhere shows that it was more. Numbers are little-endian.
"""

import os
import struct
import zlib
from dataclasses import dataclass
from hmac import compare_digest, digest
from pathlib import Path

from palladion import files
from palladion.errors import FormatError, TamperError
from palladion.ledger.tiles import encode_bundle, split_entries

MAGIC = b"palladion-journal-1\n"
KEY_BYTES = 32
TAG_BYTES = 16  # a forger has one try for each time that the ledger is opened
BATCH_BYTES_MAX = 64 * 1024 * 1024  # a thousand of the largest records
JOURNAL_BYTES_MAX = 1024**3  # the writer begins anew long before
GROWTH_BYTES = 512 * 1024  # in the moment between asking for its size and reading it
_FIRST = struct.Struct("<Q")
_BATCH = struct.Struct(f"<II{TAG_BYTES}s")
_HEAD_BYTES = len(MAGIC) + _FIRST.size
_START = _HEAD_BYTES + TAG_BYTES


@dataclass(frozen=True)
class JournalContent:
    """What a journal holds: its first entry's index and the entries; of its sound part, the bytes and the last tag."""

    first: int
    entries: list[bytes]
    sound_bytes: int
    tag: bytes


def read_journal(path: Path, key: bytes) -> JournalContent:
    """Read a journal and check it with `key`. Raises TamperError on what neither its writer nor a crash leaves."""
    data = _read(path)
    if data[: len(MAGIC)] != MAGIC or len(data) < _START:
        raise FormatError(f"{path} is not a ledger journal")
    tag = _tag(key, data[:_HEAD_BYTES])
    if not compare_digest(tag, data[_HEAD_BYTES:_START]):
        raise TamperError(f"{path} was not begun by this installation: its first index does not authenticate")
    (first,) = _FIRST.unpack_from(data, len(MAGIC))
    entries: list[bytes] = []
    position = _START
    while position < len(data):
        batch = _batch_at(data, position, key, tag)
        if batch is None:
            break
        content, tag = batch
        entries += _split(content, position)
        position += _BATCH.size + len(content)
    return JournalContent(first, entries, position, tag)


def _read(path: Path) -> bytes:
    # reading at most JOURNAL_BYTES_MAX would allocate as much, however short the file is
    with files.storage_errors(path):
        size = path.stat().st_size
    # it may grow between the two, where another process writes it
    return files.read_limited(path, size_max=min(size + GROWTH_BYTES, JOURNAL_BYTES_MAX), what="the ledger's journal")


def _tag(key: bytes, content: bytes, before: bytes = b"") -> bytes:
    if len(key) != KEY_BYTES:
        raise ValueError(f"a journal's key has {KEY_BYTES} bytes, got {len(key)}")
    return digest(key, before + content, "sha256")[:TAG_BYTES]


def _batch_at(data: bytes, position: int, key: bytes, before: bytes) -> tuple[bytes, bytes] | None:
    """Content and tag of the batch at `position`, or None if it is a torn last one."""
    start = position + _BATCH.size
    if start > len(data):
        return None
    length, length_check, stated = _BATCH.unpack_from(data, position)
    if zlib.crc32(struct.pack("<I", length)) != length_check:
        # blocks that were allocated and never written read as zeros
        if not data[position:].strip(b"\0"):
            return None
        raise TamperError(f"the ledger's journal is damaged at byte {position}: a length does not fit its checksum")
    content = data[start : start + length]
    if len(content) < length:
        return None
    tag = _tag(key, content, before)
    if not compare_digest(tag, stated):
        if start + length == len(data):
            return None
        raise TamperError(f"the ledger's journal is damaged at byte {position}: a batch does not authenticate")
    return content, tag


def _split(content: bytes, position: int) -> list[bytes]:
    entries, end = split_entries(content, len(content))
    if end != len(content):
        raise TamperError(f"the ledger's journal is damaged at byte {position}: an entry goes beyond its batch")
    return entries


class JournalWriter:
    """An open journal. After a failed write or sync it must not be used again: what is on disk is not known."""

    def __init__(self, path: Path, key: bytes, content: JournalContent) -> None:
        with files.storage_errors(path):
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            # cut a torn batch off, so that the next one starts where reading expects it
            os.ftruncate(self._descriptor, content.sound_bytes)
            os.lseek(self._descriptor, 0, os.SEEK_END)
        self._path = path
        self._key = key
        self._tag = content.tag
        self.byte_count = content.sound_bytes

    def append(self, entries: list[bytes]) -> None:
        """Write `entries` as one batch; they are on the disk when this returns. Raises StorageError."""
        content = encode_bundle(entries)
        if len(content) > BATCH_BYTES_MAX:
            raise ValueError(f"a batch has {len(content)} bytes, at most {BATCH_BYTES_MAX} are allowed")
        tag = _tag(self._key, content, self._tag)
        batch = _BATCH.pack(len(content), zlib.crc32(struct.pack("<I", len(content))), tag) + content
        with files.storage_errors(self._path):
            written = 0
            while written < len(batch):
                written += os.write(self._descriptor, batch[written:])
            os.fdatasync(self._descriptor)
        self._tag = tag
        self.byte_count += len(batch)

    def close(self) -> None:
        """Close the file; what was appended stays. Closing twice is harmless."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def start_journal(path: Path, key: bytes, first: int) -> JournalWriter:
    """Replace the journal by an empty one whose next entry is number `first`, in one step."""
    head = MAGIC + _FIRST.pack(first)
    tag = _tag(key, head)
    files.write_atomically(path, head + tag)
    return JournalWriter(path, key, JournalContent(first, [], _START, tag))
