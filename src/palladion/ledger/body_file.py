"""The file of retained bodies of one client and version: bytes in, entries out, and back. `bodies` decides which.

    bodies  = head || entry*
    head    = "palladion-bodies-2" newline || u32 capacity || u32 level || u32 late (0 or 1) || salt (32 bytes)
    entry   = u32 length || u32 CRC-32 of the length || nonce (12 bytes) || ciphertext of `length` bytes
    content = u64 number of the query's cell || MessagePack of the body, or nothing where that was erased

Its key is HKDF-SHA-256 (RFC 5869) of the caller's key with the salt, bound to client and version. AES-256-GCM with
random nonces binds each entry to the head and to its number in the file: nothing can be moved, exchanged or left out of
the middle. A torn entry at the end is dropped; what else lies in the ledger never needs these files. Entries are in the
order of asking. Numbers are little-endian.

Version 1 drew queries, not cells (algorithm R). Its files are read, and written anew when their client asks again. If
one of them may have dropped a query, it is `late`: what is kept of a cell may not be its first, and that stays so.
"""

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from palladion import files
from palladion.errors import FormatError, TamperError
from palladion.ledger.body import cell_of, decode_body
from palladion.ledger.sampling import LEVEL_MAX, Sample, priority_of, threshold

MAGIC, OLD_MAGIC = b"palladion-bodies-2\n", b"palladion-bodies-1\n"
KEY_BYTES = 32
ENTRY_BYTES_MAX = 1024 * 1024  # a picture of 500x500 in single precision
FILE_BYTES_MAX = 64 * 1024 * 1024  # of one client and version; where queries are large, fewer are kept
CAPACITY_MAX = 1_000_000
HEAD = struct.Struct(f"<{len(MAGIC)}sIII32s")
OLD_HEAD = struct.Struct(f"<{len(MAGIC)}sIQ32s")  # queries asked when it was begun; as long as the new one
PRIORITY = struct.Struct("<Q")
OLD_PLACE = struct.Struct("<IQ")  # a slot, of which the last entry counts, and which of the client's queries
_FRAME = struct.Struct("<II12s")
_SALT_BYTES = 32
_TAG_BYTES = 16


@dataclass(frozen=True)
class Content:
    """What a file holds: its head, number of the cell and body of each sound entry, and how many bytes those take."""

    head: bytes
    capacity: int
    level: int
    late: bool
    entries: Sequence[tuple[int, bytes]]
    sound_bytes: int

    def sample(self) -> Sample:
        """The cells of it."""
        return Sample(self.capacity, self.level, (priority for priority, _ in self.entries))

    def at(self, level: int) -> list[tuple[int, bytes]]:
        """What is kept of it at a level, in the order of asking."""
        bound = threshold(level)
        return [entry for entry in self.entries if entry[0] < bound]


def entry_size(data: bytes) -> int:
    """Bytes of an entry with the body `data`."""
    return _FRAME.size + PRIORITY.size + len(data) + _TAG_BYTES


def make_head(capacity: int, level: int, *, late: bool) -> bytes:
    """The head of a new file, with a salt, and so a key, of its own."""
    return HEAD.pack(MAGIC, capacity, level, late, os.urandom(_SALT_BYTES))


def write_content(
    path: Path, key: bytes, name: tuple[str, str], head: bytes, entries: Sequence[tuple[int, bytes]]
) -> None:
    """Replace a file in one step. Raises StorageError."""
    cipher = cipher_of(key, head, name)
    sealed = [
        seal_entry(cipher, head, index, PRIORITY.pack(priority) + data)
        for index, (priority, data) in enumerate(entries)
    ]
    files.write_atomically(path, head + b"".join(sealed))


def read_content(path: Path, key: bytes, name: tuple[str, str]) -> Content:
    """All that a file holds.

    Raises TamperError on what neither its writer nor a crash leaves, FormatError on what is no such file, StorageError.
    """
    data = files.read_limited(path, size_max=FILE_BYTES_MAX, what="the retained bodies")
    head, capacity, level, late = _read_head(path, data)
    contents: list[bytes] = []
    position = HEAD.size
    for content, end in _contents(path, data, key, name):
        contents.append(content)
        position = end
    if head.startswith(OLD_MAGIC):
        return Content(head, capacity, 0, *_old(path, drawing_of(key, name), head, contents), position)
    entries = [(PRIORITY.unpack_from(content)[0], content[PRIORITY.size :]) for content in contents]
    return Content(head, capacity, level, late, entries, position)


def read_data(path: Path, key: bytes, name: tuple[str, str]) -> Iterator[bytes]:
    """The bytes of each body, one after another, empty for one that was erased; raises as `read_content`.

    Of a file of version 1, also of those that were drawn no more.
    """
    data = files.read_limited(path, size_max=FILE_BYTES_MAX, what="the retained bodies")
    place_bytes = _place_bytes(_read_head(path, data)[0])
    for content, _ in _contents(path, data, key, name):
        yield content[place_bytes:]


