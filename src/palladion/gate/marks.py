"""Answer marks in the data path: what a client gets in place of the model's own answer, and what is kept of it.

How answers are marked is in `palladion.mark.answers.noise`, how a student is found in `…answers.students`. What is kept
is all that a test needs, and knows nothing of a secret: the query, the unmarked scores, the hash, the strength.
"""

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from palladion.errors import PalladionError, PolicyError
from palladion.gate.contract import Contract, Outputs
from palladion.gate.decode import Feeds
from palladion.ledger.bodies import ENTRY_BYTES_MAX, BodyWriter
from palladion.ledger.body import Body
from palladion.mark.answers.noise import (
    Cells,
    Pair,
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
from palladion.watch.features import FEATURES, VALUE_MAX, Features, clean
from palladion.watch.rows import Rows, product

MARGINS = 4096  # points at which the honest margins of a calibration are read, between its quantiles
# Three deviations of what turns by chance, and a few at first: less would stop marking honest clients at random.
ALLOWANCE_DEVIATIONS, ALLOWANCE_START = 3.0, 3.0
ALONE_MAX = 8  # rows up to which each is marked by itself, which is cheaper then
_ROW_BYTES = 8  # of a number in a retained body, at most
_STRETCHES = (1.0, 0.5, 1.5, 2.5, 4.0)  # of honest class means from the centre: rows that the model names classes for

_Result = TypeVar("_Result")

log = logging.getLogger("palladion.gate")


@dataclass(eq=False)
class Turned:
    """What one client was answered on a route: how many answers, and how many labels were expected to turn."""

    answers: int = 0
    expected: float = 0.0


class MarkedAnswer(msgspec.Struct, frozen=True, eq=False):  # a frozen dataclass takes eight times as long to make
    """Marked `outputs` of a request, the `query_hashes` and `strengths` of its rows, and how many labels `flipped`."""

    outputs: Outputs
    query_hashes: Sequence[bytes]
    strengths: Sequence[float]
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

    def mark(self, outputs: Outputs, inputs: Rows, client: str, *, trusted: bool) -> MarkedAnswer:
        """Mark the answer to `inputs` (rows, inputs) of a client, by id: what `decode.numbers` makes of its queries.

        Never raises for anything that a client can cause.

        No more labels of a `trusted` client are expected to turn than the policy's share, but for what chance does.
        One that is watched has no such limit: whoever sought out answers that turn easily would use it up with them.
        """
        scores = outputs[self._scores]
        hashes = self.cells.hashes(self._coordinates(inputs))
        key = self.keys.get(client)
        if key is None:
            key = self.keys[client] = client_key(self.root, client, self.version.model, self.version.number)
        turned = self.turned[client] if trusted else None
        listed: list[list[float]] = scores.tolist() if len(inputs) <= ALONE_MAX else []
        # scores that are no numbers are left to the arrays, which look at each
        if listed and all(math.isfinite(sum(row)) for row in listed):
            return self._mark_each(outputs, listed, hashes, key, turned)
        return self._mark_all(outputs, hashes, key, turned)

    def _mark_each(
        self, outputs: Outputs, listed: list[list[float]], hashes: list[bytes], key: bytes, turned: Turned | None
    ) -> MarkedAnswer:
        """`_mark_all` of few rows of numbers, to the last bit."""
        scores = outputs[self._scores].copy()
        label = self.contract.label
        said = None if label is None else outputs[label].copy()
        strengths, flipped = [], 0
        for row, values in enumerate(listed):
            pair = Pair.of(values)
            strength = self.strength if said is None or self._names(said.item(row), pair.first, pair.second) else 0.0
            if turned is not None and not self._allows(turned, pair.flip_probability(strength)):
                strength = 0.0
            strengths.append(strength)
            if strength > 0:
                column, flips = pair.marked(scores[row], key, hashes[row], strength)
                flipped += flips
                if flips and said is not None:
                    said[row] = (self.labels or ())[column]
        shown = {**outputs, self._scores: scores}
        if label is not None and said is not None:
            shown[label] = said
        return MarkedAnswer(shown, hashes, strengths, flipped)

    def _mark_all(self, outputs: Outputs, hashes: list[bytes], key: bytes, turned: Turned | None) -> MarkedAnswer:
        scores = outputs[self._scores]
        exact = scores.astype(np.float64)
        probabilities = are_probabilities(exact)
        pairs = Pairs.of(exact, probabilities)
        strengths = np.where(self._mapped(outputs, pairs), self.strength, 0.0)
        if turned is not None:
            chances = flip_probability(pairs.margins, strengths)
            strengths = np.where(self._allowed(turned, chances), strengths, 0.0)
        marked = mark_scores(scores, key, hashes, strengths=strengths, probabilities=probabilities)
        shown = {**outputs, self._scores: marked.scores}
        if self.contract.label is not None:
            shown[self.contract.label] = self._relabelled(outputs[self.contract.label], marked.labels, marked.flipped)
        return MarkedAnswer(shown, hashes, strengths.tolist(), int(marked.flipped.sum()))

    def bodies(
        self, answer: MarkedAnswer, feeds: Feeds, outputs: Outputs, *, request: str, disclosed: str, at: float = 0.0
    ) -> list[Body]:
        """What is kept of a request that was asked `at`: the rows that were marked; `outputs` are the unmarked ones."""
        scores = outputs[self._scores]
        return [
            Body(
                request,
                row,
                {name: array[row] for name, array in feeds.items()},
                scores[row],
                answer.query_hashes[row],
                strength,
                disclosed,
                at,
            )
            for row, strength in enumerate(answer.strengths)
            if strength > 0
        ]

    @property
    def _scores(self) -> str:
        return self.contract.scores or ""  # a contract without scores has no marks

    def _coordinates(self, inputs: Rows) -> Rows:
        features, standard = self.features, np.abs(inputs)
        if not np.maximum.reduce(standard, axis=None, initial=0.0) <= VALUE_MAX:
            inputs = clean(inputs)
        standard = np.subtract(inputs, features.centre, out=standard)
        standard /= features.scale
        return product(standard, features.directions)

    def _mapped(self, outputs: Outputs, pairs: Pairs) -> NDArray[np.bool_]:
        """Which rows may be marked: those whose label is the one of the highest score, and would have another to be."""
        if self.contract.label is None:
            return np.ones(len(pairs.first), np.bool_)
        said = outputs[self.contract.label].reshape(-1).tolist()
        found = [
            self._names(label, first, second)
            for label, first, second in zip(said, pairs.first.tolist(), pairs.second.tolist(), strict=True)
        ]
        return np.array(found, np.bool_)

    def _names(self, label: object, first: int, second: int) -> bool:
        """Whether a row may be marked whose label is this, and whose highest scores are in these two columns."""
        return self.labels is None or (self.labels[first] == label and self.labels[second] is not None)

    def _relabelled(self, said: NDArray[Any], labels: NDArray[np.int64], flipped: NDArray[np.bool_]) -> NDArray[Any]:
        turned = said.copy()
        for row in np.flatnonzero(flipped).tolist():
            turned[row] = (self.labels or ())[int(labels[row])]
        return turned

    def _allowed(self, turned: Turned, chances: Rows) -> NDArray[np.bool_]:
        return np.array([self._allows(turned, chance) for chance in chances.tolist()], np.bool_)

    def _allows(self, turned: Turned, chance: float) -> bool:
        """Whether one more answer may turn by such a chance; it counts if so."""
        turned.answers += 1
        mean = self.share * turned.answers
        if turned.expected + chance > mean + ALLOWANCE_DEVIATIONS * math.sqrt(mean) + ALLOWANCE_START:
            return False
        turned.expected += chance
        return True


class _Keeping(NamedTuple):
    """Bodies of one request, whose they are, and who waits for them."""

    client: str
    version: str
    bodies: Sequence[Body]
    done: "asyncio.Future[None]"


class Retainer:
    """Writes bodies from a thread of its own, in order, while the ledger syncs. To be called from one event loop.

    What one turn of the loop brings goes to the thread in one piece: waking somebody costs more than a body.
    """

    def __init__(self, writer: BodyWriter) -> None:
        self.handed = 0  # bodies since the start
        self._writer = writer
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bodies")
        self._arrived: list[_Keeping] = []  # in this turn of the loop
        self._sound = True

    def keep(self, client: str, version: str, bodies: Sequence[Body]) -> "asyncio.Future[None]":
        """Keep `bodies` of a client, by pseudonym; done when the kernel has them. Fails with PalladionError."""
        self.handed += len(bodies)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        if not self._arrived:
            loop.call_soon(self._hand_over)
        self._arrived.append(_Keeping(client, version, bodies, done))
        return done

    async def run(self, job: Callable[[BodyWriter], _Result]) -> _Result:
        """The result of `job`, done by the thread that writes, after what came before it."""
        self._hand_over()
        return await asyncio.get_running_loop().run_in_executor(self._thread, job, self._writer)

    async def sync(self) -> None:
        """Make what is kept durable: a power cut loses the last second of it. Raises PalladionError."""
        self._hand_over()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._writer.sync)

    async def close(self) -> None:
        """Sync and end the thread. Raises PalladionError."""
        self._hand_over()
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._writer.close)
        finally:
            self._thread.shutdown(wait=True)

    def _hand_over(self) -> None:
        arrived, self._arrived = self._arrived, []
        if arrived:
            writing = asyncio.get_running_loop().run_in_executor(self._thread, self._write, arrived)
            writing.add_done_callback(partial(self._tell, arrived))

    def _write(self, arrived: Sequence[_Keeping]) -> list[Exception | None]:
        """Why each of them could not be written; in the thread."""
        failed: list[Exception | None] = []
        for item in arrived:
            try:
                self._writer.append(item.client, item.version, item.bodies)
            except Exception as error:  # noqa: BLE001 (who waits gets it)
                failed.append(error)
            else:
                failed.append(None)
        return failed

    def _tell(self, arrived: Sequence[_Keeping], writing: "asyncio.Future[list[Exception | None]]") -> None:
        """Tell everybody who waits, and the operator once: that nothing marked is answered, and why."""
        for item, error in zip(arrived, writing.result(), strict=True):
            if error is not None and self._sound:
                log.error("bodies cannot be kept, so no marked answer is given: %s", error)
            self._sound = error is None
            if item.done.done():
                continue  # gave up meanwhile
            if error is None:
                item.done.set_result(None)
            else:
                item.done.set_exception(error)
                item.done.exception()  # a request that was refused meanwhile asks nobody


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
