"""Files and tensors that are read when they are asked for, and not kept: models that memory cannot hold twice.

Whatever is read of a plain file is what was read of it first, however often and in whatever order (`KnownBytes`), so
that what was checked is what is used later. What a sealed file gives by ranges is verified by its segments already.
"""

import os
import stat
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.files import storage_errors
from palladion.model import gguf, safetensors
from palladion.model.model import ModelFile
from palladion.model.tensors import DType, Tensor, tensor_from_bytes

PIECE_BYTES = 1024 * 1024  # of a file, hashed and read in one go
_DIGEST_BYTES = 32


class Ranges(Protocol):
    """The bytes of one file of a model, read by ranges; the same bytes each time, or an error."""

    @property
    def name(self) -> str:
        """The file's name in the model."""
        ...

    @property
    def size(self) -> int:
        """Its bytes."""
        ...

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the bytes from `offset` on. Raises FormatError or StorageError."""
        ...


class KnownBytes:
    """A plain file, held open: pieces are hashed when they are read first, and must not have changed when read again.

    May be read from several threads. The descriptor is this object's from now on.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise FormatError(f"{name} is not a regular file")
        self.name = name
        self.size = status.st_size
        self._digests: dict[int, bytes] = {}
        self._last: tuple[int, memoryview] = (-1, memoryview(b""))  # neighbouring tensors share a piece
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<KnownBytes {self.name} {self.size} bytes>"

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the bytes from `offset` on. Raises FormatError if they are not what they were."""
        if not 0 <= offset <= offset + len(buffer) <= self.size:
            raise ValueError(f"bytes {offset} to {offset + len(buffer)} of {self.name}, which has {self.size}")
        done = 0
        while done < len(buffer):
            index, skipped = divmod(offset + done, PIECE_BYTES)
            size = min(PIECE_BYTES, self.size - index * PIECE_BYTES)
            if not skipped and len(buffer) - done >= size:
                self._read_piece(index, buffer[done : done + size])
                done += size
                continue
            part = self._shared(index, size)[skipped : skipped + len(buffer) - done]
            buffer[done : done + len(part)] = part
            done += len(part)

    def _shared(self, index: int, size: int) -> memoryview:
        known, piece = self._last
        if known != index:
            piece = memoryview(bytearray(size))
            self._read_piece(index, piece)
            self._last = index, piece
        return piece

    def _read_piece(self, index: int, buffer: memoryview) -> None:
        done = 0
        with storage_errors(Path(self.name)):
            while done < len(buffer):
                count = os.preadv(self._descriptor, [buffer[done:]], index * PIECE_BYTES + done)
                if not count:
                    raise self._changed()
                done += count
        digest = blake3(buffer).digest(_DIGEST_BYTES)
        with self._lock:
            if self._digests.setdefault(index, digest) != digest:
                raise self._changed()

    def _changed(self) -> FormatError:
        return FormatError(f"{self.name} changed after it was read first", "wait until it is written and try again")


@dataclass(frozen=True)
class HeldBytes:
    """A file that is in memory, as one that is read by ranges: small ones, of which a folder may have thousands."""

    name: str
    data: memoryview

    @property
    def size(self) -> int:
        """Its bytes."""
        return len(self.data)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the bytes from `offset` on."""
        buffer[:] = self.data[offset : offset + len(buffer)]


class StoredFile(ModelFile):
    """A file of a model that is not in memory: `pieces` begins it anew each time, and `data` reads it whole."""

    def __init__(self, name: str, size: int, read: Callable[[int, int], Iterator[memoryview]]) -> None:
        object.__setattr__(self, "name", name)
        self._size = size
        self._read = read

    @property
    def data(self) -> memoryview:
        """All of its bytes, read now into memory."""
        whole, done = memoryview(bytearray(self._size)), 0
        for piece in self.pieces():
            whole[done : done + len(piece)] = piece
            done += len(piece)
        return whole.toreadonly()

    @property
    def byte_count(self) -> int:
        """How many bytes it has."""
        return self._size

    def pieces(self, begin: int = 0, end: int | None = None) -> Iterator[memoryview]:
        """The bytes from `begin` to `end`, in order; a piece is valid until the next one is asked for."""
        return self._read(begin, self._size if end is None else end)


