"""How much of its usefulness an altered copy has lost, in points of 100, by running both on the same rows.

With the owner's rows and labels it is accuracy, with rows alone agreement, without rows the likeness of outputs on
random probes. Weights without a graph cannot be run, and nothing is said of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.model.model import Model
from palladion.model.run import Port, Session, open_session

Feeds = Mapping[str, NDArray[Any]]

PROBES = 64
BATCH_ROWS = 1024
ROWS_MAX = 5000  # that are run for each attack
OPEN_SIZES = (16, 1, 64, 224)  # tried for sizes that a model leaves open
WHOLE_MAX = 100  # whole numbers are drawn below: token ids that every vocabulary has
POINTS = 100.0


class Usefulness:
    """Judges altered copies of `marked`. Raises FormatError where the model does not take the rows, or random ones.

    `feeds` (rows, …) by input; None draws them. `right` (rows,) are true classes. `how` says in words what is compared.
    """

    def __init__(self, marked: Model, feeds: Feeds | None, right: NDArray[Any] | None, *, seed: int) -> None:
        session = open_session(marked)
        self._feeds, self._answers = _probed(session, seed) if feeds is None else _given(session, feeds)
        rows = len(next(iter(self._answers.values())))
        named = _named(self._answers)
        self._right = None if right is None or named is None else right[:rows]
        if self._right is not None and named is not None:
            self._before = float((named == self._right).mean())
            self.how = f"accuracy on {rows} rows, {self._before:.1%} before"
        elif named is not None:
            self.how = f"{'random probes' if feeds is None else 'rows'} on which both name one class, of {rows}"
        else:
            self.how = f"likeness of outputs (cosine) on {rows} {'random probes' if feeds is None else 'rows'}"

    def lost(self, model: Model) -> float:
        """Points of 100 that `model` has lost; 100 for one that does not run any more."""
        try:
            session = open_session(model)
            found = _run(session, self._feeds)
        except FormatError:
            return POINTS
        named, before = _named(found), _named(self._answers)
        if self._right is not None and named is not None:
            return max(0.0, POINTS * (self._before - float((named == self._right).mean())))
        if named is not None and before is not None:
            return POINTS * float((named != before).mean())
        return POINTS * (1 - _likeness(self._answers, found))


def _given(session: Session, feeds: Feeds) -> tuple[list[Feeds], Feeds]:
    missing = [port.name for port in session.inputs if port.name not in feeds]
    if missing:
        raise FormatError(f"there are no rows for the input {missing[0]!r}")
    rows = min(ROWS_MAX, *(len(array) for array in feeds.values()))
    first = session.inputs[0].shape[0] if session.inputs[0].shape else None
    size = first if isinstance(first, int) else BATCH_ROWS
    # a batch of a fixed size is filled, or left out
    ends = range(0, rows - rows % size if isinstance(first, int) else rows, size)
    batches: list[Feeds] = [
        {port.name: feeds[port.name][start : min(start + size, rows)].astype(port.dtype) for port in session.inputs}
        for start in ends
    ]
    if not batches:
        raise FormatError(f"{rows} rows are fewer than the {size} that the model takes at once")
    try:
        return batches, _run(session, batches)
    except ValueError as error:
        raise FormatError(f"the rows do not fit the model: {error}") from None


def _probed(session: Session, seed: int) -> tuple[list[Feeds], Feeds]:
    reason = ""
    for size in OPEN_SIZES:
        try:
            generator = np.random.default_rng(seed)
            first = session.inputs[0].shape[0] if session.inputs[0].shape else None
            batches = -(-PROBES // first) if isinstance(first, int) and first > 0 else 1
            feeds: list[Feeds] = [
                {port.name: _probe(port, size, generator) for port in session.inputs} for _ in range(batches)
            ]
            return feeds, _run(session, feeds)
        except (FormatError, ValueError) as error:
            reason = reason or str(error)
    raise FormatError(f"random probes do not run: {reason}", "--rows names rows of the owner's")


def _probe(port: Port, size: int, generator: np.random.Generator) -> NDArray[Any]:
    shape = [length if isinstance(length, int) else size for length in port.shape]
    if port.shape and not isinstance(port.shape[0], int):
        shape[0] = PROBES
    if "mask" in port.name.lower():
        return np.ones(shape, port.dtype)
    if port.dtype.startswith("float"):
        return np.asarray(generator.standard_normal(shape), port.dtype)
    if port.dtype == "bool":
        return generator.random(shape) < 0.5
    if "int" in port.dtype:
        # the kind of a token has two values at most
        return generator.integers(0, 1 if "type" in port.name.lower() else WHOLE_MAX, shape).astype(port.dtype)
    raise ValueError(f"the input {port.name!r} takes a {port.dtype}, of which nothing is drawn at random")


def _run(session: Session, feeds: Sequence[Feeds]) -> Feeds:
    parts = [session.run(some) for some in feeds]
    return {name: np.concatenate([np.atleast_1d(part[name]) for part in parts]) for name in parts[0]}


def _named(answers: Feeds) -> NDArray[Any] | None:
    """The class of each row: labels where there are some, else the highest of several scores; None without either."""
    labels = [array for array in answers.values() if array.ndim == 1 and array.dtype.kind in "iuOU"]
    if labels:
        return labels[0]
    scores = [array for array in answers.values() if array.ndim == 2 and array.dtype.kind == "f" and array.shape[1] > 1]
    return np.nan_to_num(scores[0], nan=-np.inf).argmax(axis=1) if scores else None


def _likeness(ours: Feeds, theirs: Feeds) -> float:
    """The mean cosine of outputs, at least 0; of single numbers that of all rows together, less their mean."""
    found = []
    for name, array in ours.items():
        if array.dtype.kind != "f" or array.shape != theirs[name].shape:
            continue
        one, other = (np.nan_to_num(item.astype(np.float64).reshape(len(item), -1)) for item in (array, theirs[name]))
        if one.shape[1] == 1:
            one, other = (one - one.mean()).T, (other - one.mean()).T
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        cosines = np.divide((one * other).sum(axis=1), lengths, where=lengths > 0, out=np.zeros(len(lengths)))
        found.append(float(cosines.mean()))
    return max(0.0, min(found, default=0.0))
