"""Retained bodies: a sample of the queries of each client and version with unmarked answers, encrypted, and bounded.

One file for each client and version, `CLIENT/MODEL@NUMBER.bodies`, so that deleting a client's folder forgets him; its
format is in `body_file`, when what is in it is erased in `expiry`. Each entry is the first query of its cell, and which
cells are kept is in `sampling`: at the level of the head, or the lowest above at which the file has no more cells than
its capacity. So the level needs no entry of its own: what raised it is written before anything is refused by it. A file
is written anew without the cells that were given up, and where the others take more than half of what a file may, at a
higher level. No file grows beyond `FILE_BYTES_MAX`. One process writes, any may read. Of an open file 8 bytes a cell
are held, 5 MB at most.
"""

import os
import re
import shutil
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from palladion import files
from palladion.ledger.body import Body, cell_of, decode_body, encode_body
from palladion.ledger.body_file import (
    CAPACITY_MAX,
    ENTRY_BYTES_MAX,
    FILE_BYTES_MAX,
    OLD_MAGIC,
    PRIORITY,
    Content,
    cipher_of,
    drawing_of,
    entry_size,
    make_head,
    read_content,
    read_data,
    seal_entry,
    write_content,
)
from palladion.ledger.sampling import Sample, priority_of

__all__ = [
    "CAPACITY_MAX",
    "ENTRY_BYTES_MAX",
    "FOLDER",
    "TEXTS",
    "BodyWriter",
    "Retained",
    "body_path",
    "erase",
    "holds_marks",
    "read_retained",
    "retained_names",
    "retained_versions",
]

FOLDER = "bodies"  # in an installation's folder
SUFFIX = ".bodies"
OPEN_MAX = 64  # files of clients that ask now; a gate needs its descriptors for connections
_SLACK = 64  # entries beyond twice the capacity before a file is written anew: tiny ones would be all the time
_CLIENT = re.compile(r"client:[0-9a-f]{20}", re.ASCII)
TEXTS = "texts"  # in place of a version's number, where what is kept are texts that a language model was asked
_VERSION = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,63}}@(?:[1-9][0-9]{{0,8}}|{TEXTS})", re.ASCII)


class BodyWriter:
    """Keeps bodies under `folder`. To be used by one process, from one thread."""

    def __init__(self, folder: Path, key: bytes, *, queries_max: int) -> None:
        """`key` is the gate root's "body-cipher"; of each client and version `queries_max` queries are kept."""
        if not 1 <= queries_max <= CAPACITY_MAX:
            raise ValueError(f"{queries_max} queries cannot be kept, expected 1 to {CAPACITY_MAX}")
        self._folder = folder
        self._key = key
        self._queries_max = queries_max
        self.grown = 0  # bytes on the disk by which files grew, less those by which they became smaller
        self._open: OrderedDict[tuple[str, str], _File] = OrderedDict()

    def append(self, client: str, version: str, bodies: Iterable[Body]) -> None:
        """Keep what of `bodies` is drawn, in the order of asking; with the kernel when this returns, not on the disk.

        Where the file is not open, it is read from the start, which takes up to some 100 ms.

        Raises StorageError, ValueError for a body beyond `ENTRY_BYTES_MAX`, TamperError or FormatError where the file
        is not ours.
        """
        name = client, version
        file = self._open.pop(name, None)
        try:
            if file is None:
                file = _File.open(body_path(self._folder, client, version), self._key, name, self._queries_max)
            before = file.size
            file.append(bodies)
            self.grown += file.size - before
        except BaseException:
            # what is on the disk is not known: the next one reads it
            if file is not None:
                file.close()
            raise
        self._open[name] = file
        if len(self._open) > OPEN_MAX:
            self._open.popitem(last=False)[1].close()

    def is_open(self, client: str, version: str) -> bool:
        """Whether `append` would find the file open."""
        return (client, version) in self._open

    def release(self, client: str, version: str) -> None:
        """Close a file, which somebody else is about to replace. Raises StorageError."""
        file = self._open.pop((client, version), None)
        if file is not None:
            file.close()

    def sync(self) -> None:
        """Make durable what was appended with a mark; the rest is the kernel's affair. Raises StorageError."""
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


def retained_names(folder: Path) -> list[tuple[str, str]]:
    """Client, by pseudonym, and version of every file there is."""
    found = (path.name.replace("-", ":", 1) for path in folder.glob("client-*"))
    clients = sorted(name for name in found if _CLIENT.fullmatch(name))
    return [(client, version) for client in clients for version in retained_versions(folder, client, texts=True)]


