"""A version that answers simulated rows as the gate would: the same outputs, before anything is withheld."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.errors import PalladionError
from palladion.gate.contract import Contract
from palladion.gate.sources.layered import layers_of, run_shown, seen, taken
from palladion.model.run import Session
from palladion.redteam.validation import Validation
from palladion.watch.instruments import Episode

BATCH_ROWS = 1024  # in one run of the model: its activations are held at once


class Respondent:
    """Asks one session with the rows of clients, in the shape that the model takes."""

    def __init__(self, session: Session, contract: Contract, validation: Validation) -> None:
        """Raises PalladionError for a model that has other inputs than one of numbers, or takes rows of other sizes."""
        if len(session.inputs) != 1 or session.inputs[0].dtype[:3] not in {"flo", "int", "uin"}:
            raise PalladionError(
                "only models with one input of numbers can be calibrated so far",
                "without a calibration, limits and standings still act",
            )
        self._port = session.inputs[0]
        self._session = session
        self.layers = layers_of(session)
        self._contract = contract
        self._channels_first = validation.channels_first
        self._row_shape = self._shape_of(validation.rows)

    def episodes(self, clients: Sequence[NDArray[np.float32]]) -> list[Episode]:
        """What some clients' rows (queries, *shape) and their answers look like to the watch; asked all together."""
        shaped = self._shaped(np.concatenate(clients))
        scores = np.concatenate([self._seen(part) for part in self._parts(shaped)])
        inputs = shaped.reshape(len(shaped), -1).astype(np.float64)
        ends = np.cumsum([len(rows) for rows in clients])[:-1]
        return [Episode(*parts) for parts in zip(np.split(inputs, ends), np.split(scores, ends), strict=True)]

    def labels(self, rows: NDArray[np.float32]) -> NDArray[np.int64]:
        """The class that the model names for each row; 0 where it names none."""
        answers = [
            self._contract.class_scores(self._session.run({self._port.name: part}), len(part))
            for part in self._parts(self._shaped(rows))
        ]
        scores = np.concatenate(answers)
        return scores.argmax(axis=1) if scores.shape[1] else np.zeros(len(rows), np.int64)

    def _seen(self, part: NDArray[Any]) -> NDArray[np.float64]:
        outputs, shown = taken(run_shown(self._session, {self._port.name: part}))
        return seen(self._contract.class_scores(outputs, len(part)), shown)

    def _shaped(self, rows: NDArray[np.float32]) -> NDArray[Any]:
        turned = np.moveaxis(rows, -1, 1) if self._channels_first else rows
        return np.ascontiguousarray(turned).reshape(len(rows), *self._row_shape).astype(self._port.dtype)

    def _shape_of(self, rows: NDArray[np.float32]) -> tuple[int, ...]:
        """The shape of one row as the model takes it: its own where it is fixed, else that of the data."""
        wanted = self._port.shape[1:]
        size = int(np.prod(rows.shape[1:]))
        fixed = tuple(item for item in wanted if isinstance(item, int))
        if len(fixed) == len(wanted) and int(np.prod(fixed)) == size:
            return fixed
        shape = (rows.shape[-1], *rows.shape[1:-1]) if self._channels_first else rows.shape[1:]
        if len(shape) == len(wanted) and all(
            not isinstance(want, int) or want == got for want, got in zip(wanted, shape, strict=True)
        ):
            return shape
        raise PalladionError(
            f"a row of the data has the shape {shape}, and the model takes {self._port.shape} of {self._port.name!r}"
        )

    def _parts(self, rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
        first = self._port.shape[0]
        size = first if isinstance(first, int) else BATCH_ROWS
        if len(rows) % size and isinstance(first, int):
            raise PalladionError(f"the model takes exactly {size} rows at once, and a client asks them one by one")
        for start in range(0, len(rows), size):
            yield rows[start : start + size]
