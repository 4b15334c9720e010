"""What a model's outputs mean to clients: which one holds scores, labels, boxes or a mask; found once.

An output that a contract does not name is never disclosed. What a standing discloses of the others is in `disclosure`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError, PolicyError
from palladion.gate.decode import is_finite
from palladion.mark.answers.noise import are_probabilities
from palladion.model.run import STRING, Port
from palladion.policy import RoutePolicy

LABEL = "label"  # the name under which labels are disclosed where the model has no output for them
CORNERS = 4  # numbers of a box
FEW = 64  # classes of a single row up to which they are faster one by one than as an array
SURELY = 9e-4  # that the sum of probabilities may be off; `are_probabilities` allows 1e-3
SEARCHED_CLASSES_MAX = 32  # of modelguard-w, which takes 0.1 ms a row for ten, and runs in the event loop

Kind = Literal["classes", "numbers", "embedding", "boxes", "mask"]
Outputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Contract:
    """The outputs of a route: `scores`, `label` and `boxes` are names of outputs, or None where the model has none.

    `kind` says what `scores` are: class scores (rows, …, classes), numbers that are predicted (rows, …), vectors
    (rows, …, dimensions), scores of boxes, or a mask. `rank` is the number of their dimensions (of boxes, theirs) where
    the route declares the kind, and `class_axis` that of a mask's classes. `answer`, `decimals` and `top_k` are what
    clients were promised; `threshold` is infinite where none is declared. `typed` where answers are sent in the types
    of the model's outputs, which can be narrower than what is disclosed.
    """

    scores: str | None
    label: str | None
    kind: Kind
    answer: Literal["scores", "label"]
    decimals: int
    top_k: int
    boxes: str | None = None
    threshold: float = math.inf
    band: float = 0.0
    grid: float = 0.0
    rank: int = 0
    class_axis: int | None = None
    typed: bool = False

    @cached_property
    def names(self) -> Sequence[str]:
        """The outputs of the model that clients can get something of."""
        return tuple(name for name in (self.boxes, self.scores, self.label) if name is not None)

    def verify_outputs(self, outputs: Outputs, rows: int) -> Outputs:
        """`outputs` if those named here hold a value, or values, for each of `rows`, all finite. Raises FormatError.

        What a graph declares of its outputs binds nobody: one that joins rows would answer a query with another's.
        """
        for name in self.names:
            if not is_finite(outputs[name]):
                # no protocol can say it, and the watch must not learn from it
                raise FormatError(f"the output {name} has a value that is no finite number")
        if self.boxes is not None:
            return self._verify_boxes(self.boxes, outputs, rows)
        for name in self.names:
            shape = outputs[name].shape
            if len(shape) not in self._ranks[name] or shape[0] != rows or 0 in shape:
                raise FormatError(f"the output {name} has the shape {shape} for {rows} rows")
        return outputs

    @cached_property
    def _ranks(self) -> Mapping[str, AbstractSet[int]]:
        """How many dimensions each output may have."""
        found: dict[str, AbstractSet[int]] = {}
        for name in self.names:
            found[name] = {2} if name == self.scores and self.kind == "classes" else {1, 2}
            if self.rank and (name == self.scores or self.kind == "mask"):
                found[name] = {self.rank}
        return found

    def retained(self, outputs: Outputs) -> NDArray[Any] | None:
        """Class scores (rows, classes) as the model gave them, to be kept with queries; None where there are none."""
        if self.scores is None or self.kind != "classes" or self.rank > 2:
            return None
        return outputs[self.scores]

    def class_scores(self, outputs: Outputs, rows: int) -> NDArray[np.float64]:
        """Class scores (rows, classes) for the watch, as probabilities; no columns where there are none."""
        if self.scores is None or self.kind != "classes" or self.rank > 2:
            return np.zeros((rows, 0))
        return as_probabilities(outputs[self.scores].astype(np.float64))

    def _verify_boxes(self, boxes: str, outputs: Outputs, rows: int) -> Outputs:
        """A model that takes one picture may leave out the rows. No boxes at all are an answer."""
        places = outputs[boxes].shape[:-1]  # (rows, boxes), or (boxes,) of a single row
        if outputs[boxes].shape[-1:] != (CORNERS,) or not (places[:-1] == (rows,) or (len(places) == 1 and rows == 1)):
            raise FormatError(f"the output {boxes} has the shape {outputs[boxes].shape} for {rows} rows")
        for name in filter(None, (self.scores, self.label)):
            shape = outputs[name].shape
            of_classes = name == self.scores and len(shape) == len(places) + 1 and shape[-1] > 0
            if shape != places and not (of_classes and shape[:-1] == places):
                raise FormatError(f"the output {name} has the shape {shape} for the boxes {outputs[boxes].shape}")
        return outputs


def make_contract(route: RoutePolicy, ports: Sequence[Port]) -> Contract:
    """Find the outputs of a route. Raises PolicyError where the policy names one that does not fit, or none fits."""
    if math.isnan(route.threshold):
        raise PolicyError(f"route {route.route}: threshold is no number")
    if route.kind in {"boxes", "mask"}:
        return _detections(route, ports)
    scores = _find(route, "scores_output", ports, _FITS[route.kind])
    label = _find(route, "label_output", ports, _is_label)
    if scores is None and (label is None or route.kind != "auto"):
        listed = ", ".join(port.name for port in ports)
        what = "is a score or a label of each row" if route.kind == "auto" else f'fits kind = "{route.kind}"'
        raise PolicyError(
            f"route {route.route}: none of the outputs ({listed}) {what}",
            "an output needs one number or label, or one number for each class, for each row",
        )
    kind: Kind = route.kind if route.kind != "auto" else "classes" if scores is None or _classes(scores) else "numbers"
    if route.answer == "label" and kind != "classes" and (label is None or kind != "numbers"):
        raise PolicyError(f'route {route.route}: answer = "label", and the model predicts numbers')
    _check_perturbation(route, scores, kind)
    rank = 0 if route.kind == "auto" or scores is None else len(scores.shape)
    if route.flipped > 0 and rank > 2:
        raise PolicyError(f"route {route.route}: answers of {rank} dimensions cannot be marked", "set flipped = 0")
    if route.flipped > 0 and not math.isinf(route.threshold):
        raise PolicyError(
            f"route {route.route}: marks (flipped = {route.flipped}) turn decisions at the threshold {route.threshold}",
            "set flipped = 0, or leave out threshold where clients go by the highest score",
        )
    return Contract(
        scores.name if scores else None,
        label.name if label else None,
        kind,
        route.answer,
        route.decimals,
        route.top_k,
        threshold=route.threshold,
        band=route.band,
        rank=rank,
        typed=route.protocol == "open-inference",
    )


def as_probabilities(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of class scores as probabilities: unchanged if they are, else their softmax (logits)."""
    if len(scores) == 1 and scores.shape[1] <= FEW:
        # a single short row is sooner summed up as numbers; the margin leaves room for other roundings
        row = scores[0].tolist()
        if min(row) >= 0 and abs(sum(row) - 1) < SURELY:
            return scores
    with np.errstate(over="ignore"):
        looks = are_probabilities(scores)
        if np.logical_and.reduce(looks):
            return scores
        shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.where(looks[:, None], scores, shifted / shifted.sum(axis=1, keepdims=True))