class StoredTensor(Tensor):
    """A tensor whose numbers are read, or computed, when `data` is asked for, and go when nobody looks at them.

    `where` is the file that they lie in and the offset of the first one. Each access of `data` may cost a reading:
    take it once.
    """

    def __init__(
        self,
        name: str,
        dtype: DType,
        shape: tuple[int, ...],
        read: Callable[[], NDArray[Any]],
        where: tuple[str, int] | None,
    ) -> None:
        for field, value in (("name", name), ("dtype", dtype), ("shape", shape)):
            object.__setattr__(self, field, value)
        self.where = where
        self._read = read
        self._alive: weakref.ref[NDArray[Any]] | None = None

    def __repr__(self) -> str:
        return f"<StoredTensor {self.name} {self.dtype.name} {self.shape}>"

    @property
    def data(self) -> NDArray[Any]:
        """Its numbers, read now unless somebody still holds those that were read last."""
        found = self._alive() if self._alive is not None else None
        if found is None:
            # one number alone is a scalar to numpy, which has no flags to set
            found = np.asarray(self._read())
            found.flags.writeable = False
            self._alive = weakref.ref(found)
        return found


def stored_file(source: Ranges) -> StoredFile:
    """The file whose bytes `source` gives."""

    def read(begin: int, end: int) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(min(PIECE_BYTES, end - begin)))
        while begin < end:
            # along the file's own pieces, so that each is read once
            step = min(PIECE_BYTES - begin % PIECE_BYTES, end - begin)
            source.read_into(buffer[:step], begin)
            yield buffer[:step]
            begin += step

    return StoredFile(source.name, source.size, read)


def stored_safetensors(source: Ranges) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file, of which the header alone is read (and bool tensors).

    Raises FormatError as `safetensors.parse` does.
    """
    head = memoryview(bytearray(min(8, source.size)))
    source.read_into(head, 0)
    begin = safetensors.header_bytes(head, source.size, what=source.name)
    head = memoryview(bytearray(begin))
    source.read_into(head, 0)
    spans, metadata = safetensors.parse_header(head, source.size, what=source.name)
    tensors: dict[str, Tensor] = {
        name: stored_tensor(source, name, span.dtype, span.shape, begin + span.begin) for name, span in spans.items()
    }
    for tensor in tensors.values():
        if tensor.dtype.name == "bool":
            tensor.data  # noqa: B018 (a byte other than 0 and 1 is refused when it is read)
    return tensors, metadata


def stored_gguf(source: Ranges) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a GGUF file, of which the header alone is read. Raises FormatError."""
    size, limit = 0, min(source.size, gguf.HEADER_BYTES_MAX)
    while True:
        size = min(limit, max(PIECE_BYTES, 2 * size))
        head = memoryview(bytearray(size))
        source.read_into(head, 0)
        try:
            layout = gguf.parse_header(head, source.size, what=source.name)
            break
        except gguf.IncompleteError:
            if size == source.size:
                raise
            if size == limit:
                raise FormatError(f"{source.name} has a header of more than the {limit} bytes allowed") from None
    tensors: dict[str, Tensor] = {
        name: stored_tensor(source, name, span.dtype, span.shape, layout.begin + span.begin)
        for name, span in layout.spans.items()
    }
    return tensors, layout.metadata


def stored_tensor(source: Ranges, name: str, dtype: DType, shape: tuple[int, ...], begin: int) -> StoredTensor:
    """The tensor whose numbers lie in `source` from `begin` on, little-endian and in row-major order."""

    def read() -> NDArray[Any]:
        buffer = memoryview(bytearray(dtype.byte_count(shape)))
        source.read_into(buffer, begin)
        return tensor_from_bytes(name, dtype, shape, buffer, what=f"{source.name}: tensor {name[:80]!r}").data

    return StoredTensor(name, dtype, shape, read, (source.name, begin) if prod(shape) else None)
