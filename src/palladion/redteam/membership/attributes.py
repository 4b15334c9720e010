"""Attribute inference: which value of a sensitive column fits the target's answers, beyond what anybody could guess.

Attacks ask the target with every candidate value and take the one under which the known label is likeliest (Fredrikson
et al., CCS 2015; Mehnaz et al., USENIX Security 2022). Much of what they get is plain correlation: Jayaraman and Evans
(CCS 2022, arXiv:2209.01292) show that they often only impute. So a baseline that never saw the target guesses from the
same columns and the label, and only what is won over it counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.errors import InconclusiveError
from palladion.redteam.membership import answers
from palladion.redteam.membership.figures import Estimate, Outcome
from palladion.redteam.membership.oracle import Ask, CountedOracle, check_learnt
from palladion.redteam.membership.shadows import Inputs, Labels, Mask, Recipe, train_networks

Rows = NDArray[np.float64]

VALUES_MAX = 64  # candidates: each costs a query of each row
ROWS_MIN = 50  # of members, and of those that the imputer learns from
IMPUTING = Recipe(epochs=30, weight_decay=1e-3)
IMPUTERS = 4  # that are averaged, so that the baseline is no weaker than it need be


@dataclass(frozen=True)
class Advantage:
    """Shares of rows whose value was found: by the imputer, by the attack, and how much the attack wins over it."""

    imputer: Estimate
    attack: Estimate
    advantage: Estimate
    rows: int


@dataclass(frozen=True)
class AttributeReport:
    """What the target's answers add to guessing a column.

    `attacks` are the advantages on members by attack, `others` the same on rows that the target never saw: what is won
    there too is knowledge of the population, what is won on members alone is memory. `outcome` is fail where the low
    end of an advantage on members is above `limit`, pass where every high end is within, else inconclusive.
    """

    outcome: Outcome
    reasons: tuple[str, ...]
    attacks: dict[str, Advantage]
    others: dict[str, Advantage]
    values: tuple[float, ...]
    queries: int
    limit: float
    seed: int


@dataclass(frozen=True, eq=False)
class Records:
    """The auditor's rows (n, inputs) with labels (n,), which of them are members (n,), and the sensitive column.

    `values` are what it can be; without them those that it has in the rows.
    """

    rows: Inputs
    labels: Labels
    member: Mask
    column: int
    values: Sequence[float] | None = None

    def candidates(self) -> NDArray[Any]:
        """The values (candidates,), ascending. Raises ValueError for too many, or for rows that hold others."""
        found = np.unique(self.rows[:, self.column])
        given = found if self.values is None else np.unique(np.asarray(self.values, self.rows.dtype))
        if not 2 <= len(given) <= VALUES_MAX or not np.isin(found, given).all():
            raise ValueError(
                f"the column {self.column} has {len(found)} values and {len(given)} candidates: 2 to {VALUES_MAX} "
                "candidates were expected, and no other values"
            )
        return given


def queries_needed(records: Records) -> int:
    """What an attack costs: a query for each row and candidate."""
    return len(records.rows) * len(records.candidates())


def infer_attribute(
    ask: Ask,
    records: Records,
    auxiliary: tuple[Inputs, Labels],
    *,
    seed: int = 1,
    limit: float = 0.02,
    recipe: Recipe | None = None,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> AttributeReport:
    """Attack the column of `records` in rows that the target was trained on, and in rows that it was not.

    `auxiliary` are rows and labels of the same kind, neither judged here nor seen by the target, with the column known:
    the imputer learns from them. Intervals hold together (Bonferroni over attacks). Raises ValueError for rows that do
    not fit or are too few.
    """
    values = records.candidates()
    _check(records, auxiliary, values)
    classes = _classes(records, auxiliary)
    truth = np.searchsorted(values, records.rows[:, records.column])
    prior = _impute(records, auxiliary, values, recipe=recipe or IMPUTING, seed=seed)
    oracle = CountedOracle(ask, queries_needed(records), classes)
    try:
        fit = _ask(oracle, records, values, truth, classes)
    except InconclusiveError as error:
        reasons = (error.message, *error.hints)
        return AttributeReport("inconclusive", reasons, {}, {}, tuple(map(float, values)), oracle.queries, limit, seed)
    guesses = {"answers alone": fit.argmax(axis=1), "answers and what is known": (prior + fit).argmax(axis=1)}
    each = 1 - (1 - confidence) / len(guesses)
    guessed = prior.argmax(axis=1) == truth
    inside: dict[str, Advantage] = {}
    outside: dict[str, Advantage] = {}
    for name, guess in guesses.items():
        for found, side in ((inside, records.member), (outside, ~records.member)):
            if side.any():
                generator = np.random.default_rng((seed, 2))
                found[name] = _advantage(guessed[side], (guess == truth)[side], generator, resamples, each)
    outcome, reasons = _judge(inside, limit)
    return AttributeReport(outcome, reasons, inside, outside, tuple(map(float, values)), oracle.queries, limit, seed)


def _classes(records: Records, auxiliary: tuple[Inputs, Labels]) -> int:
    return int(max(records.labels.max(), auxiliary[1].max(), 1)) + 1


def _check(records: Records, auxiliary: tuple[Inputs, Labels], values: NDArray[Any]) -> None:
    rows, labels = auxiliary
    count = (len(records.rows),)
    if records.rows.ndim != 2 or records.labels.shape != count or records.member.shape != count:
        shapes = f"{records.rows.shape}, {records.labels.shape} and {records.member.shape}"
        raise ValueError(f"rows, labels and members of shapes {shapes} do not fit each other")
    if rows.ndim != 2 or rows.shape[1] != records.rows.shape[1] or labels.shape != (len(rows),):
        raise ValueError(f"auxiliary rows {rows.shape} and labels {labels.shape} do not fit rows {records.rows.shape}")
    if min(int(records.member.sum()), len(rows)) < ROWS_MIN:
        raise ValueError(
            f"{records.member.sum()} members and {len(rows)} auxiliary rows are too few: {ROWS_MIN} each were expected"
        )
    if not np.isin(rows[:, records.column], values).all():
        raise ValueError("auxiliary rows hold values that are no candidates")


def _impute(
    records: Records, auxiliary: tuple[Inputs, Labels], values: NDArray[Any], *, recipe: Recipe, seed: int
) -> Rows:
    """The logarithm of p(value | other columns, label) (rows, candidates), by networks that never saw the target."""
    classes = _classes(records, auxiliary)

    def seen(rows: Inputs, labels: Labels) -> Rows:
        return np.concatenate([np.delete(rows, records.column, axis=1), np.eye(classes)[labels]], axis=1)

    rows, labels = auxiliary
    networks = train_networks(
        seen(rows, labels),
        np.searchsorted(values, rows[:, records.column]),
        np.ones((IMPUTERS, len(rows)), np.bool_),
        classes=len(values),
        recipe=recipe,
        seeds=[int(s) for s in np.random.SeedSequence((seed, 1)).generate_state(IMPUTERS)],
    )
    asked = seen(records.rows, records.labels)
    mean = np.mean([answers.softmax(network(asked)) for network in networks], axis=0)
    return np.asarray(np.log(np.maximum(mean, answers.FLOOR)))


def _ask(oracle: CountedOracle, records: Records, values: NDArray[Any], truth: NDArray[np.intp], classes: int) -> Rows:
    """The logarithm of p(label | other columns, value) (rows, candidates), as the target says it."""
    raw = []
    for value in values:
        rows = records.rows.copy()
        rows[:, records.column] = value
        raw.append(oracle.answers(rows))
    whole = np.concatenate(raw)
    form = answers.recognise(whole, len(whole), classes)
    found = answers.as_probabilities(whole, form, len(whole), classes).reshape(len(values), len(records.rows), -1)
    true = found[truth, np.arange(len(truth))]
    member = records.member
    check_learnt(true[member].argmax(axis=1), records.labels[member], classes)
    right = np.clip(answers.own(found, records.labels), form.floor, 1 - form.floor)
    return np.asarray(np.log(right).T)


def _advantage(
    guessed: Mask, found: Mask, generator: np.random.Generator, resamples: int, confidence: float
) -> Advantage:
    """By a bootstrap over rows, the two guesses of a row together."""
    count = len(found)
    shares = np.stack([guessed, found, found.astype(np.float64) - guessed], axis=1)  # (rows, 3)
    drawn = np.stack([shares[generator.integers(0, count, count)].mean(axis=0) for _ in range(resamples)])
    tail = (1 - confidence) / 2
    ends = np.quantile(drawn, [tail, 1 - tail], axis=0)
    imputer, attack, won = (
        Estimate(float(value), float(low), float(high))
        for value, low, high in zip(shares.mean(axis=0), *ends, strict=True)
    )
    return Advantage(imputer, attack, won, count)


def _judge(attacks: dict[str, Advantage], limit: float) -> tuple[Outcome, tuple[str, ...]]:
    above, around = [], []
    for name, found in attacks.items():
        won = found.advantage
        what = f"{name}: {found.attack.value:.1%} of values are found, {won.value:.1%} more than without the target"
        if won.low > limit:
            above.append(f"{what}, at least {won.low:.1%}, above the limit {limit:.1%}")
        elif won.high > limit:
            around.append(f"{what}, {won.low:.1%} to {won.high:.1%}, and the limit is {limit:.1%}")
    if above:
        return "fail", tuple(above)
    if around:
        return "inconclusive", tuple(around)
    return "pass", ("no attack that was made wins more over the imputer than the limit",)
