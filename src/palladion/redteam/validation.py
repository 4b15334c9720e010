"""Validation data as people bring them: an NPZ file with rows that honest clients send."""

import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion import files
from palladion.errors import FormatError
from palladion.redteam.pool import CHANNELS_MAX

ROWS_MIN = 100  # fewer rows make simulated clients that all ask the same
ROWS_MAX = 1_000_000
VALUES_MAX = 2**30  # float32 values, 4 GiB
LABEL, CLIENT, ROWS = "y", "client", "x"
# What NumPy, zipfile and the decompressors raise on archives that are broken, lie about their sizes, or are none.
_BROKEN = (
    *(AttributeError, EOFError, LookupError, MemoryError, OverflowError, RuntimeError, SyntaxError, TypeError),
    *(ValueError, lzma.LZMAError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True, eq=False)
class Validation:
    """Rows (n, *shape), labels (n,), the client who sent each (n,) and when (n,), in seconds since 1970, or None.

    `image` is the shape of pictures, channels last, or None for tabular rows; `channels_first` says that the model
    takes them the other way round.
    """

    rows: NDArray[np.float32]
    labels: NDArray[np.int64] | None
    clients: NDArray[Any] | None
    image: tuple[int, ...] | None
    channels_first: bool
    at: NDArray[np.float64] | None = None

    def by_client(self) -> Iterator[NDArray[np.float32]]:
        """The rows of each client in the order of the file; nothing where clients are not known."""
        for part in self._parts():
            yield self.rows[part]

    def moments(self) -> Iterator[NDArray[np.float64] | None]:
        """When each client of `by_client` sent its rows; None where that is not known."""
        for part in self._parts():
            yield None if self.at is None else self.at[part]

    def _parts(self) -> Iterator[NDArray[np.int64]]:
        if self.clients is None:
            return
        _, first = np.unique(self.clients, return_inverse=True)
        order = np.argsort(first, kind="stable")
        yield from np.split(order, np.flatnonzero(np.diff(first[order])) + 1)


def read_validation(path: Path, image: tuple[int, ...] | None = None) -> Validation:
    """The arrays `x`, and where they are there `y` and `client`, of an NPZ file. Raises FormatError on anything else.

    `image` says that flat rows are pictures of that height and width (and channels).
    """
    with files.storage_errors(path), path.open("rb") as stream:
        try:
            # no pickle: a stranger's NPZ file must not run code
            with np.load(stream, allow_pickle=False) as arrays:
                _check_size(path, arrays)
                # a member that is no array comes as bytes
                found = {name: np.asarray(arrays[name]) for name in (ROWS, LABEL, CLIENT) if name in arrays.files}
        except _BROKEN as error:
            raise FormatError(f"{path} is not an NPZ file with plain arrays: {error}") from None
    if ROWS not in found:
        raise FormatError(f"{path} has no array {ROWS!r} with the rows that honest clients send")
    rows = found[ROWS]
    numeric = rows.dtype.kind in "biuf" and rows.ndim >= 2 and rows.size <= VALUES_MAX
    if not numeric or not ROWS_MIN <= len(rows) <= ROWS_MAX:
        raise FormatError(
            f"{path}: {ROWS} is {rows.dtype} of shape {rows.shape}, "
            f"{ROWS_MIN} to {ROWS_MAX} rows of numbers were expected"
        )
    for name in (LABEL, CLIENT):
        if name in found and found[name].shape != (len(rows),):
            raise FormatError(f"{path}: {name} has the shape {found[name].shape}, one value for each row was expected")
    labels = found.get(LABEL)
    if labels is not None:
        labels = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    with np.errstate(over="ignore"):  # to infinity, which no pool takes
        rows = rows.astype(np.float32)
    return make_validation(rows, labels, found.get(CLIENT), image)


def make_validation(
    rows: NDArray[np.float32],
    labels: NDArray[np.int64] | None,
    clients: NDArray[Any] | None,
    image: tuple[int, ...] | None = None,
    at: NDArray[np.float64] | None = None,
) -> Validation:
    """Rows as they are asked; those with more than one axis are pictures, whichever end their channels stand at."""
    channels_first = rows.ndim == 4 and rows.shape[1] <= CHANNELS_MAX < rows.shape[3]
    if channels_first:
        rows = np.ascontiguousarray(np.moveaxis(rows, 1, -1))
    if rows.ndim > 2:
        image = rows.shape[1:]
    return Validation(rows, labels, clients, image, channels_first, at)


def _check_size(path: Path, arrays: Any) -> None:
    """Refuse an archive that unpacks to more than we would hold, before it is unpacked."""
    total = sum(item.file_size for item in arrays.zip.infolist())
    if total > 4 * VALUES_MAX:
        raise FormatError(f"{path} unpacks to {total} bytes, more than the {4 * VALUES_MAX} allowed")
