"""What a model's outputs mean to clients: which one holds class scores or a number, which one labels; found once.

An output that a contract does not name is never disclosed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError, PolicyError
from palladion.mark.answers.noise import are_probabilities
from palladion.model.run import STRING, Port
from palladion.policy import RoutePolicy

LABEL = "label"  # the name under which labels are disclosed where the model has no output for them

Kind = Literal["classes", "numbers"]
Outputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Contract:
    """The outputs of a route: `scores` and `label` are names of outputs, or None where the model has none.

    `kind` says whether scores are class scores (rows, classes) or numbers that are predicted. `answer`, `decimals`
    and `top_k` are what clients were promised.
    """

    scores: str | None
    label: str | None
    kind: Kind
    answer: Literal["scores", "label"]
    decimals: int
    top_k: int

    def verify_outputs(self, outputs: Outputs, rows: int) -> Outputs:
        """`outputs` if those named here hold one value, or one row of values, for each of `rows`. Raises FormatError.

        What a graph declares of its outputs binds nobody: one that joins rows would answer a query with another's.
        """
        for name in filter(None, (self.scores, self.label)):
            shape = outputs[name].shape
            sizes = {2} if name == self.scores and self.kind == "classes" else {1, 2}
            if len(shape) not in sizes or shape[0] != rows or 0 in shape:
                raise FormatError(f"the output {name} has the shape {shape} for {rows} rows")
        return outputs

    def class_scores(self, outputs: Outputs, rows: int) -> NDArray[np.float64]:
        """Class scores (rows, classes) for the watch, as probabilities; no columns where there are none."""
        if self.scores is None or self.kind != "classes":
            return np.zeros((rows, 0))
        return as_probabilities(outputs[self.scores].astype(np.float64))


def make_contract(route: RoutePolicy, ports: Sequence[Port]) -> Contract:
    """Find the outputs of a route. Raises PolicyError where the policy names one that does not fit, or none fits."""
    scores = _find(route, "scores_output", ports, _is_scores)
    label = _find(route, "label_output", ports, _is_label)
    if scores is None and label is None:
        listed = ", ".join(port.name for port in ports)
        raise PolicyError(
            f"route {route.route}: none of the outputs ({listed}) is a score or a label of each row",
            "an output needs one number or label, or one number for each class, for each row",
        )
    kind: Kind = "classes" if scores is None or _classes(scores) else "numbers"
    if route.answer == "label" and label is None and kind == "numbers":
        raise PolicyError(f'route {route.route}: answer = "label", and the model predicts numbers')
    return Contract(
        scores.name if scores else None, label.name if label else None, kind, route.answer, route.decimals, route.top_k
    )


def as_probabilities(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of class scores as probabilities: unchanged if they are, else their softmax (logits)."""
    looks = are_probabilities(scores)
    if looks.all():
        return scores
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.where(looks[:, None], scores, shifted / shifted.sum(axis=1, keepdims=True))


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


def _is_scores(port: Port) -> bool:
    return port.dtype.startswith("float") and 1 <= len(port.shape) <= 2


def _is_label(port: Port) -> bool:
    whole = port.dtype == STRING or port.dtype.lstrip("u").startswith("int")
    return whole and (len(port.shape) == 1 or (len(port.shape) == 2 and port.shape[1] == 1))


def _classes(port: Port) -> bool:
    return len(port.shape) == 2 and port.shape[1] != 1
