"""What the classes of a model look like, made from its answers alone, and how much of it the answers gave.

The thief has no rows of the model's kind: pictures drawn by a program, or for tables values in no relation to each
other. Either it evolves such rows towards what the model names a class (gradient-free), or it copies the model by them
and climbs along the copy's gradients, as MIFace (Fredrikson et al., CCS 2015) does along the model's own. Both stay in
the directions in which its rows vary most, or the model would be led on by noise that means nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from palladion.redteam.extraction import Api, Rows
from palladion.redteam.harvests import harvest
from palladion.redteam.learners import Student, fit
from palladion.redteam.pool import Pool

PICTURES = ("strokes", "smooth", "foreign")  # families of `harvests` that need no rows of the model's kind
TABLES = ("marginals", "foreign", "noise")
DIRECTIONS = 30  # on digits 16 serve as well; more leave room for noise
BASIS_ROWS = 1500  # that directions are taken from: of pictures with 3,072 values that takes seconds
GENERATIONS = 4  # of evolution; on digits eight with half as many rows each come to the same
DRAWN_SHARE = 1 / 3  # of the budget for rows that all classes share, the rest evolves each
POPULATION_MIN = 12
WIDEST = 0.05  # added to the spread of each direction at first, in deviations
KEPT = 0.5  # of a generation's centre, and 0.7 of its spread: single rows else lead it away
KEPT_SPREAD = 0.7
COPIES = 2  # students, whose gradients are added: what one is wrong about, the other may not be
STARTS = 32  # for each class, whose ends are averaged
CLIMBS = 60
CLIMB, PULL = 0.1, 0.04  # a step in deviations, and how strongly it is drawn back to the middle
BLENDS = 6  # of where a climb began and ended, that the model is asked about


@dataclass(frozen=True, eq=False)
class Thief:
    """What the thief knows beforehand: rows of its own by family, the range of each column, and whole columns."""

    pool: Pool
    whole: NDArray[np.bool_]

    @property
    def families(self) -> tuple[str, ...]:
        """What it can draw without rows of the model's kind."""
        return TABLES if self.pool.picture is None else PICTURES

    def draw(self, family: str, count: int, generator: np.random.Generator) -> Rows:
        """Rows (count, inputs) as the model takes them."""
        return harvest(family, self.pool, count, None, generator).astype(np.float64)

    def admit(self, rows: Rows) -> Rows:
        """Rows within the range, and whole where columns are; pictures stay between their grey levels."""
        rows = np.clip(rows, self.pool.low, self.pool.high)
        return np.asarray(rows if self.pool.picture is not None else np.where(self.whole, np.rint(rows), rows))


@dataclass(frozen=True, eq=False)
class Inverted:
    """What came of it: one row for each class (classes, inputs), the thief's best guess without the model (inputs,)."""

    rows: Rows
    prior: Rows
    queries: int


@dataclass(frozen=True)
class Attempt:
    """How to invert: one of `WAYS`, the family of rows that are drawn, at most so many queries, and a seed."""

    way: str
    family: str
    queries: int
    seed: int


def queries_min(classes: int) -> int:
    """The smallest budget that buys all classes."""
    return max(
        int(np.ceil(POPULATION_MIN * GENERATIONS * classes / (1 - DRAWN_SHARE))), (BLENDS + POPULATION_MIN) * classes
    )


def invert(thief: Thief, api: Api, classes: int, attempt: Attempt) -> Inverted:
    """A row for each class. Raises ValueError for too few queries, and for a family that this thief cannot draw."""
    if attempt.queries < queries_min(classes):
        raise ValueError(f"{attempt.queries} queries are too few to invert {classes} classes")
    generator = np.random.default_rng((attempt.seed, 11))
    spent = [0]

    def ask(rows: Rows) -> Rows:
        spent[0] += len(rows)
        return np.asarray(api(rows), np.float64)

    way = WAYS[attempt.way]
    rows = thief.draw(attempt.family, way.drawn(attempt.queries, classes), generator)
    answers = ask(rows)
    search = _Search(thief, ask, _space(rows), rows, answers, attempt.queries - spent[0])
    return Inverted(way.run(search, generator), rows.mean(axis=0), spent[0])


