"""Retained bodies: a sample of the queries of each client and version with unmarked answers, encrypted, and bounded.

    bodies  = head || entry*
    head    = "palladion-bodies-1" newline || u32 capacity || u64 queries asked when it was begun || salt (32 bytes)
    entry   = u32 length || u32 CRC-32 of the length || nonce (12 bytes) || ciphertext of `length` bytes
    content = u32 slot || u64 which of the client's queries || MessagePack of the body

One file for each client and version, `CLIENT/MODEL@NUMBER.bodies`, so that deleting a client's folder forgets him. Its
key is HKDF-SHA-256 (RFC 5869) of the caller's key with the salt, bound to client and version. AES-256-GCM with random
nonces binds each entry to the head and to its number in the file: nothing can be moved, exchanged or left out of the
middle. A torn entry at the end is dropped; what else lies in the ledger never needs these files. An entry replaces
earlier ones of its slot: which queries are kept is algorithm R (Vitter, ACM TOMS 11(1), 1985), drawn with the key.
Where those take more than half of what a file may, slots are halved: a random part stays, numbered anew. No file grows
beyond `FILE_BYTES_MAX`. Numbers are little-endian. The writer is one process; readers may come at any time.
"""

import os
import re
import shutil
import struct
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from palladion import files
from palladion.errors import FormatError, TamperError
from palladion.ledger.body import Body, decode_body, encode_body

FOLDER = "bodies"  # in an installation's folder
SUFFIX = ".bodies"
MAGIC = b"palladion-bodies-1\n"
KEY_BYTES = 32
ENTRY_BYTES_MAX = 1024 * 1024  # a picture of 500x500 in single precision
FILE_BYTES_MAX = 64 * 1024 * 1024  # of one client and version; where queries are large, fewer are kept
CAPACITY_MAX = 1_000_000
OPEN_MAX = 64  # files of clients that ask now; a gate needs its descriptors for connections
_SLACK = 64  # entries beyond twice the capacity before a file is written anew: tiny ones would be all the time
_HEAD = struct.Struct(f"<{len(MAGIC)}sIQ32s")
_FRAME = struct.Struct("<II12s")
_PLACE = struct.Struct("<IQ")
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
        for file in list(self._open.values()):
            file.sync()

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


def read_bodies(folder: Path, key: bytes, client: str, version: str) -> list[Body]:
    """What is kept of a client's queries to a version, in the order of asking; nothing where there is no file.

    Raises TamperError on what neither its writer nor a crash leaves, FormatError on what is no such file.
    """
    path = body_path(folder, client, version)
    if not path.exists():
        return []
    content = _read(path, key, (client, version))
    live = content.live()
    return [decode_body(data, what=str(path)) for slot, _, data in content.entries if live[slot] is data]


def erase(folder: Path, client: str) -> None:
    """Delete all bodies of a client. Not while a gate writes: it would go on with the files that it holds open."""
    path = body_path(folder, client, "any@1").parent
    with files.storage_errors(path):
        if path.is_dir():
            shutil.rmtree(path)
            files.sync_directory(folder)


@dataclass(frozen=True)
class _Content:
    """What a file holds: its head, slot, number and body of each sound entry, and how many bytes those take."""

    head: bytes
    entries: Sequence[tuple[int, int, bytes]]
    sound_bytes: int

    @property
    def capacity(self) -> int:
        return int(_HEAD.unpack(self.head)[1])

    @property
    def asked(self) -> int:
        begun = int(_HEAD.unpack(self.head)[2])
        return max(begun, self.entries[-1][1] + 1) if self.entries else begun

    def live(self) -> dict[int, bytes]:
        return {slot: data for slot, _, data in self.entries}


