"""A student: a network with one hidden layer, fitted to a victim's answers. NumPy alone, so that it runs anywhere.

Small on purpose: what it cannot copy, a larger one may. Deterministic per generator.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]
Goal = Literal["probabilities", "numbers"]

HIDDEN = 96
BATCH_ROWS = 64
STEPS = 1200  # of Adam: on digits, twice as many change fidelity by less than it differs between seeds
RATE, DECAY_FIRST, DECAY_SECOND, TINY = 3e-3, 0.9, 0.999, 1e-8  # Kingma and Ba 2015, with a rate that falls to 0
WEIGHT_DECAY = 1e-4
FLOOR = 0.1  # of the mean deviation of columns: ten grey levels of digits, whose borders are always black


@dataclass(frozen=True, eq=False)
class Student:
    """A fitted student."""

    layers: tuple[Rows, Rows, Rows, Rows]
    scaled: Callable[[Rows], Rows]
    goal: Goal
    offset: Rows
    unit: Rows

    def answers(self, rows: Rows) -> Rows:
        """Probabilities (rows, classes) or numbers (rows, …) as the victim would give them."""
        first, shift, second, bias = self.layers
        found = np.maximum(self.scaled(rows) @ first + shift, 0) @ second + bias
        return _softmax(found) if self.goal == "probabilities" else np.asarray(found * self.unit + self.offset)

    def hidden(self, rows: Rows) -> Rows:
        """What the hidden layer makes of rows (rows, HIDDEN)."""
        first, shift, _, _ = self.layers
        return np.asarray(np.maximum(self.scaled(rows) @ first + shift, 0))

    def slopes(self, rows: Rows) -> Rows:
        """How the largest output before the softmax changes with each input (rows, inputs), but for its scale."""
        first, _, second, bias = self.layers
        active = self.hidden(rows)
        highest = (active @ second + bias).argmax(axis=1)
        return np.asarray((second[:, highest].T * (active > 0)) @ first.T)


def fit(rows: Rows, targets: Rows, goal: Goal, generator: np.random.Generator, *, steps: int = STEPS) -> Student:
    """A student of `targets` (rows, outputs): soft or hard labels by cross entropy, numbers by squared error."""
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    # a column that hardly varies would make every other kind of row thousands of deviations large, and answers random
    divisor = np.maximum(deviation, FLOOR * deviation.mean() or 1.0)

    def scaled(raw: Rows) -> Rows:
        return np.asarray((raw - mean) / divisor)

    offset, unit = np.zeros(targets.shape[1]), np.ones(targets.shape[1])
    if goal == "numbers":
        offset, spread = targets.mean(axis=0), targets.std(axis=0)
        unit = np.where(spread > 0, spread, 1.0)
        targets = (targets - offset) / unit
    inputs = scaled(rows)
    width, outputs = inputs.shape[1], targets.shape[1]
    layers = [
        generator.standard_normal((width, HIDDEN)) * np.sqrt(2 / width),
        np.zeros(HIDDEN),
        generator.standard_normal((HIDDEN, outputs)) * np.sqrt(2 / HIDDEN),
        np.zeros(outputs),
    ]
    first, second = [np.zeros_like(layer) for layer in layers], [np.zeros_like(layer) for layer in layers]
    for step in range(1, steps + 1):
        drawn = generator.integers(0, len(inputs), min(BATCH_ROWS, len(inputs)))
        gradients = _gradients(layers, inputs[drawn], targets[drawn], goal)
        rate = RATE * (1 - (step - 1) / steps)
        for index, gradient in enumerate(gradients):
            first[index] = DECAY_FIRST * first[index] + (1 - DECAY_FIRST) * gradient
            second[index] = DECAY_SECOND * second[index] + (1 - DECAY_SECOND) * np.square(gradient)
            mean_now = first[index] / (1 - DECAY_FIRST**step)
            layers[index] -= rate * mean_now / (np.sqrt(second[index] / (1 - DECAY_SECOND**step)) + TINY)
            layers[index] *= 1 - rate * WEIGHT_DECAY
    return Student((layers[0], layers[1], layers[2], layers[3]), scaled, goal, offset, unit)


def _gradients(layers: list[Rows], inputs: Rows, targets: Rows, goal: Goal) -> list[Rows]:
    first, shift, second, bias = layers
    hidden = np.maximum(inputs @ first + shift, 0)
    found = hidden @ second + bias
    # the same for cross entropy after a softmax and for half the squared error
    wrong = ((_softmax(found) if goal == "probabilities" else found) - targets) / len(inputs)
    back = (wrong @ second.T) * (hidden > 0)
    return [inputs.T @ back, back.sum(axis=0), hidden.T @ wrong, wrong.sum(axis=0)]


def _softmax(logits: Rows) -> Rows:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
