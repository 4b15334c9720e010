"""The ledger's journal: entries that are acknowledged and not yet in a checkpoint. One write and one sync per batch.

    journal = "palladion-journal-1" newline || u64 first index || batch*
    batch   = u32 length || u32 CRC-32 of the length || 16 bytes of SHA-256 of the content || content
    content = entries, each with a two-byte big-endian length before it

A crash can leave a torn batch at the end: it was never acknowledged, so reading drops it. A batch that is damaged
before the end cannot come from a crash. Numbers are little-endian; the checksums find accidents, the Merkle tree finds
forgers.
"""

import os
import struct
import zlib
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from palladion import files
from palladion.errors import FormatError, TamperError
from palladion.ledger.tiles import encode_bundle

MAGIC = b"palladion-journal-1\n"
_START = len(MAGIC) + 8
_HEADER = struct.Struct("<II16s")
BATCH_BYTES_MAX = 64 * 1024 * 1024  # a thousand of the largest records
JOURNAL_BYTES_MAX = 1024**3  # a checkpoint a second empties it long before


@dataclass(frozen=True)
class JournalContent:
    """What a journal holds: its first entry's index, the entries, and the length of the sound part in bytes."""

    first: int
    entries: list[bytes]
    sound_bytes: int


def read_journal(path: Path) -> JournalContent:
    """Read and check a journal. Raises TamperError on damage that a crash cannot explain."""
    data = files.read_limited(path, size_max=JOURNAL_BYTES_MAX, what="the ledger's journal")
    if data[: len(MAGIC)] != MAGIC or len(data) < _START:
        raise FormatError(f"{path} is not a ledger journal")
    (first,) = struct.unpack_from("<Q", data, len(MAGIC))
    entries: list[bytes] = []
    position = _START
    while position < len(data):
        content = _batch_at(data, position)
        if content is None:
            break
        entries += _split(content, position)
        position += _HEADER.size + len(content)
    return JournalContent(first, entries, position)


def _batch_at(data: bytes, position: int) -> bytes | None:
    """The content of the batch at `position`, or None if it is a torn last one."""
    if position + _HEADER.size > len(data):
        return None
    length, length_check, checksum = _HEADER.unpack_from(data, position)
    if zlib.crc32(struct.pack("<I", length)) != length_check:
        # blocks that were allocated and never written read as zeros
        if not any(data[position:]):
            return None
        raise TamperError(f"the ledger's journal is damaged at byte {position}: a length does not fit its checksum")
    content = data[position + _HEADER.size : position + _HEADER.size + length]
    if len(content) < length:
        return None
    if sha256(content).digest()[:16] != checksum:
        if position + _HEADER.size + length == len(data):
            return None
        raise TamperError(f"the ledger's journal is damaged at byte {position}: a batch does not fit its checksum")
    return content


def _split(content: bytes, position: int) -> list[bytes]:
    entries = []
    start = 0
    while start < len(content):
        length = int.from_bytes(content[start : start + 2], "big")
        start += 2 + length
        if start > len(content):
            raise TamperError(f"the ledger's journal is damaged at byte {position}: an entry goes beyond its batch")
        entries.append(content[start - length : start])
    return entries


class JournalWriter:
    """An open journal. After a failed write or sync it must not be used again: what is on disk is not known."""

    def __init__(self, path: Path, content: JournalContent) -> None:
        with files.storage_errors(path):
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            # cut a torn batch off, so that the next one starts where reading expects it
            os.ftruncate(self._descriptor, content.sound_bytes)
            os.lseek(self._descriptor, 0, os.SEEK_END)
        self._path = path

    def append(self, entries: list[bytes]) -> None:
        """Write `entries` as one batch; they are on the disk when this returns. Raises StorageError."""
        content = encode_bundle(entries)
        if len(content) > BATCH_BYTES_MAX:
            raise ValueError(f"a batch has {len(content)} bytes, at most {BATCH_BYTES_MAX} are allowed")
        check = zlib.crc32(struct.pack("<I", len(content)))
        batch = _HEADER.pack(len(content), check, sha256(content).digest()[:16]) + content
        with files.storage_errors(self._path):
            written = 0
            while written < len(batch):
                written += os.write(self._descriptor, batch[written:])
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file; what was appended stays. Closing twice is harmless."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def start_journal(path: Path, first: int) -> JournalWriter:
    """Replace the journal by an empty one whose next entry is number `first`, in one step."""
    files.write_atomically(path, MAGIC + struct.pack("<Q", first))
    return JournalWriter(path, JournalContent(first, [], _START))
