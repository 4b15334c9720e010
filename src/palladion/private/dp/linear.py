"""Linear and logistic models by noisy gradient descent over all rows at once, in NumPy, and their export to ONNX.

Each step sums the gradients of all rows, each clipped to a norm, and adds Gaussian noise to the sum: T steps are one
Gaussian mechanism, so that ε has a closed form (`accounting`). What touches the data beside the steps is done to each
row by itself: rows are scaled to norm 1, which costs nothing of ε and is worth two points of accuracy on digits. A row
that leaves the range of doubles when it is scaled or predicted is one without features, of which nothing is learnt.
"""

import math
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.private.dp.accounting import epsilon_of, noise_for
from palladion.private.dp.randomness import Randomness, randomness_of
from palladion.private.dp.statement import PrivacyStatement, number_text

Array = NDArray[np.float64]
Kind = Literal["classes", "number"]

STEPS = 100
CLASSES_MAX = 10_000
TINY = 1e-12
IR_VERSION, OPSET = 8, 17


@dataclass(frozen=True)
class Descent:
    """How a linear model is learnt. `average` is the share of the last steps whose weights are averaged.

    Rows are shifted by `offset`, divided by `scale` and, with `unit_rows`, by their norm; `bias` is the constant
    feature beside them. All are public numbers, never measured on the rows.
    """

    steps: int = STEPS
    rate: float = 4.0
    clipping: float = 1.0
    momentum: float = 0.0
    average: float = 0.5
    decay: float = 0.0
    offset: float = 0.0
    scale: float = 1.0
    bias: float = 1.0
    unit_rows: bool = True