def _read_head(path: Path, data: bytes) -> tuple[bytes, int, int, bool]:
    """The head, the capacity, the level and whether it is late."""
    head = data[: HEAD.size]
    if len(head) < HEAD.size or not head.startswith((MAGIC, OLD_MAGIC)):
        raise FormatError(f"{path} holds no retained bodies")
    _, capacity, level, late, _ = HEAD.unpack(head)
    old = head.startswith(OLD_MAGIC)
    if not 1 <= capacity <= CAPACITY_MAX or (not old and (level > LEVEL_MAX or late > 1)):
        raise FormatError(f"{path} holds no retained bodies")
    return head, capacity, level, bool(late)


def _contents(path: Path, data: bytes, key: bytes, name: tuple[str, str]) -> Iterator[tuple[bytes, int]]:
    """The content of each sound entry, and where it ends."""
    head, position, index = data[: HEAD.size], HEAD.size, 0
    cipher, place_bytes = cipher_of(key, head, name), _place_bytes(head)
    while position < len(data):
        content = _entry_at(data, position, cipher, _associated(head, index), path)
        if content is None:
            return
        if len(content) < place_bytes:
            raise FormatError(f"{path} has an entry of {len(content)} bytes, too few for one")
        position += _FRAME.size + len(content) + _TAG_BYTES
        index += 1
        yield content, position


def _place_bytes(head: bytes) -> int:
    return OLD_PLACE.size if head.startswith(OLD_MAGIC) else PRIORITY.size


def _old(
    path: Path, drawing: bytes, head: bytes, contents: Sequence[bytes]
) -> tuple[bool, Sequence[tuple[int, bytes]]]:
    """Whether a file of version 1 may have dropped a query, and the first that it still has of each cell."""
    _, capacity, asked, _ = OLD_HEAD.unpack(head)
    places = [OLD_PLACE.unpack_from(content) for content in contents]
    last = {slot: index for index, (slot, _) in enumerate(places)}
    first: dict[int, bytes] = {}
    for index, ((slot, number), content) in enumerate(zip(places, contents, strict=True)):
        asked = max(asked, number + 1)
        if last[slot] == index:
            data = content[OLD_PLACE.size :]
            cell = cell_of(decode_body(data, what=str(path)))
            if cell is not None:
                first.setdefault(priority_of(drawing, cell), data)
    # as many as it has slots may have been more: which query was refused left no trace
    return asked >= capacity, list(first.items())


def _entry_at(data: bytes, position: int, cipher: AESGCM, associated: bytes, path: Path) -> bytes | None:
    """The content of the entry at `position`, or None if it is a torn last one."""
    start = position + _FRAME.size
    if start > len(data):
        return None
    length, check, nonce = _FRAME.unpack_from(data, position)
    if zlib.crc32(struct.pack("<I", length)) != check:
        # blocks that were allocated and never written read as zeros
        if not data[position:].strip(b"\0"):
            return None
        raise TamperError(f"{path} is damaged at byte {position}: a length does not fit its checksum")
    sealed = data[start : start + length]
    if len(sealed) < length:
        return None
    try:
        content = cipher.decrypt(nonce, sealed, associated)
    except (InvalidTag, ValueError):
        if start + length == len(data):
            return None
        raise TamperError(f"{path} is damaged at byte {position}: an entry does not authenticate") from None
    return content


def seal_entry(cipher: AESGCM, head: bytes, index: int, content: bytes) -> bytes:
    """The bytes of the entry of this number. Raises ValueError beyond `ENTRY_BYTES_MAX`."""
    if len(content) > ENTRY_BYTES_MAX:
        raise ValueError(f"a query of {len(content)} bytes cannot be kept, at most {ENTRY_BYTES_MAX} are allowed")
    nonce = os.urandom(12)
    sealed = cipher.encrypt(nonce, content, _associated(head, index))
    return _FRAME.pack(len(sealed), zlib.crc32(struct.pack("<I", len(sealed))), nonce) + sealed


def _associated(head: bytes, index: int) -> bytes:
    return head + index.to_bytes(8, "little")


def cipher_of(key: bytes, head: bytes, name: tuple[str, str]) -> AESGCM:
    """What encrypts the file with this head, of a client and a version."""
    return AESGCM(_derive(key, head[-_SALT_BYTES:], "cipher", *name))


def drawing_of(key: bytes, name: tuple[str, str]) -> bytes:
    """What cells are drawn with: not the key of a file, because it outlives that."""
    return _derive(key, b"", "drawing", *name)


def _derive(key: bytes, salt: bytes, *context: str) -> bytes:
    if len(key) != KEY_BYTES:
        raise ValueError(f"the key of bodies has {KEY_BYTES} bytes, got {len(key)}")
    label = b"palladion/v1/bodies" + b"".join(len(part).to_bytes(4, "big") + part.encode() for part in context)
    return HKDF(SHA256(), KEY_BYTES, salt=salt or None, info=label).derive(key)
