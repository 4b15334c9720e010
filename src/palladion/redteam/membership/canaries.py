"""Does training keep the ε that it states? Canaries, some of which it learns from, held against what it states.

One run of training is enough (Steinke, Nasr and Jagielski, NeurIPS 2023): each canary is put in by a fair coin of its
own, and whoever sees the model guesses which ones were. More right guesses than (ε, δ) allows are a fault of the
training, or of its account; too few of them prove nothing. The canaries of a linear model are the worst rows for it:
each has a feature of its own, which no other row has, so that nothing hides it but the training's noise.

That test holds for every private training, and finds gross faults alone. One whose steps are over all rows is a
Gaussian mechanism of μ = √steps / noise (Dong, Roth and Su, JRSS B 2022), of which a member and another cannot be told
better than with an area under the curve of Φ(μ / √2). Canaries with features of their own have noise of their own, so
that they are as many trials: this finds half of the noise missing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.private.dp.accounting import epsilon_of
from palladion.private.dp.statement import PrivacyStatement
from palladion.redteam.membership.epsilon import (
    Bound,
    clopper_pearson,
    epsilon_from_one_run,
    epsilon_from_rates,
    p_value_of_one_run,
)

Rows = NDArray[np.float64]
Mask = NDArray[np.bool_]
Train = Callable[[Rows, NDArray[np.int64]], Rows]

CANARIES = 4000  # enough to catch a tenth of the noise that ε = 4 takes; 40 000 weights more with ten classes
GUESSED = 0.8  # of the canaries: the surest half of these guesses says in, the other one out
# With the δ of a statement the theorem forgives too much: 2 m δ is near 1. The same training is private at any other δ.
DELTA = 1e-8
FAULT = 1e-3  # a right training is called a wrong one no more often than this


@dataclass(frozen=True)
class Audit:
    """What canaries say of a training that is (`stated`, `bound.delta`) private, if it keeps what it states.

    `p_value` is the chance of so many right guesses if it keeps that; `breaks` is True where that is below `FAULT`.
    """

    stated: float
    bound: Bound
    p_value: float
    canaries: int
    guesses: int
    right: int
    separation: "Separation | None" = None

    @property
    def breaks(self) -> bool:
        """Whether the training does not keep what it states, as far as one can tell at all."""
        # two tests, which share what a right training may be blamed for
        separated = self.separation is not None and self.separation.p_value < FAULT / 2
        return self.p_value < FAULT / 2 or separated

    @property
    def sentence(self) -> str:
        """What people are told."""
        found = f"{self.right} of {self.guesses} guesses about {self.canaries} canaries are right"
        if self.breaks:
            worst = min(self.p_value, 1.0 if self.separation is None else self.separation.p_value)
            return f"{found}: that is not ε = {self.stated:.4g} at δ = {self.bound.delta:g} (p = {worst:.2g})"
        return f"{found}: nothing speaks against ε = {self.stated:.4g} at δ = {self.bound.delta:g}"


@dataclass(frozen=True)
class Separation:
    """How well canaries are told from others (`auc`, with its deviation), and how well they may be at most.

    `p_value` is one-sided, of the null hypothesis that they are told no better than allowed; normal, as of thousands.
    """

    auc: float
    deviation: float
    allowed: float
    p_value: float


def separation(scores: Rows, member: Mask, mu: float) -> Separation:
    """The area under the curve of independent canaries, with DeLong's deviation, beside what μ allows."""
    inside, outside = np.sort(scores[member]), np.sort(scores[~member])
    if min(len(inside), len(outside)) < 2:
        raise ValueError(f"{len(inside)} members and {len(outside)} others are too few")

    def placed(values: Rows, among: Rows) -> Rows:
        below, to = (np.searchsorted(among, values, side=side) for side in ("left", "right"))
        return np.asarray((below + to) / (2 * len(among)), np.float64)

    above = placed(inside, outside)
    spread = above.var(ddof=1) / len(inside) + placed(outside, inside).var(ddof=1) / len(outside)
    auc, deviation = float(above.mean()), float(np.sqrt(max(spread, 1e-12)))
    allowed = (1 + math.erf(mu / 2)) / 2  # Φ(μ / √2)
    p_value = math.erfc((auc - allowed) / deviation / math.sqrt(2)) / 2
    return Separation(auc, deviation, allowed, p_value)


def stated_at(statement: PrivacyStatement, delta: float = DELTA) -> float:
    """The ε that a training of a statement's figures has at another δ. Sampled training needs the extra dp."""
    noise, rate = float(statement.noise_multiplier), float(statement.sampling_rate)
    return epsilon_of(noise, rate, statement.steps, delta).epsilon


