"""Empirical lower bounds on the ε of (ε, δ)-differential privacy, from attacks on canaries.

From many runs: Jagielski, Ullman and Oprea (NeurIPS 2020) and Nasr et al. (S&P 2021), ε ≥ log((TPR - δ) / FPR) with
bounds of Clopper and Pearson (Biometrika 1934). From one run: Steinke, Nasr and Jagielski (NeurIPS 2023,
arXiv:2305.08846), theorem 5.2. A model whose bound is above the ε that it claims does not keep it; a bound below proves
nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]
Mask = NDArray[np.bool_]

BISECTIONS = 45  # to 3e-14
EPSILON_MAX = 60.0  # e^60 is beyond what any count could show
TRIALS_MAX = 10_000_000  # binomial terms are held at once


@dataclass(frozen=True)
class Bound:
    """ε is at least `epsilon` with that confidence, for the given δ; `statement` says what was counted."""

    epsilon: float
    confidence: float
    delta: float
    statement: str


def clopper_pearson(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    """The exact two-sided interval of a probability. Raises ValueError for counts that are none."""
    _check_counts(successes, trials, confidence)
    tail = (1 - confidence) / 2
    logs = _log_factorials(trials)
    low, high = 0.0, 1.0
    if successes > 0:
        # the smallest probability at which so many successes are not too rare
        low = _bisect(lambda p: _at_least(successes, trials, p, logs) < tail, 0.0, successes / trials)[0]
    if successes < trials:
        high = _bisect(lambda p: 1 - _at_least(successes + 1, trials, p, logs) > tail, successes / trials, 1.0)[1]
    return low, high


def epsilon_from_rates(
    true_positives: int,
    members: int,
    false_positives: int,
    others: int,
    *,
    delta: float = 0.0,
    confidence: float = 0.95,
) -> Bound:
    """A lower bound from how many of `members` and `others` an attack called members, at one threshold chosen before.

    Every count must be of an independent run of the training: rows of one model are not independent (for one model
    there is `epsilon_from_one_run`). Members and others are held against each other both ways round. Raises ValueError
    for impossible counts.
    """
    _check_delta(delta)
    tpr_low, tpr_high = clopper_pearson(true_positives, members, confidence)
    fpr_low, fpr_high = clopper_pearson(false_positives, others, confidence)
    # one tail of each interval may fail, which adds up to 1 - confidence; (TNR - δ) / FNR fails with the same two tails
    ratios = [(tpr_low - delta, fpr_high), (1 - fpr_high - delta, 1 - tpr_low)]
    best = max((np.log(above / below) for above, below in ratios if above > 0 and below > 0), default=0.0)
    statement = (
        f"{true_positives} of {members} members and {false_positives} of {others} others were called members; "
        f"TPR {tpr_low:.4g} to {tpr_high:.4g}, FPR {fpr_low:.4g} to {fpr_high:.4g}"
    )
    return Bound(max(0.0, float(best)), confidence, delta, statement)


def epsilon_from_scores(
    scores: Rows, member: Mask, generator: np.random.Generator, *, delta: float = 0.0, confidence: float = 0.95
) -> Bound:
    """`epsilon_from_rates` of one half of `scores` (runs,), with the threshold that does best on the other half.

    Raises ValueError for shapes that do not fit, and for fewer than four members or others.
    """
    if scores.shape != member.shape or scores.ndim != 1 or min(member.sum(), (~member).sum()) < 4:
        raise ValueError(f"scores {scores.shape} with {member.sum()} members are too few or do not fit {member.shape}")
    chosen = np.zeros(len(scores), np.bool_)
    for side in (np.flatnonzero(member), np.flatnonzero(~member)):
        chosen[generator.permutation(side)[: len(side) // 2]] = True
    threshold = _best_threshold(scores[chosen], member[chosen], delta)
    called, judged = scores[~chosen] >= threshold, member[~chosen]
    counts = int(called[judged].sum()), int(judged.sum()), int(called[~judged].sum()), int((~judged).sum())
    return epsilon_from_rates(*counts, delta=delta, confidence=confidence)


def epsilon_from_one_run(
    canaries: int, guesses: int, right: int, *, delta: float = 0.0, confidence: float = 0.95
) -> Bound:
    """A lower bound from a single model, each of whose `canaries` was put in by a fair coin of its own.

    The auditor guesses for `guesses` of them whether they are in, and is `right` so often; for the others it abstains.
    Which are guessed and how must not depend on the coins but through the model. Raises ValueError for impossible
    counts.
    """
    _check_delta(delta)
    _check_counts(right, guesses, confidence)
    if guesses > canaries:
        raise ValueError(f"{guesses} guesses about {canaries} canaries are too many")
    logs = _log_factorials(guesses)

    def is_too_small(epsilon: float) -> bool:
        return p_value_of_one_run(canaries, guesses, right, epsilon=epsilon, delta=delta, logs=logs) < 1 - confidence

    found = _bisect(is_too_small, 0.0, EPSILON_MAX)[0] if is_too_small(0.0) else 0.0
    return Bound(found, confidence, delta, f"{right} of {guesses} guesses about {canaries} canaries were right")


def p_value_of_one_run(
    canaries: int, guesses: int, right: int, *, epsilon: float, delta: float, logs: Rows | None = None
) -> float:
    """The probability of at least `right` right guesses if training is (ε, δ)-private: Steinke et al., theorem 5.2.

    P[B ≥ v] + 2 m δ · max over i of P[v > B ≥ v - i] / i, where B is binomial with r trials of probability
    e^ε / (1 + e^ε).
    """
    mass = _binomial(guesses, 1 / (1 + np.exp(-epsilon)), _log_factorials(guesses) if logs is None else logs)
    tail = float(mass[right:].sum())
    if delta == 0 or right == 0:
        return min(1.0, tail)
    below = np.cumsum(mass[:right][::-1])  # P[v > B ≥ v - i] for i = 1 …
    worst = float((below / np.arange(1, right + 1)).max())
    return min(1.0, tail + 2 * canaries * delta * worst)


def _best_threshold(scores: Rows, member: Mask, delta: float) -> float:
    """The score from which on an approximate bound is the highest; it need not be right, the other half is."""
    candidates = np.unique(scores)
    rates = []
    for side in (member, ~member):
        count = int(side.sum())
        share = 1 - np.searchsorted(np.sort(scores[side]), candidates) / count
        # two deviations, and what one more of them all would change
        rates.append((share, 2 * np.sqrt(share * (1 - share) / count) + 1 / count))
    (hit, hit_spread), (false, false_spread) = rates
    one = np.log(np.maximum(hit - hit_spread - delta, 1e-12) / (false + false_spread))
    other = np.log(np.maximum(1 - false - false_spread - delta, 1e-12) / (1 - hit + hit_spread))
    return float(candidates[np.argmax(np.maximum(one, other))])


def _check_counts(successes: int, trials: int, confidence: float) -> None:
    if not 0 <= successes <= trials or not 1 <= trials <= TRIALS_MAX:
        raise ValueError(f"{successes} of {trials} is not a count of up to {TRIALS_MAX} trials")
    if not 0.5 <= confidence < 1:
        raise ValueError(f"a confidence of {confidence} was given, 0.5 to 1 was expected")


def _check_delta(delta: float) -> None:
    if not 0 <= delta < 1:
        raise ValueError(f"δ is {delta}, 0 to 1 was expected")


def _log_factorials(trials: int) -> Rows:
    return np.concatenate([np.zeros(1), np.cumsum(np.log(np.arange(1, trials + 1)))])


def _binomial(trials: int, probability: float, logs: Rows) -> Rows:
    """The probabilities (trials + 1,) of each number of successes."""
    counts = np.arange(trials + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        # 0 · log 0 is 0 here
        hits = np.where(counts == 0, 0.0, counts * np.log(probability))
        misses = np.where(counts == trials, 0.0, (trials - counts) * np.log1p(-probability))
    return np.asarray(np.exp(logs[trials] - logs[counts] - logs[trials - counts] + hits + misses))


def _at_least(successes: int, trials: int, probability: float, logs: Rows) -> float:
    return float(_binomial(trials, probability, logs)[successes:].sum())


def _bisect(holds: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """Around the number up to which `holds` is true: it is at the first, and is not at the second."""
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low, high
