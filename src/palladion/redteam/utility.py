"""What coarser answers cost an honest user: accuracy, how well probabilities are calibrated, and how far numbers move.

Brier (1950), logarithmic loss, and the expected calibration error of Naeini et al. (AAAI 2015) in 15 bins.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]

BINS = 15
SCORE_MIN = 1e-6  # of a probability in a logarithm: one that was hidden comes as 0
_TINY = 1e-12

Cost = Mapping[str, float | None]


def cost_of_classes(shown: Rows | None, truth: Rows, labels: NDArray[np.int64] | None) -> Cost:
    """What it costs to see `shown` in place of `truth` (rows, classes), both probabilities; None for labels alone.

    Without `labels`, right and wrong are as the model itself says.
    """
    named = truth.argmax(axis=1)
    right = named if labels is None else labels
    cost: dict[str, float | None] = {"accuracy": None if labels is None else float((named == right).mean())}
    if shown is None:
        return cost | dict.fromkeys(("log_loss", "brier", "calibration_error", "change"))
    whole = as_distribution(shown)
    rows = np.arange(len(whole))
    hit = whole.argmax(axis=1)
    cost["accuracy"] = None if labels is None else float((hit == right).mean())
    cost["log_loss"] = float(-np.log(np.maximum(whole[rows, right], SCORE_MIN)).mean())
    cost["brier"] = float((np.square(whole).sum(axis=1) - 2 * whole[rows, right] + 1).mean())
    cost["calibration_error"] = _calibration_error(whole.max(axis=1), hit == right)
    return cost | {"change": _change(shown, truth)}


def cost_of_numbers(shown: Rows, truth: Rows, values: Rows | None) -> Cost:
    """What it costs to see `shown` in place of `truth` (rows, …); `values` are the right ones, where they are known."""
    error = None if values is None else float(np.sqrt(np.square(shown - values).mean()))
    return {"root_mean_square_error": error} | {"change": _change(shown, truth)}


def cost_of_vectors(shown: Rows, truth: Rows) -> Cost:
    """What it costs to see `shown` in place of `truth` (rows, dimensions): cosines, and nearest neighbours kept."""
    one, other = _unit(shown), _unit(truth)
    return {
        "cosine": float((one * other).sum(axis=1).mean()),
        "neighbours_kept": float((_nearest(one) == _nearest(other)).mean()),
    } | {"change": _change(shown, truth)}


def as_distribution(shown: Rows) -> Rows:
    """Disclosed scores as probabilities: hidden ones are shown as 0, and rounded ones do not add up to 1."""
    positive = np.maximum(shown, 0)
    total = positive.sum(axis=1, keepdims=True)
    even = np.full_like(positive, 1 / positive.shape[1])
    return np.where(total > 0, positive / np.maximum(total, _TINY), even)


def _change(shown: Rows, truth: Rows) -> float:
    return float(np.abs(shown - truth).mean())


def _calibration_error(confidence: Rows, right: NDArray[Any]) -> float:
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    error = 0.0
    for index in np.unique(bins):
        inside = bins == index
        error += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    return float(error)


def _unit(vectors: Rows) -> Rows:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _TINY))


def _nearest(unit: Rows) -> NDArray[np.int64]:
    alike = unit @ unit.T
    np.fill_diagonal(alike, -np.inf)
    return np.asarray(alike.argmax(axis=1), np.int64)
