"""What an interrupted attack keeps in its folder: a target's answers batch by batch, and batches of references.

Every file appears whole or not at all. The folder is the auditor's own and private: it tells who was a member.
"""

import io
import zipfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion import files
from palladion.errors import ConflictError, FormatError

Array = NDArray[Any]

FILE_BYTES_MAX = 2**32  # of one batch
_DIGEST, _QUERIES = "rows_sha256", "queries"


class Journal:
    """The answers of one target, in the order in which they were asked for. `name` tells it from another target."""

    def __init__(self, folder: Path, name: str) -> None:
        files.make_private_directory(folder)
        self._folder, self._name = folder, name
        counted = load_arrays(self._folder / "queries.npz", {_QUERIES})
        self.queries = 0 if counted is None else int(counted[_QUERIES])

    def count(self, queries: int) -> None:
        """Write how many queries were spent so far."""
        save_arrays(self._folder / "queries.npz", {_QUERIES: np.asarray(queries)})

    def keep(self, place: int, rows: Array, answers: Array) -> None:
        """Write what was answered to `rows`, the batch number `place`."""
        save_arrays(self._folder / f"{place:06}.npz", {_DIGEST: self._digest(rows), "answers": answers})

    def recall(self, place: int, rows: Array) -> Array | None:
        """What was answered to batch `place`, or None. Raises ConflictError where something else was asked."""
        found = load_arrays(self._folder / f"{place:06}.npz", {_DIGEST, "answers"})
        if found is None:
            return None
        if not np.array_equal(found[_DIGEST], self._digest(rows)):
            raise ConflictError(
                f"{self._folder} holds answers to other rows or of another target",
                "use another folder, or remove this one",
            )
        return found["answers"]

    def _digest(self, rows: Array) -> Array:
        return np.frombuffer(bytes.fromhex(fingerprint(self._name, rows)), np.uint8)


def save_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write some arrays to one file, at once."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]  # of allow_pickle, which NumPy 2.0 does not know here
    files.write_atomically(path, stream.getvalue())


def load_arrays(path: Path, names: set[str]) -> dict[str, Array] | None:
    """The arrays of one file, None where there is none. Raises FormatError where it is broken or holds others."""
    if not path.exists():
        return None
    data = files.read_limited(path, size_max=FILE_BYTES_MAX, what="the state")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            found = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise FormatError(f"{path} is broken: {error}", "remove it to measure that part again") from None
    if found.keys() != names:
        raise FormatError(f"{path} holds {sorted(found)}, expected was {sorted(names)}", "remove it")
    return found


def fingerprint(*parts: object) -> str:
    """A name for what some arrays and texts are, so that other data are not taken for the same."""
    digest = sha256()
    for part in parts:
        text = f"{part.dtype}{part.shape}" if isinstance(part, np.ndarray) else repr(part)
        digest.update(f"{len(text)}:{text}".encode())
        if isinstance(part, np.ndarray):
            digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:16]
