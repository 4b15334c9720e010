"""Retained bodies: a sample of the queries of each client and version with unmarked answers, encrypted, and bounded.

    bodies  = head || entry*
    head    = "palladion-bodies-2" newline || u32 capacity || u32 level || u32 late (0 or 1) || salt (32 bytes)
    entry   = u32 length || u32 CRC-32 of the length || nonce (12 bytes) || ciphertext of `length` bytes
    content = u64 number of the query's cell || MessagePack of the body

One file for each client and version, `CLIENT/MODEL@NUMBER.bodies`, so that deleting a client's folder forgets him. Its
key is HKDF-SHA-256 (RFC 5869) of the caller's key with the salt, bound to client and version. AES-256-GCM with random
nonces binds each entry to the head and to its number in the file: nothing can be moved, exchanged or left out of the
middle. A torn entry at the end is dropped; what else lies in the ledger never needs these files. Entries are in the
order of asking. Each is the first query of its cell, and which cells are kept is in `sampling`: at the level of the
head, or the lowest above at which the file has no more cells than its capacity. So the level needs no entry of its own:
what raised it is written before anything is refused by it. A file is written anew without the cells that were given up,
and where the others take more than half of what a file may, at a higher level. No file grows beyond `FILE_BYTES_MAX`.
Numbers are little-endian. One process writes, any may read. Of an open file 8 bytes a cell are held, 5 MB at most.

Version 1 drew queries, not cells (algorithm R). Its files are read, and written anew when their client asks again. If
one of them may have dropped a query, it is `late`: what is kept of a cell may not be its first, and that stays so.
"""

import os
import re
import shutil
import struct
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from palladion import files
from palladion.errors import FormatError, TamperError
from palladion.ledger.body import Body, cell_of, decode_body, encode_body
from palladion.ledger.sampling import LEVEL_MAX, Sample, priority_of, threshold

FOLDER = "bodies"  # in an installation's folder
SUFFIX = ".bodies"
MAGIC, OLD_MAGIC = b"palladion-bodies-2\n", b"palladion-bodies-1\n"
KEY_BYTES = 32
ENTRY_BYTES_MAX = 1024 * 1024  # a picture of 500x500 in single precision
FILE_BYTES_MAX = 64 * 1024 * 1024  # of one client and version; where queries are large, fewer are kept
CAPACITY_MAX = 1_000_000
OPEN_MAX = 64  # files of clients that ask now; a gate needs its descriptors for connections
_SLACK = 64  # entries beyond twice the capacity before a file is written anew: tiny ones would be all the time
_HEAD = struct.Struct(f"<{len(MAGIC)}sIII32s")
_OLD_HEAD = struct.Struct(f"<{len(MAGIC)}sIQ32s")  # queries asked when it was begun; as long as the new one
_FRAME = struct.Struct("<II12s")
_PRIORITY = struct.Struct("<Q")
_OLD_PLACE = struct.Struct("<IQ")  # a slot, of which the last entry counts, and which of the client's queries
_SALT_BYTES = 32
_TAG_BYTES = 16
_CLIENT = re.compile(r"client:[0-9a-f]{20}", re.ASCII)
_VERSION = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}@[1-9][0-9]{0,8}", re.ASCII)


