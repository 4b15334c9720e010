"""What a target answers: recognises probabilities, percentages, logits and labels, and refuses what is none of them.

A wrong guess here would make an attack fail, and a failed attack look like a safe model. Confidences are those of
Carlini et al. (S&P 2022, arXiv:2112.03570): φ = log(p / (1 - p)) of the true class.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from palladion.errors import InconclusiveError

Rows = NDArray[np.float64]
Labels = NDArray[np.int64]
Kind = Literal["probabilities", "percentages", "logits", "labels"]

DECIMALS_MAX = 6  # more are as good as unrounded: float32 has seven digits
COLUMNS_MAX = 100_000  # of a target that may be hostile: all rows are held at once
SUM_TOLERANCE = 1e-3  # of unrounded probabilities: float16 has three digits
PERCENT = 100.0
FLOOR = 1e-12  # of an unrounded probability in a logarithm
LABEL_FLOOR = 0.01  # of a label, as if it were a probability of 1
_FLOAT32 = 2.0**-23


@dataclass(frozen=True)
class Form:
    """How a target answers: the kind, to how many decimals of a probability, and how many classes it shows (or all)."""

    kind: Kind
    decimals: int | None = None
    shown: int | None = None

    @property
    def floor(self) -> float:
        """The smallest probability that such an answer tells from 0."""
        if self.kind == "labels":
            return LABEL_FLOOR
        return FLOOR if self.decimals is None else 0.5 * 10.0**-self.decimals

    def __str__(self) -> str:
        rounded = "" if self.decimals is None else f", rounded to {self.decimals} decimals of a probability"
        hidden = "" if self.shown is None else f", the {self.shown} highest classes"
        return f"{self.kind}{rounded}{hidden}"


def recognise(answers: NDArray[Any], count: int, classes: int) -> Form:
    """The form of `answers` to `count` rows, for a task with `classes`. Raises InconclusiveError for a wrong wrapper.

    Takes (rows, classes), and (rows,) or (rows, 1) of labels or of the second of two classes.
    """
    table = _as_table(answers, count)
    if len(table) > 1 and (table == table[0]).all():
        raise InconclusiveError(f"the target gives the same answer to all of {count} rows")
    if table.shape[1] == 1:
        return _of_one_column(table[:, 0], classes)
    if table.shape[1] < classes:
        raise InconclusiveError(
            f"the target answers with {table.shape[1]} columns, and the labels have {classes} classes"
        )
    if ((table == 0) | (table == 1)).all() and (table.sum(axis=1) == 1).all():
        return Form("labels")
    if (table < 0).any():
        return Form("logits")
    top = float(table.max())
    for kind, unit in (("probabilities", 1.0), ("percentages", PERCENT)):
        if top > unit * (1 + SUM_TOLERANCE):
            continue
        whole = table / unit
        form = Form(kind, _decimals(table, unit), _shown(whole))  # type: ignore[arg-type]
        if _adds_up(whole, form):
            return form
    raise InconclusiveError(
        f"the target's rows sum to {table.sum(axis=1).min():.4g} to {table.sum(axis=1).max():.4g}, which is neither "
        "1 nor 100, and none of the numbers is negative as logits are",
        "let it answer with probabilities, percentages, logits or labels",
    )


def as_probabilities(answers: NDArray[Any], form: Form, count: int, classes: int) -> Rows:
    """Answers of that form as probabilities (rows, classes). Raises InconclusiveError where they have another."""
    table = _as_table(answers, count)
    if table.shape[1] == 1:
        column = table[:, 0]
        if form.kind == "labels":
            _check_labels(column, classes)
            return np.asarray(np.eye(classes)[column.astype(np.int64)])
        second = _logistic(column) if form.kind == "logits" else column / (PERCENT if form.kind == "percentages" else 1)
        table = np.stack([1 - second, second], axis=1)
    elif form.kind == "percentages":
        table = table / PERCENT
    elif form.kind == "logits":
        table = softmax(table)
    if form.kind in {"probabilities", "percentages"} and not _adds_up(table, form):
        raise InconclusiveError("the target's answers changed their form: some rows do not sum to 1 any more")
    return table


def disclosed(probabilities: Rows, form: Form) -> Rows:
    """What a model with these probabilities (…, classes) would show in that form, as probabilities again."""
    if form.kind == "labels":
        return np.asarray(np.eye(probabilities.shape[-1])[probabilities.argmax(axis=-1)])
    shown = probabilities
    if form.shown is not None and form.shown < shown.shape[-1]:
        cut = np.partition(shown, -form.shown, axis=-1)[..., -form.shown, None]
        shown = np.where(shown >= cut, shown, 0.0)
    return shown if form.decimals is None else np.round(shown, form.decimals)


def own(probabilities: Rows, labels: Labels) -> Rows:
    """The probability (…, rows) of each row's label, of probabilities (…, rows, classes)."""
    chosen = np.broadcast_to(labels[:, None], (*probabilities.shape[:-1], 1))
    return np.asarray(np.take_along_axis(probabilities, chosen, axis=-1)[..., 0])


