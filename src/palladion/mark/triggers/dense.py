"""New weights for the dense layers at the end of a classifier: triggers get their labels, other answers stay.

For tails of two layers and more, whose last one alone has too few weights for many triggers. A squared hinge on the
triggers and the squared change of scores on references, by Adam (Kingma and Ba, 2015) in NumPy: no torch needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from palladion.mark.triggers.refit import usual_lead

Floats = NDArray[np.float32]
Activation = Literal["", "Relu", "Tanh", "Sigmoid"]

MARGIN = 0.5  # of the usual lead of the first class over the second
STEPS = 1000
STEPS_MAX_NUMBERS = 2 * 10**10  # products of weights and rows: half a minute on one core
RATE = 0.02  # of the root mean square of a layer's weights, falling to nothing by a cosine
BATCH = 256


@dataclass(frozen=True, eq=False)
class Dense:
    """A dense layer: `weights` (inputs, outputs), `bias` (outputs,), and what is applied to its result."""

    tensor: str
    weights: Floats
    bias: Floats
    activation: Activation = ""


def forward(layers: Sequence[Dense], rows: NDArray[Any]) -> list[Floats]:
    """What goes into each layer, and the scores at the end."""
    values = [rows.astype(np.float32)]
    for layer in layers:
        value = values[-1] @ layer.weights + layer.bias
        if layer.activation == "Relu":
            value = np.maximum(value, 0)
        elif layer.activation == "Tanh":
            value = np.tanh(value)
        elif layer.activation == "Sigmoid":
            with np.errstate(over="ignore"):
                value = 1 / (1 + np.exp(-value))
        values.append(value)
    return values


def learn(
    layers: Sequence[Dense], triggers: NDArray[Any], labels: NDArray[np.intp], references: NDArray[Any], *, seed: int
) -> list[Dense]:
    """The layers with new weights. `triggers` and `references` (rows, inputs) are what the first layer gets.

    One score alone stands for two classes, the second of which it is. Deterministic.
    """
    generator = np.random.default_rng(seed)
    target = forward(layers, references)[-1]
    unit = usual_lead(_two(target))
    numbers = sum(layer.weights.size for layer in layers) * (len(triggers) + BATCH)
    steps = max(50, min(STEPS, STEPS_MAX_NUMBERS // numbers))
    now = list(layers)
    means, squares = ([np.zeros_like(layer.weights) for layer in layers] for _ in range(2))
    rates = [RATE * float(np.sqrt(np.square(layer.weights).mean())) for layer in layers]
    for step in range(1, steps + 1):
        values = forward(now, triggers)
        slopes = _slopes(now, values, _hinge(values[-1], labels, unit))
        chosen = generator.integers(0, len(references), BATCH)
        values = forward(now, references[chosen])
        change = 2 * (values[-1] - target[chosen]) / unit**2 / BATCH
        held = _slopes(now, values, change.astype(np.float32))
        falling = 0.5 * (1 + np.cos(np.pi * step / steps))
        for index, layer in enumerate(now):
            slope = slopes[index] + held[index]
            means[index] = 0.9 * means[index] + 0.1 * slope
            squares[index] = 0.999 * squares[index] + 0.001 * np.square(slope)
            mean, square = means[index] / (1 - 0.9**step), squares[index] / (1 - 0.999**step)
            weights = layer.weights - (falling * rates[index] * mean / (np.sqrt(square) + 1e-8)).astype(np.float32)
            now[index] = replace(layer, weights=weights)
    return now


def _hinge(scores: Floats, labels: NDArray[np.intp], unit: float) -> Floats:
    """The slope of the mean squared lack of margin, in units of the usual lead, by the scores."""
    both, rows = _two(scores), np.arange(len(scores))
    lacking = np.maximum(MARGIN * unit - (both[rows, labels][:, None] - both), 0)
    lacking[rows, labels] = 0
    slope = 2 * lacking / unit**2 / len(scores)
    slope[rows, labels] = -slope.sum(axis=1)
    return np.asarray(slope if scores.shape[1] > 1 else slope[:, 1:], np.float32)


def _two(scores: Floats) -> Floats:
    return scores if scores.shape[1] > 1 else np.concatenate([np.zeros_like(scores), scores], axis=1)


def _slopes(layers: Sequence[Dense], values: Sequence[Floats], slope: Floats) -> list[Floats]:
    """The slopes by each layer's weights, from that by the scores (rows, classes)."""
    found: list[Floats] = []
    for index in reversed(range(len(layers))):
        layer, result = layers[index], values[index + 1]
        if layer.activation == "Relu":
            slope = slope * (result > 0)
        elif layer.activation == "Tanh":
            slope = slope * (1 - np.square(result))
        elif layer.activation == "Sigmoid":
            slope = slope * result * (1 - result)
        found.append(values[index].T @ slope)
        slope = slope @ layer.weights.T
    return found[::-1]
