"""Reading models: from a file or from memory, by what the bytes are and not by what the file is called.

Files are read once into private memory, so what was checked is what is used later, whatever happens to the files.
"""

import errno
import os
import stat
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np

from palladion.errors import FormatError, UnsupportedFormatError
from palladion.files import storage_errors
from palladion.model import onnx, onnx_schema, safetensors
from palladion.model.model import Model, ModelFile, is_plain_name
from palladion.model.protobuf import peek

Kind: TypeAlias = Literal["onnx", "safetensors", "gguf", "pickle", "zip", "hdf5", "sealed", "unknown"]
Bytes: TypeAlias = bytes | bytearray | memoryview

MODEL_BYTES_MAX = 256 * 2**30  # all files of one model; it is held in memory, and no host we know holds more
READ_BYTES = 64 * 2**20  # one system call reads at most 2 GiB; small enough that a truncated file is noticed early
SNIFF_FIELDS_MAX = 4096  # an ONNX file has a handful of fields at its top, and one for each function
PICKLE_PROTOCOLS = range(2, 6)  # earlier ones have no mark of their own

_MAGIC: tuple[tuple[bytes, Kind], ...] = (
    (b"\x93PALL\r\n\x1a", "sealed"),
    (b"GGUF", "gguf"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
)
_HINTS: Mapping[str, str] = {
    "gguf": "GGUF cannot be read yet; convert the model to safetensors or ONNX",
    "pickle": "a pickle runs code when it is opened; save the weights as safetensors on the machine that made them",
    "zip": "if it is a PyTorch checkpoint, save its weights as safetensors on the machine that made them",
    "hdf5": "HDF5 (Keras) cannot be read; export the model to ONNX",
    "sealed": "it is a sealed file: unseal it first",
    "unknown": "ONNX and safetensors can be read",
}


def sniff(data: Bytes) -> Kind:
    """What the bytes are, by their content. Says nothing about whether they are sound."""
    view = _view(data)
    start = bytes(view[:16])
    for magic, kind in _MAGIC:
        if start.startswith(magic):
            return kind
    if len(start) >= 2 and start[0] == 0x80 and start[1] in PICKLE_PROTOCOLS:
        return "pickle"
    if len(start) > 8 and start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] <= safetensors.HEADER_BYTES_MAX:
        return "safetensors"
    return "onnx" if _looks_like_onnx(view) else "unknown"


def read_memory(files: Mapping[str, Bytes]) -> Model:
    """The model whose files are `files`, by name; the first is the main one, the others its external data.

    Nothing is copied: the caller must not change the bytes as long as the model lives. Raises FormatError where the
    bytes are broken, name a file that is not given, or leave one unused.
    """
    if not files:
        raise ValueError("a model has at least one file")
    main, *others = files
    left = set(others)

    def open_file(location: str) -> memoryview:
        if location not in others:
            raise FormatError(f"{main} keeps tensors in {location!r}, which is not among its files")
        left.discard(location)
        return _view(files[location])

    model = _read(main, _view(files[main]), open_file)
    if left:
        raise FormatError(
            f"{main} does not use {', '.join(sorted(left))}, expected every file to be a part of the model"
        )
    return model


def read_file(path: Path, *, bytes_max: int | None = None) -> Model:
    """The model in the file `path`, with its external data from the same folder; all of it at most `bytes_max` bytes
    (`MODEL_BYTES_MAX` unless given).

    Raises FormatError where the files are broken or reach out of the folder, StorageError where they cannot be read.
    """
    if not is_plain_name(path.name):
        raise FormatError(
            f"{path} has a name that no sealed file can hold: with control or invisible characters, a backslash, or "
            "bytes that are no UTF-8",
            "rename it",
        )
    allowance = _Allowance(MODEL_BYTES_MAX if bytes_max is None else bytes_max)
    with storage_errors(path), _opened(os.open(path.parent, _FOLDER_FLAGS)) as folder:
        # a link is followed here, because the caller named it
        with _opened(os.open(path.name, _FILE_FLAGS, dir_fd=folder)) as descriptor:
            main = _read_once(descriptor, str(path), allowance)

        def open_file(location: str) -> memoryview:
            if location == path.name:
                raise FormatError(f"{path.name} keeps tensors in itself as external data, expected a file beside it")
            with storage_errors(path.parent / location), _opened_beneath(folder, location) as descriptor:
                return _read_once(descriptor, location, allowance)

        return _read(path.name, main, open_file)


_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # non-blocking: a planted FIFO must not hang us


class _Allowance:
    """How many bytes the files of one model may still take."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = self._left = bytes_max

    def take(self, size: int, name: str) -> None:
        self._left -= size
        if self._left < 0:
            raise FormatError(f"{name} makes the model larger than the {self._bytes_max} bytes allowed")


@contextmanager
def _opened(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _opened_beneath(folder: int, location: str) -> Iterator[int]:
    """Open a checked location below `folder`, following no link at any step: each could lead out of it."""
    *folders, name = location.split("/")
    with ExitStack() as stack:
        try:
            for part in folders:
                folder = stack.enter_context(_opened(os.open(part, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=folder)))
            descriptor = stack.enter_context(_opened(os.open(name, _FILE_FLAGS | os.O_NOFOLLOW, dir_fd=folder)))
        except OSError as error:
            # a link met under O_NOFOLLOW is ELOOP for a file and ENOTDIR for a folder
            if error.errno in {errno.ELOOP, errno.ENOTDIR}:
                raise FormatError(
                    f"external data {location!r} is reached through a symbolic link, expected a plain file",
                    "copy the file into the model's folder",
                ) from None
            raise
        yield descriptor


def _read_once(descriptor: int, name: str, allowance: _Allowance) -> memoryview:
    """The whole of a regular file in memory of our own. Raises FormatError if it changes its size meanwhile."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise FormatError(f"{name} is not a regular file")
    allowance.take(status.st_size, name)
    data = np.empty(status.st_size, np.uint8).data
    filled = 0
    while filled < len(data):
        count = os.readv(descriptor, [data[filled : filled + READ_BYTES]])
        if not count:
            break
        filled += count
    if filled < len(data) or os.read(descriptor, 1):
        raise FormatError(f"{name} changed its size while it was read", "wait until it is written and try again")
    return data.toreadonly()


def _read(name: str, data: memoryview, open_file: Callable[[str], memoryview]) -> Model:
    match kind := sniff(data):
        case "onnx":
            content = onnx.parse(data, open_file, what=name)
            external = tuple(ModelFile(location, held) for location, held in content.external_files.items())
            files = (ModelFile(name, data), *external)
            return Model("onnx", files, MappingProxyType(content.tensors), content.graph, content.metadata)
        case "safetensors":
            tensors, metadata = safetensors.parse(data, what=name)
            return Model("safetensors", (ModelFile(name, data),), MappingProxyType(tensors), None, metadata)
        case _:
            described = "of no format that is known" if kind == "unknown" else f"a {kind} file"
            raise UnsupportedFormatError(
                f"{name} is {described}, expected ONNX or safetensors", _HINTS[kind], found=kind
            )


def _view(data: Bytes) -> memoryview:
    return memoryview(data).cast("B").toreadonly()


def _looks_like_onnx(view: memoryview) -> bool:
    """ONNX has no magic bytes: it starts with fields of its top message, the graph among them."""
    fields, sound = peek(view, onnx_schema.MODEL, fields_max=SNIFF_FIELDS_MAX)
    return "graph" in fields and (sound or "ir_version" in fields)
