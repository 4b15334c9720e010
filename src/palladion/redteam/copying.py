"""Thieves that copy a model through its answers: which rows they ask, in one go or learning from what came back.

Beside those of `extraction`, who own the right rows: with no rows at all, with a few, with others, and adaptive ones.
Answers are probabilities or numbers (queries, outputs), as far as a door discloses them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from palladion.redteam.extraction import REPEATS, Api, Rows, Target, Way, fidelity, jittered
from palladion.redteam.generating import generated
from palladion.redteam.harvests import harvest
from palladion.redteam.learners import STEPS, Goal, Student, fit
from palladion.redteam.pool import Pool
from palladion.redteam.students import Effort, choose

ROUNDS = 4  # in which adaptive thieves ask: the first at random, each other chosen by the student so far
ROUND_STEPS = 400  # of the students between rounds, which only choose
CANDIDATES = 20  # rows that are looked at for each one asked, where there are as many
JACOBIAN_SEEDS = 0.1  # of the queries, rows of one's own; Papernot et al. 2017 begin with ten for each class
JACOBIAN_STEP = 0.1  # of a column's range: λ of Papernot et al., arXiv:1602.02697
CENTRES_MAX = 4000  # rows among which the furthest are looked for: the distances take 128 MiB at 4,000


@dataclass(frozen=True, eq=False)
class Loot:
    """What a thief holds and is after: rows like honest ones, as a pool, and what it is judged by."""

    target: Target
    pool: Pool


@dataclass(frozen=True)
class Thief:
    """A way to choose queries: what it is, whether it needs rows like honest ones, and how it asks."""

    sentence: str
    owns_rows: bool
    collect: Callable[[Loot, Api, int, np.random.Generator], tuple[Rows, Rows]]


def copy(
    loot: Loot, thief: Thief, api: Api, queries: int, seed: int, *, way: Way = "raw", effort: Effort = "all"
) -> float:
    """The fidelity of one student, of one seed, after exactly `queries` rows; averages may leave up to three of them.

    From `labels`, it learns no more than labels; `averaged`, it asks near-duplicates of each row out of the same
    budget, and learns the means of what is said. Raises ValueError where that leaves no row.
    """
    generator = np.random.default_rng((seed, 4))
    count = queries // REPEATS if way == "averaged" else queries
    if count < 1:
        raise ValueError(f"{queries} queries are too few for near-duplicates: at least {REPEATS} were expected")
    rows, answers = thief.collect(loot, _asked(loot.target, api, way, seed), count, np.random.default_rng((seed, 5)))
    if len(rows) != count:
        raise RuntimeError(f"a thief with {count} queries asked {len(rows)}")
    student = choose(rows, answers, loot.target.goal, generator, effort=effort)
    return fidelity(student.answers(loot.target.held_out), loot.target.truth, loot.target.goal)


def _asked(target: Target, api: Api, way: Way, seed: int) -> Api:
    """The API as a thief in this way sees it."""
    generator = np.random.default_rng((seed, 6))

    def labels(rows: Rows) -> Rows:
        shown = api(rows)
        return np.asarray(np.eye(shown.shape[1])[shown.argmax(axis=1)])

    def averaged(rows: Rows) -> Rows:
        shown = api(jittered(target, np.repeat(rows, REPEATS, axis=0), generator))
        return np.asarray(shown.reshape(len(rows), REPEATS, -1).mean(axis=1))

    return {"raw": api, "labels": labels, "averaged": averaged}[way]


def _family(name: str) -> Callable[[Loot, Api, int, np.random.Generator], tuple[Rows, Rows]]:
    """Rows of a family of `harvests`, all at once."""

    def collect(loot: Loot, api: Api, queries: int, generator: np.random.Generator) -> tuple[Rows, Rows]:
        rows = harvest(name, loot.pool, queries, None, generator).astype(np.float64)
        return rows, api(rows)

    return collect


def _generated(loot: Loot, api: Api, queries: int, generator: np.random.Generator) -> tuple[Rows, Rows]:
    return generated(loot.target, api, queries, generator)


def _owned(loot: Loot, api: Api, queries: int, generator: np.random.Generator) -> tuple[Rows, Rows]:
    rows = _any(loot.target, queries, generator)
    return rows, api(rows)


def _jacobian(loot: Loot, api: Api, queries: int, generator: np.random.Generator) -> tuple[Rows, Rows]:
    """Own rows, then steps from all rows so far to where the student's answer changes most."""
    target = loot.target
    rows = _any(target, max(2, int(JACOBIAN_SEEDS * queries)), generator)
    answers = api(rows)
    low, high = target.pool.min(axis=0), target.pool.max(axis=0)
    while len(rows) < queries:
        student = _so_far(target.goal, rows, answers, generator)
        walking = rows[generator.permutation(len(rows))[: queries - len(rows)]]
        # either way along the gradient: repeated rounds would else leave the range on one side
        side = generator.choice([-1.0, 1.0], (len(walking), 1))
        moved = walking + side * JACOBIAN_STEP * (high - low) * np.sign(student.slopes(walking))
        moved = np.clip(np.where(target.whole, np.rint(moved), moved), low, high)
        rows, answers = np.concatenate([rows, moved]), np.concatenate([answers, api(moved)])
    return rows, answers


