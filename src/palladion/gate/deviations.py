"""How far answers are from what the version gives again, and what that can be. Pure: arrays in, a finding out.

A server that computes the same model elsewhere differs in the last bits, because sums are rounded in another order; one
that hides something in its answers, or answers with another model, differs by more (arXiv:2511.02620 checks language
models so). What the arithmetic of a model may differ by is measured on the same queries, never guessed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
MARGIN = 4.0  # times what two runs of ours differ by at most: another machine has other orders of summing up
FLOOR_ULPS = 8.0  # of the largest score: what one product of matrices of another library differs by
SHAKEN_SHARE = 0.9
DECIMALS_MAX = 7  # beyond, a rounded float32 is what it was before
ROUNDED_VALUES_MIN = 64  # scores that must all look rounded: by chance 64 never do
# Below, bits may hide that no tolerance sees; they are told of only where chance has all but no part in it.
LOW_DIGITS_P_MAX = 1e-6
MOST = 0.5  # of the answers: from there on it is the server, and not some queries
RELABELLED_FEW = 0.01  # of the answers: who hides bits in digits leaves the label alone
SMALL = 0.02  # deviation of a score, of the spread of scores, that a reader would not notice
BISECTIONS = 60

Scores = NDArray[np.float64]  # (rows, classes)
Verdict = Literal["same", "low-digits", "hidden-digits", "some-answers", "other-version", "another-model"]


@dataclass(frozen=True)
class Tolerance:
    """How far an answer may be from the one given again: `absolute`, and half a unit of `decimals` if it is rounded."""

    absolute: float
    decimals: int | None = None

    @property
    def allowed(self) -> float:
        """The largest deviation that is none."""
        return self.absolute + (0.0 if self.decimals is None else 0.5 * 10.0**-self.decimals)


@dataclass(frozen=True, eq=False)
class Compared:
    """Answers beside those given again: `deviation` (rows,) is the largest of a row's scores.

    `deviating` and `relabelled` (rows,) say which are beyond the tolerance, and which of those name another class.
    `low_digits_p` is how likely it is that digits below the tolerance differ as often by the arithmetic of this machine
    alone; `bits` is the entropy of what an answer's digits below it could carry, `bits_here` of two runs here.
    """

    deviation: NDArray[np.float64]
    deviating: NDArray[np.bool_]
    relabelled: NDArray[np.bool_]
    spread: float
    low_digits_p: float
    bits: float
    bits_here: float

    @property
    def rows(self) -> int:
        """How many answers."""
        return len(self.deviation)

    @property
    def count(self) -> int:
        """How many deviate."""
        return int(self.deviating.sum())

    def verdict(self, reproduced_by: Callable[[], int | None]) -> tuple[Verdict, int | None]:
        """What it can be, and which other version gives these answers; `reproduced_by` is asked only where it may."""
        if not self.count:
            return ("low-digits" if self.low_digits_p <= LOW_DIGITS_P_MAX else "same"), None
        if self.count < MOST * self.rows:
            return "some-answers", None
        other = reproduced_by()
        if other is not None:
            return "other-version", other
        unnoticed = float(np.median(self.deviation[self.deviating])) <= SMALL * self.spread
        if unnoticed and self.relabelled.mean() <= RELABELLED_FEW:
            return "hidden-digits", None
        return "another-model", None


def tolerance_of(runs: Sequence[Scores], dtype: np.dtype[Any], shaken: Scores | None = None) -> float:
    """How far the same rows may differ, by `runs` of them in several orders, for scores of this type.

    `shaken` are the scores of inputs that differ in their last bit: what a model makes of one rounding, another library
    does at each step. Of a tree, that turns some rows over, so nine in ten count.
    """
    first, *others = runs
    differing = max((float(np.abs(run - first).max(initial=0.0)) for run in others), default=0.0)
    if shaken is not None:
        differing = max(differing, float(np.quantile(np.abs(shaken - first).max(axis=1, initial=0.0), SHAKEN_SHARE)))
    unit = float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0
    return max(MARGIN * differing, FLOOR_ULPS * unit * float(np.abs(first).max(initial=0.0)))


def shake(array: NDArray[Any]) -> NDArray[Any]:
    """Inputs of which each number is the next above or below; whole numbers as they are. The same each time."""
    if array.dtype.kind != "f":
        return array
    up = np.random.default_rng(len(array)).random(array.shape) < 1 / 2
    above, below = (np.nextafter(array, array.dtype.type(limit)) for limit in (np.inf, -np.inf))
    shaken: NDArray[Any] = np.where(up, above, below)
    return shaken


def rounded_to(scores: Scores) -> int | None:
    """To how many decimals a server rounds, if all its scores look so; None where they do not, or are too few."""
    inner = scores[(scores != 0) & (scores != 1)]
    if inner.size < ROUNDED_VALUES_MIN:
        return None
    slack = np.abs(inner) * float(np.finfo(np.float32).eps)  # it may have come as float32
    for decimals in range(1, DECIMALS_MAX):
        if np.all(np.abs(inner - np.round(inner, decimals)) <= slack):
            return decimals
    return None


def compare(answered: Scores, runs: Sequence[Scores], tolerance: Tolerance, dtype: np.dtype[Any]) -> Compared:
    """Hold answers beside the first of `runs`; the others say what is arithmetic. All are (rows, classes) alike."""
    again = runs[0]
    difference = np.abs(answered - again)
    difference = np.where(np.isfinite(difference), difference, np.inf)
    deviation = difference.max(axis=1, initial=0.0)
    deviating = deviation > tolerance.allowed
    relabelled = deviating & (answered.argmax(axis=1) != again.argmax(axis=1))
    low_p = bits = bits_here = 0.0
    if tolerance.decimals is None:
        ours = np.stack([np.abs(run - again).max(axis=1, initial=0.0) for run in runs])
        beyond = int((deviation > ours.max(axis=0)).sum())
        # where a server's arithmetic is one of ours, its answer is the farthest of all but the first run so rarely
        low_p = at_least(beyond, len(deviation), 1 / len(runs))
        unit = float(np.finfo(dtype).eps) * max(float(np.abs(again).max(initial=0.0)), 1e-300) / 2
        bits = _entropy(answered - again, unit) * again.shape[1]
        bits_here = max((_entropy(run - again, unit) * again.shape[1] for run in runs[1:]), default=0.0)
    else:
        low_p = 1.0
    spread = float(again.max(initial=0.0) - again.min(initial=0.0))
    return Compared(deviation, deviating, relabelled, spread, low_p, bits, bits_here)


def unlike(rows: int) -> Compared:
    """What so many answers are that have other shapes than those given again."""
    every = np.ones(rows, np.bool_)
    return Compared(np.full(rows, np.inf), every, every, 0.0, low_digits_p=1.0, bits=0.0, bits_here=0.0)


def share_at_most(deviating: int, rows: int, *, confidence: float = CONFIDENCE) -> float:
    """The largest share that deviates of all, with that confidence, where so many of `rows` drawn at random did.

    Exact (Clopper and Pearson 1934, one-sided): 1 - (1 - confidence)^(1 / rows) for none, which is below 3 / rows.
    """
    if not 0 <= deviating <= rows or rows < 1:
        raise ValueError(f"{deviating} of {rows} is no share")
    if deviating == rows:
        return 1.0
    low, high = deviating / rows, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        # the chance of so few
        if 1 - at_least(deviating + 1, rows, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def at_least(successes: int, trials: int, probability: float) -> float:
    """P(X ≥ successes) of a binomial X."""
    if successes <= 0:
        return 1.0
    if probability <= 0 or successes > trials:
        return 0.0
    if probability >= 1:
        return 1.0
    log_p, log_q, all_ = math.log(probability), math.log1p(-probability), math.lgamma(trials + 1)
    terms = [
        all_ - math.lgamma(k + 1) - math.lgamma(trials - k + 1) + k * log_p + (trials - k) * log_q
        for k in range(successes, trials + 1)
    ]
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def _entropy(difference: Scores, unit: float) -> float:
    """Bits of what differs, in units of the last place; of a sample, so at most the logarithm of its size."""
    steps = np.round(np.where(np.isfinite(difference), difference, 0.0) / unit)
    counts = np.unique(steps, return_counts=True)[1]
    shares = counts / counts.sum()
    return max(0.0, float(-(shares * np.log2(shares)).sum()))