class BodyWriter:
    """Keeps bodies under `folder`. To be used by one process, from one thread."""

    def __init__(self, folder: Path, key: bytes, *, queries_max: int) -> None:
        """`key` is the gate root's "body-cipher"; of each client and version `queries_max` queries are kept."""
        if not 1 <= queries_max <= CAPACITY_MAX:
            raise ValueError(f"{queries_max} queries cannot be kept, expected 1 to {CAPACITY_MAX}")
        self._folder = folder
        self._key = key
        self._queries_max = queries_max
        self._open: OrderedDict[tuple[str, str], _File] = OrderedDict()

    def append(self, client: str, version: str, bodies: Iterable[Body]) -> None:
        """Keep what of `bodies` is drawn, in the order of asking; with the kernel when this returns, not on the disk.

        Raises StorageError, ValueError for a body beyond `ENTRY_BYTES_MAX`, TamperError or FormatError where the file
        is not ours.
        """
        name = client, version
        file = self._open.pop(name, None)
        try:
            if file is None:
                file = _File.open(body_path(self._folder, client, version), self._key, name, self._queries_max)
            file.append(bodies)
        except BaseException:
            # what is on the disk is not known: the next one reads it
            if file is not None:
                file.close()
            raise
        self._open[name] = file
        if len(self._open) > OPEN_MAX:
            self._open.popitem(last=False)[1].close()

    def sync(self) -> None:
        """Make everything durable that was appended. Raises StorageError."""
        for name, file in list(self._open.items()):
            file.sync()
            if file.is_erased:  # its bytes stay on the disk for as long as it is open
                self._open.pop(name).close()

    def close(self) -> None:
        """Sync, and close all files. Raises StorageError."""
        while self._open:
            self._open.popitem()[1].close()


def body_path(folder: Path, client: str, version: str) -> Path:
    """Where the bodies of a client, by pseudonym, and a version such as `fraud@3` lie. Raises ValueError."""
    if not _CLIENT.fullmatch(client) or not _VERSION.fullmatch(version):
        raise ValueError(f"{client!r} and {version!r} are not a pseudonym and a version")
    return folder / client.replace(":", "-") / f"{version}{SUFFIX}"


def retained_versions(folder: Path, client: str) -> list[str]:
    """The versions of which bodies of a client are kept, by name."""
    found = body_path(folder, client, "any@1").parent.glob(f"*{SUFFIX}")
    return sorted(name for path in found if _VERSION.fullmatch(name := path.name.removesuffix(SUFFIX)))


@dataclass(frozen=True)
class Retained:
    """What is kept of a client's queries to a version, in the order of asking, and at which `level` of `sampling`.

    Each body is the first query that was asked of its cell; unless `late`, of what an older version left.
    """

    bodies: Sequence[Body]
    level: int = 0
    late: bool = False


def read_retained(folder: Path, key: bytes, client: str, version: str) -> Retained:
    """What is kept of a client's queries to a version; nothing where there is no file.

    Raises TamperError on what neither its writer nor a crash leaves, FormatError on what is no such file.
    """
    path = body_path(folder, client, version)
    if not path.exists():
        return Retained([])
    content = _read(path, key, (client, version))
    level = content.sample().level
    kept = [decode_body(data, what=str(path)) for _, data in content.at(level)]
    return Retained(kept, level, content.late)


def erase(folder: Path, client: str) -> None:
    """Delete all bodies of a client that is let in no more; a writer lets go of the files with its next sync."""
    path = body_path(folder, client, "any@1").parent
    with files.storage_errors(path):
        if path.is_dir():
            shutil.rmtree(path)
            files.sync_directory(folder)


@dataclass(frozen=True)
class _Content:
    """What a file holds: its head, number of the cell and body of each sound entry, and how many bytes those take."""

    head: bytes
    capacity: int
    level: int
    late: bool
    entries: Sequence[tuple[int, bytes]]
    sound_bytes: int

    def sample(self) -> Sample:
        return Sample(self.capacity, self.level, (priority for priority, _ in self.entries))

    def at(self, level: int) -> list[tuple[int, bytes]]:
        """What is kept of it at a level, in the order of asking."""
        bound = threshold(level)
        return [entry for entry in self.entries if entry[0] < bound]