def _unsure(loot: Loot, api: Api, queries: int, generator: np.random.Generator) -> tuple[Rows, Rows]:
    """In each round the rows that the student is least sure of (entropy; of numbers, where two students differ)."""

    def wanted(rows: Rows, answers: Rows, candidates: Rows, count: int) -> NDArray[np.intp]:
        student = _so_far(loot.target.goal, rows, answers, generator)
        said = student.answers(candidates)
        if loot.target.goal == "probabilities":
            doubt = -(said * np.log(np.maximum(said, 1e-12))).sum(axis=1)
        else:
            doubt = np.square(said - _so_far(loot.target.goal, rows, answers, generator).answers(candidates)).sum(
                axis=1
            )
        return np.argsort(-doubt, kind="stable")[:count]

    return _in_rounds(loot, api, queries, generator, wanted)


def _far(loot: Loot, api: Api, queries: int, generator: np.random.Generator) -> tuple[Rows, Rows]:
    """In each round the rows furthest from all asked so far, in the student's hidden layer (k-center, greedy)."""

    def wanted(rows: Rows, answers: Rows, candidates: Rows, count: int) -> NDArray[np.intp]:
        student = _so_far(loot.target.goal, rows, answers, generator)
        hidden = student.hidden(candidates[:CENTRES_MAX])
        nearest = _squared(hidden, student.hidden(rows[-CENTRES_MAX:])).min(axis=1)
        chosen = []
        for _ in range(min(count, len(hidden))):
            furthest = int(nearest.argmax())
            chosen.append(furthest)
            nearest = np.minimum(nearest, _squared(hidden, hidden[furthest : furthest + 1])[:, 0])
            nearest[furthest] = -1
        return np.array(chosen, np.intp)

    return _in_rounds(loot, api, queries, generator, wanted)


def _in_rounds(
    loot: Loot,
    api: Api,
    queries: int,
    generator: np.random.Generator,
    wanted: Callable[[Rows, Rows, Rows, int], NDArray[np.intp]],
) -> tuple[Rows, Rows]:
    pool = loot.target.pool

    def ask(chosen: NDArray[np.intp], size: int) -> tuple[Rows, Rows]:
        # who has no more rows asks those that he has again
        more = generator.integers(0, len(pool), size - len(chosen))
        rows = pool[np.concatenate([chosen, more])]
        return rows, api(rows)

    left = generator.permutation(len(pool))
    sizes = np.diff(np.linspace(0, queries, ROUNDS + 1).astype(int))
    (rows, answers), left = ask(left[: sizes[0]], sizes[0]), left[sizes[0] :]
    for size in sizes[1:]:
        looked_at = left[: CANDIDATES * size]
        chosen = looked_at[wanted(rows, answers, pool[looked_at], size)[:size]]
        left = left[~np.isin(left, chosen)]
        new, said = ask(chosen, size)
        rows, answers = np.concatenate([rows, new]), np.concatenate([answers, said])
    return rows, answers


def _any(target: Target, count: int, generator: np.random.Generator) -> Rows:
    """Rows of the pool at random, each once before any comes again."""
    rounds = [generator.permutation(len(target.pool)) for _ in range(-(-count // len(target.pool)))]
    return np.asarray(target.pool[np.concatenate(rounds)[:count]])


def _so_far(goal: Goal, rows: Rows, answers: Rows, generator: np.random.Generator) -> Student:
    return fit(rows, answers, goal, generator, steps=min(STEPS, ROUND_STEPS))


def _squared(one: Rows, other: Rows) -> Rows:
    """Squared distances (n, m)."""
    found = np.square(one).sum(axis=1)[:, None] - 2 * one @ other.T + np.square(other).sum(axis=1)
    return np.asarray(np.maximum(found, 0))


THIEVES: Mapping[str, Thief] = MappingProxyType(
    {
        "own rows": Thief("rows like honest ones, at random (Knockoff Nets with the right pool)", True, _owned),
        "unsure": Thief("of such rows those that the copy so far is least sure of (active learning)", True, _unsure),
        "far": Thief("of such rows those furthest from what was asked (k-center)", True, _far),
        "jacobian": Thief("a tenth of such rows, then steps along the copy's gradients (JBDA)", True, _jacobian),
        "foreign": Thief("rows of another kind (Knockoff Nets)", False, _family("foreign")),
        "marginals": Thief("right values in no relation to each other", False, _family("marginals")),
        "noise": Thief("every value uniform over its range", False, _family("noise")),
        "generator": Thief("rows made by a network that learns where copy and model differ (DFME)", False, _generated),
    }
)
"""Who is tried, by name: what each is in a sentence, and whether it owns rows like honest ones."""
