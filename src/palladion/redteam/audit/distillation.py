"""Distillation as a stage: how much of a language model a student gets by asking it, in the best of several ways.

Each door is asked as it answers, at temperature 0, four times each, and with log probabilities where it shows them; the
best student counts, beside the same one taught other texts. Where none beats that control, nothing is concluded.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

import msgspec
import numpy as np

from palladion.errors import InconclusiveError
from palladion.redteam.audit.accounts import EndedError
from palladion.redteam.audit.result import Figure, Observation, StageResult
from palladion.redteam.audit.stage import Allowance, Plan, Stage
from palladion.redteam.audit.subject import Subject
from palladion.redteam.distilling import (
    THIEVES,
    Gain,
    Quarry,
    Share,
    TextApi,
    Way,
    bits_per_byte,
    gained,
    harvest,
    held_out,
    taught,
    unrelated,
    untouched,
)
from palladion.redteam.prompts import Prompts
from palladion.redteam.text_students import Lesson, Marks, TextStudent

NAME = "distillation"
QUERIES = {"quick": (100, 400), "standard": (100, 400, 2000), "thorough": (100, 400, 2000, 10_000)}
SEEDS = {"quick": 2, "standard": 3, "thorough": 5}
STEPS = {"quick": 100, "standard": 600, "thorough": 2000}
HELD_OUT = {"quick": 64, "standard": 200, "thorough": 500}
HELD_OUT_MIN = 20
EMPTY_MAX = 0.5  # of answers: more come of a wrong wrapper
OWN = "own prompts"
NONE = "texts are asked of a language model in a folder or behind an address, with --prompts"


def _missing(_subject: Subject) -> str | None:
    return NONE


def _run(_subject: Subject, _plan: Plan, _allowance: Allowance) -> StageResult:
    raise ValueError("doors come with `with_texts`")


DISTILLATION = Stage(NAME, 2, "distillation: how much a student learns from answers", 1.0, _missing, _run)


def with_texts(
    stage: Stage, doors: Mapping[str, TextApi], prompts: Prompts, student: Callable[[], TextStudent], *, named: str = ""
) -> Stage:
    """The stage, ready to be run: doors from the least defended on, the owner's prompts, and what makes a student.

    `named` tells one kind of student from another.
    """

    def run(_subject: Subject, plan: Plan, allowance: Allowance) -> StageResult:
        return distil(doors, prompts, student(), plan, allowance)

    given = sha256(msgspec.json.encode([named, prompts.tasks], order="sorted")).hexdigest()
    return replace(stage, missing=lambda _subject: None, run=run, given=given)


@dataclass(eq=False)
class _Theft:
    """One audit's thefts, what they found so far, and the controls that they are compared with."""

    student: TextStudent
    quarry: Quarry
    plan: Plan
    allowance: Allowance
    counts: Sequence[int]
    ended: list[str] = field(default_factory=list)
    table: list[dict[str, Any]] = field(default_factory=list)
    controls: dict[int, Marks] = field(default_factory=dict)

    def judge(self, door: str, thief: str, way: str, queries: int, lessons: Sequence[Lesson]) -> None:
        """Teach students so many lessons, and write down what they gained."""
        # what was refused or is empty teaches nothing, and costs a query all the same
        some = [lesson for lesson in lessons[:queries] if lesson.answer.strip()]
        if not some:
            return
        found = gained(self._taught(some), self._control(queries, some), self.plan.seed)
        self.table.append(_entry(door, thief, way, queries, found))

    def best(self, door: str, queries: int) -> dict[str, Any] | None:
        """The entry of who gained most."""
        here = [item for item in self.table if item["door"] == door and item["queries"] == queries]
        return max(here, key=lambda item: float(item["gain"]["mean"]), default=None)

    def _taught(self, lessons: Sequence[Lesson]) -> Marks:
        seeds = range(self.plan.seed, self.plan.seed + SEEDS[self.plan.profile])
        return taught(self.student, lessons, self.quarry, STEPS[self.plan.profile], seeds)

    def _control(self, queries: int, lessons: Sequence[Lesson]) -> Marks:
        if queries not in self.controls:
            generator = np.random.default_rng((self.plan.seed, 53))
            self.controls[queries] = self._taught(unrelated(lessons, self.quarry.prompts, generator))
        return self.controls[queries]


