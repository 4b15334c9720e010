"""Reading models: from a file, a folder or memory, by what the bytes are and not by what the file is called.

What was checked is what is used later, whatever happens to the files: they are read once into private memory, or are
large (`stored`), and an error then if they have changed.
"""

import errno
import os
import stat
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np

from palladion.errors import FormatError, UnsupportedFormatError
from palladion.files import storage_errors
from palladion.model import gguf, onnx, onnx_schema, safetensors
from palladion.model.folder import ADAPTER_CONFIG, SAFETENSORS, folder_names
from palladion.model.model import Format, Model, ModelFile, is_plain_name
from palladion.model.protobuf import peek
from palladion.model.stored import HeldBytes, KnownBytes, Ranges, stored_file, stored_gguf, stored_safetensors
from palladion.model.tensors import Tensor

Kind: TypeAlias = Literal["onnx", "safetensors", "gguf", "pickle", "zip", "hdf5", "sealed", "unknown"]
Bytes: TypeAlias = bytes | bytearray | memoryview

MODEL_BYTES_MAX = 256 * 2**30  # all files of one model that is held in memory: no host we know holds more
STORED_BYTES_MAX = 2**40  # and of others: what a sealed file holds
HELD_BYTES_MAX = 64 * 2**20  # weights of one model up to here are held in memory, as it is quicker; ONNX always is
READ_BYTES = 64 * 2**20  # one system call reads at most 2 GiB; small enough that a truncated file is noticed early
SNIFF_BYTES = 1024 * 1024  # of a file that is not read whole
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
    "gguf": "it has to be a file of its own",
    "pickle": "a pickle runs code when it is opened; save the weights as safetensors on the machine that made them",
    "zip": "if it is a PyTorch checkpoint, save its weights as safetensors on the machine that made them: "
    "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors')",
    "hdf5": "HDF5 (Keras) cannot be read; export the model to ONNX",
    "sealed": "it is a sealed file: unseal it first",
    "unknown": "ONNX, safetensors and GGUF can be read, and folders of safetensors",
}


_CODE = {"pickle", "zip", "hdf5"}  # may run code in whoever loads them


def sniff(data: Bytes) -> Kind:
    """What the bytes are, by their content. Says nothing about whether they are sound."""
    view = _view(data)
    start = bytes(view[:16])
    for magic, kind in _MAGIC:
        if start.startswith(magic):
            return kind
    # six zeros after it are no pickle: they end the length of a safetensors header of 640 bytes, for one
    if len(start) >= 2 and start[0] == 0x80 and start[1] in PICKLE_PROTOCOLS and (len(start) < 8 or any(start[2:8])):
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
    """The model at `path`: a file, with its external data from the same folder, or a folder as Hugging Face lays models
    out, as `read_folder` reads it; all of it at most `bytes_max` bytes, or what memory or a sealed file can hold.

    Raises FormatError where the files are broken or reach out of the folder, StorageError where they cannot be read.
    """
    with storage_errors(path):
        if path.is_dir():
            return read_folder(path, bytes_max=bytes_max)
    if not is_plain_name(path.name):
        raise FormatError(
            f"{path} has a name that no sealed file can hold: with control or invisible characters, a backslash, or "
            "bytes that are no UTF-8",
            "rename it",
        )
    with storage_errors(path), _opened(os.open(path.parent, _FOLDER_FLAGS)) as folder:
        # a link is followed here, because the caller named it
        with _opened(os.open(path.name, _FILE_FLAGS, dir_fd=folder)) as descriptor:
            kind = _stored_kind(descriptor)
            if kind is not None:
                _Allowance(STORED_BYTES_MAX if bytes_max is None else bytes_max).take(_size(descriptor), str(path))
                return read_stored(kind, [KnownBytes(os.dup(descriptor), path.name)])
            allowance = _Allowance(MODEL_BYTES_MAX if bytes_max is None else bytes_max)
            main = _read_once(descriptor, str(path), allowance)

        def open_file(location: str) -> memoryview:
            if location == path.name:
                raise FormatError(f"{path.name} keeps tensors in itself as external data, expected a file beside it")
            with storage_errors(path.parent / location), _opened_beneath(folder, location) as descriptor:
                return _read_once(descriptor, location, allowance)

        return _read(path.name, main, open_file)


def read_folder(path: Path, *, bytes_max: int | None = None, weights_only: bool = False) -> Model:
    """The model in a folder: tensors of its safetensors files, and all its other files, which are left as they are.

    What has a name with a dot in front is left out. Weights in any other file are refused, because nobody would mark
    them, and so are links and what may run code; with `weights_only`, for a suspect, other files are not looked at
    and links are followed. Raises FormatError, UnsupportedFormatError, StorageError.
    """
    names = folder_names(path, follow_links=weights_only)
    if weights_only:
        names = [name for name in names if name.endswith(SAFETENSORS)]
    if not any(name.endswith(SAFETENSORS) for name in names):
        raise UnsupportedFormatError(
            f"{path} holds no safetensors file, expected a folder as Hugging Face lays models out",
            "an ONNX or GGUF file in it is protected on its own",
            _HINTS["zip"],
            "palladion seal takes any folder, and marks nothing",
            found="folder",
        )
    allowance = _Allowance(STORED_BYTES_MAX if bytes_max is None else bytes_max)
    sources = []
    held = 0
    with storage_errors(path), _opened(os.open(path, _FOLDER_FLAGS)) as folder:
        for name in names:
            # not by its path, unless links are followed: one could have been put there since the folder was listed
            with storage_errors(path / name), _opened_in(folder, path, name, follow_links=weights_only) as descriptor:
                hold = held + _size(descriptor) <= HELD_BYTES_MAX
                source = _source(descriptor, name, allowance, hold=hold)
            held += source.size if hold else 0
            if not name.endswith(SAFETENSORS):
                _refuse_weights(source)
            sources.append(source)
    return read_stored("adapter" if ADAPTER_CONFIG in names else "folder", sources)