def _check_perturbation(route: RoutePolicy, scores: Port | None, kind: Kind) -> None:
    if route.perturbation == "none":
        return
    if kind != "classes" or scores is None:
        raise PolicyError(f"route {route.route}: there are no class scores to perturb", 'set perturbation = "none"')
    classes = scores.shape[-1]
    if route.perturbation == "modelguard-w" and not (isinstance(classes, int) and classes <= SEARCHED_CLASSES_MAX):
        raise PolicyError(
            f"route {route.route}: modelguard-w is for at most {SEARCHED_CLASSES_MAX} classes, and the output "
            f"{scores.name} has {classes if isinstance(classes, int) else 'an open number'}",
            'set perturbation = "reverse-sigmoid" or "none"',
        )


def _detections(route: RoutePolicy, ports: Sequence[Port]) -> Contract:
    """The contract of a model that finds boxes, or paints a mask."""
    _check_perturbation(route, None, "numbers")
    if route.grid == 0:
        raise PolicyError(
            f'route {route.route}: kind = "{route.kind}" needs a grid',
            "grid = 8 for pixels, or 0.02 for coordinates between 0 and 1: what throttled clients get",
        )
    if route.answer == "label":
        raise PolicyError(f'route {route.route}: answer = "label", and the model answers with {route.kind}')
    boxes = scores = label = None
    if route.kind == "boxes":
        boxes = _find(route, "boxes_output", ports, _is_boxes)
        rank = len(boxes.shape) if boxes else 0
        others = [port for port in ports if port != boxes]
        scores = _find(route, "scores_output", others, lambda port: _is_float(port, rank - 1, rank))
        label = _find(route, "label_output", others, lambda port: _is_whole(port, rank - 1))
    else:
        scores = _find(route, "scores_output", ports, lambda port: _is_float(port, 3, 4))
        if scores is None:
            label = _find(route, "label_output", ports, lambda port: _is_whole(port, 3))
    main = boxes if route.kind == "boxes" else scores or label
    if main is None:
        listed = ", ".join(port.name for port in ports)
        raise PolicyError(f'route {route.route}: none of the outputs ({listed}) fits kind = "{route.kind}"')
    return Contract(
        scores.name if scores else None,
        label.name if label else None,
        "boxes" if route.kind == "boxes" else "mask",
        "scores",
        route.decimals,
        0,
        boxes=boxes.name if boxes else None,
        threshold=route.threshold,
        grid=route.grid,
        rank=len(main.shape),
        typed=route.protocol == "open-inference",
        class_axis=_class_axis(main) if route.kind == "mask" and len(main.shape) == 4 else None,
    )


