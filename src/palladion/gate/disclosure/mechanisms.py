"""Noise with a proof on class scores, from OpenDP, which samples exactly: no floating-point number is drawn.

Scores are counted in steps of 2^-16 of 0..1, so that all arithmetic is in whole numbers. That one row of training moves
no score by more than `sensitivity` is what the guarantee is under. At 1, the whole range, it assumes nothing, and
scores are made probabilities first. Below 1 they are clipped to 0..1 and nothing else: a softmax, or dividing by their
sum, moves scores further than the model did. Then:

| mechanism | answer | ε of a row | ρ of a row |
|---|---|---|---|
| noisy-max | the label, by Gumbel noise (the exponential mechanism) | ε | ε² / 8 |
| laplace | scores, by discrete Laplace noise | ε | ε² / 2 |
| gaussian | scores, by discrete Gaussian noise | none alone | by δ |

Sources: McSherry and Talwar, FOCS 2007; Cesar and Rogers, ALT 2021 (ε² / 8); Ghosh et al., STOC 2009; Bun and Steinke,
TCC 2016 (ε² / 2); Canonne, Kamath and Steinke, NeurIPS 2020.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.errors import MissingExtraError
from palladion.gate.contract import as_probabilities
from palladion.policy.privacy import PrivacyPolicy
from palladion.private.dp.accounting import zcdp_epsilon

GRID = 1 << 16  # steps of a score; rounding to them moves no score by more than it is measured to
BISECTIONS = 60
EXTRA = "pip install 'palladion[dp]'"


@dataclass(frozen=True)
class Cost:
    """What one row costs: `epsilon`, infinite where there is no bound without a δ, and `rho`."""

    epsilon: float
    rho: float


@dataclass(frozen=True)
class Noise:
    """A mechanism for so many classes. Satisfies `privacy.Mechanism`."""

    policy: PrivacyPolicy
    classes: int

    @cached_property
    def cost(self) -> Cost:
        """What one row costs."""
        epsilon = self.policy.epsilon
        if self.policy.mechanism == "noisy-max":
            return Cost(epsilon, epsilon**2 / 8)
        if self.policy.mechanism == "laplace":
            return Cost(epsilon, epsilon**2 / 2)
        return Cost(math.inf, _rho_of(epsilon, self.policy.delta))

    @property
    def epsilon(self) -> float:
        """What one row costs at most; at the policy's δ where there is no bound without one."""
        return self.policy.epsilon

    def prepare(self) -> None:
        """Find how much noise is needed. Raises MissingExtraError."""
        _ = self._measurement

    def disclose(self, scores: NDArray[Any]) -> NDArray[np.float64]:
        """Scores (rows, classes) under noise; of noisy-max, 1 for the label and 0 for the others.

        Raises ValueError for scores of another shape, or that are not finite.
        """
        if scores.ndim != 2 or scores.shape[1] != self.classes or not np.isfinite(scores).all():
            raise ValueError(f"finite scores of {self.classes} classes were expected, got the shape {scores.shape}")
        counted = np.rint(self._bounded(scores.astype(np.float64)) * GRID).astype(np.int64)
        if self.policy.mechanism == "noisy-max":
            shown = np.zeros(scores.shape)
            shown[np.arange(len(scores)), [self._measurement(row.tolist()) for row in counted]] = 1.0
            return shown
        noisy = np.array([self._measurement(row.tolist()) for row in counted], np.float64) / GRID
        # what is done with the noisy numbers costs nothing; a score is not to be told apart by leaving the range
        return np.clip(noisy, 0.0, 1.0)

    def _bounded(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores in 0..1, by what moves none of them further than `sensitivity` says."""
        if self._is_assumed:
            return np.clip(scores, 0.0, 1.0)
        probabilities = np.clip(as_probabilities(scores), 0.0, 1.0)
        # two rows of them are then no further apart than 2 in all, whatever the model says of itself
        return np.asarray(probabilities / np.maximum(probabilities.sum(axis=1, keepdims=True), 1.0))

    @cached_property
    def _measurement(self) -> Any:
        """OpenDP's measurement of one row, with the least noise that its own map says is enough."""
        dp = opendp()
        measurements = dp.m
        dp.enable_features("contrib")
        domain = dp.vector_domain(dp.atom_domain(T="i64"), size=self.classes)
        moved = self._moved
        cost = self.cost
        if self.policy.mechanism == "noisy-max":
            space = domain, dp.linf_distance(T="i64")
            measure = dp.zero_concentrated_divergence()
            return _least(lambda scale: measurements.make_noisy_max(*space, measure, scale=scale), moved, cost.rho)
        if self.policy.mechanism == "laplace":
            # probabilities add up to 1, so that no two rows of them are further apart than 2; other scores need not
            apart = (self.classes * moved if self._is_assumed else 2 * GRID) + self.classes
            space = domain, dp.l1_distance(T="i64")
            return _least(lambda scale: measurements.make_laplace(*space, scale=scale), apart, cost.epsilon)
        distance = math.sqrt(self.classes) * moved if self._is_assumed else math.sqrt(2) * GRID
        distance += math.sqrt(self.classes)  # of rounding
        space = domain, dp.l2_distance(T="f64")
        return _least(lambda scale: measurements.make_gaussian(*space, scale=scale), distance, cost.rho)

    @property
    def _is_assumed(self) -> bool:
        return self.policy.sensitivity < 1

    @property
    def _moved(self) -> int:
        """By how many steps one row of training may move a score: what is assumed, and what rounding adds to it."""
        return min(GRID, math.ceil(self.policy.sensitivity * GRID) + 1)


def opendp() -> Any:
    """The library. Raises MissingExtraError."""
    try:
        import opendp.prelude as library
    except ImportError:
        raise MissingExtraError("private answers need OpenDP", EXTRA) from None
    return library


def _least(make: Any, moved: Any, cost: float) -> Any:
    """The measurement with the least noise whose own map says that `moved` costs no more than `cost`."""
    low, high = 0.0, 1.0
    while make(high).map(moved) > cost:
        low, high = high, high * 2
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if middle in {low, high}:
            break
        low, high = (low, middle) if make(middle).map(moved) <= cost else (middle, high)
    return make(high)


def _rho_of(epsilon: float, delta: float) -> float:
    """The largest ρ that has (ε, δ), rounded down."""
    low, high = 0.0, epsilon
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if zcdp_epsilon(middle, delta) <= epsilon else (low, middle)
    return low