def distil(
    doors: Mapping[str, TextApi], prompts: Prompts, student: TextStudent, plan: Plan, allowance: Allowance
) -> StageResult:
    """The stage's result. All doors together are asked no more than the allowance."""
    counts = _affordable(doors, plan, allowance)
    theirs, own = prompts.halves()
    asked = held_out(own, HELD_OUT[plan.profile], np.random.default_rng((plan.seed, 51)))
    first = next(iter(doors.values()))
    said = [answer.text for answer in first.answers(asked, temperature=0.0, again=0)]
    _check_answers(said)
    quarry = Quarry(theirs, tuple(Lesson(prompt, text) for prompt, text in zip(asked, said, strict=True)))
    theft, spent = _Theft(student, quarry, plan, allowance, counts), len(asked)
    for index, (name, door) in enumerate(doors.items()):
        if not theft.ended:
            spent += _steal(theft, name, door, known=index > 0)
    measured = sorted({int(item["queries"]) for item in theft.table})
    if not measured:
        raise InconclusiveError(theft.ended[0] if theft.ended else "no thief was answered")
    _check_learnt(theft, measured[-1])
    details = {"students": theft.table, "held_out": len(asked), "controls": _controls(theft)}
    figures = tuple(_figures(theft, list(doors), measured))
    return StageResult(NAME, "done", tuple(theft.ended), figures, (_beside(theft, measured[-1]),), spent, details)


def _steal(theft: _Theft, name: str, door: TextApi, *, known: bool) -> int:
    """Every thief and way at this door with the largest budget, the best of them with the others; queries asked."""
    spent, counts = 0, theft.counts
    harvests: dict[tuple[str, Way], list[Lesson]] = {}
    ways: list[tuple[str, Way]] = [
        (OWN, "logprobs" if door.alternatives else "greedy"),
        (OWN, "raw"),
        (OWN, "averaged"),
    ]
    # who knows nothing of its work is no better where less is shown
    ways += [] if known else [("generic", "greedy")]
    for thief, way in ways:
        if theft.ended:
            break
        theft.allowance.progress(len(harvests), len(ways), f"{NAME}, {name}, asking")
        kept = harvests.setdefault((thief, way), [])
        asked = THIEVES[thief].prompts(theft.quarry.prompts, counts[-1], np.random.default_rng((theft.plan.seed, 52)))
        try:
            harvest(door, asked, way, kept)
        except EndedError as error:
            # a thief who is cut off keeps what he has
            theft.ended.append(error.message)
        spent += len(kept)
    if (OWN, "logprobs") in harvests:
        # the same answers, without what was shown beside them
        plain = [replace(lesson, soft=()) for lesson in harvests[OWN, "logprobs"]]
        harvests[OWN, "greedy"] = plain
        if not theft.student.soft:
            del harvests[OWN, "logprobs"]
    for place, ((thief, way), lessons) in enumerate(harvests.items()):
        reached = max((queries for queries in counts if queries <= _asked(len(lessons), way)), default=None)
        if reached is not None:
            theft.allowance.progress(place, len(harvests), f"{NAME}, {name}, students")
            theft.judge(name, thief, way, reached, lessons)
    _smaller(theft, name, harvests)
    return spent


def _smaller(theft: _Theft, door: str, harvests: Mapping[tuple[str, Way], Sequence[Lesson]]) -> None:
    """Smaller budgets, for who gained most with the largest."""
    reached = [queries for queries in theft.counts if theft.best(door, queries) is not None]
    best = theft.best(door, reached[-1]) if reached else None
    if best is None:
        return
    for queries in theft.counts:
        if queries < reached[-1]:
            theft.judge(door, best["thief"], best["way"], queries, harvests[best["thief"], best["way"]])


