"""What adaptive students get of a model: however a thief uses its answers, with rows of his and without.

A hardening is worth what the best of them no longer gets, whatever it does to the others. How far a student lies behind
the model is measured against the model of its own time, so that a model that got worse counts for nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from palladion.redteam.copying import THIEVES, Loot
from palladion.redteam.extraction import REPEATS, Api, Interval, Rows, Target, fidelity, interval, jittered
from palladion.redteam.pool import Pool
from palladion.redteam.students import Effort, choose

Manner = Literal["raw", "labels", "softened", "averaged"]
Verdict = Literal["benefit", "no benefit", "worse"]

HELD_OUT = 0.4  # of the rows that are measured on, anew for each seed
SOFTENING = 4.0  # the temperature of a thief who knows of a nasty teacher: that of Ma et al.
OWNER, MAKER = "own rows", "marginals"  # of THIEVES: who has rows like honest ones, and who makes them up
_MANNERS: tuple[tuple[str, Manner], ...] = (
    (OWNER, "raw"),
    (OWNER, "labels"),
    (OWNER, "softened"),
    (OWNER, "averaged"),
    (MAKER, "raw"),
    (MAKER, "labels"),
)
_TINY = 1e-9


@dataclass(frozen=True)
class Student:
    """What a thief, who uses answers in this manner, gets with each seed: fidelity, and accuracy on true labels."""

    thief: str
    manner: Manner
    fidelities: tuple[float, ...]
    accuracies: tuple[float, ...]


@dataclass(frozen=True)
class Robbed:
    """All students of one model with one budget, and the model's own accuracy on the rows held out of each seed."""

    queries: int
    students: tuple[Student, ...]
    accuracies: tuple[float, ...]

    def best_fidelities(self) -> NDArray[np.float64]:
        """That of the best student of each seed (seeds,)."""
        return np.asarray(np.max([student.fidelities for student in self.students], axis=0))

    def behind(self) -> NDArray[np.float64]:
        """By how much the most accurate student of each seed is less accurate than the model (seeds,)."""
        return np.asarray(self.accuracies - np.max([student.accuracies for student in self.students], axis=0))


@dataclass(frozen=True)
class Leftover:
    """Students before and after: how much fidelity the best lost, and how much further it lies behind (paired)."""

    before: Robbed
    after: Robbed
    fidelity_lost: Interval
    further_behind: Interval
    verdict: Verdict


def rob(
    api: Api, rows: Rows, labels: NDArray[np.int64], queries: int, seeds: Sequence[int], *, effort: Effort = "machines"
) -> Robbed:
    """Copy the model behind `api` with `queries` by every manner, once for each seed.

    `rows` (n, inputs) with true `labels` (n,) are shared between thief and judge. The same seed gives the same split
    and the same queries whatever is answered, but for rows that are chosen by answers.
    """
    if queries < REPEATS:
        raise ValueError(f"{queries} queries are too few for near-duplicates: at least {REPEATS} were expected")
    found: dict[tuple[str, Manner], list[tuple[float, float]]] = {}
    accuracies = []
    for seed in seeds:
        order = np.random.default_rng((seed, 0)).permutation(len(rows))
        held_out, owned = order[: int(HELD_OUT * len(rows))], order[int(HELD_OUT * len(rows)) :]
        truth = api(rows[held_out])
        whole = (rows == np.rint(rows)).all(axis=0)
        target = Target(rows[owned], rows[held_out], truth, "probabilities", whole)
        loot = Loot(target, Pool(rows[owned].astype(np.float32), labels[owned]))
        accuracies.append(_accuracy(truth, labels[held_out]))
        for thief, manner, asked, answers in _answered(loot, api, queries, seed):
            # each student begins alike, so that before and after are pairs
            student = choose(asked, answers, "probabilities", np.random.default_rng((seed, 4)), effort=effort)
            said = student.answers(target.held_out)
            figures = fidelity(said, truth, "probabilities"), _accuracy(said, labels[held_out])
            found.setdefault((thief, manner), []).append(figures)
    students = [
        Student(thief, manner, tuple(one for one, _ in figures), tuple(other for _, other in figures))
        for (thief, manner), figures in found.items()
    ]
    return Robbed(queries, tuple(students), tuple(accuracies))


def compare(before: Robbed, after: Robbed) -> Leftover:
    """What was gained against the best student of each seed, in pairs of one seed.

    A benefit needs intervals of 95 % wholly above nothing for both figures; either wholly below is worse.
    """
    fidelity_lost = interval(list(before.best_fidelities() - after.best_fidelities()))
    further_behind = interval(list(after.behind() - before.behind()))
    found = fidelity_lost, further_behind
    verdict: Verdict = "no benefit"
    if all(item.low is not None and item.low > 0 for item in found):
        verdict = "benefit"
    elif any(item.high is not None and item.low is not None and item.high < 0 for item in found):
        verdict = "worse"
    return Leftover(before, after, fidelity_lost, further_behind, verdict)


def _answered(loot: Loot, api: Api, queries: int, seed: int) -> Iterator[tuple[str, Manner, Rows, Rows]]:
    """For each thief and manner, the rows that he asked and what he makes of the answers."""
    asked: dict[str, tuple[Rows, Rows]] = {}
    for thief, manner in _MANNERS:
        if manner == "averaged":
            generator = np.random.default_rng((seed, 6))
            rows, _ = THIEVES[thief].collect(loot, lambda rows: rows, queries // REPEATS, np.random.default_rng(seed))
            shown = api(jittered(loot.target, np.repeat(rows, REPEATS, axis=0), generator))
            yield thief, manner, rows, np.asarray(shown.reshape(len(rows), REPEATS, -1).mean(axis=1))
            continue
        if thief not in asked:
            asked[thief] = THIEVES[thief].collect(loot, api, queries, np.random.default_rng((seed, 5)))
        rows, answers = asked[thief]
        yield thief, manner, rows, _used(answers, manner)


def _used(answers: Rows, manner: Manner) -> Rows:
    if manner == "labels":
        return np.asarray(np.eye(answers.shape[1])[answers.argmax(axis=1)])
    if manner == "softened":
        softer = np.maximum(answers, _TINY) ** (1 / SOFTENING)
        return np.asarray(softer / softer.sum(axis=1, keepdims=True))
    return answers


def _accuracy(said: Rows, labels: NDArray[np.int64]) -> float:
    return float((said.argmax(axis=1) == labels).mean())
