"""What an answer discloses, by standing: the one table of docs/gate.md, as a pure function.

| standing | discloses | rate |
|---|---|---|
| trusted | what the route's contract says | full |
| watched | the same: being watched changes no answer | full |
| throttled | scores to one decimal and the three highest; numbers to two significant digits | a quarter |
| degraded | the label alone; numbers to one significant digit | a quarter |
| suspended | nothing: refused | none |
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from palladion.gate.contract import LABEL, Contract, Outputs
from palladion.registry.rows import Standing

Level = Literal["contract", "reduced", "label"]

REDUCED_DECIMALS = 1
REDUCED_TOP_K = 3
REDUCED_DIGITS = 2  # significant ones, of predicted numbers
LABEL_DIGITS = 1
DECIMALS_ALL = 17  # a policy that says so leaves scores as they are: no double has more
RATE_DIVISOR = 4

LEVELS: dict[Standing, Level] = {
    "trusted": "contract",
    "watched": "contract",
    "throttled": "reduced",
    "degraded": "label",
}  # suspended is not in it: a suspended client gets no answer


def rate_divisor(standing: Standing) -> int:
    """By what a client's rate is divided."""
    return RATE_DIVISOR if standing in {"throttled", "degraded"} else 1


def disclose(outputs: Outputs, contract: Contract, level: Level) -> dict[str, NDArray[Any]]:
    """The outputs that leave the gate, by name. Labels are never changed: less is said, and nothing wrong.

    Class scores keep their highest class too, however coarse they get.
    """
    shown: dict[str, NDArray[Any]] = {}
    if contract.label is not None:
        shown[contract.label] = outputs[contract.label]
    elif contract.kind == "classes" and "label" in {level, contract.answer}:
        shown[LABEL] = outputs[contract.scores or ""].argmax(axis=-1)
    # a number that is predicted has no label to fall back on
    withheld = contract.answer == "label" or (level == "label" and bool(shown))
    if contract.scores is not None and not withheld:
        disclosed = _numbers if contract.kind == "numbers" else _class_scores
        shown[contract.scores] = disclosed(outputs[contract.scores], contract, level)
    return shown


def _class_scores(scores: NDArray[Any], contract: Contract, level: Level) -> NDArray[Any]:
    decimals, top_k = contract.decimals, contract.top_k
    if level == "reduced":
        decimals = min(decimals, REDUCED_DECIMALS)
        top_k = min(top_k or REDUCED_TOP_K, REDUCED_TOP_K)
    return _decided(_rounded(_highest(scores, top_k), decimals), scores.argmax(axis=1), decimals)


def _numbers(values: NDArray[Any], contract: Contract, level: Level) -> NDArray[Any]:
    values = _rounded(values, contract.decimals)
    if level == "contract":
        return values
    return _significant(values, REDUCED_DIGITS if level == "reduced" else LABEL_DIGITS)


def _highest(scores: NDArray[Any], count: int) -> NDArray[Any]:
    """The `count` highest scores of each row, all of them for 0; the others become 0, or the lowest shown if lower."""
    if count == 0 or count >= scores.shape[1]:
        return scores
    # stable, so that of equal scores the first one stays: it is the label
    kept = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    values = np.take_along_axis(scores, kept, axis=1)
    others = np.minimum(values[:, -1:], 0)
    # logits can all be negative: what is not shown must not reach the label's score
    others = np.where(values[:, :1] > others, others, np.nextafter(others, -np.inf, dtype=others.dtype))
    shown = np.repeat(others, scores.shape[1], axis=1)
    np.put_along_axis(shown, kept, values, axis=1)
    return shown


def _decided(shown: NDArray[Any], labels: NDArray[np.int64], decimals: int) -> NDArray[Any]:
    """Rounded scores whose highest class is the label: where rounding made a tie, the label's gets one step more."""
    lost = np.flatnonzero(shown.argmax(axis=1) != labels)
    if len(lost):
        shown[lost, labels[lost]] = np.round(shown[lost, labels[lost]] + 10.0**-decimals, decimals)
    return shown


def _rounded(values: NDArray[Any], decimals: int) -> NDArray[Any]:
    # in double precision: 0.1 as a float32 prints as 0.10000000149, which tells what it was rounded from
    # and without a negative zero, which is no score
    return values if decimals >= DECIMALS_ALL else np.round(values.astype(np.float64), decimals) + 0.0


def _significant(values: NDArray[Any], digits: int) -> NDArray[Any]:
    flat = [float(f"{value:.{digits}g}") for value in values.reshape(-1).tolist()]
    return np.array(flat, np.float64).reshape(values.shape)
