"""What a folder or a file of no model format holds, and the digests it is known by: for everything that is only sealed.

Read once and piece by piece: safetensors give the digest of each tensor, everything else that of its bytes. A BLAKE3 of
each file lets whoever reads it again tell that it is still the same.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

from blake3 import blake3

from palladion.errors import FormatError, UnsupportedFormatError
from palladion.files import storage_errors
from palladion.model import safetensors
from palladion.model.digest import listing_digest, model_digest, tensor_digest, tensor_prefix
from palladion.model.folder import ADAPTER_CONFIG, SAFETENSORS, folder_names
from palladion.model.model import Model, is_plain_name
from palladion.model.read import read_memory, sniff
from palladion.model.safetensors import Span
from palladion.model.tensors import DTYPES

PayloadKind = Literal["onnx", "safetensors", "gguf", "folder", "adapter", "opaque"]
PAYLOAD_KINDS: tuple[PayloadKind, ...] = get_args(PayloadKind)

PIECE_BYTES = 1024 * 1024
_CODE = {"pickle", "zip", "hdf5"}  # may run code in whoever loads them


@dataclass(frozen=True)
class PayloadFile:
    """One file of a payload: its name in the sealed file, where it lies, its size, and the BLAKE3 of its bytes."""

    name: str
    path: Path
    size: int
    blake3: bytes


@dataclass(frozen=True)
class PayloadRow:
    """A tensor, or a whole file that holds none (bytes named `file:NAME`): what versions are compared by."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    digest: bytes
    byte_count: int


