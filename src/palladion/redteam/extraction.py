"""Thieves with a budget of queries, who make the best of coarse answers: as they are, by labels, and averaged.

A defence is worth what the best of them still gets; none of them asks rows that are not like honest ones, so each is as
strong as any that has such rows. What they do not try is said in docs/disclosure.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from palladion.redteam.learners import Goal
from palladion.redteam.students import choose

Rows = NDArray[np.float64]
# What a thief is answered: rows (queries, inputs) → disclosed probabilities, numbers or vectors (queries, outputs).
Api = Callable[[Rows], Rows]
Way = Literal["raw", "labels", "averaged"]

REPEATS = 4  # near-duplicates of each row that the averaging thief asks, out of the same budget
JITTER = 0.05  # of a column's standard deviation: how far these lie apart
# Student's t for an interval of 95 %, by degrees of freedom from 1 on; beyond, the normal distribution is close enough.
_T = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
_NORMAL = 1.96


@dataclass(frozen=True, eq=False)
class Target:
    """What is stolen: rows that a thief can ask (n, inputs), and held-out ones with the victim's own answers.

    `whole` are columns of whole numbers, which stay so.
    """

    pool: Rows
    held_out: Rows
    truth: Rows
    goal: Goal
    whole: NDArray[np.bool_]


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its interval of 95 %, low and high; these are None for a single seed."""

    mean: float
    low: float | None
    high: float | None


def steal(target: Target, api: Api, way: Way, queries: int, seed: int) -> float:
    """The fidelity of one student, of one seed: on held-out rows, how much of the victim it has.

    Of classes the share of the same labels, of numbers and vectors the share of variance that it explains. The same
    seed asks the same rows, whatever is disclosed; the student is the kernel machine that `students.choose` takes
    (networks beside them took 14 times as long on digits, for 0.003 of fidelity).
    """
    generator = np.random.default_rng((seed, 1))
    order = np.random.default_rng((seed, 2)).permutation(len(target.pool))
    if way == "averaged":
        rows = np.repeat(target.pool[order[: max(1, queries // REPEATS)]], REPEATS, axis=0)
        rows = jittered(target, rows, np.random.default_rng((seed, 3)))
        said = api(rows)
        groups = said.reshape(-1, REPEATS, said.shape[1]).mean(axis=1)
        answers = np.repeat(groups, REPEATS, axis=0)
    else:
        rows = target.pool[order[:queries]]
        answers = api(rows)
        if way == "labels":
            answers = np.eye(answers.shape[1])[answers.argmax(axis=1)]
    student = choose(rows, answers, target.goal, generator, effort="machines")
    return fidelity(student.answers(target.held_out), target.truth, target.goal)


def fidelity(copied: Rows, truth: Rows, goal: Goal) -> float:
    """How much of the victim a student has."""
    if goal == "probabilities":
        return float((copied.argmax(axis=1) == truth.argmax(axis=1)).mean())
    spread = np.square(truth - truth.mean(axis=0)).sum()
    return float(1 - np.square(copied - truth).sum() / spread) if spread > 0 else 1.0


def interval(values: Sequence[float]) -> Interval:
    """Mean and interval of one fidelity for each seed."""
    mean = float(np.mean(values))
    count = len(values)
    if count < 2:
        return Interval(mean, None, None)
    half = (_T[count - 2] if count - 2 < len(_T) else _NORMAL) * float(np.std(values, ddof=1)) / count**0.5
    # neither share goes beyond 1
    return Interval(mean, mean - half, min(1.0, mean + half))


def jittered(target: Target, rows: Rows, generator: np.random.Generator) -> Rows:
    """Rows (n, inputs) moved a little, within the pool's range; whole numbers stay so."""
    moved = rows + JITTER * target.pool.std(axis=0) * generator.standard_normal(rows.shape)
    moved = np.clip(moved, target.pool.min(axis=0), target.pool.max(axis=0))
    return np.asarray(np.where(target.whole, np.rint(moved), moved))
