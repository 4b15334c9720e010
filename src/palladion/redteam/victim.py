"""A user's own model and data as thieves and honest users meet them: rows in, answers out at every step of a ladder.

Reads the rows, asks the model in batches, and puts what is disclosed into the form that is measured.
"""

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion import files
from palladion.errors import FormatError, PalladionError
from palladion.gate.contract import Contract, as_probabilities
from palladion.gate.disclosure import Terms, disclose_to
from palladion.lifecycle.rows import read_rows
from palladion.mark.answers.noise import are_probabilities
from palladion.model.model import Model
from palladion.model.run import STRING, Port, Session
from palladion.redteam.utility import as_distribution
from palladion.redteam.validation import LABEL as VALIDATION_LABEL
from palladion.redteam.validation import ROWS as VALIDATION_ROWS
from palladion.redteam.validation import read_validation

Rows = NDArray[np.float64]

ROWS_MIN = 300  # fewer leave too few to hold out, and intervals that say nothing
ROWS_MAX = 50_000  # that are measured on: the first ones of more
LABELS_BYTES_MAX = 64 * 1024 * 1024
BATCH_ROWS = 1024  # in one run of the model: its activations are held at once


@dataclass(frozen=True, eq=False)
class Victim:
    """A model under a contract, asked with flat rows (n, inputs). `truth` is all of its answers to `rows`.

    `right` are the true labels or numbers, where they are known; `goal_is_classes` says which.
    """

    session: Session
    contract: Contract
    rows: Rows
    right: NDArray[Any] | None
    truth: Rows
    is_logits: bool
    whole: NDArray[np.bool_]  # (inputs,)

    @property
    def goal_is_classes(self) -> bool:
        """Whether a thief wants class probabilities, and no numbers."""
        return self.contract.kind == "classes"

    def disclosed(self, rows: Rows, terms: Terms) -> Rows | None:
        """What is shown of the answers to `rows`, as probabilities or numbers (n, outputs); None for labels alone."""
        raw = _raw(self.session, self.contract, rows)
        shown = disclose_to(terms, {self._scores: raw, **self._labels(raw)}).get(self._scores)
        if shown is None:
            return None
        flat = shown.astype(np.float64).reshape(len(rows), -1)
        if not self.goal_is_classes:
            return flat
        # rounded probabilities do not add up to 1, so that their look alone would not tell them from logits
        return np.asarray(as_probabilities(flat) if self.is_logits else flat)

    def decisions_changed(self, rows: Rows, terms: Terms) -> int | None:
        """How many scores look to be on the other side of the route's threshold; None where it declares none."""
        threshold = np.float64(self.contract.threshold)
        if np.isinf(threshold):
            return None
        raw = _raw(self.session, self.contract, rows)
        shown = disclose_to(terms, {self._scores: raw, **self._labels(raw)}).get(self._scores)
        return None if shown is None else int(((shown >= threshold) != (raw >= threshold)).sum())

    def answers(self, rows: Rows, terms: Terms) -> Rows:
        """The same for a thief: labels become probabilities of 1, and others are made to add up to 1."""
        shown = self.disclosed(rows, terms)
        if shown is None:
            named = _raw(self.session, self.contract, rows).argmax(axis=1)
            return np.asarray(np.eye(self.truth.shape[1])[named])
        return np.asarray(as_distribution(shown) if self.goal_is_classes else shown)

    @property
    def _scores(self) -> str:
        return self.contract.scores or ""

    def _labels(self, raw: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        # what the model's own output for labels says does not matter here: it is shown at every level alike
        return {} if self.contract.label is None else {self.contract.label: raw.argmax(axis=-1)}


def meet(session: Session, contract: Contract, feeds: Mapping[str, NDArray[Any]], right: NDArray[Any] | None) -> Victim:
    """The victim of measurements. Raises PalladionError for answers that are not measured, and for too few rows."""
    if contract.kind not in {"classes", "numbers", "embedding"} or contract.scores is None or contract.rank > 2:
        kind = "labels alone" if contract.scores is None else f"{contract.kind} of this shape"
        raise PalladionError(f"what answers disclose is measured for class scores, numbers and embeddings, not {kind}")
    count = min(len(array) for array in feeds.values())
    if any(len(array) != count for array in feeds.values()) or (right is not None and len(right) != count):
        raise FormatError("the arrays have different numbers of rows")
    if count < ROWS_MIN:
        raise PalladionError(f"{count} rows are too few to measure on: at least {ROWS_MIN} were expected")
    _check_inputs(session.inputs, feeds)
    used = min(count, ROWS_MAX)
    rows = np.concatenate([feeds[p.name][:used].reshape(used, -1) for p in session.inputs], axis=1).astype(np.float64)
    if not np.isfinite(rows).all():
        raise FormatError("the rows hold NaN or infinity")
    raw = _raw(session, contract, rows)
    flat = raw.astype(np.float64).reshape(used, -1)
    if not np.isfinite(flat).all():
        raise PalladionError("the model answers some rows with NaN or infinity")
    is_logits = contract.kind == "classes" and not are_probabilities(flat).mean() > 0.5
    truth = as_probabilities(flat) if is_logits else flat
    whole = (rows == np.rint(rows)).all(axis=0)
    return Victim(session, contract, rows, None if right is None else right[:used], truth, is_logits, whole)


def _check_inputs(inputs: Sequence[Port], feeds: Mapping[str, NDArray[Any]]) -> None:
    if any(feeds[port.name].dtype.kind not in "biuf" or port.dtype == STRING for port in inputs):
        raise PalladionError("rows of texts are not measured so far")
    for port in inputs:
        sizes_open = sum(not isinstance(size, int) for size in port.shape[1:])
        if sizes_open > (1 if len(inputs) == 1 else 0):
            raise PalladionError(f"the input {port.name} takes rows of any shape, a fixed one was expected")


def _raw(session: Session, contract: Contract, rows: Rows) -> NDArray[Any]:
    """The model's scores for flat `rows`, in batches of the size that it takes."""
    first = session.inputs[0].shape[0]
    size = first if isinstance(first, int) else BATCH_ROWS
    parts = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        short = size - len(part) if isinstance(first, int) else 0
        asked = np.concatenate([part, np.repeat(part[:1], short, axis=0)])
        parts.append(session.run(_feeds(session.inputs, asked))[contract.scores or ""][: len(part)])
    return np.concatenate(parts)


def _feeds(inputs: Sequence[Port], rows: Rows) -> dict[str, NDArray[Any]]:
    feeds, place = {}, 0
    for port in inputs:
        sizes = [size if isinstance(size, int) else -1 for size in port.shape[1:]]
        width = rows.shape[1] if len(inputs) == 1 else int(np.prod(sizes))
        part = rows[:, place : place + width]
        place += width
        dtype = np.dtype(port.dtype)
        feeds[port.name] = (np.rint(part) if dtype.kind in "iu" else part).astype(dtype).reshape(len(rows), *sizes)
    return feeds


def read_data(
    path: Path, labels: Path | None, model: Model, session: Session
) -> tuple[Mapping[str, NDArray[Any]], NDArray[Any] | None]:
    """Arrays by input name, and the true labels or numbers (rows,) where there are some. Raises FormatError.

    Rows as for `protect --rows`, or an NPZ file with x and y as for `watch calibrate`.
    """
    right = None if labels is None else _read_labels(labels)
    single = session.inputs[0].name if len(session.inputs) == 1 else None
    # where the input is called x too, only labels beside it say that this is such a file
    wanted = {VALIDATION_ROWS, *((VALIDATION_LABEL,) if single == VALIDATION_ROWS else ())}
    if single is None or not _holds(path, wanted):
        return read_rows(path, model), right
    found = read_validation(path)
    rows = np.moveaxis(found.rows, -1, 1) if found.channels_first else found.rows
    return {single: np.ascontiguousarray(rows)}, found.labels if right is None else right


def _holds(path: Path, names: set[str]) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return {f"{name}.npy" for name in names} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _read_labels(path: Path) -> NDArray[Any]:
    data = files.read_limited(path, size_max=LABELS_BYTES_MAX, what="the labels")
    try:
        found = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise FormatError(f"{path} holds no labels: {error}", "save them with numpy.save") from None
    if not isinstance(found, np.ndarray) or found.ndim != 1 or found.dtype.kind not in "biuf":
        raise FormatError(f"{path} does not hold one number for each row", "save them with numpy.save")
    return found