@dataclass(frozen=True, eq=False)
class _Space:
    """The directions in which rows vary most: coordinates are in deviations from the middle."""

    middle: Rows
    directions: Rows  # (directions, inputs)
    deviations: Rows  # (directions,)

    def coordinates(self, rows: Rows) -> Rows:
        return np.asarray((rows - self.middle) @ self.directions.T / self.deviations)

    def rows(self, coordinates: Rows) -> Rows:
        return np.asarray(self.middle + (coordinates * self.deviations) @ self.directions)


@dataclass(frozen=True, eq=False)
class _Search:
    """What was drawn and answered so far, and what may still be asked."""

    thief: Thief
    ask: Api
    space: _Space
    rows: Rows
    answers: Rows
    left: int


def _space(rows: Rows) -> _Space:
    middle = rows.mean(axis=0)
    used = rows[:BASIS_ROWS] - middle
    _, strengths, directions = np.linalg.svd(used, full_matrices=False)
    kept = min(DIRECTIONS, int((strengths > 1e-6 * max(strengths[0], 1e-12)).sum()))
    return _Space(middle, directions[:kept], np.maximum(strengths[:kept], 1e-12) / np.sqrt(len(used)))


def _evolved(search: _Search, generator: np.random.Generator) -> Rows:
    """Of each class the middle of what is named so, moved over generations to where the model is surer of it."""
    classes = search.answers.shape[1]
    population = search.left // (GENERATIONS * classes)
    size = len(search.space.deviations)
    drawn = search.space.coordinates(search.rows)
    found = []
    for wanted in range(classes):
        weights = search.answers[:, wanted]
        if weights.sum() > 0:
            centre, spread = _moments(drawn, weights)
        else:
            # none of the rows is named so: look for it everywhere
            centre, spread = np.zeros(size), np.eye(size)
        spread = spread + WIDEST * np.eye(size)
        for _ in range(GENERATIONS):
            factor = np.linalg.cholesky(spread + 1e-6 * np.eye(size))
            tried = centre + generator.standard_normal((population, size)) @ factor.T
            weights = search.ask(search.thief.admit(search.space.rows(tried)))[:, wanted]
            if not weights.sum() > 0:
                continue
            moved, around = _moments(tried, weights)
            centre = KEPT * centre + (1 - KEPT) * moved
            spread = KEPT_SPREAD * spread + (1 - KEPT_SPREAD) * around
        found.append(search.space.rows(centre))
    return search.thief.admit(np.stack(found))


def _copied(search: _Search, generator: np.random.Generator) -> Rows:
    """Of each class the middle of many climbs along the gradients of copies, as far as the model agrees."""
    students = [fit(search.rows, search.answers, "probabilities", generator) for _ in range(COPIES)]
    classes = search.answers.shape[1]
    drawn = search.space.coordinates(search.rows)
    found = []
    for wanted in range(classes):
        weights = search.answers[:, wanted]
        weights = weights / weights.sum() if weights.sum() > 0 else np.full(len(weights), 1 / len(weights))
        at = drawn[generator.choice(len(drawn), STARTS, p=weights)]
        begun = search.space.rows(weights @ drawn)
        for _ in range(CLIMBS):
            rows = search.thief.admit(search.space.rows(at))
            uphill = np.sum([_uphill(student, rows, wanted) for student in students], axis=0)
            uphill = uphill @ search.space.directions.T * search.space.deviations
            length = np.maximum(np.linalg.norm(uphill, axis=1, keepdims=True), 1e-9)
            at = at + CLIMB * uphill / length - CLIMB * PULL * at
        ended = search.space.rows(at.mean(axis=0))
        share = np.linspace(0, 1, BLENDS)[:, None]
        blends = search.thief.admit((1 - share) * begun + share * ended)
        # the first of equals: labels alone say no more
        found.append(blends[int(search.ask(blends)[:, wanted].argmax())])
    return np.stack(found)


