"""Boxes and masks: coordinates on a grid, blocks of pixels that have one class; no class of a box changes.

Each step is computed from the one before, so that it tells nothing more.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.gate.contract import Contract
from palladion.gate.disclosure.levels import LABEL_GRIDS, REDUCED_DECIMALS, Level
from palladion.gate.disclosure.rounding import Numbers, decimal_sides, finite_or, to_decimals
from palladion.gate.disclosure.scores import coarse

PAINTED_FROM = 0.5  # of a mask's score, where the route declares no threshold
_TOLERANCE = 1e-6  # of a step: a coordinate that is on the grid stays where it is


def boxes(values: NDArray[Any], contract: Contract, level: Level) -> NDArray[Any]:
    """What is shown of boxes (…, 4)."""
    if level == "contract":
        return values
    shown = _on_grid(values.astype(np.float64), contract.grid)
    return shown if level == "reduced" else _on_grid(shown, LABEL_GRIDS * contract.grid)


def box_scores(scores: NDArray[Any], places: int, contract: Contract, level: Level) -> NDArray[Any]:
    """What is shown of the scores of boxes: (…), or by class (…, classes); `places` is the rank of (…)."""
    shown = _coarse(scores, places, contract.decimals, contract.threshold)
    if level != "contract":
        shown = _coarse(shown, places, min(contract.decimals, REDUCED_DECIMALS), contract.threshold)
    return _coarse(shown, places, 0, contract.threshold) if level == "label" else shown


def mask(values: NDArray[Any], contract: Contract, level: Level) -> NDArray[Any]:
    """What is shown of a mask: classes (rows, height, width), scores alike, or scores by class in any order."""
    axis = contract.class_axis
    if contract.scores is None:
        return values if level == "contract" else _blocks_of_classes(values, contract, level)
    if axis is None or values.shape[axis] == 1:
        return _painted(values, contract, level)
    scores = np.moveaxis(values, axis, -1)
    shown = coarse(scores, [(contract.decimals, 0)], contract.threshold)
    if level != "contract":
        classes = _blocks_of_classes(shown.argmax(axis=-1), contract, level)
        shown = np.asarray(classes[..., None] == np.arange(scores.shape[-1]), np.float64)
    return np.moveaxis(shown, -1, axis)


def _painted(values: NDArray[Any], contract: Contract, level: Level) -> NDArray[Any]:
    """A mask of one class: scores, or 0 and 1."""
    threshold = PAINTED_FROM if math.isinf(contract.threshold) else contract.threshold
    shown = decimal_sides(threshold, contract.decimals).kept(to_decimals(values, contract.decimals), values)
    if level == "contract":
        return shown
    # in double precision: the type of the scores may not hold the threshold
    painted = (shown >= np.float64(threshold)).astype(np.int64)
    flat = painted.reshape(len(painted), *[size for size in painted.shape[1:] if size != 1 or painted.ndim == 3])
    return _blocks_of_classes(flat, contract, level).reshape(values.shape).astype(np.float64)


def _coarse(scores: NDArray[Any], places: int, decimals: int, threshold: float) -> NDArray[Any]:
    if scores.ndim > places:
        return coarse(scores, [(decimals, 0)], threshold)
    shown = to_decimals(scores, decimals)
    return shown if math.isinf(threshold) else decimal_sides(threshold, decimals).kept(shown, scores)


def _on_grid(values: Numbers, step: float) -> Numbers:
    """The first two coordinates down and the others up: then no box is empty, whether they are corners or sizes."""
    with np.errstate(over="ignore"):
        steps = values / step
        steps[..., :2] = np.floor(steps[..., :2] + _TOLERANCE)
        steps[..., 2:] = np.ceil(steps[..., 2:] - _TOLERANCE)
        return finite_or(steps * step + 0.0, values)


def _blocks_of_classes(classes: NDArray[Any], contract: Contract, level: Level) -> NDArray[Any]:
    side = max(1, round(contract.grid))
    shown = _majority(classes, side)
    return shown if level == "reduced" else _majority(shown, LABEL_GRIDS * side)


def _majority(classes: NDArray[Any], side: int) -> NDArray[Any]:
    """Each block of (rows, height, width) filled with its commonest class, of equally common ones the lowest."""
    height, width = classes.shape[1:]
    rows, columns = np.arange(0, height, side), np.arange(0, width, side)
    most = np.full((len(classes), len(rows), len(columns)), -1)
    shown = np.zeros(most.shape, classes.dtype)
    for found in np.unique(classes):
        here = np.add.reduceat((classes == found).astype(np.int64), rows, axis=1)
        count = np.add.reduceat(here, columns, axis=2)
        shown[count > most] = found
        most = np.maximum(most, count)
    return np.repeat(np.repeat(shown, side, axis=1), side, axis=2)[:, :height, :width]