@dataclass(frozen=True, eq=False)
class LinearModel:
    """Weights (features + 1, outputs), the last row of which is the bias, over rows as `descent` prepares them."""

    weights: Array
    kind: Kind
    descent: Descent

    def scores(self, rows: NDArray[Any]) -> Array:
        """Logits (rows, classes), or numbers (rows, 1)."""
        return np.asarray(prepared(rows, self.descent) @ self.weights)

    def predict(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The class of each row, or its number."""
        scores = self.scores(rows)
        return scores.argmax(axis=1) if self.kind == "classes" else scores[:, 0]

    def to_onnx(self) -> bytes:
        """The model in ONNX: `X` (rows, features) to `probabilities` (rows, classes), or `number` (rows, 1)."""
        return _to_onnx(self)


def train_linear_dp(
    rows: NDArray[Any],
    labels: NDArray[Any],
    *,
    epsilon: float,
    delta: float,
    classes: int = 0,
    kind: Kind = "classes",
    descent: Descent | None = None,
    generator: np.random.Generator | None = None,
) -> tuple[LinearModel, PrivacyStatement]:
    """Learn `labels` (rows,) of `rows` (rows, features) within (ε, δ) for each row.

    `classes` is how many there are, which must not be counted on the rows themselves; numbers (`kind`) are best scaled
    to about 1 beforehand, by what is public. Noise comes of the operating system, or of a `generator` for experiments.
    Settings of the `descent` are chosen on rows that are not among these: choosing is not charged. Raises ValueError,
    FormatError on rows that cannot be learnt.
    """
    descent = descent or Descent()
    randomness = randomness_of(generator)
    noise = noise_for(epsilon, delta, 1.0, descent.steps)
    spent = epsilon_of(float(number_text(noise, up=True)), 1.0, descent.steps, delta)
    noise = float(number_text(noise, up=True))
    weights = descend(
        rows, labels, classes=classes, kind=kind, descent=descent, noise_multiplier=noise, randomness=randomness
    )
    statement = PrivacyStatement(
        epsilon=number_text(spent.epsilon, up=True),
        delta=number_text(delta),
        mechanism="noisy-gradient-descent",
        accountant="analytic-gaussian",
        noise_multiplier=number_text(noise),
        sampling_rate="1",
        steps=descent.steps,
        clipping=number_text(descent.clipping),
        rows=len(rows),
        noise=randomness.kind,
        libraries={"numpy": np.__version__, "palladion": metadata.version("palladion")},
    )
    statement.encode()
    return LinearModel(weights, kind, descent), statement


@np.errstate(over="ignore", under="ignore", invalid="ignore")  # of single rows, which then count for nothing
def descend(
    rows: NDArray[Any],
    labels: NDArray[Any],
    *,
    classes: int,
    kind: Kind,
    descent: Descent,
    noise_multiplier: float,
    randomness: Randomness,
) -> Array:
    """The weights (features + 1, outputs) after all steps; a noise multiplier of 0 has no privacy at all."""
    known = _check(rows, labels, classes, kind, descent)
    features = prepared(rows, descent)
    features[~np.isfinite(features).all(axis=1)] = 0  # or one row would make all weights NaN, and be told by that
    norms = np.linalg.norm(features, axis=1)
    weights = np.zeros((features.shape[1], known.shape[1]))
    velocity, averaged = np.zeros_like(weights), np.zeros_like(weights)
    first = descent.steps - max(1, round(descent.average * descent.steps))
    for step in range(descent.steps):
        residual = _predicted(features @ weights, kind) - known  # (rows, outputs)
        # the gradient of one row is its features times its residual, and so is the norm
        length = norms * np.linalg.norm(residual, axis=1)
        residual *= np.minimum(1.0, descent.clipping / np.maximum(length, TINY))[:, None]
        residual[~np.isfinite(length)] = 0  # after the factor, which makes NaN of what is infinite
        total = features.T @ residual
        if noise_multiplier > 0:
            total += randomness.gaussian(total.shape) * (noise_multiplier * descent.clipping)
        velocity = descent.momentum * velocity + total / len(features) + descent.decay * weights
        weights = weights - descent.rate * velocity
        if step >= first:
            averaged += weights
    return np.asarray(averaged / (descent.steps - first))


def prepared(rows: NDArray[Any], descent: Descent) -> Array:
    """Rows (rows, features + 1) as they are learnt: shifted and scaled by public numbers, of norm 1, with a bias."""
    found = (np.asarray(rows, np.float64) - descent.offset) / descent.scale
    if descent.unit_rows:
        found = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), TINY)
    return np.concatenate([found, np.full((len(found), 1), descent.bias)], axis=1)


def _predicted(scores: Array, kind: Kind) -> Array:
    if kind == "number":
        return scores
    exponent = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(exponent / exponent.sum(axis=1, keepdims=True), np.float64)


def _check(rows: NDArray[Any], labels: NDArray[Any], classes: int, kind: Kind, descent: Descent) -> Array:
    """What is to be learnt, (rows, outputs)."""
    if rows.ndim != 2 or labels.shape != rows.shape[:1] or 0 in rows.shape:
        raise ValueError(f"rows {rows.shape} and labels {labels.shape} do not fit")
    if not np.isfinite(rows).all():
        raise FormatError("the rows have a number that is not finite")
    if descent.steps < 1 or not 0 < descent.clipping < math.inf or not 0 < descent.average <= 1:
        raise ValueError(f"{descent} is no descent: steps, clipping and average have to be above 0")
    if not 0 < descent.scale < math.inf:
        raise ValueError(f"the scale is {descent.scale}, a positive number was expected")
    if kind == "number":
        if not np.isfinite(labels).all():
            raise FormatError("the labels have a number that is not finite")
        return np.asarray(labels, np.float64)[:, None]
    if labels.dtype.kind not in "iu" or not 2 <= classes <= CLASSES_MAX:
        raise ValueError(f"labels of type {labels.dtype} and {classes} classes, whole numbers of 2 classes or more")
    if labels.min() < 0 or labels.max() >= classes:
        raise FormatError(f"the labels go from {labels.min()} to {labels.max()}, 0 to {classes - 1} was expected")
    return np.asarray(np.eye(classes)[labels], np.float64)


def _to_onnx(model: LinearModel) -> bytes:
    from onnx import TensorProto, checker, helper, numpy_helper

    descent, features = model.descent, model.weights.shape[0] - 1
    output = "probabilities" if model.kind == "classes" else "number"
    constants = {
        "offset": np.float32(descent.offset),
        "scale": np.float32(descent.scale),
        "tiny": np.float32(TINY),
        "weights": model.weights[:-1].astype(np.float32),
        "bias": (descent.bias * model.weights[-1]).astype(np.float32),
    }
    nodes = [helper.make_node("Sub", ["X", "offset"], ["moved"]), helper.make_node("Div", ["moved", "scale"], ["rows"])]
    if descent.unit_rows:
        nodes += [
            helper.make_node("ReduceL2", ["rows"], ["length"], axes=[1], keepdims=1),
            helper.make_node("Max", ["length", "tiny"], ["norm"]),
            helper.make_node("Div", ["rows", "norm"], ["unit"]),
        ]
    last = "logits" if model.kind == "classes" else output
    inputs = ["unit" if descent.unit_rows else "rows", "weights", "bias"]
    nodes.append(helper.make_node("Gemm", inputs, [last]))
    if model.kind == "classes":
        nodes.append(helper.make_node("Softmax", ["logits"], [output], axis=1))
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["rows", features])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["rows", model.weights.shape[1]])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in used],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    checker.check_model(made)
    return bytes(made.SerializeToString())
