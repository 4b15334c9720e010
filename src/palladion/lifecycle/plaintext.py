"""Deletes the plaintext files of a model that was sealed, and says of each that stays why it does.

A name alone says little: it may be a link, one of several names, or by now lead to another file. So a file goes only if
it is a plain one, has no other name, still holds every byte that was sealed, and no other model beside it needs it.
"""

import mmap
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from palladion.errors import FormatError
from palladion.model.model import ModelFile
from palladion.model.read import sniff

COMPARED_BYTES = 1024 * 1024
ONNX_BYTES_MAX = 2**31  # protobuf's limit for one message: a larger file is no model that could need another's data


@dataclass(frozen=True)
class Stayed:
    """A plaintext file that was not deleted, and why."""

    path: Path
    reason: str


def delete_plaintext(
    folder: Path, files: Sequence[ModelFile], *, shared: bool = True
) -> tuple[list[Path], list[Stayed]]:
    """Delete a model's files from the folder they were read from, the main one first; what was deleted, what stayed.

    `files` hold the bytes that are sealed by now. With `shared`, files after the first are external data, which other
    ONNX models may need too. Raises nothing: a file that cannot be deleted has stayed. Folders stay, empty.
    """
    deleted: list[Path] = []
    stayed: list[Stayed] = []
    for place, file in enumerate(files):
        path = folder / file.name
        try:
            reason = (_needed_by(path, folder) if place and shared else "") or _delete(path, file)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
        except FormatError as error:
            reason = f"it cannot be compared with what is sealed: {error.message}"
        if reason:
            stayed.append(Stayed(path, reason))
        else:
            deleted.append(path)
    return deleted, stayed


def _delete(path: Path, file: ModelFile) -> str:
    """Unlink `path` if it is a plain file that holds what `file` does; why not, else."""
    if path.is_symlink():
        return "it is a link, and the file that it leads to would stay: delete that one yourself"
    # not blocking: a named pipe that took the file's place must not make us wait for ever
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            return "it is not a plain file"
        if before.st_nlink != 1:
            return f"it has {before.st_nlink} names (hard links), and would stay under the others"
        if not _holds(descriptor, file):
            return "it was changed after it was read: what it holds now is not sealed"
        # what was compared is what the name leads to, and nobody wrote to it meanwhile
        if _identity(os.lstat(path)) != _identity(before):
            return "it was changed while it was compared with what is sealed"
        path.unlink()
    finally:
        os.close(descriptor)
    return ""


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_nlink, status.st_size, status.st_mtime_ns)


def _holds(descriptor: int, file: ModelFile) -> bool:
    start = 0
    for piece in file.pieces():
        for begin in range(0, len(piece), COMPARED_BYTES):
            part = piece[begin : begin + COMPARED_BYTES]
            if os.pread(descriptor, len(part), start) != part:
                return False
            start += len(part)
    return not os.pread(descriptor, 1, start)


def _needed_by(path: Path, folder: Path) -> str:
    """Which ONNX model in the folders from `folder` to that of its external data `path` may need it; empty if none."""
    for place in [folder, *(parent for parent in path.parents if folder in parent.parents)]:
        for other in sorted(place.iterdir()):
            if other != path and other.is_file() and _mentions(other, path.name):
                return f"{other} may need it"
    return ""


def _mentions(path: Path, name: str) -> bool:
    """Whether the file is an ONNX model that has `name` in it."""
    if not 0 < path.stat().st_size <= ONNX_BYTES_MAX:
        return False
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
        with memoryview(mapping) as view:
            is_model = sniff(view) == "onnx"
        return is_model and mapping.find(name.encode()) >= 0