def confidences(probabilities: Rows, labels: Labels, floor: float = FLOOR) -> Rows:
    """φ = log(p / (1 - p)) of each row's label, (…, rows), of probabilities (…, rows, classes); none below `floor`."""
    right = own(probabilities, labels)
    total = probabilities.sum(axis=-1)
    others = probabilities.copy()
    np.put_along_axis(others, np.broadcast_to(labels[:, None], (*right.shape, 1)), 0.0, axis=-1)
    # where nothing is hidden, the sum of the others keeps the digits that 1 - p loses
    wrong = np.where(np.abs(total - 1) < 1e-5, others.sum(axis=-1), 1 - right)
    return np.asarray(np.log(np.clip(right, floor, 1.0)) - np.log(np.clip(wrong, floor, 1.0)))


def softmax(logits: NDArray[Any]) -> Rows:
    """Probabilities of logits (…, classes), in double precision."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=-1, keepdims=True)
    return shifted


def _as_table(answers: NDArray[Any], count: int) -> Rows:
    found = np.asarray(answers)
    if found.dtype.kind not in "biuf":
        raise InconclusiveError(f"the target answers with {found.dtype}, numbers were expected", "number the classes")
    if found.ndim not in {1, 2} or len(found) != count:
        raise InconclusiveError(f"the target's answers have the shape {found.shape} for {count} rows")
    if found.ndim == 2 and not 1 <= found.shape[1] <= COLUMNS_MAX:
        raise InconclusiveError(f"the target answers with {found.shape[1]} columns, 1 to {COLUMNS_MAX} were expected")
    table = found.astype(np.float64).reshape(count, -1)
    if not np.isfinite(table).all():
        raise InconclusiveError("the target answers some rows with NaN or infinity")
    return table


def _of_one_column(column: Rows, classes: int) -> Form:
    if (column == np.rint(column)).all():
        _check_labels(column, classes)
        return Form("labels")
    if classes != 2:
        raise InconclusiveError(f"the target answers with one number a row, and the labels have {classes} classes")
    if (column < 0).any():
        return Form("logits")
    if column.max() <= 1:
        return Form("probabilities", _decimals(column, 1.0))
    if column.max() <= PERCENT:
        return Form("percentages", _decimals(column, PERCENT))
    raise InconclusiveError(f"the target's numbers go up to {column.max():.4g}, which no probability does")


def _check_labels(column: Rows, classes: int) -> None:
    if (column != np.rint(column)).any() or column.min() < 0 or column.max() >= classes:
        raise InconclusiveError(f"the target names classes that are not of the {classes} of the labels")


def _decimals(table: Rows, unit: float) -> int | None:
    """To how many decimals of a probability all numbers are rounded; None for more than tell anything."""
    places = 0 if unit == 1.0 else 2
    for decimals in range(DECIMALS_MAX - places + 1):
        if (np.abs(table - np.round(table, decimals)) <= _FLOAT32 * np.abs(table)).all():
            return decimals + places
    return None


def _shown(whole: Rows) -> int | None:
    most = int((whole > 0).sum(axis=1).max())
    return most if most < whole.shape[1] else None


def _adds_up(whole: Rows, form: Form) -> bool:
    """Whether each row is a distribution, as far as rounding and hiding classes leave one."""
    rounding = 0.0 if form.decimals is None else 0.5 * whole.shape[1] * 10.0**-form.decimals
    totals, tolerance = whole.sum(axis=1), SUM_TOLERANCE + rounding
    # what is hidden is shown as 0, so that only a row with a 0 may sum to less
    hides = (whole == 0).any(axis=1)
    fits = (totals <= 1 + tolerance) & ((totals >= 1 - tolerance) | hides) & (totals > 0)
    return bool((whole >= 0).all() and fits.all())


def _logistic(column: Rows) -> Rows:
    return np.asarray(np.exp(-np.logaddexp(0.0, -column)))
