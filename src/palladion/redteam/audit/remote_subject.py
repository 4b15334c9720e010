"""A model behind HTTP as the subject of an audit: its owner's rows without the model's file, and one door."""

import io
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from palladion import files
from palladion.errors import FormatError
from palladion.lifecycle.probe import Api
from palladion.redteam.audit.layout import Layout
from palladion.redteam.audit.remote import Remote
from palladion.redteam.audit.subject import Door, Subject, Training, training_of
from palladion.redteam.validation import LABEL, ROWS, read_validation
from palladion.redteam.victim import ROWS_MAX, ROWS_MIN, Rows

DOOR = "deployed"
ARRAYS_BYTES_MAX = 2 * 1024**3


def read_remote_rows(path: Path, labels: Path | None) -> tuple[Layout, Rows, NDArray[np.int64] | None]:
    """How rows are sent, they themselves (n, inputs), and their true classes. Raises FormatError.

    An `.npy` file has the rows of the only input; an `.npz` file `x` and perhaps `y`, or an array for each input.
    """
    arrays = _arrays(path)
    right = None if labels is None else _labels(labels)
    if ROWS in arrays and set(arrays) <= {ROWS, LABEL, "client"}:
        found = read_validation(path)
        rows = np.moveaxis(found.rows, -1, 1) if found.channels_first else found.rows
        # both as they were saved: a service may take whole numbers alone, and counts classes in its own way
        if right is None and found.labels is not None:
            right = arrays[LABEL]
        arrays = {"inputs": np.ascontiguousarray(rows.astype(arrays[ROWS].dtype))}
    count = min(len(array) for array in arrays.values())
    if any(len(array) != count for array in arrays.values()) or (right is not None and len(right) != count):
        raise FormatError(f"{path}: the arrays have different numbers of rows")
    used = min(count, ROWS_MAX)
    flat = np.concatenate([array[:used].reshape(used, -1) for array in arrays.values()], axis=1).astype(np.float64)
    if not np.isfinite(flat).all():
        raise FormatError(f"{path}: the rows hold NaN or infinity")
    layout = Layout(tuple((name, array.shape[1:], array.dtype) for name, array in arrays.items()))
    return layout, flat, None if right is None else _classes(right[:used], path)


def remote_subject(
    remote: Remote,
    rows: Rows,
    labels: NDArray[np.int64] | None,
    training: tuple[Rows, NDArray[np.int64]] | None = None,
) -> Subject:
    """The subject, after its first answers. Raises InconclusiveError for a wrong wrapper, and what goes wrong then."""
    if len(rows) < ROWS_MIN:
        raise FormatError(f"{len(rows)} rows are too few to measure on: at least {ROWS_MIN} were expected")
    form = remote.meet(rows, labels)
    members: Training | None = None
    if training is not None:
        if labels is None:
            raise FormatError("membership needs labels of both the rows of training and the others", "y beside x")
        members = training_of(*training, rows, labels)
    return Subject(
        name=str(remote.api.url),
        digest=digest_of(remote.api),
        doors=(Door(DOOR, remote.ask, str(form)),),
        deployed=DOOR,
        rows=rows,
        labels=labels,
        classes=remote.classes,
        image=None,
        whole=(rows == np.rint(rows)).all(axis=0),
        training=members,
        service=remote,
    )


def digest_of(api: Api) -> str:
    """What makes an endpoint the same: its address and how it is asked; the key may change."""
    parts = [str(api.url), api.request, list(api.answer), list(api.labels), api.header]
    return sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    arrays = _load(path, "rows")
    numeric = (array.ndim >= 2 and array.dtype.kind in "biuf" for name, array in arrays.items() if name != LABEL)
    if not arrays or not all(numeric):
        raise FormatError(f"{path} has rows that are no numbers, or a list instead of a table")
    return arrays


def _labels(path: Path) -> NDArray[Any]:
    arrays = _load(path, "labels")
    found = next(iter(arrays.values()), None)
    if found is None or len(arrays) > 1 or found.ndim != 1 or found.dtype.kind not in "biuf":
        raise FormatError(f"{path} does not hold one number for each row", "save them with numpy.save")
    return found


def _load(path: Path, what: str) -> dict[str, NDArray[Any]]:
    """Arrays by name; one alone as `inputs`. No pickle: a stranger's file must not run code."""
    data = files.read_limited(path, size_max=ARRAYS_BYTES_MAX, what=f"the {what}")
    try:
        found = np.load(io.BytesIO(data), allow_pickle=False)
        if isinstance(found, np.ndarray):
            return {"inputs": found}
        return {name: np.asarray(found[name]) for name in found.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise FormatError(f"{path} holds no {what}: {error}", "save them with numpy.save or numpy.savez") from None


def _classes(labels: NDArray[Any], path: Path) -> NDArray[np.int64]:
    found = labels.astype(np.int64)
    if (found != labels).any() or found.min() < 0:
        raise FormatError(f"{path}: labels are numbers of classes, from 0 on")
    return found
