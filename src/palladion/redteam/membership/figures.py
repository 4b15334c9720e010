"""How well an attack tells members from others: ROC, AUC, true positives at low false-positive rates, with intervals.

Low false-positive rates count most, as Carlini et al. (S&P 2022, arXiv:2112.03570) argue. Intervals are percentiles of
a bootstrap over target models and rows at once (the pigeonhole bootstrap of Owen, Annals of Applied Statistics 2007),
because rows of one model and one row's answers in many models go together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]
Mask = NDArray[np.bool_]
Outcome = Literal["pass", "fail", "inconclusive"]

LOW_RATES = {"tpr_at_1_percent": 0.01, "tpr_at_01_percent": 0.001}
ROC_POINTS = 61  # false-positive rates from 1e-4 to 1, evenly in their logarithm
SIDE_MIN = 20  # members, and others: fewer make intervals that say nothing


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Roc:
    """True-positive rates at some false-positive rates, for a plot."""

    false_positive_rates: tuple[float, ...]
    true_positive_rates: tuple[float, ...]


@dataclass(frozen=True)
class Figures:
    """What an attack reached. A rate that too few non-members can show is None, and a note says so.

    `members` and `non_members` count pairs of a row and a target; `confidence` is that of each interval.
    """

    auc: Estimate
    balanced_accuracy: Estimate
    tpr_at_1_percent: Estimate | None
    tpr_at_01_percent: Estimate | None
    roc: Roc
    members: int
    non_members: int
    targets: int
    confidence: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Limits:
    """The most that an attack may reach; None where a figure does not matter."""

    auc: float | None = 0.6
    tpr_at_1_percent: float | None = 0.05
    tpr_at_01_percent: float | None = 0.01


@dataclass(frozen=True)
class Judgement:
    """What the figures of all attacks amount to, and why: a sentence for each that decided."""

    outcome: Outcome
    reasons: tuple[str, ...]


def measure(
    scores: Rows, member: Mask, generator: np.random.Generator, *, resamples: int = 2000, confidence: float = 0.95
) -> Figures:
    """The figures of `scores` (targets, rows), higher for members; NaN is a row that was not judged.

    Raises ValueError for shapes that do not fit and for fewer than `SIDE_MIN` members or others.
    """
    if scores.shape != member.shape or scores.ndim != 2:
        raise ValueError(f"scores of shape {scores.shape} and memberships of {member.shape} do not fit")
    if not 0.5 < confidence < 1 or resamples < 100:
        raise ValueError(f"a confidence of {confidence} from {resamples} resamples is none")
    curve = _Curve(scores, member)
    if min(curve.members, curve.others) < SIDE_MIN:
        raise ValueError(
            f"{curve.members} members and {curve.others} others are too few: {SIDE_MIN} each were expected"
        )
    targets, rows = scores.shape
    point = curve.at(np.ones(targets), np.ones(rows))
    drawn = np.empty((resamples, len(point)))
    for index in range(resamples):
        weights = [np.bincount(generator.integers(0, n, n), minlength=n).astype(float) for n in (targets, rows)]
        drawn[index] = curve.at(*weights)
    tail = (1 - confidence) / 2
    # a resample without members or without others shows nothing
    low, high = np.quantile(drawn[~np.isnan(drawn).any(axis=1)], [tail, 1 - tail], axis=0)
    found = [Estimate(float(p), float(min(a, p)), float(max(b, p))) for p, a, b in zip(point, low, high, strict=True)]
    notes = [] if targets > 1 else ["one target model: the intervals are about this model, not about its training"]
    rates: dict[str, Estimate | None] = {}
    for (name, rate), estimate in zip(LOW_RATES.items(), found[2:], strict=True):
        needed = round(1 / rate)
        rates[name] = estimate if curve.others >= needed else None
        if curve.others < needed:
            notes.append(
                f"the true-positive rate at {rate:.1%} false positives is not stated: it needs {needed} non-members, "
                f"and there are {curve.others}"
            )
    return Figures(
        found[0], found[1], rates["tpr_at_1_percent"], rates["tpr_at_01_percent"], curve.roc(),
        curve.members, curve.others, targets, confidence, tuple(notes),
    )  # fmt: skip


def judge(attacks: Mapping[str, Figures], limits: Limits) -> Judgement:
    """Fail where the low end of an interval is above its limit, pass where every high end is within.

    It decides on confidence bounds, and on the strongest attack: every attack has to stay within. Callers who compare
    many attacks give `measure` a confidence for all of them together.
    """
    above, open_ = [], []
    for attack, figures in attacks.items():
        for name in ("auc", *LOW_RATES):
            limit: float | None = getattr(limits, name)
            estimate: Estimate | None = getattr(figures, name)
            if limit is None:
                continue
            what = f"{attack}: {_WORDS[name]}"
            if estimate is None:
                open_.append(f"{what} is limited to {limit:g}, and {figures.non_members} non-members cannot show it")
            elif estimate.low > limit:
                above.append(f"{what} is {estimate.value:.3g}, at least {estimate.low:.3g}, above the limit {limit:g}")
            elif estimate.high > limit:
                around = f"{estimate.low:.3g} to {estimate.high:.3g}"
                open_.append(f"{what} is {estimate.value:.3g}, {around}, and the limit is {limit:g}")
    if above:
        return Judgement("fail", tuple(above))
    if open_ or not attacks:
        return Judgement("inconclusive", tuple(open_) or ("no attack was made",))
    return Judgement("pass", ("no attack that was made exceeds a limit",))


_WORDS = {
    "auc": "AUC",
    "tpr_at_1_percent": "the true-positive rate at 1 % false positives",
    "tpr_at_01_percent": "the true-positive rate at 0.1 % false positives",
}


class _Curve:
    """Sorted scores, from which weighted figures are read again and again."""

    def __init__(self, scores: Rows, member: Mask) -> None:
        self._target, self._row = np.nonzero(~np.isnan(scores))
        flat = scores[self._target, self._row]
        order = np.argsort(-flat, kind="stable")
        self._target, self._row = self._target[order], self._row[order]
        self._member = member[self._target, self._row]
        self.members, self.others = int(self._member.sum()), int((~self._member).sum())
        # tied scores fall on the same side of any threshold
        self._ends = np.flatnonzero(np.append(np.diff(flat[order]), 1.0)) if len(flat) else np.zeros(0, np.intp)

    def rates(self, of_targets: Rows, of_rows: Rows) -> tuple[Rows, Rows] | None:
        """False- and true-positive rates at every threshold, from none to all; None where a side is empty."""
        weights = of_targets[self._target] * of_rows[self._row]
        positive = np.cumsum(weights * self._member)
        negative = np.cumsum(weights) - positive
        if positive[-1] == 0 or negative[-1] <= 0:
            return None
        begin = np.zeros(1)
        hit = np.concatenate([begin, positive[self._ends] / positive[-1]])
        false = np.concatenate([begin, negative[self._ends] / negative[-1]])
        return false, hit

    def at(self, of_targets: Rows, of_rows: Rows) -> Rows:
        """AUC, best balanced accuracy, and the true-positive rates at `LOW_RATES`."""
        found = self.rates(of_targets, of_rows)
        if found is None:
            return np.full(2 + len(LOW_RATES), np.nan)
        false, hit = found
        area = float(np.sum(np.diff(false) * (hit[1:] + hit[:-1])) / 2)
        accuracy = float(np.max(hit - false) / 2 + 0.5)
        return np.array([area, accuracy, *(_at_most(false, hit, rate) for rate in LOW_RATES.values())])

    def roc(self) -> Roc:
        """The curve at rates that a plot shows."""
        found = self.rates(np.ones(self._target.max() + 1), np.ones(self._row.max() + 1))
        grid = np.logspace(-4, 0, ROC_POINTS)
        if found is None:
            return Roc((), ())
        return Roc(
            tuple(round(float(rate), 6) for rate in grid),
            tuple(round(float(_at_most(*found, rate)), 6) for rate in grid),
        )


def _at_most(false: Rows, hit: Rows, rate: float) -> float:
    """The true-positive rate of the last threshold whose false-positive rate is at most `rate`."""
    # rates are sums of weights, which end a little off
    return float(hit[np.searchsorted(false, rate * (1 + 1e-9), side="right") - 1])