def _uphill(student: Student, rows: Rows, wanted: int) -> Rows:
    """How the student's log probability of a class changes with each input (rows, inputs), but for its scale."""
    first, _, second, _ = student.layers
    towards = second[:, wanted] - student.answers(rows) @ second.T
    return np.asarray((towards * (student.hidden(rows) > 0)) @ first.T)


def _moments(points: Rows, weights: Rows) -> tuple[Rows, Rows]:
    weights = weights / weights.sum()
    centre = weights @ points
    apart = points - centre
    return centre, apart.T @ (apart * weights[:, None])


@dataclass(frozen=True)
class Way:
    """A way to invert: what it is in a sentence, how many rows it draws first of (queries, classes), the search."""

    sentence: str
    drawn: Callable[[int, int], int]
    run: Callable[[_Search, np.random.Generator], Rows]


WAYS: Mapping[str, Way] = MappingProxyType(
    {
        "evolved": Way(
            "rows drawn by a program, moved to where the model is surer of a class",
            lambda queries, classes: int(DRAWN_SHARE * queries),
            _evolved,
        ),
        "copied": Way(
            "a copy trained by such rows, and climbs along its gradients (MIFace)",
            lambda queries, classes: queries - BLENDS * classes,
            _copied,
        ),
    }
)
"""How classes are looked for, by name."""


@dataclass(frozen=True, eq=False)
class Truth:
    """What classes really look like: rows (n, inputs) with labels (n,), compared in units of their columns.

    Pixels are compared as they are, columns of tables in deviations from their mean.
    """

    rows: Rows
    labels: NDArray[np.int64]
    means: Rows  # (classes, inputs)
    offset: Rows
    unit: Rows

    @property
    def classes(self) -> int:
        """How many."""
        return len(self.means)


@dataclass(frozen=True, eq=False)
class Likeness:
    """How like its class each row is (classes,): the nearest class mean is its own, correlation with that mean, and
    how many rows of other classes lie nearer than the nearest of its own.
    """

    named: NDArray[np.bool_]
    correlation: Rows
    strangers: NDArray[np.int64]


def truth_of(rows: Rows, labels: NDArray[np.int64], classes: int, *, pictures: bool) -> Truth:
    """The truth of labelled rows. Raises ValueError where a class has none."""
    if set(np.unique(labels)) != set(range(classes)):
        raise ValueError(f"every one of {classes} classes needs rows")
    width = rows.shape[1]
    deviation = rows.std(axis=0)
    offset = np.zeros(width) if pictures else rows.mean(axis=0)
    unit = np.ones(width) if pictures else np.where(deviation > 0, deviation, 1.0)
    scaled = (rows - offset) / unit
    means = np.stack([scaled[labels == index].mean(axis=0) for index in range(classes)])
    return Truth(scaled, labels, means, offset, unit)


def likeness(found: Rows, truth: Truth) -> Likeness:
    """How like its class each of `found` (classes, inputs) is."""
    scaled = (found - truth.offset) / truth.unit
    nearest = np.array([np.square(truth.means - row).sum(axis=1).argmin() for row in scaled])
    correlation = np.array([_correlation(row, mean) for row, mean in zip(scaled, truth.means, strict=True)])
    strangers = []
    for index, row in enumerate(scaled):
        distance = np.square(truth.rows - row).sum(axis=1)
        own = truth.labels == index
        strangers.append(int((distance[~own] < distance[own].min()).sum()))
    return Likeness(nearest == np.arange(truth.classes), correlation, np.array(strangers, np.int64))


def _correlation(one: Rows, other: Rows) -> float:
    one, other = one - one.mean(), other - other.mean()
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other / length) if length > 0 else 0.0
