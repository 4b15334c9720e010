"""Inversion as a stage: what classes look like, made from answers, beside the thief's best guess without the model.

Every way and every kind of rows is tried at the first door; the best of them at all others, where its answers as they
are and labels alone come to the same attack. Only what it has beyond that guess was told by the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.errors import InconclusiveError
from palladion.redteam.audit.result import Figure, StageResult
from palladion.redteam.audit.stage import Allowance, Plan, Stage
from palladion.redteam.audit.subject import Door, Subject
from palladion.redteam.extraction import Rows, interval
from palladion.redteam.inversion import (
    WAYS,
    Attempt,
    Inverted,
    Likeness,
    Thief,
    Truth,
    invert,
    likeness,
    queries_min,
    truth_of,
)
from palladion.redteam.pool import Pool

SEEDS = {"quick": 2, "standard": 3, "thorough": 5}
QUERIES_MAX = 15_000  # for one attempt: on digits, three times as many bring 0.02 of correlation
CLASSES_MAX = 100
PICTURE_VALUES_MAX = 4096  # of one row that is shown in the report
SHOWN_MAX = 20  # classes


def _missing(subject: Subject) -> str | None:
    if subject.classes < 2:
        return "only models that name classes are inverted"
    if subject.classes > CLASSES_MAX:
        return f"models of more than {CLASSES_MAX} classes are not inverted so far"
    if subject.rows.shape[1] < 2:
        return "a single input shows nothing that a class could look like"
    return None


@dataclass(frozen=True, eq=False)
class _Tried:
    """One way at one door, over seeds: how like their classes the rows are, and those of the first seed."""

    door: str
    way: str
    family: str
    likenesses: tuple[Likeness, ...]
    guess: Rows  # likeness of the thief's rows' middle to each class (classes,), averaged over seeds
    first: Inverted

    @property
    def correlation(self) -> Rows:
        """Of each class, averaged over seeds (classes,)."""
        return np.asarray(np.mean([item.correlation for item in self.likenesses], axis=0))

    @property
    def named(self) -> Rows:
        """The share of seeds in which each class is recognised (classes,)."""
        return np.asarray(np.mean([item.named for item in self.likenesses], axis=0))

    def document(self) -> dict[str, Any]:
        """It as values for JSON."""
        return {
            "door": self.door, "way": self.way, "family": self.family, "named": float(self.named.mean()),
            "correlation": float(self.correlation.mean()), "guess": float(self.guess.mean()),
            "strangers": float(np.mean([np.median(item.strangers) for item in self.likenesses])),
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Inversion:
    subject: Subject
    thief: Thief
    truth: Truth
    seeds: range
    queries: int
    spent: list[int]

    def tried(self, door: Door, way: str, family: str) -> _Tried:
        def ask(rows: Rows) -> Rows:
            self.spent[0] += len(rows)
            return np.asarray(door.ask(rows), np.float64)

        found = [
            invert(self.thief, ask, self.subject.classes, Attempt(way, family, self.queries, seed))
            for seed in self.seeds
        ]
        guessed = [likeness(np.repeat(item.prior[None], self.subject.classes, axis=0), self.truth) for item in found]
        return _Tried(
            door.name,
            way,
            family,
            tuple(likeness(item.rows, self.truth) for item in found),
            np.asarray(np.mean([item.correlation for item in guessed], axis=0)),
            found[0],
        )


def _run(subject: Subject, plan: Plan, allowance: Allowance) -> StageResult:
    inversion = _inversion(subject, plan, allowance)
    attempts = [(way, family) for way in WAYS for family in inversion.thief.families]
    total = len(attempts) + len(subject.doors) - 1
    first: list[_Tried] = []
    for index, (way, family) in enumerate(attempts):
        allowance.progress(index, total, f"inversion, {way} from {family}")
        first.append(inversion.tried(subject.doors[0], way, family))
    # what the thief can guess is the best of its guesses, however it goes on
    guess = max((item.guess for item in first), key=np.mean)
    best = {subject.doors[0].name: max(first, key=lambda item: (item.correlation.mean(), item.named.mean()))}
    chosen = best[subject.doors[0].name]
    table = list(first)
    for index, door in enumerate(subject.doors[1:]):
        allowance.progress(len(attempts) + index, total, f"inversion, {door.name}")
        best[door.name] = inversion.tried(door, chosen.way, chosen.family)
        table.append(best[door.name])
    figures = [figure for name, item in best.items() for figure in _figures(name, item, guess, inversion.queries)]
    details = {
        "attempts": [item.document() for item in table],
        "guess": guess.tolist(),
        "seeds": list(inversion.seeds),
        "queries": inversion.queries,
        "pictures": _pictures(subject, best),
    }
    return StageResult("inversion", "done", (), tuple(figures), (), inversion.spent[0], details)


def _inversion(subject: Subject, plan: Plan, allowance: Allowance) -> _Inversion:
    seeds = range(plan.seed, plan.seed + SEEDS[plan.profile])
    said = np.asarray(subject.doors[0].ask(subject.rows), np.float64)
    if not np.ptp(said, axis=0).any():
        raise InconclusiveError(
            "the model answers all rows alike", "check the scaling of the rows, and how they are read"
        )
    rows = subject.rows.astype(np.float32)
    shaped = rows if subject.image is None else rows.reshape(len(rows), *subject.image)
    spent = [len(rows)]
    labels = said.argmax(axis=1).astype(np.int64) if subject.labels is None else subject.labels
    if len(np.unique(labels)) < subject.classes:
        raise InconclusiveError(
            f"{len(np.unique(labels))} of {subject.classes} classes occur in the rows",
            "give rows of all classes: without them nobody can say what a class looks like",
        )
    truth = truth_of(subject.rows, labels, subject.classes, pictures=subject.image is not None)
    # no class of a row is told to the thief
    thief = Thief(Pool(shaped, np.zeros(len(rows), np.int64), subject.image), subject.whole)
    runs = len(seeds) * (len(WAYS) * len(thief.families) + len(subject.doors) - 1)
    queries = min(QUERIES_MAX, (allowance.queries - spent[0]) // runs)
    if queries < queries_min(subject.classes):
        raise InconclusiveError(
            f"a budget of {allowance.queries} queries is too small to invert {subject.classes} classes in {runs} runs "
            f"of {queries_min(subject.classes)}",
            "raise redteam.queries",
        )
    return _Inversion(subject, thief, truth, seeds, queries, spent)


def _figures(door: str, item: _Tried, guess: Rows, queries: int) -> list[Figure]:
    """The advantage over the guess, with intervals over classes."""
    how = f"{door} ({item.way} from {item.family}, {queries} queries)"
    named = item.named - 1 / len(item.named)
    words = f"likeness to the mean of a class (correlation) beyond a guess of {guess.mean():.2g}, {how}"
    return [
        _figure(f"inversion.correlation.{door}", words, item.correlation - guess),
        _figure(f"inversion.named.{door}", f"classes recognised beyond one of {len(named)}, {how}", named),
    ]


def _figure(key: str, words: str, values: NDArray[np.float64]) -> Figure:
    # an interval of equal values has no width, and would say more than so few classes can
    about = interval(list(values)) if np.ptp(values) > 0 else None
    low, high = (None, None) if about is None else (about.low, about.high)
    return Figure(key, words, float(values.mean()), low, high, "of 1")


def _pictures(subject: Subject, best: Mapping[str, _Tried]) -> dict[str, Any]:
    """What was made of each class, in 256 levels of its range, for reports: rows of tables in their own numbers."""
    width = subject.rows.shape[1]
    if width > PICTURE_VALUES_MAX:
        return {}
    shown: dict[str, Any] = {"image": None if subject.image is None else list(subject.image), "doors": {}}
    low, high = float(subject.rows.min()), float(subject.rows.max())
    for name, item in best.items():
        rows: Sequence[Any] = item.first.rows[:SHOWN_MAX].tolist()
        if subject.image is not None:
            levels = np.rint(255 * (item.first.rows[:SHOWN_MAX] - low) / max(high - low, 1e-12))
            rows = np.clip(levels, 0, 255).astype(int).tolist()
        shown["doors"][name] = rows
    return shown


INVERSION = Stage("inversion", 1, "inversion: what classes look like", 1.0, _missing, _run)
