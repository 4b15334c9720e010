"""Digits at several sites: rows of each, what one site learns of its own in a round, and how the server steps."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from palladion.private.dp.linear import Descent, prepared
from palladion.private.federated.aggregation import Summed
from palladion.private.federated.site import Train, Vector

CLASSES = 10
# beside the steps that `private plan` tries; chosen on training rows
DESCENT = Descent(steps=30, rate=16.0, clipping=0.5, momentum=0.5, bias=0.5, offset=5.0)


def parts(rows: NDArray[np.float64], labels: NDArray[np.int64], sites: int) -> list[Train]:
    """What each site learns of its own part of the rows: one row (size,) of gradients for each example."""
    features, wanted = prepared(rows, DESCENT), np.eye(CLASSES)[labels]
    return [_train(features[site::sites], wanted[site::sites]) for site in range(sites)]


def _train(features: NDArray[np.float64], wanted: NDArray[np.float64]) -> Train:
    def train(model: Vector, _round: int) -> NDArray[np.float64]:
        scores = features @ model.astype(np.float64).reshape(features.shape[1], CLASSES)
        chances = np.exp(scores - scores.max(axis=1, keepdims=True))
        residual = chances / chances.sum(axis=1, keepdims=True) - wanted
        gradients = features[:, :, None] * residual[:, None, :]
        return np.asarray(gradients.reshape(len(features), -1))

    return train


@dataclass
class Stepper:
    """The server's descent: momentum, and the mean of the last steps, as `palladion.private.dp.linear.descend` does."""

    rows: int
    velocity: NDArray[np.float64] | None = None
    passed: list[NDArray[np.float64]] = field(default_factory=list)

    def step(self, model: Vector, summed: Summed) -> Vector:
        """The next model."""
        before = np.zeros_like(summed.total) if self.velocity is None else self.velocity
        self.velocity = DESCENT.momentum * before + summed.total / self.rows
        found = model - DESCENT.rate * self.velocity
        self.passed.append(found)
        return found.astype(np.float32)

    @property
    def averaged(self) -> NDArray[np.float64]:
        """The weights (features + 1, classes)."""
        last = max(1, round(DESCENT.average * len(self.passed)))
        return np.asarray(np.mean(self.passed[-last:], axis=0).reshape(-1, CLASSES))