class _File:
    """One open file. After an error it must not be used again, only closed."""

    _head: bytes
    _capacity: int
    _asked: int
    _count: int
    _bytes: int
    _cipher: AESGCM
    _synced: bool

    def __init__(self, path: Path, key: bytes, name: tuple[str, str], content: _Content) -> None:
        self._path, self._key, self._name = path, key, name
        self._drawing = _derive(key, b"", "drawing", *name)
        self._descriptor = -1
        self._begin(content)

    @classmethod
    def open(cls, path: Path, key: bytes, name: tuple[str, str], queries_max: int) -> "_File":
        """Open, or begin, the file of a client and version; smaller if the policy became so."""
        if not path.exists():
            files.make_private_directory(path.parent)
            _write(path, key, name, _head(queries_max, 0), [])
        content = _read(path, key, name)
        file = cls(path, key, name, content)
        if content.capacity > queries_max:
            file._rewrite(content, queries_max)
        return file

    def append(self, bodies: Iterable[Body]) -> None:
        out = bytearray()
        for body in bodies:
            number, self._asked = self._asked, self._asked + 1
            if self._slot(number) >= self._capacity:
                continue
            data = encode_body(body)
            if self._is_full(len(out) + _size(data)):
                self._flush(bytes(out))
                out.clear()
                self._rewrite(_read(self._path, self._key, self._name), self._capacity)
            # the file that was written anew may have fewer slots
            slot = self._slot(number)
            if slot < self._capacity:
                out += _seal(self._cipher, self._head, self._count, _PLACE.pack(slot, number) + data)
                self._count += 1
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
        self._asked = content.asked
        self._count = len(content.entries)
        self._bytes = content.sound_bytes
        self._cipher = _cipher(self._key, content.head, self._name)
        self._synced = True

    def _slot(self, number: int) -> int:
        """Where a query goes: the first ones each to a slot, each later one to a random slot of as many as came."""
        if number < self._capacity:
            return number
        return self._drawn(number) % (number + 1)

    def _drawn(self, number: int, capacity: int = 0) -> int:
        data = number.to_bytes(8, "little") + (capacity.to_bytes(8, "little") if capacity else b"")
        return int.from_bytes(blake2b(data, digest_size=16, key=self._drawing).digest(), "little")

    def _rewrite(self, content: _Content, capacity: int) -> None:
        """Replace the file by one of what is live, under a new key; with fewer slots where that would be too much."""
        live = content.live()
        kept = [entry for entry in content.entries if live[entry[0]] is entry[2]]
        # drawn anew for each capacity: of all that were kept, none is likelier to stay, early or late
        order = sorted(kept, key=lambda entry: self._drawn(entry[1], content.capacity))
        while capacity > 1 and sum(_size(data) for _, _, data in order[:capacity]) > FILE_BYTES_MAX // 2:
            capacity //= 2
        if capacity < content.capacity:
            stay = sorted(order[:capacity], key=lambda entry: entry[1])
            kept = [(slot, number, data) for slot, (_, number, data) in enumerate(stay)]
        head = _head(capacity, max(self._asked, content.asked))
        _write(self._path, self._key, self._name, head, kept)
        os.close(self._descriptor)
        self._descriptor = -1
        self._begin(_read(self._path, self._key, self._name))


def _size(data: bytes) -> int:
    """Bytes of an entry with the body `data`."""
    return _FRAME.size + _PLACE.size + len(data) + _TAG_BYTES


def _head(capacity: int, asked: int) -> bytes:
    return _HEAD.pack(MAGIC, capacity, asked, os.urandom(32))


def _write(
    path: Path, key: bytes, name: tuple[str, str], head: bytes, entries: Sequence[tuple[int, int, bytes]]
) -> None:
    cipher = _cipher(key, head, name)
    sealed = [
        _seal(cipher, head, index, _PLACE.pack(slot, number) + data)
        for index, (slot, number, data) in enumerate(entries)
    ]
    files.write_atomically(path, head + b"".join(sealed))


def _read(path: Path, key: bytes, name: tuple[str, str]) -> _Content:
    data = files.read_limited(path, size_max=FILE_BYTES_MAX, what="the retained bodies")
    head = data[: _HEAD.size]
    if len(head) < _HEAD.size or not head.startswith(MAGIC) or not 1 <= _HEAD.unpack(head)[1] <= CAPACITY_MAX:
        raise FormatError(f"{path} holds no retained bodies")
    cipher = _cipher(key, head, name)
    entries: list[tuple[int, int, bytes]] = []
    position = _HEAD.size
    while position < len(data):
        content = _entry_at(data, position, cipher, _associated(head, len(entries)), path)
        if content is None:
            break
        slot, number = _PLACE.unpack_from(content)
        entries.append((slot, number, content[_PLACE.size :]))
        position += _FRAME.size + len(content) + _TAG_BYTES
    return _Content(head, entries, position)


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
    if len(content) < _PLACE.size:
        raise FormatError(f"{path} has an entry of {len(content)} bytes, too few for one")
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
    return AESGCM(_derive(key, _HEAD.unpack(head)[3], "cipher", *name))


def _derive(key: bytes, salt: bytes, *context: str) -> bytes:
    if len(key) != KEY_BYTES:
        raise ValueError(f"the key of bodies has {KEY_BYTES} bytes, got {len(key)}")
    label = b"palladion/v1/bodies" + b"".join(len(part).to_bytes(4, "big") + part.encode() for part in context)
    return HKDF(SHA256(), KEY_BYTES, salt=salt or None, info=label).derive(key)