def _asked(lessons: int, way: str) -> int:
    # whom the budget leaves some of four repetitions has used it up all the same
    return lessons + 3 if way == "averaged" else lessons


def _affordable(doors: Mapping[str, TextApi], plan: Plan, allowance: Allowance) -> tuple[int, ...]:
    """As many of the profile's counts of queries as the budget reaches for."""
    left = allowance.queries - HELD_OUT[plan.profile]
    # three ways at every door, and one thief more at the first
    counts = tuple(queries for queries in QUERIES[plan.profile] if queries * (3 * len(doors) + 1) <= left)
    if not counts:
        raise InconclusiveError(
            f"a budget of {allowance.queries} queries is too small for students of {QUERIES[plan.profile][0]} answers",
            "raise redteam.queries, or --budget",
        )
    return counts


def _check_answers(said: Sequence[str]) -> None:
    if len(said) < HELD_OUT_MIN:
        raise InconclusiveError(
            f"{len(said)} prompts can be held out, at least {HELD_OUT_MIN} were expected", "give more with --prompts"
        )
    empty = sum(not text.strip() for text in said)
    if empty > EMPTY_MAX * len(said):
        raise InconclusiveError(f"{empty} of {len(said)} answers are empty", "how are answers read?")
    if len(set(said)) < 2:
        raise InconclusiveError("the model gives the same answer to every prompt", "how is it asked?")


def _check_learnt(theft: _Theft, queries: int) -> None:
    entries = [item for item in theft.table if item["queries"] == queries]
    best = max(entries, key=lambda item: float(item["gain"]["mean"]))
    if best["gain"]["low"] <= 0:
        raise InconclusiveError(
            f"no student of {queries} answers writes the model's own better than one that was taught other texts "
            f"(gain {best['gain']['mean']:.3f}, {best['gain']['low']:.3f} to {best['gain']['high']:.3f})",
            "--profile standard teaches longer, --student names a model that knows a language already",
        )


def _figures(theft: _Theft, doors: Sequence[str], counts: Sequence[int]) -> list[Figure]:
    found = []
    words = {
        "gain": "part of the control's surprise that the best student lost",
        "agreement": "next tokens that the best student says as the model does",
        "exact": "whole answers that the best student gives as the model does",
    }
    for door in doors:
        for queries in counts:
            best = theft.best(door, queries)
            if best is None:
                continue
            how = f"after {queries} queries, {door} ({best['thief']}, {best['way']})"
            for name, text in words.items():
                item = best[name]
                key = f"{NAME}.{name}.{queries}.{door}"
                found.append(Figure(key, f"{text} {how}", item["mean"], item["low"], item["high"], "of 1"))
    return found


def _beside(theft: _Theft, queries: int) -> Observation:
    """What students compare with, in words."""
    seeds = [theft.plan.seed]
    before = bits_per_byte(untouched(theft.student, theft.quarry, seeds))
    control = bits_per_byte(theft.controls[queries])
    best = min(float(item["bits"]["mean"]) for item in theft.table if item["queries"] == queries)
    text = (
        f"bits for a byte of the model's own answers: {best:.2f} for the best student of {queries} answers, "
        f"{control:.2f} for one that was taught as many other texts, {before:.2f} before any lesson"
    )
    return Observation(NAME, "note", text)


def _controls(theft: _Theft) -> list[dict[str, Any]]:
    return [
        {"queries": queries, "bits": bits_per_byte(marks), "agreement": float(marks.agreed.sum() / marks.tokens.sum())}
        for queries, marks in sorted(theft.controls.items())
    ]


def _entry(door: str, thief: str, way: str, queries: int, found: Gain) -> dict[str, Any]:
    shares = {"bits": found.bits, "gain": found.gain, "agreement": found.agreement, "exact": found.exact}
    return {"door": door, "thief": thief, "way": way, "queries": queries} | {
        name: _document(share) for name, share in shares.items()
    }


def _document(share: Share) -> dict[str, float]:
    return {"mean": share.mean, "low": share.low, "high": share.high}
