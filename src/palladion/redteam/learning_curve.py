"""Measures a learning curve: thieves with rows like honest ones and labels alone, asking more and more.

Of each it is known which coverage buckets it touched, by the calibration's own planes, and how good its copy is.
Thieves of other kinds are measured beside them, to see how well coverage foretells what the curve was not made from.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from palladion.errors import PalladionError
from palladion.redteam.calibrate import Progress
from palladion.redteam.harvests import harvest
from palladion.redteam.learners import STEPS, fit
from palladion.redteam.people import ask, stranger
from palladion.redteam.pool import Pool
from palladion.redteam.validation import Validation
from palladion.watch.instruments import Episode, Instruments
from palladion.watch.learning_curve import Fit, LearningCurve, monotone, rounded

ROWS_MIN = 300  # fewer leave too few to hold out
HELD_OUT = 0.3  # of the rows, which no thief asks
HELD_OUT_MAX = 2000
QUERIES = (25, 50, 100, 200, 400, 800, 1600, 3200)  # no more than there are rows: copies of rows teach hardly anything
COUNTS_MIN = 3
SEEDS_MIN = 3  # one to be foretold by two others, which differ
VALUES_MAX = 2**25  # of one thief's rows: 256 MiB in doubles
# The curve is of the first, who owns the right rows and asks them as they are. The others are foretold by it: such rows
# in one client's style, with one client's mix of classes, and rows of another kind.
PLAIN, STYLED, MIXED, FOREIGN = "plain", "in-distribution", "mixed", "foreign"
OTHERS = (STYLED, MIXED, FOREIGN)

Values = NDArray[np.float64]


class Answering(Protocol):
    """Answers rows as the model would, before anything is withheld: `respondent.Respondent` does."""

    def episodes(self, clients: Sequence[NDArray[np.float32]]) -> list[Episode]:
        """What some clients' rows (queries, *shape) and their answers look like to the watch."""
        ...

    def labels(self, rows: NDArray[np.float32]) -> NDArray[np.int64]:
        """The class that the model names for each row."""
        ...


@dataclass(frozen=True)
class CurvePlan:
    """How many thieves of each kind: those that make the curve, and others; the first seed; CPU minutes for all."""

    seeds: int = 5
    others: int = 1
    first_seed: int = 1
    minutes: float = 5.0
    steps: int = STEPS


@dataclass(frozen=True, eq=False)
class Course:
    """One thief: after `queries[i]` queries it had touched `coverage[i]` buckets, and had a copy of that fidelity."""

    queries: Values
    coverage: Values
    fidelity: Values


@dataclass(frozen=True, eq=False)
class Prey:
    """What the copies are judged by: the model that answers, rows to ask, and held-out rows with its labels.

    `foreign` are rows of another kind that a thief holds; without them the family makes some up.
    """

    respondent: "Answering"
    instruments: Instruments
    pool: Pool
    held_out: Values
    truth: NDArray[np.int64]
    classes: int
    foreign: NDArray[np.float32] | None = None

    @property
    def base(self) -> float:
        """The fidelity of a copy that always says what is said most often."""
        return float(np.bincount(self.truth).max() / len(self.truth))


def measure_curve(
    respondent: Answering,
    instruments: Instruments,
    digest: str,
    validation: Validation,
    plan: CurvePlan,
    *,
    progress: Progress,
    cpu_seconds: Callable[[], float],
) -> LearningCurve:
    """The curve of the version that answers, in the buckets of its calibration's `instruments`.

    `digest` is the SHA-256 of that calibration.

    Stops early where more thieves would take it beyond the plan's minutes, but not before `SEEDS_MIN`. Raises
    PalladionError for a model without classes, and for too few rows.
    """
    prey = meet(respondent, instruments, validation, first_seed=plan.first_seed)
    counts = query_counts(len(prey.pool.rows), prey.pool.flat.shape[1])
    courses: dict[str, list[Course]] = {family: [] for family in (PLAIN, *OTHERS)}
    total, started = plan.seeds + len(OTHERS) * plan.others, cpu_seconds()
    for done, family in enumerate(_families(plan)):
        spent = cpu_seconds() - started
        if done >= SEEDS_MIN and spent * (done + 1) / done > plan.minutes * 60:
            break
        progress(done, total, "thieves")
        seed = plan.first_seed + len(courses[family])
        courses[family].append(steal_more(prey, family, counts, seed, steps=plan.steps))
    plain = courses.pop(PLAIN)
    curve = make_curve(digest, prey, plain, seeds=range(plan.first_seed, plan.first_seed + len(plain)))
    others = {family: foretold(found, [curve] * len(found)) for family, found in courses.items() if found}
    return rounded(replace(curve, families=others))


def meet(respondent: Answering, instruments: Instruments, validation: Validation, *, first_seed: int) -> Prey:
    """Hold out rows of the validation data. Raises PalladionError where there are too few, or no classes."""
    rows = validation.rows
    if len(rows) < ROWS_MIN:
        raise PalladionError(f"{len(rows)} rows are too few for a learning curve: at least {ROWS_MIN} were expected")
    if respondent.episodes([rows[:1]])[0].scores.shape[1] < 2:
        raise PalladionError("a learning curve is measured for models that name classes, which this one does not")
    order = np.random.default_rng((first_seed, 0)).permutation(len(rows))
    held_out = min(HELD_OUT_MAX, int(HELD_OUT * len(order)))
    kept = respondent.episodes([rows[order[:held_out]]])[0]
    own = order[held_out:]
    labels = validation.labels[own] if validation.labels is not None else respondent.labels(rows[own])
    return Prey(
        respondent,
        instruments,
        Pool(rows[own], labels, validation.image),
        kept.inputs,
        kept.scores.argmax(axis=1),
        kept.scores.shape[1],
    )