def _find(route: RoutePolicy, setting: str, ports: Sequence[Port], fits: Callable[[Port], bool]) -> Port | None:
    named = getattr(route, setting)
    if not named:
        return next((port for port in ports if fits(port)), None)
    port = next((port for port in ports if port.name == named), None)
    if port is None or not fits(port):
        listed = ", ".join(port.name for port in ports)
        raise PolicyError(
            f"route {route.route}: {setting} is {named!r}, which is no such output", f"the model has {listed}"
        )
    return port


def _is_float(port: Port, *ranks: int) -> bool:
    return port.dtype.startswith("float") and len(port.shape) in ranks


def _is_whole(port: Port, *ranks: int) -> bool:
    return port.dtype.lstrip("u").startswith("int") and len(port.shape) in ranks


def _is_boxes(port: Port) -> bool:
    return _is_float(port, 2, 3) and port.shape[-1] in {CORNERS, None}


def _is_label(port: Port) -> bool:
    whole = port.dtype == STRING or _is_whole(port, 1, 2)
    return whole and (len(port.shape) == 1 or (len(port.shape) == 2 and port.shape[1] == 1))


def _classes(port: Port) -> bool:
    return len(port.shape) == 2 and port.shape[1] != 1


def _class_axis(port: Port) -> int:
    """Where a mask (rows, …) of scores has its classes: the smaller of the first and the last size, else the first."""
    first, last = port.shape[1], port.shape[-1]
    return 3 if isinstance(last, int) and (not isinstance(first, int) or last < first) else 1


_FITS: Mapping[str, Callable[[Port], bool]] = {
    "auto": lambda port: _is_float(port, 1, 2),
    "classes": lambda port: _is_float(port, 2, 3, 4) and port.shape[-1] != 1,
    "numbers": lambda port: _is_float(port, 1, 2, 3, 4),
    "embedding": lambda port: _is_float(port, 2, 3),
}
