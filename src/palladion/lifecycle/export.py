"""Writes a model's plaintext files where a user wants them: private, all or none, and nothing is overwritten."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from palladion import files
from palladion.errors import StorageError

_FOLDERS = {"folder", "adapter"}


def free_paths(kind: str, names: Sequence[str], out: Path) -> list[Path]:
    """Where the files of a sealed `kind` go: a folder's below the new folder `out`, others to `out` and beside it.

    Raises StorageError if a file of such a name exists.
    """
    _, *others = names
    if kind in _FOLDERS or (kind == "opaque" and others):
        paths = [out / name for name in names]
        taken = out if os.path.lexists(out) else None
    else:
        paths = [out, *(out.parent / name for name in others)]
        taken = next((path for path in paths if os.path.lexists(path) or paths.count(path) > 1), None)
    if taken is not None:
        raise StorageError(f"{taken}: a file of this name exists, or would exist twice", "name another folder")
    return paths


def write_files(contents: Iterable[tuple[Path, Iterator[memoryview]]]) -> None:
    """Write every file, given in pieces, or none."""
    written: list[Path] = []
    try:
        for path, pieces in contents:
            # external data may lie in folders of its own
            files.make_private_directory(path.parent)
            with files.atomic_writer(path, replace=False) as stream:
                for piece in pieces:
                    stream.write(piece)
            written.append(path)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # a folder that was there before, or has something else in it
                path.parent.rmdir()
        raise