class _File:
    """One open file. After an error it must not be used again, only closed."""

    _head: bytes
    _capacity: int
    _sample: Sample
    _count: int
    _bytes: int
    _cipher: AESGCM
    _synced: bool

    def __init__(self, path: Path, key: bytes, name: tuple[str, str], content: _Content) -> None:
        self._path, self._key, self._name = path, key, name
        self._drawing = _drawing(key, name)
        self._descriptor = -1
        self._begin(content)

    @classmethod
    def open(cls, path: Path, key: bytes, name: tuple[str, str], queries_max: int) -> "_File":
        """Open, or begin, the file of a client and version; written anew if it is an old one or the policy changed."""
        if not path.exists():
            files.make_private_directory(path.parent)
            _write(path, key, name, _head(queries_max, 0, late=False), [])
        content = _read(path, key, name)
        file = cls(path, key, name, content)
        if content.capacity != queries_max or content.head.startswith(OLD_MAGIC):
            try:
                file._rewrite(content, queries_max)
            except BaseException:
                file.close()
                raise
        return file

    @property
    def is_erased(self) -> bool:
        """Whether its name is gone."""
        return os.fstat(self._descriptor).st_nlink == 0

    def append(self, bodies: Iterable[Body]) -> None:
        out = bytearray()
        for body in bodies:
            cell = cell_of(body)
            if cell is None or not self._sample.wants(priority := priority_of(self._drawing, cell)):
                continue
            data = encode_body(body)
            if self._is_full(len(out) + _size(data)):
                self._flush(bytes(out))
                out.clear()
                self._rewrite(_read(self._path, self._key, self._name), self._capacity)
                # the level may have risen, and that is written
                if not self._sample.wants(priority):
                    continue
            out += _seal(self._cipher, self._head, self._count, _PRIORITY.pack(priority) + data)
            self._count += 1
            self._sample.add(priority)
        self._flush(bytes(out))

    def _is_full(self, more: int) -> bool:
        return self._bytes + more > FILE_BYTES_MAX or self._count >= 2 * self._capacity + _SLACK

    def _flush(self, out: bytes) -> None:
        if not out:
            return
        self._synced = False
        with files.storage_errors(self._path):
            written = 0
            while written < len(out):
                written += os.write(self._descriptor, memoryview(out)[written:])
        self._bytes += len(out)

    def sync(self) -> None:
        if not self._synced:
            with files.storage_errors(self._path):
                os.fdatasync(self._descriptor)
            self._synced = True

    def close(self) -> None:
        if self._descriptor >= 0:
            try:
                self.sync()
            finally:
                os.close(self._descriptor)
                self._descriptor = -1

    def _begin(self, content: _Content) -> None:
        with files.storage_errors(self._path):
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            # cut a torn entry off, so that the next one starts where reading expects it
            os.ftruncate(self._descriptor, content.sound_bytes)
            os.lseek(self._descriptor, 0, os.SEEK_END)
        self._head = content.head
        self._capacity = content.capacity
        self._sample = content.sample()
        self._count = len(content.entries)
        self._bytes = content.sound_bytes
        self._cipher = _cipher(self._key, content.head, self._name)
        self._synced = True

    def _rewrite(self, content: _Content, capacity: int) -> None:
        """Replace the file by one of what is kept, under a new key; at a higher level where that would be too much."""
        # first by the capacity that it had: by that, cells were refused
        level = content.sample().level
        level = Sample(capacity, level, (priority for priority, _ in content.entries)).level
        kept = content.at(level)
        while sum(_size(data) for _, data in kept) > FILE_BYTES_MAX // 2:
            level += 1
            kept = content.at(level)
        _write(self._path, self._key, self._name, _head(capacity, level, late=content.late), kept)
        os.close(self._descriptor)
        self._descriptor = -1
        self._begin(_read(self._path, self._key, self._name))


def _size(data: bytes) -> int:
    """Bytes of an entry with the body `data`."""
    return _FRAME.size + _PRIORITY.size + len(data) + _TAG_BYTES


def _head(capacity: int, level: int, *, late: bool) -> bytes:
    return _HEAD.pack(MAGIC, capacity, level, late, os.urandom(_SALT_BYTES))


