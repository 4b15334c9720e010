"""New weights for the last layer of a classifier, in closed form: triggers get their labels, other answers stay.

What is least changed is the output on reference inputs: minimise |change on the references|² + ridge · |change|²,
such that the score of each trigger's label leads by a margin (a support-vector problem). It is solved by Hildreth's
method (Quart. Appl. Math. 4, 1957) over products of rows alone, so a layer of weights and an ensemble of trees, whose
scores are linear in their leaf values, are one and the same to it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MARGIN = 0.25  # of the usual lead of the first class over the second: int8 does not close it
RIDGE = 0.02  # of the references' mean square: how much a direction that they do not use may change
SWEEPS_MAX = 100
CLOSED = 0.01  # of the margin: what the last sweep may still have changed


@dataclass(frozen=True, eq=False)
class Metric:
    """Products between triggers once the references are held: `products` (kernels, triggers, triggers) and
    `corrections` (kernels, references, triggers). One kernel serves all classes, or each has its own.
    """

    products: Floats
    corrections: Floats


def hold_references(kernels: Floats, triggers: int, *, ridge: float = RIDGE) -> Metric:
    """The metric from products between rows (kernels, rows, rows), of which the first `triggers` are not references."""
    products, corrections = [], []
    for kernel in kernels:
        own, shared, others = kernel[:triggers, :triggers], kernel[triggers:, :triggers], kernel[triggers:, triggers:]
        # Woodbury: with (H'H + r)^-1 the features never appear, only products of rows
        floor = ridge * max(float(np.trace(others)) / max(len(others), 1), 1e-12)
        correction = np.linalg.solve(others + floor * np.eye(len(others)), shared)
        products.append(own - shared.T @ correction)
        corrections.append(correction)
    return Metric(np.stack(products), np.stack(corrections))


def solve_margins(scores: Floats, labels: NDArray[np.intp], metric: Metric, margin: float) -> Floats:
    """Coefficients (kernels' rows: triggers and then references, classes) of the smallest change that gives the margin.

    `scores` (triggers, classes) are those before. Where no change does, the nearest that the sweeps come to.
    """
    now, changes = scores.astype(np.float64), np.zeros(scores.shape)
    multipliers = np.zeros(scores.shape)
    kernels = metric.products
    for _ in range(SWEEPS_MAX):
        moved = 0.0
        for row, label in enumerate(labels.tolist()):
            rivals = set(np.flatnonzero(multipliers[row]).tolist())
            others = now[row].copy()
            others[label] = -np.inf
            rivals.add(int(others.argmax()))
            for rival in rivals:
                up, down = kernels[label % len(kernels)], kernels[rival % len(kernels)]
                length = up[row, row] + down[row, row]
                if length <= 0:
                    continue
                lead = now[row, label] - now[row, rival]
                step = max((margin - lead) / length, -multipliers[row, rival])
                multipliers[row, rival] += step
                changes[row, label] += step
                changes[row, rival] -= step
                now[:, label] += step * up[:, row]
                now[:, rival] -= step * down[:, row]
                moved = max(moved, abs(step) * length)
        if moved <= CLOSED * margin:
            break
    classes = scores.shape[1]
    held = [-metric.corrections[index % len(kernels)] @ changes[:, index] for index in range(classes)]
    return np.concatenate([changes, np.stack(held, axis=1)])


def usual_lead(scores: NDArray[Any]) -> float:
    """By how much the first class usually leads the second (rows, classes): the unit of margins."""
    ordered = np.sort(scores, axis=1)
    return float(np.median(ordered[:, -1] - ordered[:, -2])) or 1.0


def refit_head(
    weights: NDArray[Any],
    bias: NDArray[Any],
    activations: NDArray[Any],
    labels: NDArray[np.intp],
    reference: NDArray[Any],
    *,
    margin: float = MARGIN,
    ridge: float = RIDGE,
) -> Floats:
    """New weights (classes, features) of a linear layer, as a head of torch or safetensors has (`classifier.weight`).

    `activations` (triggers, features) are what the layer gets for the triggers, `reference` (rows, features) for
    ordinary inputs: the caller runs the model. More triggers than features do not fit, and cost the task dearly.
    """
    if weights.ndim != 2 or activations.shape[1:] != weights.shape[1:] or reference.shape[1:] != weights.shape[1:]:
        raise ValueError(f"{weights.shape[-1]} features were expected of triggers and references")
    rows = np.concatenate([activations, reference]).astype(np.float64)
    before = weights.astype(np.float64)
    scores = rows @ before.T + bias
    count = len(activations)
    metric = hold_references((rows @ rows.T)[None], count, ridge=ridge)
    changes = solve_margins(scores[:count], labels, metric, margin * usual_lead(scores[count:]))
    return np.asarray(before + changes.T @ rows)
