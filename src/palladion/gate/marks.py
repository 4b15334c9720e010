"""Answer marks in the data path: what a client gets in place of the model's own answer, and what is kept of it.

How answers are marked is in `palladion.mark.answers.noise`, how a student is found in `…answers.students`. What is kept
is all that a test needs, and knows nothing of a secret: the query, the unmarked scores, the hash, the strength.
"""

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.errors import PalladionError, PolicyError
from palladion.gate.contract import Contract, Outputs
from palladion.gate.decode import Feeds, numbers
from palladion.ledger.bodies import ENTRY_BYTES_MAX, BodyWriter
from palladion.ledger.body import Body
from palladion.mark.answers.noise import (
    Cells,
    Pairs,
    are_probabilities,
    client_key,
    flip_probability,
    mark_scores,
    strength_for,
)
from palladion.model.run import Session
from palladion.policy import RoutePolicy
from palladion.registry import Version
from palladion.watch.calibration import Calibration
from palladion.watch.features import FEATURES, Features, clean
from palladion.watch.rows import Rows, product

MARGINS = 4096  # points at which the honest margins of a calibration are read, between its quantiles
# Three deviations of what turns by chance, and a few at first: less would stop marking honest clients at random.
ALLOWANCE_DEVIATIONS, ALLOWANCE_START = 3.0, 3.0
_ROW_BYTES = 8  # of a number in a retained body, at most
_STRETCHES = (1.0, 0.5, 1.5, 2.5, 4.0)  # of honest class means from the centre: rows that the model names classes for

log = logging.getLogger("palladion.gate")


@dataclass(eq=False)
class Turned:
    """What one client was answered on a route: how many answers, and how many labels were expected to turn."""

    answers: int = 0
    expected: float = 0.0


@dataclass(frozen=True, eq=False)
class MarkedAnswer:
    """Marked `outputs` of a request, the `query_hashes` and `strengths` of its rows, and how many labels `flipped`."""

    outputs: Outputs
    query_hashes: Sequence[bytes]
    strengths: Rows
    flipped: int


@dataclass(frozen=True, eq=False)
class AnswerMarks:
    """The marks of one route: how strong, by which honest rows, and which label belongs to which column of scores.

    `labels` is None where the model has no output for them, and a column's label None where it could not be found out:
    nothing turns into that class.
    """

    root: bytes
    version: Version
    contract: Contract
    share: float
    strength: float
    features: Features
    cells: Cells
    labels: Sequence[object] | None
    turned: defaultdict[str, Turned] = field(default_factory=lambda: defaultdict(Turned))
    keys: dict[str, bytes] = field(default_factory=dict)  # by client: deriving one takes as long as marking a row

    def mark(self, outputs: Outputs, feeds: Feeds, rows: int, client: str, *, trusted: bool) -> MarkedAnswer:
        """Mark the answer to `rows` queries of a client, by id. Never raises for anything that a client can cause.

        No more labels of a `trusted` client are expected to turn than the policy's share, but for what chance does.
        One that is watched has no such limit: whoever sought out answers that turn easily would use it up with them.
        """
        scores = outputs[self._scores]
        exact = scores.astype(np.float64)
        probabilities = are_probabilities(exact)
        pairs = Pairs.of(exact, probabilities)
        strengths = np.where(self._mapped(outputs, pairs), self.strength, 0.0)
        chances = flip_probability(pairs.margins, strengths)
        if trusted:
            strengths = np.where(self._allowed(self.turned[client], chances), strengths, 0.0)
        hashes = self.cells.hashes(self._coordinates(numbers(feeds, rows)))
        key = self.keys.get(client)
        if key is None:
            key = self.keys[client] = client_key(self.root, client, self.version.model, self.version.number)
        marked = mark_scores(scores, key, hashes, strengths=strengths, probabilities=probabilities)
        shown = {**outputs, self._scores: marked.scores}
        if self.contract.label is not None:
            shown[self.contract.label] = self._relabelled(outputs[self.contract.label], marked.labels, marked.flipped)
        return MarkedAnswer(shown, hashes, strengths, int(marked.flipped.sum()))

    def bodies(
        self, answer: MarkedAnswer, feeds: Feeds, outputs: Outputs, *, request: str, disclosed: str
    ) -> list[Body]:
        """What is kept of a request: the rows that were marked; `outputs` are the unmarked ones."""
        scores = outputs[self._scores]
        return [
            Body(
                request,
                row,
                {name: array[row] for name, array in feeds.items()},
                scores[row],
                answer.query_hashes[row],
                float(answer.strengths[row]),
                disclosed,
            )
            for row in np.flatnonzero(answer.strengths > 0).tolist()
        ]

    @property
    def _scores(self) -> str:
        return self.contract.scores or ""  # a contract without scores has no marks

    def _coordinates(self, inputs: Rows) -> Rows:
        standard = (clean(inputs) - self.features.centre) / self.features.scale
        return product(standard, self.features.directions)

    def _mapped(self, outputs: Outputs, pairs: Pairs) -> NDArray[np.bool_]:
        """Which rows may be marked: those whose label is the one of the highest score, and would have another to be."""
        if self.contract.label is None or self.labels is None:
            return np.ones(len(pairs.first), np.bool_)
        said = outputs[self.contract.label].reshape(-1).tolist()
        found = [
            self.labels[first] == label and self.labels[second] is not None
            for label, first, second in zip(said, pairs.first.tolist(), pairs.second.tolist(), strict=True)
        ]
        return np.array(found, np.bool_)

    def _relabelled(self, said: NDArray[Any], labels: NDArray[np.int64], flipped: NDArray[np.bool_]) -> NDArray[Any]:
        turned = said.copy()
        for row in np.flatnonzero(flipped).tolist():
            turned[row] = (self.labels or ())[int(labels[row])]
        return turned

    def _allowed(self, turned: Turned, chances: Rows) -> NDArray[np.bool_]:
        allowed = np.ones(len(chances), np.bool_)
        for row, chance in enumerate(chances.tolist()):
            turned.answers += 1
            mean = self.share * turned.answers
            limit = mean + ALLOWANCE_DEVIATIONS * math.sqrt(mean) + ALLOWANCE_START
            if turned.expected + chance > limit:
                allowed[row] = False
            else:
                turned.expected += chance
        return allowed


