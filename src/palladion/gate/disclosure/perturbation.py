"""Probabilities changed for clients that are suspected: as published, within a budget, and with every label kept.

Whoever trains a student on labels alone, or knows how they are changed, loses little by it (docs/disclosure.md).
"""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from palladion.gate.contract import SEARCHED_CLASSES_MAX, as_probabilities
from palladion.mark.answers.noise import are_probabilities

Method = Literal["reverse-sigmoid", "modelguard-w"]
Probabilities = NDArray[np.float64]

_BETA, _GAMMA = 1.0, 0.1  # of Lee et al., as in their experiments and in the Adversarial Robustness Toolbox
_TINY = 1e-9
_LOGARITHM_OF = 1e-6  # added before a logarithm, as the authors of ModelGuard do
_MARGIN = 1e-4  # by which the label stays ahead, likewise
_TRIED, _ROUNDS = 17, 6  # each round leaves an eighth: 4e-6 of a probability


def perturb(
    scores: NDArray[np.floating], method: Method, budget: float, *, threshold: float = math.inf
) -> Probabilities:
    """Class scores (rows, classes) of which at most `budget` of the probability was moved; labels stay.

    So does the side of a threshold that each score is on. Logits come back as logits with the same log-sum-exp. Rows
    with something that is no finite number stay.
    """
    exact = scores.astype(np.float64)
    sound = np.isfinite(exact).all(axis=1)
    if not sound.all():
        if sound.any():
            exact[sound] = perturb(exact[sound], method, budget, threshold=threshold)
        return exact
    with np.errstate(over="ignore"):
        probabilities = as_probabilities(exact)
        logits = ~are_probabilities(exact)
        total = np.where(logits[:, None], _log_sum_exp(exact), 0.0)
        # a threshold of logits as a probability of their row
        borders = np.where(logits[:, None], np.exp(threshold - total), threshold)
    change = _reverse_sigmoid if method == "reverse-sigmoid" else _modelguard_w
    changed = _within(probabilities, change(probabilities, budget), budget, borders)
    changed[logits] = np.log(np.maximum(changed[logits], _TINY)) + total[logits]
    # of logits so near or so large that their probabilities are alike, a label or a side could turn
    turned = changed.argmax(axis=1) != exact.argmax(axis=1)
    turned |= ((changed >= threshold) != (exact >= threshold)).any(axis=1)
    changed[turned] = exact[turned]
    return changed


def _reverse_sigmoid(y: Probabilities, budget: float) -> Probabilities:
    """Equations 3 and 4 of Lee, Edwards, Molloy and Su, Deceptive Perturbations (2019, arXiv:1806.00054)."""
    inside = np.clip(y, _TINY, 1 - _TINY)
    deceived = inside - _BETA * (1 / (1 + np.exp(-_GAMMA * np.log(inside / (1 - inside)))) - 0.5)
    deceived = np.clip(deceived, 0.0, 1.0)
    return np.asarray(deceived / deceived.sum(axis=1, keepdims=True))


def _modelguard_w(y: Probabilities, budget: float) -> Probabilities:
    """The linear programme of ModelGuard-W (Tang et al., USENIX Security 2024): min log(y)·y' near y, label kept.

    For a given score of the label, τ, the best is known: whatever exceeds τ is cut off, and probability moves from the
    highest of the other classes to τ and to the lowest ones, up to τ each. Its value is convex in τ: that is searched.
    """
    if y.shape[1] > SEARCHED_CLASSES_MAX:
        raise ValueError(f"modelguard-w is for at most {SEARCHED_CLASSES_MAX} classes, got {y.shape[1]}")
    order = np.argsort(-y, axis=1, kind="stable")
    ranked = np.take_along_axis(y, order, axis=1)[:, None, :]  # (rows, 1, classes), highest first
    weights = np.log(ranked + _LOGARITHM_OF)
    low, high = np.zeros((len(y), 1)), np.ones((len(y), 1))
    for _ in range(_ROUNDS):
        tried = low + (high - low) * np.linspace(0, 1, _TRIED)  # (rows, tried)
        changed, feasible = _moved(ranked, tried[:, :, None], budget)
        # what cannot be is worse the further it is from where the peak was, which is among what can
        values = np.where(feasible, (weights * changed).sum(axis=2), 1.0 + np.abs(tried - ranked[:, :, 0]))
        best = values.argmin(axis=1)[:, None]
        low = np.take_along_axis(tried, np.maximum(best - 1, 0), axis=1)
        high = np.take_along_axis(tried, np.minimum(best + 1, _TRIED - 1), axis=1)
    found = np.take_along_axis(changed, best[:, :, None], axis=1)
    possible = np.take_along_axis(feasible, best, axis=1)
    # a label that leads by less than the margin leaves nothing to move
    result = np.empty_like(y)
    np.put_along_axis(result, order, np.where(possible, found[:, 0], ranked[:, 0]), axis=1)
    return result


def _moved(ranked: Probabilities, peak: Probabilities, budget: float) -> tuple[Probabilities, NDArray[np.bool_]]:
    """`ranked` (rows, 1, classes) with labels of `peak` (rows, tried, 1); and which of these can be (rows, tried)."""
    roof = np.maximum(peak - _MARGIN, 0)
    cut = np.minimum(ranked, roof)
    cut[..., :1] = peak
    forced = np.maximum(ranked - cut, 0).sum(axis=2, keepdims=True)
    raised = np.maximum(peak - ranked[..., :1], 0)
    spare, space = cut.copy(), roof - cut
    spare[..., 0] = space[..., 0] = 0.0
    # given away from the top, received from the bottom, until the two meet
    given = np.cumsum(spare, axis=2) - spare
    received = np.cumsum(space[..., ::-1], axis=2)[..., ::-1]
    meet = np.minimum(forced + given, raised + received).max(axis=2, keepdims=True)
    amount = np.minimum(budget, meet)
    added = np.clip(amount - raised - (received - space), 0.0, space)
    removed = np.clip(amount - forced - given, 0.0, spare)
    feasible = (np.maximum(forced, raised) <= amount + 1e-12) & (peak >= _MARGIN)
    return cut + added - removed, feasible[..., 0]


def _within(y: Probabilities, target: Probabilities, budget: float, borders: Probabilities) -> Probabilities:
    """As far from `y` towards `target` (rows, classes) as the budget goes, the label stays the highest, and no score
    crosses the border (rows, 1) of its row.
    """
    rows, labels = np.arange(len(y)), y.argmax(axis=1)
    distance = np.abs(target - y).sum(axis=1) / 2
    share = np.minimum(1.0, budget / np.maximum(distance, _TINY))
    lead, gain = y[rows, labels][:, None] - y, (target - y) - (target - y)[rows, labels][:, None]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        meets = np.where(gain > 0, lead / gain, np.inf)
        crosses = (borders - y) / (target - y)
    meets[rows, labels] = np.inf
    # who is on the border and moves up, stays on its side
    meets = np.minimum(meets, np.where((crosses >= 0) & ((target < y) | (y < borders)), crosses, np.inf))
    # a little short of the tie, so that no rounding turns the label
    share = np.minimum(share, meets.min(axis=1) * (1 - 1e-6))
    moved = y + share[:, None] * (target - y)
    kept = moved.argmax(axis=1) == labels
    return np.where(kept[:, None], moved, y)


def _log_sum_exp(logits: Probabilities) -> Probabilities:
    highest = logits.max(axis=1, keepdims=True)
    return np.asarray(highest + np.log(np.exp(logits - highest).sum(axis=1, keepdims=True)))
