"""Predicted numbers, and vectors: fewer digits, bands, few steps; no number crosses the route's threshold.

Each step is computed from the one before, so that it tells nothing more.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.gate.contract import Contract
from palladion.gate.disclosure.levels import (
    LABEL_DIGITS,
    LABEL_STEPS,
    NORM_DIGITS,
    REDUCED_DIGITS,
    REDUCED_STEPS,
    Level,
)
from palladion.gate.disclosure.rounding import (
    Numbers,
    band_sides,
    decimal_sides,
    digit_sides,
    finite_or,
    to_bands,
    to_decimals,
    to_digits,
)


def numbers(values: NDArray[Any], contract: Contract, level: Level) -> NDArray[Any]:
    """What is shown of predicted numbers of any shape."""
    threshold = contract.threshold
    declared = not math.isinf(threshold)
    shown = to_decimals(values, contract.decimals)
    if declared:
        shown = decimal_sides(threshold, contract.decimals).kept(shown, values)
    if level == "contract":
        return shown
    reduced = to_digits(shown, REDUCED_DIGITS)
    if declared:
        reduced = digit_sides(threshold, REDUCED_DIGITS).kept(reduced, shown)
    if level == "reduced":
        return reduced
    least = to_bands(reduced, contract.band) if contract.band > 0 else to_digits(reduced, LABEL_DIGITS)
    if declared:
        sides = band_sides(threshold, contract.band) if contract.band > 0 else digit_sides(threshold, LABEL_DIGITS)
        least = sides.kept(least, reduced)
    return least


def vectors(values: NDArray[Any], contract: Contract, level: Level) -> NDArray[Any]:
    """What is shown of embeddings (…, dimensions)."""
    shown = to_decimals(values, contract.decimals)
    if level == "contract":
        return shown
    shown = _in_steps(shown.astype(np.float64), REDUCED_STEPS)
    return shown if level == "reduced" else _in_steps(shown, LABEL_STEPS)


def _in_steps(vectors: Numbers, steps: int) -> Numbers:
    """Each component as a whole number of steps, of which the largest has `steps`; the length is kept, but for digits.

    A vector with a component that is no finite number tells nothing.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        largest = np.abs(vectors).max(axis=-1, keepdims=True)
        whole = np.rint(vectors / largest * steps) + 0.0
        # divided first, so that no square overflows
        length = np.sqrt(np.square(vectors / largest).sum(axis=-1, keepdims=True)) * largest
        shown = whole * (to_digits(length, NORM_DIGITS) / np.sqrt(np.square(whole).sum(axis=-1, keepdims=True)))
        # a length beyond every double is that of no answer: then the largest component stays instead
        shown = finite_or(shown, whole / steps * largest)
    return np.where(largest > 0, shown, np.where(largest == 0, 0.0, np.nan))
