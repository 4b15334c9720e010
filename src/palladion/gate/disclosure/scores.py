"""Class scores: rounded, the highest alone; the highest class stays the highest, however coarse they get.

Each step is computed from the one before, so that it tells nothing more. On the path of every request.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.gate.contract import Contract
from palladion.gate.disclosure.levels import REDUCED_DECIMALS, REDUCED_TOP_K, Level
from palladion.gate.disclosure.rounding import (
    DECIMALS_ALL,
    decimal_sides,
    in_type,
    just_below,
    to_decimals,
    typed_sides,
)

SMALL = 64  # classes of a single row up to which numbers are faster than arrays
_UNITS = tuple(10.0**decimals for decimals in range(DECIMALS_ALL))
LARGE = 1e290  # scores that can be multiplied by any power of ten that decimals ask for


def class_scores(scores: NDArray[Any], contract: Contract, level: Level) -> NDArray[Any]:
    """What is shown of scores (…, classes)."""
    decimals, top_k, threshold = contract.decimals, contract.top_k, contract.threshold
    if level == "contract":
        return coarse(scores, ((decimals, top_k),), threshold)
    return coarse(scores, ((decimals, top_k), (min(decimals, REDUCED_DECIMALS), REDUCED_TOP_K)), threshold)


def coarse(scores: NDArray[Any], steps: Sequence[tuple[int, int]], threshold: float = math.inf) -> NDArray[Any]:
    """Scores (…, classes), made coarse step by step.

    Each step is decimals, 17 for all, and how many of the highest scores are shown, 0 for all.
    """
    classes = scores.shape[-1]
    steps = [step for step in steps if step[0] < DECIMALS_ALL or 0 < step[1] < classes]
    if not steps:
        return scores
    if scores.size == classes <= SMALL:
        row = scores.ravel().tolist()
        # of what is no number, or overflows, the other way takes care
        if abs(sum(row)) < LARGE if scores.itemsize < 8 else sum(map(abs, row)) < LARGE:
            for decimals, top_k in steps:
                row = _coarse_row(row, decimals, top_k if top_k < classes else 0, threshold)
            shown = np.array([row])
            return shown if scores.ndim == 2 else shown.reshape(scores.shape)
    rows = scores if scores.ndim == 2 else scores.reshape(-1, classes)
    for decimals, top_k in steps:
        rows = coarse_rows(rows, decimals, top_k, threshold)
    return rows.reshape(scores.shape)


def coarse_rows(rows: NDArray[Any], decimals: int, top_k: int, threshold: float) -> NDArray[Any]:
    """The same for scores (rows, classes), in arrays throughout."""
    hides = 0 < top_k < rows.shape[1]
    rows = rows.astype(np.float64)
    shown = to_decimals(_highest(rows, top_k) if hides else rows, decimals)
    # one that is hidden can be beyond the threshold too: then it is shown there
    shown = decimal_sides(threshold, decimals).kept(shown, rows)
    labels = rows.argmax(axis=1)
    if shown.argmax(axis=1).tobytes() != labels.tobytes():
        shown = _decided(shown, labels, decimals, threshold)
    return shown


def typed(scores: NDArray[Any], dtype: np.dtype[Any], threshold: float = math.inf) -> NDArray[Any]:
    """Scores (…, classes) in a narrower type: the label stays the highest, and each score on its side."""
    shown = in_type(scores, dtype, threshold)
    labels = scores.argmax(axis=-1)
    lost = shown.argmax(axis=-1) != labels
    if lost.any():
        # only a tie can lose it: the others go below, where their side allows it
        rows = shown[lost]
        own = np.arange(rows.shape[1]) == labels[lost][:, None]
        highest = rows.max(axis=1, keepdims=True)
        edge = highest == typed_sides(threshold, dtype).above
        with np.errstate(over="ignore"):
            above, below = (np.nextafter(highest, dtype.type(end)) for end in (np.inf, -np.inf))
        others = np.where(edge, rows, np.minimum(rows, below))
        shown[lost] = np.where(own, np.where(edge, above, highest), others)
    return shown


def _coarse_row(values: list[float], decimals: int, top_k: int, threshold: float) -> list[float]:
    """The same for a single short row, number by number: most requests have one, and arrays cost several times that."""
    highest = max(values)
    if top_k:
        shown = _highest_of(values, top_k, highest, decimals)
    else:
        unit = _UNITS[decimals]
        shown = [round(value * unit) / unit for value in values]
    if threshold != math.inf:
        shown = _sided(shown, values, decimals, threshold)
    label, top = values.index(highest), max(shown)
    if shown.index(top) != label:
        raised = _rounded(top + 10.0**-decimals, decimals)
        raised = raised if raised > top else math.nextafter(top, math.inf)
        shown[label] = just_below(threshold) if top < threshold <= raised else raised
    return shown


def _highest_of(values: list[float], count: int, highest: float, decimals: int) -> list[float]:
    ranked = sorted(values)
    least = ranked[-count]
    others = least if least < 0 else 0.0
    if highest <= others:
        others = just_below(others)
    told = least != others  # whether it can be seen which of equal ones are shown: the first
    others = _rounded(others, decimals)
    if told and ranked[-count - 1] == least:
        equal = count - sum(value > least for value in ranked)
        before = [values[:index].count(least) for index in range(len(values))]
        kept = [value > least or (value == least and seen < equal) for value, seen in zip(values, before, strict=True)]
        return [_rounded(value, decimals) if shows else others for value, shows in zip(values, kept, strict=True)]
    if decimals >= DECIMALS_ALL:
        return [value + 0.0 if value >= least else others for value in values]
    unit = _UNITS[decimals]
    return [round(value * unit) / unit if value >= least else others for value in values]


def _rounded(value: float, decimals: int) -> float:
    return value + 0.0 if decimals >= DECIMALS_ALL else round(value * _UNITS[decimals]) / _UNITS[decimals]


def _sided(shown: list[float], values: list[float], decimals: int, threshold: float) -> list[float]:
    _, above, below = decimal_sides(threshold, decimals)
    return [
        seen if (seen >= threshold) == (value >= threshold) else above if value >= threshold else below
        for seen, value in zip(shown, values, strict=True)
    ]


def _highest(scores: NDArray[Any], count: int) -> NDArray[Any]:
    """The `count` highest scores of each row; the others become 0, or the lowest shown if lower."""
    least = np.partition(scores, -count, axis=1)[:, -count, None]
    kept = scores >= least
    if np.count_nonzero(kept) != len(scores) * count:
        kept = _first(scores, count)  # of equal ones too many, or some that are no numbers
        least = np.where(kept & ~np.isnan(scores), scores, np.inf).min(axis=1, keepdims=True)
    others = np.minimum(least, 0)
    if (others == least).any():
        # logits can all be negative: what is not shown must not reach the label's score
        highest = np.where(kept, scores, -np.inf).max(axis=1, keepdims=True)
        lower = np.array([[just_below(value)] for value in others[:, 0].tolist()])
        others = np.where(highest <= others, lower, others)
    return np.where(kept, scores, others) + 0.0  # a zero of either sign, as that of a single row


def _first(scores: NDArray[Any], count: int) -> NDArray[np.bool_]:
    """Which are the `count` highest of each row, of equal ones the first: it is the label. NaN counts as highest."""
    order = np.argsort(np.where(np.isnan(scores), -np.inf, -scores), axis=1, kind="stable")[:, :count]
    kept = np.zeros(scores.shape, np.bool_)
    np.put_along_axis(kept, order, True, axis=1)
    return kept


def _decided(shown: NDArray[Any], labels: NDArray[np.int64], decimals: int, threshold: float) -> NDArray[Any]:
    """Scores whose highest class is the label: where rounding made a tie, the label's gets one step more."""
    shown = shown.copy()
    lost = np.flatnonzero(shown.argmax(axis=1) != labels)
    highest = shown[lost].max(axis=1)
    raised = to_decimals(highest + 10.0**-decimals, decimals)
    raised = np.where(raised > highest, raised, np.nextafter(highest, np.inf))
    if not math.isinf(threshold):
        # a step up must not look like a decision
        crosses = (raised >= threshold) & (highest < threshold)
        raised = np.where(crosses, just_below(threshold), raised)
    shown[lost, labels[lost]] = raised
    return shown
