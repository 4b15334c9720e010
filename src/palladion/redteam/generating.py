"""Data-free theft: a network makes the rows, and learns to make those about which copy and model differ most (DFME).

Truong et al., "Data-Free Model Extraction", CVPR 2021: the model is asked about each row and about neighbours of it,
and forward differences stand in for gradients; all of these are queries. Needs the columns' ranges and no row. The
paper asks millions of rows; what thousands get is for the figures to say.
"""

import numpy as np
from numpy.typing import NDArray

from palladion.redteam.extraction import Api, Target
from palladion.redteam.learners import Student, fit

Rows = NDArray[np.float64]

LATENT, HIDDEN = 32, 64
NEIGHBOURS = 1  # of each row, as many as the paper asks
STEP = 0.02  # of a column's range: how far a neighbour lies from its row
BATCH_ROWS = 16
ROUNDS = 6  # after which the copy is fitted anew
STUDENT_STEPS = 150
RATE, MOMENTUM = 0.05, 0.9
LEAST = 1e-6  # probability whose logarithm is compared


class _Generator:
    """A network with one hidden layer, from numbers at random to rows within the ranges."""

    def __init__(self, low: Rows, high: Rows, generator: np.random.Generator) -> None:
        self.middle, self.half = (low + high) / 2, (high - low) / 2
        self._generator = generator
        self._layers = [
            generator.standard_normal((LATENT, HIDDEN)) * np.sqrt(2 / LATENT),
            generator.standard_normal((HIDDEN, len(low))) * np.sqrt(1 / HIDDEN),
        ]
        self._speed = [np.zeros_like(layer) for layer in self._layers]
        self._seen: tuple[Rows, Rows, Rows] | None = None

    def rows(self, count: int) -> Rows:
        """New rows (count, inputs)."""
        latent = self._generator.standard_normal((count, LATENT))
        hidden = np.maximum(latent @ self._layers[0], 0)
        bent = np.tanh(hidden @ self._layers[1])
        self._seen = latent, hidden, bent
        return np.asarray(self.middle + self.half * bent)

    def climb(self, slopes: Rows) -> None:
        """One step along `slopes` (count, inputs) of what is to grow, at the newest rows."""
        if self._seen is None:
            raise ValueError("there are no rows to climb from")
        latent, hidden, bent = self._seen
        back = slopes * self.half * (1 - bent**2)
        # slopes come in the unit of the answers, whose size says nothing about how far to go
        back /= max(float(np.linalg.norm(back)), LEAST)
        gradients = [latent.T @ ((back @ self._layers[1].T) * (hidden > 0)), hidden.T @ back]
        for index, gradient in enumerate(gradients):
            self._speed[index] = MOMENTUM * self._speed[index] + gradient
            self._layers[index] = self._layers[index] + RATE * self._speed[index]


def generated(target: Target, api: Api, queries: int, generator: np.random.Generator) -> tuple[Rows, Rows]:
    """The rows that were asked (queries, inputs), neighbours too, and what was said."""
    low, high = target.pool.min(axis=0), target.pool.max(axis=0)
    maker = _Generator(low, high, generator)
    rows, answers = np.empty((0, len(low))), np.empty((0, target.truth.shape[1]))
    student: Student | None = None
    fitted_at = -1
    while len(rows) < queries:
        left = queries - len(rows)
        count = min(BATCH_ROWS, max(1, left // (1 + NEIGHBOURS)))
        made = _admitted(target, maker.rows(count), low, high)
        directions = generator.choice([-1.0, 1.0], (NEIGHBOURS, *made.shape))
        beside = [_admitted(target, made + STEP * (high - low) * way, low, high) for way in directions]
        asked = np.concatenate([made, *beside])[:left]
        said = api(asked)
        rows, answers = np.concatenate([rows, asked]), np.concatenate([answers, said])
        if ROUNDS * len(rows) // queries > fitted_at:
            fitted_at = ROUNDS * len(rows) // queries
            student = fit(rows, answers, target.goal, generator, steps=STUDENT_STEPS)
        if student is not None and len(asked) == (1 + NEIGHBOURS) * count:
            apart = _apart(said, student.answers(asked), target).reshape(1 + NEIGHBOURS, count)
            grown = (apart[1:] - apart[0])[..., None] * directions
            maker.climb(grown.mean(axis=0) / np.where(high > low, STEP * (high - low), 1.0))
    return rows, answers


def _apart(said: Rows, copied: Rows, target: Target) -> Rows:
    """How far model and copy are from each other in each row (n,): the sum of absolute differences of logits."""
    if target.goal == "numbers":
        return np.asarray(np.abs(said - copied).sum(axis=1))
    one, other = np.log(np.maximum(said, LEAST)), np.log(np.maximum(copied, LEAST))
    return np.asarray(np.abs(one - one.mean(axis=1, keepdims=True) - other + other.mean(axis=1, keepdims=True)).sum(1))


def _admitted(target: Target, rows: Rows, low: Rows, high: Rows) -> Rows:
    return np.clip(np.where(target.whole, np.rint(rows), rows), low, high)
