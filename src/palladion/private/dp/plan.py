"""What a privacy budget buys: accuracy of a private linear model by ε, and how likely a private answer is right.

Cross-validation looks at the rows, which no ε is charged for: its figures are for whoever holds the rows, not for sale.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.private.dp.accounting import noise_for
from palladion.private.dp.linear import Descent, LinearModel, descend
from palladion.private.dp.randomness import Seeded

FOLDS = 4
# Steps of several lengths and clippings, as which is best depends on ε and on how many rows there are.
DESCENTS = tuple(
    Descent(steps=steps, rate=rate, clipping=clipping, momentum=0.5, bias=bias)
    for steps, rate in ((30, 16.0), (60, 8.0), (100, 20.0))
    for clipping in (0.5,)
    for bias in (0.0, 0.5)
)


@dataclass(frozen=True)
class Reached:
    """Accuracy at one ε, as a mean over folds with its deviation, and the descent that was best; ε is None without."""

    epsilon: float | None
    accuracy: float
    deviation: float
    descent: Descent


def accuracies(
    rows: NDArray[Any],
    labels: NDArray[Any],
    *,
    classes: int,
    epsilons: Sequence[float],
    delta: float,
    offset: float = 0.0,
    scale: float = 1.0,
    seed: int = 1,
) -> list[Reached]:
    """Cross-validated accuracy of a linear model at each of `epsilons`, and without noise: of the best descent."""
    generator = np.random.default_rng(seed)
    folds = generator.permutation(len(rows)) % FOLDS
    return [
        _best(rows, labels, folds, classes=classes, epsilon=epsilon, delta=delta, offset=offset, scale=scale)
        for epsilon in (*epsilons, None)
    ]


def chance_of_top(margin: float, classes: int, epsilon: float, sensitivity: float) -> float:
    """How likely noisy-max answers with the highest class, where all others are `margin` below it."""
    exponent = epsilon * margin / (2 * sensitivity)
    return 1 / (1 + (classes - 1) * math.exp(-exponent))


def _best(
    rows: NDArray[Any],
    labels: NDArray[Any],
    folds: NDArray[Any],
    *,
    classes: int,
    epsilon: float | None,
    delta: float,
    offset: float,
    scale: float,
) -> Reached:
    found = []
    for index, base in enumerate(DESCENTS):
        descent = Descent(
            base.steps, base.rate, base.clipping, base.momentum, offset=offset, scale=scale, bias=base.bias
        )
        noise = 0.0 if epsilon is None else noise_for(epsilon, delta, 1.0, descent.steps)
        right = []
        for fold in range(FOLDS):
            judged = folds == fold
            weights = descend(
                rows[~judged],
                labels[~judged],
                classes=classes,
                kind="classes",
                descent=descent,
                noise_multiplier=noise,
                randomness=Seeded(np.random.default_rng([index, fold])),
            )
            model = LinearModel(weights, "classes", descent)
            right.append(float((model.predict(rows[judged]) == labels[judged]).mean()))
        found.append(Reached(epsilon, float(np.mean(right)), float(np.std(right)), descent))
    return max(found, key=lambda item: item.accuracy)