def read_weights(path: Path, *, bytes_max: int | None = None) -> Model:
    """The model at `path` as a suspect: like `read_file`, and of a folder nothing but its safetensors files."""
    with storage_errors(path):
        is_folder = path.is_dir()
    return (
        read_folder(path, bytes_max=bytes_max, weights_only=True) if is_folder else read_file(path, bytes_max=bytes_max)
    )


def read_stored(kind: Format, sources: Sequence[Ranges]) -> Model:
    """The model whose files `sources` give, by ranges; its tensors are read when they are asked for.

    Raises FormatError where a header is broken, or two files hold a tensor of one name.
    """
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for source in sources:
        if kind == "gguf":
            found, said = stored_gguf(source)
        elif kind == "safetensors" or source.name.endswith(SAFETENSORS):
            found, said = stored_safetensors(source)
        else:
            continue
        if twice := found.keys() & tensors.keys():
            raise FormatError(f"two files hold a tensor {min(twice)[:80]!r}")
        tensors |= found
        metadata |= said
    return Model(kind, tuple(map(stored_file, sources)), MappingProxyType(tensors), None, metadata)


_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # non-blocking: a planted FIFO must not hang us


class _Allowance:
    """How many bytes the files of one model may still take."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = self._left = bytes_max

    def take(self, size: int, name: str) -> None:
        self._left -= size
        if self._left < 0:
            raise FormatError(
                f"{name} makes the model larger than the {self._bytes_max} bytes allowed",
                "scan.file_bytes_max in palladion.toml is the limit, unless it is more than this machine can hold",
            )


@contextmanager
def _opened(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _opened_in(folder: int, path: Path, name: str, *, follow_links: bool) -> AbstractContextManager[int]:
    return _opened(os.open(path / name, _FILE_FLAGS)) if follow_links else _opened_beneath(folder, name)


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


def _stored_kind(descriptor: int) -> Format | None:
    """The format of a file that is so large, and laid out so, that it is read by ranges; None for all others."""
    if _size(descriptor) <= HELD_BYTES_MAX:
        return None
    kind = sniff(os.pread(descriptor, SNIFF_BYTES, 0))
    return kind if kind in {"safetensors", "gguf"} else None


def _source(descriptor: int, name: str, allowance: _Allowance, *, hold: bool) -> Ranges:
    """A file of a folder: in memory, so that few files stay open, or to be read when it is asked for."""
    if hold:
        return HeldBytes(name, _read_once(descriptor, name, allowance))
    source = KnownBytes(os.dup(descriptor), name)
    allowance.take(source.size, name)
    return source


def _size(descriptor: int) -> int:
    status = os.fstat(descriptor)
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _refuse_weights(source: Ranges) -> None:
    """Raise UnsupportedFormatError on a file of a folder that may run code, or holds weights that nobody would mark."""
    head = memoryview(bytearray(min(source.size, SNIFF_BYTES)))
    source.read_into(head, 0)
    kind = sniff(head)
    if kind in _CODE:
        raise UnsupportedFormatError(
            f"{source.name} is a {kind} file, which may run code when it is loaded",
            "leave it out of the folder",
            _HINTS[kind],
            found=kind,
        )
    if kind in {"onnx", "safetensors", "gguf", "sealed"}:
        raise UnsupportedFormatError(
            f"{source.name} is a {kind} file, whose weights would go out unmarked: in a folder, those of files "
            f"named *{SAFETENSORS} are marked",
            "protect it on its own, and leave it out of the folder",
            found=kind,
        )


def _read(name: str, data: memoryview, open_file: Callable[[str], memoryview]) -> Model:
    match kind := sniff(data):
        case "onnx":
            content = onnx.parse(data, open_file, what=name)
            external = tuple(ModelFile(location, held) for location, held in content.external_files.items())
            files = (ModelFile(name, data), *external)
            return Model("onnx", files, MappingProxyType(content.tensors), content.graph, content.metadata)
        case "safetensors" | "gguf":
            parse = safetensors.parse if kind == "safetensors" else gguf.parse
            tensors, metadata = parse(data, what=name)
            return Model(kind, (ModelFile(name, data),), MappingProxyType(tensors), None, metadata)
        case _:
            described = "of no format that is known" if kind == "unknown" else f"a {kind} file"
            raise UnsupportedFormatError(
                f"{name} is {described}, expected ONNX, safetensors or GGUF", _HINTS[kind], found=kind
            )


def _view(data: Bytes) -> memoryview:
    return memoryview(data).cast("B").toreadonly()


def _looks_like_onnx(view: memoryview) -> bool:
    """ONNX has no magic bytes: it starts with fields of its top message, the graph among them."""
    fields, sound = peek(view, onnx_schema.MODEL, fields_max=SNIFF_FIELDS_MAX)
    return "graph" in fields and (sound or "ir_version" in fields)