def _write(path: Path, key: bytes, name: tuple[str, str], head: bytes, entries: Sequence[tuple[int, bytes]]) -> None:
    cipher = _cipher(key, head, name)
    sealed = [
        _seal(cipher, head, index, _PRIORITY.pack(priority) + data) for index, (priority, data) in enumerate(entries)
    ]
    files.write_atomically(path, head + b"".join(sealed))


def _read(path: Path, key: bytes, name: tuple[str, str]) -> _Content:
    data = files.read_limited(path, size_max=FILE_BYTES_MAX, what="the retained bodies")
    head = data[: _HEAD.size]
    if len(head) < _HEAD.size or not head.startswith((MAGIC, OLD_MAGIC)):
        raise FormatError(f"{path} holds no retained bodies")
    _, capacity, level, late, _ = _HEAD.unpack(head)
    old = head.startswith(OLD_MAGIC)
    if not 1 <= capacity <= CAPACITY_MAX or (not old and (level > LEVEL_MAX or late > 1)):
        raise FormatError(f"{path} holds no retained bodies")
    place_bytes = _OLD_PLACE.size if old else _PRIORITY.size
    cipher = _cipher(key, head, name)
    contents: list[bytes] = []
    position = _HEAD.size
    while position < len(data):
        content = _entry_at(data, position, cipher, _associated(head, len(contents)), path)
        if content is None:
            break
        if len(content) < place_bytes:
            raise FormatError(f"{path} has an entry of {len(content)} bytes, too few for one")
        contents.append(content)
        position += _FRAME.size + len(content) + _TAG_BYTES
    if old:
        return _Content(head, capacity, 0, *_old(path, _drawing(key, name), head, contents), position)
    entries = [(_PRIORITY.unpack_from(content)[0], content[_PRIORITY.size :]) for content in contents]
    return _Content(head, capacity, level, bool(late), entries, position)


def _old(
    path: Path, drawing: bytes, head: bytes, contents: Sequence[bytes]
) -> tuple[bool, Sequence[tuple[int, bytes]]]:
    """Whether a file of version 1 may have dropped a query, and the first that it still has of each cell."""
    _, capacity, asked, _ = _OLD_HEAD.unpack(head)
    places = [_OLD_PLACE.unpack_from(content) for content in contents]
    last = {slot: index for index, (slot, _) in enumerate(places)}
    first: dict[int, bytes] = {}
    for index, ((slot, number), content) in enumerate(zip(places, contents, strict=True)):
        asked = max(asked, number + 1)
        if last[slot] == index:
            data = content[_OLD_PLACE.size :]
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


def _seal(cipher: AESGCM, head: bytes, index: int, content: bytes) -> bytes:
    if len(content) > ENTRY_BYTES_MAX:
        raise ValueError(f"a query of {len(content)} bytes cannot be kept, at most {ENTRY_BYTES_MAX} are allowed")
    nonce = os.urandom(12)
    sealed = cipher.encrypt(nonce, content, _associated(head, index))
    return _FRAME.pack(len(sealed), zlib.crc32(struct.pack("<I", len(sealed))), nonce) + sealed


def _associated(head: bytes, index: int) -> bytes:
    return head + index.to_bytes(8, "little")


def _cipher(key: bytes, head: bytes, name: tuple[str, str]) -> AESGCM:
    return AESGCM(_derive(key, head[-_SALT_BYTES:], "cipher", *name))


def _drawing(key: bytes, name: tuple[str, str]) -> bytes:
    """What cells are drawn with: not the key of a file, because it outlives that."""
    return _derive(key, b"", "drawing", *name)


def _derive(key: bytes, salt: bytes, *context: str) -> bytes:
    if len(key) != KEY_BYTES:
        raise ValueError(f"the key of bodies has {KEY_BYTES} bytes, got {len(key)}")
    label = b"palladion/v1/bodies" + b"".join(len(part).to_bytes(4, "big") + part.encode() for part in context)
    return HKDF(SHA256(), KEY_BYTES, salt=salt or None, info=label).derive(key)