def retained_versions(folder: Path, client: str, *, texts: bool = False) -> list[str]:
    """The versions of which bodies of a client are kept, by name; `texts` of language models only where that is wanted.

    They hold no rows, and whoever expects rows must not take them for such.
    """
    found = body_path(folder, client, "any@1").parent.glob(f"*{SUFFIX}")
    names = sorted(name for path in found if _VERSION.fullmatch(name := path.name.removesuffix(SUFFIX)))
    return names if texts else [name for name in names if not name.endswith(f"@{TEXTS}")]


@dataclass(frozen=True)
class Retained:
    """What is kept of a client's queries to a version, in the order of asking, and at which `level` of `sampling`.

    Each body is the first query that was asked of its cell; unless `late`, of what an older version left. Those whose
    days have passed (`expiry`) are gone.
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
    content = read_content(path, key, (client, version))
    level = content.sample().level
    kept = [decode_body(data, what=str(path)) for _, data in content.at(level) if data]
    return Retained(kept, level, content.late)


def holds_marks(folder: Path, key: bytes, client: str, version: str) -> bool:
    """Whether any of a client's queries to a version was answered with a mark, also if it was erased since.

    Raises as `read_retained`.
    """
    path = body_path(folder, client, version)
    return any(
        not data or decode_body(data, what=str(path)).strength > 0 for data in read_data(path, key, (client, version))
    )


def erase(folder: Path, client: str) -> None:
    """Delete all bodies of a client that is let in no more; a writer lets go of the files with its next sync."""
    path = body_path(folder, client, "any@1").parent
    with files.storage_errors(path):
        if path.is_dir():
            shutil.rmtree(path)
            files.sync_directory(folder)


class _File:
    """One open file. After an error it must not be used again, only closed."""

    _head: bytes
    _capacity: int
    _sample: Sample
    _count: int
    size: int  # of the file, in bytes
    _cipher: AESGCM
    _synced: bool

    def __init__(self, path: Path, key: bytes, name: tuple[str, str], content: Content) -> None:
        self._path, self._key, self._name = path, key, name
        self._drawing = drawing_of(key, name)
        self._descriptor = -1
        self._begin(content)

    @classmethod
    def open(cls, path: Path, key: bytes, name: tuple[str, str], queries_max: int) -> "_File":
        """Open, or begin, the file of a client and version; written anew if it is an old one or the policy changed."""
        if not path.exists():
            files.make_private_directory(path.parent)
            write_content(path, key, name, make_head(queries_max, 0, late=False), [])
        content = read_content(path, key, name)
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
        marked = False
        for body in bodies:
            cell = cell_of(body)
            if cell is None or not self._sample.wants(priority := priority_of(self._drawing, cell)):
                continue
            data = encode_body(body)
            if self._is_full(len(out) + entry_size(data)):
                self._flush(out, marked=marked)
                out = bytearray()
                self._rewrite(read_content(self._path, self._key, self._name), self._capacity)
                # the level may have risen, and that is written
                if not self._sample.wants(priority):
                    continue
            out += seal_entry(self._cipher, self._head, self._count, PRIORITY.pack(priority) + data)
            self._count += 1
            self._sample.add(priority)
            marked = marked or body.strength > 0
        self._flush(out, marked=marked)

    def _is_full(self, more: int) -> bool:
        return self.size + more > FILE_BYTES_MAX or self._count >= 2 * self._capacity + _SLACK

    def _flush(self, out: bytearray, *, marked: bool) -> None:
        if not out:
            return
        # an answer with a mark left because this was kept; of the others a power cut may take what the kernel holds
        self._synced = self._synced and not marked
        with files.storage_errors(self._path):
            written = 0
            while written < len(out):
                written += os.write(self._descriptor, memoryview(out)[written:])
        self.size += len(out)

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

    def _begin(self, content: Content) -> None:
        with files.storage_errors(self._path):
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            # cut a torn entry off, so that the next one starts where reading expects it
            os.ftruncate(self._descriptor, content.sound_bytes)
            os.lseek(self._descriptor, 0, os.SEEK_END)
        self._head = content.head
        self._capacity = content.capacity
        self._sample = content.sample()
        self._count = len(content.entries)
        self.size = content.sound_bytes
        self._cipher = cipher_of(self._key, content.head, self._name)
        self._synced = True

    def _rewrite(self, content: Content, capacity: int) -> None:
        """Replace the file by one of what is kept, under a new key; at a higher level where that would be too much."""
        # first by the capacity that it had: by that, cells were refused
        level = content.sample().level
        level = Sample(capacity, level, (priority for priority, _ in content.entries)).level
        kept = content.at(level)
        while sum(entry_size(data) for _, data in kept) > FILE_BYTES_MAX // 2:
            level += 1
            kept = content.at(level)
        write_content(self._path, self._key, self._name, make_head(capacity, level, late=content.late), kept)
        os.close(self._descriptor)
        self._descriptor = -1
        self._begin(read_content(self._path, self._key, self._name))