@dataclass(frozen=True)
class Payload:
    """What is to be sealed as it is. `content` is the digest that stands in the header."""

    kind: PayloadKind
    files: tuple[PayloadFile, ...]
    rows: tuple[PayloadRow, ...]
    content: bytes

    @property
    def byte_count(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def read_payload(path: Path, *, opaque: bool = False, follow_links: bool = False) -> Payload:
    """What the folder or file at `path` holds; with `opaque`, whatever it is, as bytes.

    Of a folder, what has a name with a dot in front is left out. Raises UnsupportedFormatError on a file that may run
    code when it is loaded, unless `opaque`; FormatError on a link, unless `follow_links`, on a name that no sealed file
    can hold, and where a file is broken or changes while it is read.
    """
    with storage_errors(path):
        is_folder = path.is_dir()
    if not is_folder and not is_plain_name(path.name):
        raise FormatError(f"{path} has a name that no sealed file can hold", "rename it")
    names = folder_names(path, follow_links=follow_links) if is_folder else [path.name]
    kind: PayloadKind = "opaque" if opaque else _folder_kind(names) if is_folder else file_kind(path)
    folder = path if is_folder else path.parent
    read = [_read_file(folder / name, name, kind, allow_code=opaque) for name in names]
    rows = _unique(row for _, found in read for row in found)
    return Payload(kind, tuple(file for file, _ in read), rows, _content(rows))


def model_rows(model: Model, advance: Callable[[int], None] = lambda _count: None) -> Iterator[PayloadRow]:
    """The rows of a model that is known by the digests of its files and tensors, one after the other.

    As of what is only sealed: GGUF is one file to us, and a folder's files that hold no tensors are rows of their own.
    `advance` is told how many bytes were digested since it was told last.
    """
    if model.format != "gguf":
        for name, tensor in model.tensors.items():
            yield PayloadRow(name, tensor.dtype.name, tensor.shape, tensor_digest(tensor), tensor.byte_count)
            advance(tensor.byte_count)
    for file in model.files:
        if model.format == "gguf" or (model.format in {"folder", "adapter"} and not file.name.endswith(SAFETENSORS)):
            yield file_row(file.name, file.byte_count, _told(file.pieces(), advance))


def file_row(name: str, size: int, pieces: Iterator[memoryview]) -> PayloadRow:
    """The row of a file that holds no tensors, or none that are told apart; reads `pieces` to their end."""
    hasher = sha256(tensor_prefix(DTYPES["uint8"], (size,)))
    for piece in pieces:
        hasher.update(piece)
    return PayloadRow(f"file:{name}", "uint8", (size,), hasher.digest(), size)


def payload_content(kind: PayloadKind, files: Mapping[str, memoryview]) -> str:
    """The content digest, in hex, of a payload in memory: what its header must state. Raises FormatError."""
    if kind in {"onnx", "safetensors"}:
        return model_digest(read_memory(files)).hex()
    rows = (row for name, data in files.items() for row in _rows(name, kind, len(data), _pieces(data)))
    return _content(_unique(rows)).hex()


def file_kind(path: Path) -> PayloadKind:
    """What a file is by its content; `opaque` if it is of no format that is known. Raises StorageError."""
    with storage_errors(path), path.open("rb") as stream:
        found = sniff(stream.read(PIECE_BYTES))
    if found == "gguf":
        return "gguf"
    if found in {"onnx", "safetensors"}:
        return found
    return "opaque"


def _folder_kind(names: list[str]) -> PayloadKind:
    return "adapter" if ADAPTER_CONFIG in names else "folder"


def _read_file(
    path: Path, name: str, kind: PayloadKind, *, allow_code: bool
) -> tuple[PayloadFile, tuple[PayloadRow, ...]]:
    with storage_errors(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb", buffering=0) as stream, storage_errors(path):
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise FormatError(f"{path} is not a regular file")
        hasher, size = blake3(), status.st_size

        def pieces() -> Iterator[memoryview]:
            done = 0
            while piece := stream.read(PIECE_BYTES):
                if not done and not allow_code:
                    _refuse_code(name, piece)
                done += len(piece)
                if done > size:
                    break
                hasher.update(piece)
                yield memoryview(piece)
            if done != size:
                raise FormatError(f"{path} changed its size while it was read", "wait until it is written")

        rows = _rows(name, kind, size, pieces())
        return PayloadFile(name, path, size, hasher.digest()), rows


def _refuse_code(name: str, first: bytes) -> None:
    found = sniff(first)
    if found in _CODE:
        raise UnsupportedFormatError(
            f"{name} is a {found} file, which may run code when it is loaded",
            "save the weights as safetensors, or leave it out",
            "--opaque seals it as bytes, whatever it is",
            found=found,
        )


def _rows(name: str, kind: PayloadKind, size: int, pieces: Iterator[memoryview]) -> tuple[PayloadRow, ...]:
    """What one file adds to the list of what a payload holds; reads `pieces` to their end."""
    if kind in {"folder", "adapter"} and name.endswith(SAFETENSORS):
        return _tensor_rows(name, size, pieces)
    return (file_row(name, size, pieces),)


def _tensor_rows(name: str, size: int, pieces: Iterator[memoryview]) -> tuple[PayloadRow, ...]:
    head = bytearray()
    while len(head) < 8 and (piece := next(pieces, None)) is not None:
        head += piece
    begin = safetensors.header_bytes(memoryview(head), size, what=name)
    while len(head) < begin and (piece := next(pieces, None)) is not None:
        head += piece
    # metadata computes nothing ("format": "pt") and is no part of the content, as in a model of one file
    spans, _ = safetensors.parse_header(memoryview(head), size, what=name)
    return tuple(_hashed(spans, memoryview(head)[begin:], pieces))


def _hashed(spans: Mapping[str, Span], first: memoryview, pieces: Iterator[memoryview]) -> Iterator[PayloadRow]:
    """The rows of tensors that follow each other without holes, in the order of their bytes."""
    piece = first
    for name, span in sorted(spans.items(), key=lambda item: (item[1].begin, item[1].end)):
        hasher: Any = sha256(tensor_prefix(span.dtype, span.shape))
        left = span.end - span.begin
        while left:
            if not piece:
                piece = next(pieces)
            hasher.update(piece[:left])
            taken = min(left, len(piece))
            left -= taken
            piece = piece[taken:]
        yield PayloadRow(name, span.dtype.name, span.shape, hasher.digest(), span.end - span.begin)
    for _ in pieces:
        continue  # to the end, where a file that has changed is noticed


def _unique(rows: Iterable[PayloadRow]) -> tuple[PayloadRow, ...]:
    found: dict[str, PayloadRow] = {}
    for row in rows:
        if row.name in found:
            raise FormatError(f"two files hold a tensor {row.name[:80]!r}")
        found[row.name] = row
    return tuple(found[name] for name in sorted(found))


def _told(pieces: Iterator[memoryview], advance: Callable[[int], None]) -> Iterator[memoryview]:
    for piece in pieces:
        yield piece
        advance(len(piece))


def _content(rows: Iterable[PayloadRow]) -> bytes:
    return listing_digest({row.name: row.digest for row in rows}, None)


def _pieces(data: memoryview) -> Iterator[memoryview]:
    return (data[begin : begin + PIECE_BYTES] for begin in range(0, len(data), PIECE_BYTES))