def query_counts(rows: int, columns: int) -> tuple[int, ...]:
    """After how many queries copies are made. Raises PalladionError where rows are too few or too large for that."""
    found = tuple(count for count in QUERIES if count <= rows and count * columns <= VALUES_MAX)
    if len(found) < COUNTS_MIN:
        raise PalladionError(f"{rows} rows of {columns} numbers are too few or too large for a learning curve")
    return found


def steal_more(prey: Prey, family: str, counts: Sequence[int], seed: int, *, steps: int = STEPS) -> Course:
    """The course of one thief; the same seed asks the same rows."""
    generator = np.random.default_rng((seed, 1))
    rows = _rows(prey, family, max(counts), generator)
    answered = prey.respondent.episodes([prey.pool.shaped(rows)])[0]
    instruments = prey.instruments
    buckets = instruments.coverage.buckets(instruments.features.measure(answered.inputs, answered.scores)[1])
    labels = np.eye(prey.classes)[answered.scores.argmax(axis=1)]
    fidelity = []
    for count in counts:
        student = fit(
            answered.inputs[:count], labels[:count], "probabilities", np.random.default_rng((seed, 2)), steps=steps
        )
        copied = student.answers(prey.held_out).argmax(axis=1)
        fidelity.append(float((copied == prey.truth).mean()))
    covered = [len(set(buckets[:count])) for count in counts]
    return Course(np.array(counts, np.float64), np.array(covered, np.float64), np.array(fidelity))


def make_curve(digest: str, prey: Prey, courses: Sequence[Course], *, seeds: Sequence[int]) -> LearningCurve:
    """The curve of all thieves of the first kind, and how well those without one of them foretell that one."""
    curve = _curve(digest, prey, courses, seeds)
    without = [_curve(digest, prey, [*courses[:left], *courses[left + 1 :]], seeds) for left in range(len(courses))]
    return replace(curve, left_out=foretold(courses, without))


def foretold(courses: Sequence[Course], curves: Sequence[LearningCurve]) -> Fit:
    """How well each thief is foretold by the curve beside it, which was made without it."""
    said = np.concatenate([curve.expected(one.coverage) for one, curve in zip(courses, curves, strict=True)])
    allowed = np.concatenate([curve.allowed(one.coverage) for one, curve in zip(courses, curves, strict=True)])
    fidelity = np.concatenate([one.fidelity for one in courses])
    spread = float(np.square(fidelity - fidelity.mean()).sum())
    return Fit(
        len(courses),
        1 - float(np.square(fidelity - said).sum()) / spread if spread > 0 else None,
        float((fidelity > allowed + 1e-9).mean()),
        spearman(np.concatenate([one.coverage for one in courses]), fidelity),
        spearman(np.concatenate([one.queries for one in courses]), fidelity),
    )


def spearman(one: Values, other: Values) -> float | None:
    """The rank correlation of two series, ties sharing their mean rank; None where one of them does not vary."""
    ranks = [_ranks(values) for values in (one, other)]
    deviations = [values - values.mean() for values in ranks]
    norm = float(np.sqrt(np.prod([np.square(values).sum() for values in deviations])))
    return float((deviations[0] * deviations[1]).sum() / norm) if norm > 0 else None


def _families(plan: CurvePlan) -> Iterator[str]:
    """In this order, so that what is cut for time leaves each kind its share."""
    yield from [PLAIN] * min(SEEDS_MIN, plan.seeds)
    for number in range(max(plan.others, plan.seeds - SEEDS_MIN)):
        if number < plan.others:
            yield from OTHERS
        if number < plan.seeds - SEEDS_MIN:
            yield PLAIN


def _rows(prey: Prey, family: str, count: int, generator: np.random.Generator) -> NDArray[np.float32]:
    pool = prey.pool
    if family == PLAIN:
        return pool.flat[generator.permutation(len(pool.flat))[:count]]
    if family == MIXED:
        # an honest client's own mix of classes, in its own style, without what teaches nothing
        return ask(pool, replace(stranger(pool, generator), junk=0.0, duplicates=0.0), count, generator).rows
    return harvest(family, pool, count, prey.foreign if family == FOREIGN else None, generator)


def _curve(digest: str, prey: Prey, courses: Sequence[Course], seeds: Sequence[int]) -> LearningCurve:
    """Every thief's course, made monotone and read at the coverages that thieves reach in the middle."""
    knots = np.unique(np.median([one.coverage for one in courses], axis=0).astype(np.int64))
    base = prey.base
    lines = np.stack(
        [
            np.interp(knots, np.append(0, one.coverage), np.append(min(base, rising[0]), rising))
            for one, rising in ((one, monotone(one.fidelity)) for one in courses)
        ]
    )
    # of a single kind of thieves; what is foretold of others is measured and filled in by the caller
    nothing = Fit(0, None, 0.0, None, None)
    return LearningCurve(
        digest,
        min(base, float(lines[:, 0].max())),
        tuple(knots.tolist()),
        tuple(lines.min(axis=0).tolist()),
        tuple(lines.mean(axis=0).tolist()),
        tuple(lines.max(axis=0).tolist()),
        tuple(seeds),
        tuple(int(count) for count in courses[0].queries),
        len(prey.truth),
        nothing,
    )


def _ranks(values: Values) -> Values:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[place])
