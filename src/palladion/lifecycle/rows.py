"""Rows of a user's own data, in a `.npy` or `.npz` file: what triggers leave as it is. Nothing of them is kept."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion import files
from palladion.errors import FormatError
from palladion.model.model import Model

ROWS_BYTES_MAX = 2 * 1024**3  # some thousand rows are used, and that many pictures fit


def read_rows(path: Path, model: Model) -> dict[str, NDArray[Any]]:
    """Arrays (rows, …) by the names of the model's inputs: of an `.npz` by name, of an `.npy` for its only input.

    Raises FormatError if the file is no such one, or its names are not those of the inputs. Runs no code of the file.
    """
    data = files.read_limited(path, size_max=ROWS_BYTES_MAX, what="the rows")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            found = dict(archive) if isinstance(archive, np.lib.npyio.NpzFile) else {}
    except (AttributeError, TypeError):  # an array is no context manager
        found = {"": np.load(io.BytesIO(data), allow_pickle=False)}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise FormatError(f"{path} holds no rows: {error}", "save them with numpy.save or numpy.savez") from None
    graph = model.graph
    names = [item.name for item in graph.inputs if item.name not in graph.main.constants] if graph else []
    if list(found) == [""] and len(names) == 1:
        found = {names[0]: found[""]}
    if sorted(found) != sorted(names):
        raise FormatError(f"{path} has rows for {', '.join(sorted(found)) or 'no input'}, expected {', '.join(names)}")
    if any(array.ndim < 2 or array.dtype.kind not in "fiu" for array in found.values()):
        raise FormatError(f"{path} has rows that are no numbers, or a list instead of a table")
    for item in graph.inputs if graph else ():
        shape = item.type.shape if item.type is not None and item.name in found else None
        got = found[item.name].shape if item.name in found else ()
        if shape is not None and not _fits(got, shape):
            wanted = "×".join(str(size) if isinstance(size, int) else "any" for size in shape[1:])
            raise FormatError(f"{path} has rows of {'×'.join(map(str, got[1:]))} for {item.name!r}, expected {wanted}")
    return found


def _fits(got: tuple[int, ...], shape: Sequence[int | str | None]) -> bool:
    return len(got) == len(shape) and all(
        not isinstance(size, int) or size == have for have, size in zip(got[1:], shape[1:], strict=True)
    )
