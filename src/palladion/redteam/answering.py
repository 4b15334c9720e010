"""What the watch would have seen of recorded requests: their queries as the model takes them, and its class scores.

A version answers in memory where a line does not hold what was answered. Nothing is recorded, and nothing kept.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.errors import ConflictError, FormatError, PalladionError
from palladion.gate.contract import Contract, as_probabilities, make_contract
from palladion.gate.decode import is_finite
from palladion.gate.served import load_calibration, newest_calibration
from palladion.gate.sources.batch import parted, rows_stand_alone
from palladion.gate.sources.layered import layers_for, open_layered, run_shown, seen, taken
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import find_version, open_version
from palladion.lifecycle.revoke import require_unrevoked
from palladion.model.run import Port, Session
from palladion.policy import Policy, RoutePolicy
from palladion.registry import CalibrationRow, Version
from palladion.watch.calibration import Calibration
from palladion.watch.recorded import Recorded
from palladion.watch.rows import Rows

AT_ONCE = 256  # requests that are read ahead, so that the model answers them together
ROWS_AT_ONCE = 2048
VALUES_AT_ONCE = 4 * 1024 * 1024  # 32 MiB: half a megabyte of a packed log can hold a gigabyte of zeros


@dataclass(frozen=True, eq=False)
class Shown:
    """A request as the watch sees it; `inputs` and `scores` are empty where the model does not take its queries.

    `fault` is why the line cannot be used, if the model is not to blame.
    """

    request: Recorded
    inputs: Rows  # (queries, inputs)
    scores: Rows  # (queries, classes)
    fits: bool = True
    fault: FormatError | None = None


@dataclass(frozen=True, eq=False)
class Subject:
    """A version that traffic is held against: its session, and the calibration that the watch goes by."""

    version: Version
    session: Session
    calibration: Calibration
    row: CalibrationRow

    @property
    def name(self) -> str:
        """As records name it."""
        return f"{self.version.model}@{self.version.number}"


def open_subject(installation: Installation, model: str) -> Subject:
    """Open `fraud@3`, or the promoted version of `fraud`, with its newest calibration.

    Raises ConflictError where it has none; else as `open_version`. The ledger is not told: nobody is answered.
    """
    version = find_version(installation, model)
    row = newest_calibration(installation, version)
    if row is None:
        raise ConflictError(
            f"{version.model}@{version.number} has no calibration, so that the watch can say nothing of its clients",
            f"palladion watch calibrate {version.model}@{version.number} --validation FILE",
        )
    calibration = load_calibration(installation, version, row)
    layers = layers_for(installation.policy.watch, f"{version.model}@{version.number}", calibration)
    with open_version(installation, f"{version.model}@{version.number}") as opened:
        require_unrevoked(installation, version.model, version.number, opened.info.header_digest)
        session = open_layered(opened.model, layers)
    if len(session.inputs) != 1 or np.dtype(session.inputs[0].dtype).kind not in "biuf":
        raise PalladionError("only models with one input of numbers can be replayed so far")
    return Subject(version, session, calibration, row)


def routes_of(policy: Policy, model: str) -> list[RoutePolicy]:
    """The routes on which a policy serves a model; one with defaults where it names none."""
    return [route for route in policy.route if route.model == model] or [RoutePolicy(model=model)]


class Answering:
    """Shows recorded requests as one version would have had them observed."""

    def __init__(self, subject: Subject, route: RoutePolicy) -> None:
        """Raises PolicyError where the route does not fit the model."""
        self._session = subject.session
        self._port = subject.session.inputs[0]
        self._contract = make_contract(route, subject.session.outputs)
        self._width = subject.calibration.instruments.features.centre.size
        self._classes = len(subject.calibration.instruments.features.class_means)
        self._layers = subject.calibration.instruments.features.layers
        self._together = rows_stand_alone(subject.session.run, subject.session.inputs, subject.session.outputs)
        self.answered = 0  # queries that the version answered here

    def shown(self, requests: Iterable[Recorded]) -> Iterator[Shown]:
        """Each request, in the same order; one that cannot be used says why, and is no hindrance to the others."""
        requests = iter(requests)
        while some := _take(requests):
            yield from self._shown(some)

    def _shown(self, requests: Sequence[Recorded]) -> Iterator[Shown]:
        feeds = [_fed(request.inputs, self._port, self._width) for request in requests]
        faults: dict[int, FormatError] = {}
        scores: list[Rows | None] = [None] * len(requests)
        for index, (request, feed) in enumerate(zip(requests, feeds, strict=True)):
            if feed is not None:
                try:
                    scores[index] = self._recorded(request, len(feed))
                except FormatError as error:
                    faults[index] = error
        wanted = [
            index
            for index, feed in enumerate(feeds)
            if feed is not None and scores[index] is None and index not in faults
        ]
        for index, found in zip(wanted, self._answers([feeds[index] for index in wanted]), strict=True):
            scores[index] = found
        for index, (request, feed, found) in enumerate(zip(requests, feeds, scores, strict=True)):
            if feed is None or found is None:
                yield Shown(request, np.zeros((0, 0)), np.zeros((0, 0)), fits=False, fault=faults.get(index))
            else:
                yield Shown(request, feed.reshape(len(feed), -1).astype(np.float64), found)

    def _recorded(self, request: Recorded, rows: int) -> Rows | None:
        """The class scores that the line holds, as probabilities; None where it holds none, or not all that is seen."""
        contract: Contract = self._contract
        if self._layers:
            return None  # what layers show is in no line: the version answers
        if contract.scores is None or contract.kind != "classes":
            return np.zeros((rows, 0))
        scores = request.scores.get(contract.scores, request.scores.get(""))
        if scores is None:
            return None
        if scores.ndim == 1 and rows == 1:
            scores = scores[None]
        if scores.shape != (rows, self._classes):
            raise FormatError(
                f"line {request.line} has scores of the shape {scores.shape}, "
                f"expected {rows} rows of {self._classes} classes",
                "leave out scores that are not the model's own: a version answers then",
            )
        return as_probabilities(scores)

    def _answers(self, feeds: Sequence[NDArray[Any] | None]) -> list[Rows | None]:
        """What the model answers to each; None where it fails, as it did where it was asked."""
        try:
            return self._run(feeds)
        except PalladionError:
            if len(feeds) == 1:
                return [None]
        # one of them is at fault, and not the others
        return [found for feed in feeds for found in self._answers([feed])]

    def _run(self, feeds: Sequence[NDArray[Any] | None]) -> list[Rows | None]:
        asked = [feed for feed in feeds if feed is not None]
        self.answered += sum(map(len, asked))
        if not asked:
            return []
        if self._together and len({feed.shape[1:] for feed in asked}) == 1:
            outputs = run_shown(self._session, {self._port.name: np.concatenate(asked)})
            parts = parted(outputs, [len(feed) for feed in asked])
        else:
            parts = [run_shown(self._session, {self._port.name: feed}) for feed in asked]
        found: list[Rows | None] = []
        for part, feed in zip(parts, asked, strict=True):
            own, shown = taken(part)
            scores = self._contract.class_scores(self._contract.verify_outputs(own, len(feed)), len(feed))
            found.append(seen(scores, shown))
        return found


def _take(requests: Iterator[Recorded]) -> list[Recorded]:
    some: list[Recorded] = []
    rows = values = 0
    for request in islice(requests, AT_ONCE):
        some.append(request)
        rows += len(request.inputs)
        values += request.inputs.size
        if rows >= ROWS_AT_ONCE or values >= VALUES_AT_ONCE:
            break
    return some


def _fed(inputs: NDArray[np.float64], port: Port, width: int) -> NDArray[Any] | None:
    """The queries as the model takes them; None where the gate would have refused them as they are."""
    sizes = port.shape[1:]
    if inputs.ndim == len(sizes) and not _alike(inputs.shape[1:], sizes):
        inputs = inputs[None]  # a single query, without the axis of rows
    fixed = [size for size in sizes if isinstance(size, int)]
    if len(fixed) == len(sizes) and inputs.ndim == 2 and inputs.shape[1] == math.prod(fixed):
        inputs = inputs.reshape(len(inputs), *fixed)
    first = port.shape[0]
    if not _alike(inputs.shape[1:], sizes) or (isinstance(first, int) and len(inputs) != first):
        return None
    if inputs[0].size != width:
        return None
    dtype = np.dtype(port.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        array = inputs.astype(dtype)
    if dtype.kind != "f" and not np.array_equal(array, inputs):
        return None  # a number that is no whole one, or too large
    return array if is_finite(array) else None


def _alike(shape: Sequence[int], sizes: Sequence[int | str | None]) -> bool:
    return len(shape) == len(sizes) and all(
        not isinstance(want, int) or want == got for want, got in zip(sizes, shape, strict=True)
    )
