"""Committees of networks of one shape, each of which is not shown another part of the answers. NumPy alone.

All members learn at once, as stacked matrices. What each says of the part that it was not shown tells how good they are
(Krogh and Vedelsby, NIPS 1995); together they say the mean.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from palladion.redteam.learners import DECAY_FIRST, DECAY_SECOND, RATE, TINY, WEIGHT_DECAY, Goal

Rows = NDArray[np.float64]
Single = NDArray[np.float32]

BATCH_ROWS = 64
STEPS = 1500


@dataclass(frozen=True, eq=False)
class Committee:
    """Fitted networks: `layers` are weights (members, before, after), shifts (members, 1, after), and so on."""

    layers: tuple[Single, ...]
    scaled: Callable[[Rows], Rows]
    offset: Rows
    unit: Rows

    def answers(self, rows: Rows) -> Rows:
        """The mean of what they say of rows (n, inputs), of classes before the softmax (n, outputs)."""
        return np.asarray(self._said(self.layers, rows).mean(axis=0))

    def without(self, part: int, rows: Rows) -> Rows:
        """What the member that was not shown this part says of rows (n, outputs)."""
        return np.asarray(self._said(tuple(layer[part : part + 1] for layer in self.layers), rows)[0])

    def _said(self, layers: tuple[Single, ...], rows: Rows) -> Rows:
        found = _forward(layers, self.scaled(rows).astype(np.float32)[None])[-1].astype(np.float64)
        return np.asarray(found * self.unit + self.offset)


def fit_committee(
    rows: Rows,
    targets: Rows,
    goal: Goal,
    generator: np.random.Generator,
    *,
    parts: NDArray[np.int64],
    widths: tuple[int, ...],
    scaled: Callable[[Rows], Rows],
    steps: int = STEPS,
) -> Committee:
    """A member for each number in `parts` (rows,), which is not shown the rows of that number.

    `widths` are those of hidden layers. Probabilities are learnt by cross entropy, numbers by squared error.
    """
    offset, unit = np.zeros(targets.shape[1]), np.ones(targets.shape[1])
    if goal == "numbers":
        spread = targets.std(axis=0)
        offset, unit = targets.mean(axis=0), np.where(spread > 0, spread, 1.0)
    wanted, inputs = ((targets - offset) / unit).astype(np.float32), scaled(rows).astype(np.float32)
    shown = [np.flatnonzero(parts != part) for part in range(int(parts.max()) + 1)]
    fewest = min(map(len, shown))
    places = np.stack([others[:fewest] for others in shown])  # (members, fewest)
    layers = _begin((rows.shape[1], *widths, targets.shape[1]), len(shown), generator)
    first, second = [np.zeros_like(layer) for layer in layers], [np.zeros_like(layer) for layer in layers]
    for step in range(1, steps + 1):
        drawn = generator.integers(0, fewest, (len(shown), min(BATCH_ROWS, fewest)))
        chosen = np.take_along_axis(places, drawn, axis=1)
        gradients = _gradients(tuple(layers), inputs[chosen], wanted[chosen], goal)
        rate = RATE * (1 - (step - 1) / steps)
        for index, gradient in enumerate(gradients):
            first[index] += (1 - DECAY_FIRST) * (gradient - first[index])
            second[index] += (1 - DECAY_SECOND) * (np.square(gradient) - second[index])
            spread_now = np.sqrt(second[index] / (1 - DECAY_SECOND**step)) + TINY
            layers[index] -= rate / (1 - DECAY_FIRST**step) * first[index] / spread_now
            layers[index] *= 1 - rate * WEIGHT_DECAY
    return Committee(tuple(layers), scaled, offset, unit)


def _begin(sizes: tuple[int, ...], members: int, generator: np.random.Generator) -> list[Single]:
    layers: list[Single] = []
    for before, after in pairwise(sizes):
        weights = generator.standard_normal((members, before, after)) * np.sqrt(2 / before)
        layers += [weights.astype(np.float32), np.zeros((members, 1, after), np.float32)]
    return layers


def _forward(layers: tuple[Single, ...], inputs: Single) -> list[Single]:
    """The inputs and what each layer makes of them (members, n, width)."""
    found = [inputs]
    for weights, shift in zip(layers[::2], layers[1::2], strict=True):
        before = found[-1] if len(found) == 1 else np.maximum(found[-1], 0)
        found.append(before @ weights + shift)
    return found


def _gradients(layers: tuple[Single, ...], inputs: Single, targets: Single, goal: Goal) -> list[Single]:
    found = _forward(layers, inputs)
    said = found[-1]
    if goal == "probabilities":
        said = np.exp(said - said.max(axis=2, keepdims=True))
        said /= said.sum(axis=2, keepdims=True)
    wrong = (said - targets) / np.float32(inputs.shape[1])
    gradients: list[Single] = []
    for index in reversed(range(len(layers) // 2)):
        before = np.maximum(found[index], 0) if index else inputs
        gradients[:0] = [before.swapaxes(1, 2) @ wrong, wrong.sum(axis=1, keepdims=True)]
        if index:
            wrong = (wrong @ layers[2 * index].swapaxes(1, 2)) * (found[index] > 0)
    return gradients
