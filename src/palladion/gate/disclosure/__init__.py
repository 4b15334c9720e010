"""What an answer discloses, by standing: the one table of docs/gate.md, as a pure function.

| standing | discloses | rate |
|---|---|---|
| trusted | what the route's contract says | full |
| watched | the same: being watched changes no answer | full |
| throttled | scores to one decimal and the three highest; numbers to two significant digits | a quarter |
| degraded | the label alone; numbers to one significant digit | a quarter |
| suspended | nothing: refused | none |

Embeddings, boxes and masks have ladders of their own (docs/disclosure.md).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.gate.contract import LABEL, Contract, Outputs
from palladion.gate.disclosure.detections import box_scores, boxes, mask
from palladion.gate.disclosure.levels import LEVELS, Level, ladders, rate_divisor
from palladion.gate.disclosure.numbers import numbers, vectors
from palladion.gate.disclosure.perturbation import perturb
from palladion.gate.disclosure.rounding import in_type
from palladion.gate.disclosure.scores import class_scores, typed
from palladion.gate.disclosure.terms import Own, Terms, own_contracts, terms_of

__all__ = [
    "LEVELS",
    "Level",
    "Own",
    "Terms",
    "disclose",
    "disclose_to",
    "ladders",
    "own_contracts",
    "rate_divisor",
    "terms_of",
]


def disclose(outputs: Outputs, contract: Contract, level: Level) -> dict[str, NDArray[Any]]:
    """The outputs that leave the gate, by name. Labels are never changed: less is said, and nothing wrong.

    Class scores keep their highest class too, however coarse they get. Raises nothing for finite numbers.
    """
    return _sent(_shown(outputs, contract, level), outputs, contract)


def _shown(outputs: Outputs, contract: Contract, level: Level) -> dict[str, NDArray[Any]]:
    if contract.kind in {"boxes", "mask"}:
        return _detected(outputs, contract, level)
    shown: dict[str, NDArray[Any]] = {}
    if contract.label is not None:
        shown[contract.label] = outputs[contract.label]
    elif contract.kind == "classes" and "label" in {level, contract.answer}:
        shown[LABEL] = outputs[contract.scores or ""].argmax(axis=-1)
    # a number that is predicted has no label to fall back on
    withheld = contract.answer == "label" or (level == "label" and bool(shown))
    if contract.scores is not None and not withheld:
        scores = outputs[contract.scores]
        if contract.kind == "classes":
            shown[contract.scores] = class_scores(scores, contract, level)
        else:
            disclosed = numbers if contract.kind == "numbers" else vectors
            shown[contract.scores] = disclosed(scores, contract, level)
    return shown


def disclose_to(terms: Terms, outputs: Outputs) -> dict[str, NDArray[Any]]:
    """The outputs that leave the gate for a caller, by name."""
    contract, given = terms.contract, outputs
    if terms.perturbation is not None and contract.kind == "classes" and contract.scores is not None:
        scores = outputs[contract.scores]
        rows = scores.reshape(-1, scores.shape[-1])
        changed = perturb(rows, terms.perturbation, terms.perturbation_max, threshold=contract.threshold)
        given = {**outputs, contract.scores: changed.reshape(scores.shape)}
    return _sent(_shown(given, contract, terms.level), outputs, contract)


def _sent(shown: dict[str, NDArray[Any]], outputs: Outputs, contract: Contract) -> dict[str, NDArray[Any]]:
    """What is shown, such that labels and decisions are still those in the types in which it is sent."""
    if contract.typed:
        for name, values in shown.items():
            dtype = outputs[name].dtype if name in outputs else values.dtype
            if values.dtype.kind == "f" and values.dtype != dtype:
                shown[name] = _in_type(name, values, dtype, outputs, contract)
    return shown


def _in_type(
    name: str, values: NDArray[Any], dtype: np.dtype[Any], outputs: Outputs, contract: Contract
) -> NDArray[Any]:
    if name == contract.boxes or contract.kind == "embedding":
        found = in_type(values, dtype)
    elif contract.kind == "classes" or (contract.boxes and values.ndim == outputs[contract.boxes].ndim):
        found = typed(values, dtype, contract.threshold)
    elif contract.class_axis is not None:
        found = np.moveaxis(values, contract.class_axis, -1)
        found = np.moveaxis(typed(found, dtype, contract.threshold), -1, contract.class_axis)
    else:
        found = in_type(values, dtype, contract.threshold)
    # what its type says anyway stays a double, so that JSON has no digit of the type itself
    with np.errstate(over="ignore"):
        return np.where(values.astype(dtype) == found, values, found.astype(np.float64))


def _detected(outputs: Outputs, contract: Contract, level: Level) -> dict[str, NDArray[Any]]:
    shown: dict[str, NDArray[Any]] = {}
    if contract.kind == "mask":
        name = contract.scores or contract.label or ""
        return {name: mask(outputs[name], contract, level)}
    found = outputs[contract.boxes or ""]
    shown[contract.boxes or ""] = boxes(found, contract, level)
    if contract.scores is not None:
        shown[contract.scores] = box_scores(outputs[contract.scores], found.ndim - 1, contract, level)
    if contract.label is not None:
        shown[contract.label] = outputs[contract.label]
    return shown