def audit_linear(
    train: Train,
    rows: NDArray[Any],
    labels: NDArray[Any],
    *,
    classes: int,
    epsilon: float,
    delta: float = DELTA,
    generator: np.random.Generator,
    canaries: int = CANARIES,
    blank: float = 0.0,
    reach: float | None = None,
    mu: float | None = None,
) -> Audit:
    """Train once on `rows` (rows, features) and half of so many `canaries`, and guess which half it was.

    `train` gives weights (features + canaries, …, outputs), of which the first dimension is that of features; a bias
    may follow them. A canary's own feature has the value `blank` in all other rows, as `reach` is its length, that of
    an average row where it is None. `mu` is √steps / noise of a training whose steps are over all rows, which is tested
    too. Raises ValueError for weights of another shape.
    """
    features = rows.shape[1]
    member = generator.random(canaries) < 0.5
    known = generator.integers(0, classes, canaries)
    centred = np.asarray(rows, np.float64) - blank
    length = float(np.linalg.norm(centred, axis=1).mean()) if reach is None else reach
    marked = np.zeros((canaries, features + canaries))
    marked[np.arange(canaries), features + np.arange(canaries)] = length
    wide = np.concatenate([centred, np.zeros((len(rows), canaries))], axis=1)
    together = np.concatenate([wide, marked[member]]) + blank
    weights = train(together, np.concatenate([np.asarray(labels), known[member]]))
    if weights.ndim != 2 or len(weights) < features + canaries or weights.shape[1] != classes:
        raise ValueError(f"weights of shape {weights.shape}, {features + canaries} features expected")
    own = weights[features : features + canaries]
    # the weight of its label, beside those of all classes: what a step that learns it moves
    scores = own[np.arange(canaries), known] - own.mean(axis=1)
    found = audit_scores(scores, member, epsilon=epsilon, delta=delta)
    return found if mu is None else replace(found, separation=separation(scores, member, mu))


def audit_scores(scores: Rows, member: Mask, *, epsilon: float, delta: float, guessed: float = GUESSED) -> Audit:
    """Hold one model against (ε, δ): `scores` (canaries,), higher where one looks like a `member`, by fair coins.

    How many are guessed is settled beforehand. Raises ValueError for shapes that do not fit.
    """
    if scores.shape != member.shape or scores.ndim != 1 or not np.isfinite(scores).all():
        raise ValueError(f"scores {scores.shape} do not fit {member.shape}, or are not finite")
    half = max(1, round(guessed * len(scores) / 2))
    order = np.argsort(scores, kind="stable")
    right = int(member[order[-half:]].sum() + (~member[order[:half]]).sum())
    bound = epsilon_from_one_run(len(scores), 2 * half, right, delta=delta)
    p_value = p_value_of_one_run(len(scores), 2 * half, right, epsilon=epsilon, delta=delta)
    return Audit(epsilon, bound, p_value, len(scores), 2 * half, right)


@dataclass(frozen=True)
class RateCheck:
    """True positives of an attack beside the most that (ε, δ) allows, at one threshold; both rates with intervals."""

    false_positive_rate: float
    true_positive_rate: float
    true_positive_low: float
    allowed: float
    bound: Bound

    @property
    def breaks(self) -> bool:
        """Whether it finds more than may be found, beyond the interval."""
        return self.true_positive_low > self.allowed


def check_rates(
    scores: Rows, member: Mask, *, epsilon: float, delta: float, rate: float, confidence: float = 0.95
) -> RateCheck:
    """TPR ≤ e^ε FPR + δ of `scores` against `member`, both (targets, rows), at the threshold of `rate` false alarms.

    The upper end of the false-alarm rate's interval is what is allowed from, so that few rows are no excuse to alarm.
    Rows of one model are taken as if they were alone: exact for one row of each model, and a guide for more.
    """
    if scores.shape != member.shape or not member.any() or member.all():
        raise ValueError(f"scores {scores.shape} do not fit members {member.shape} and others")
    others, mine = scores[~member], scores[member]
    threshold = float(np.quantile(others, 1 - rate))
    false, hit = int((others > threshold).sum()), int((mine > threshold).sum())
    high = clopper_pearson(false, len(others), confidence)[1]
    low = clopper_pearson(hit, len(mine), confidence)[0]
    bound = epsilon_from_rates(hit, len(mine), false, len(others), delta=delta, confidence=confidence)
    allowed = min(1.0, float(np.exp(min(epsilon, 700.0))) * high + delta)
    return RateCheck(false / len(others), hit / len(mine), low, allowed, bound)