class Retainer:
    """Writes bodies from a thread of its own, in order, while the ledger syncs. To be called from one event loop."""

    def __init__(self, writer: BodyWriter) -> None:
        self.handed = 0  # bodies since the start
        self._writer = writer
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bodies")
        self._sound = True

    def keep(self, client: str, version: str, bodies: Sequence[Body]) -> "asyncio.Future[None]":
        """Keep `bodies` of a client, by pseudonym; done when the kernel has them. Fails with PalladionError."""
        self.handed += len(bodies)
        loop = asyncio.get_running_loop()
        keeping = loop.run_in_executor(self._thread, self._writer.append, client, version, bodies)
        keeping.add_done_callback(self._told)
        return keeping

    def _told(self, done: "asyncio.Future[None]") -> None:
        """Tell the operator once that nothing marked is answered, and why."""
        error = None if done.cancelled() else done.exception()
        if error is not None and self._sound:
            log.error("bodies cannot be kept, so no marked answer is given: %s", error)
        self._sound = error is None

    async def sync(self) -> None:
        """Make what is kept durable: a power cut loses the last second of it. Raises PalladionError."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._writer.sync)

    async def close(self) -> None:
        """Sync and end the thread. Raises PalladionError."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._writer.close)
        finally:
            self._thread.shutdown(wait=True)


def make_marks(
    route: RoutePolicy,
    root: bytes,
    version: Version,
    *,
    session: Session | None,
    contract: Contract,
    calibration: Calibration | None,
) -> AnswerMarks | None:
    """The marks of a route, or None if its policy wants none; `root` is the gate root's "answer-marks".

    Without a `session` (the model runs at an upstream), an output for labels cannot be marked.

    Raises PolicyError where answers cannot be marked, with the reason.
    """
    if route.flipped == 0:
        return None
    what = f"route {route.route} cannot mark answers (flipped = {route.flipped})"
    if contract.scores is None or contract.kind != "classes":
        raise PolicyError(
            f"{what}: {version.model} gives no class scores", "marks are in the two highest classes: set flipped = 0"
        )
    if calibration is None:
        raise PolicyError(
            f"{what}: version {version.number} of {version.model} is not calibrated, so which queries are alike, and "
            "how unsure the model is on honest ones, is not known",
            f"palladion watch calibrate {version.model}@{version.number}",
        )
    features = calibration.instruments.features
    classes = len(features.class_means)
    if classes < 2 or (features.centre.size + classes) * _ROW_BYTES > ENTRY_BYTES_MAX // 2:
        raise PolicyError(f"{what}: the calibration of {version.model} has {classes} classes and queries too large")
    quantiles = calibration.instruments.scores.quantiles[list(FEATURES).index("margin")]
    points = np.linspace(0, len(quantiles) - 1, MARGINS)
    strength = strength_for(np.interp(points, np.arange(len(quantiles)), quantiles), route.flipped)
    if contract.label is not None and session is None:
        raise PolicyError(
            f"{what}: which label belongs to which class score is not known of a model at an upstream",
            "let the upstream describe the scores alone, or set flipped = 0",
        )
    asked = None if contract.label is None else session
    labels = None if asked is None else _labels(what, asked, contract, features)
    cells = Cells.draw(root, features.deviations)
    return AnswerMarks(root, version, contract, route.flipped, strength, features, cells, labels)


def _labels(what: str, session: Session, contract: Contract, features: Features) -> list[object]:
    """Which label the model gives with each column of scores, found by asking it; None for a class it did not name."""
    found: dict[int, object] = {}
    for row in _probes(features):
        try:
            outputs = session.run(_shaped(session, row))
            (column,) = outputs[contract.scores or ""].argmax(axis=1).tolist()
            (label,) = outputs[contract.label or ""].reshape(-1).tolist()
        except (PalladionError, ValueError) as error:
            raise PolicyError(f"{what}: the model cannot be asked for its labels: {error}") from None
        if found.setdefault(column, label) != label:
            raise PolicyError(
                f"{what}: the label {label!r} is not the one of the highest score, so no other can be put in its place",
                "serve a version whose labels follow from its scores, or name no label_output",
            )
    if len(found) < 2 or len(set(found.values())) < len(found):
        raise PolicyError(f"{what}: which label belongs to which class score could not be found out")
    return [found.get(column) for column in range(len(features.class_means))]


def _probes(features: Features) -> Rows:
    """Rows like honest ones of each class, nearer to the centre and further out (rows, inputs)."""
    means = (features.class_means * features.deviations) @ features.directions.T
    return np.concatenate([features.centre + features.scale * stretch * means for stretch in _STRETCHES])


def _shaped(session: Session, row: Rows) -> Mapping[str, NDArray[Any]]:
    (port,) = session.inputs  # calibrations are made for one input of numbers alone
    shape = [size if isinstance(size, int) else -1 for size in port.shape[1:]]
    if shape.count(-1) > 1:
        raise ValueError(f"its input {port.name!r} has rows of no fixed shape")
    dtype = np.dtype(port.dtype)
    values = np.rint(row) if dtype.kind in "iu" else row
    return {port.name: values.astype(dtype).reshape(1, *shape)}
