"""Reverse engineering as a stage: what kind of model answers at every door, and the whole of it where it is solved.

Whatever times tell is left out: they differ from run to run, and a report does not.
"""

from dataclasses import asdict
from typing import Any

import numpy as np

from palladion.errors import InconclusiveError
from palladion.redteam.audit.result import Figure, Observation, StageResult
from palladion.redteam.audit.stage import Allowance, Plan, Stage
from palladion.redteam.audit.subject import Door, Subject
from palladion.redteam.extraction import Rows, fidelity
from palladion.redteam.membership.epsilon import clopper_pearson
from palladion.redteam.reverse import (
    SAMPLES,
    SHRUNK,
    SPARE_ROWS,
    Kind,
    Looks,
    find_paths,
    look,
    look_queries,
    solve,
)

HELD_OUT, HELD_OUT_MAX = 0.3, 2000  # of the rows, on which a solved model is judged
QUERIES_MAX = 20_000  # at one door: what a tree of many leaves is given
SPARE_ROUNDED = 10.0  # equations for each unknown where answers are rounded
SOLVED = 0.99  # of held-out rows: what counts as all of the model
_WORDS: dict[Kind, str] = {
    "linear": "the model is linear: its weights are solved from answers",
    "piecewise constant": "the model is made of trees: its thresholds are found by halving",
    "smooth": "the model is a network, a kernel or the like: its answers are smooth and not linear",
    "unknown": "answers are too coarse to tell what kind of model it is",
}


def _missing(subject: Subject) -> str | None:
    return None if subject.classes >= 2 else "only models that name classes are looked at so far"


def _run(subject: Subject, plan: Plan, allowance: Allowance) -> StageResult:
    order = np.random.default_rng((plan.seed, 12)).permutation(len(subject.rows))
    held_out = min(HELD_OUT_MAX, int(HELD_OUT * len(order)))
    kept, owned = subject.rows[order[:held_out]], subject.rows[order[held_out:]]
    spent = [0]
    truth = _counted(subject.doors[0], spent)(kept)
    if not np.ptp(truth, axis=0).any():
        raise InconclusiveError(
            "the model answers all rows alike", "check the scaling of the rows, and how they are read"
        )
    each = min(QUERIES_MAX, (allowance.queries - spent[0]) // len(subject.doors))
    least = look_queries(owned.shape[1]) + max(SAMPLES, int(len(SHRUNK) * SPARE_ROUNDED * (owned.shape[1] + 1)))
    if each < least:
        raise InconclusiveError(
            f"a budget of {allowance.queries} queries is too small: {len(subject.doors)} doors take {least} each",
            "raise redteam.queries",
        )
    kind: Kind = "unknown"
    figures, seen, details = [], [], {}
    for index, door in enumerate(subject.doors):
        allowance.progress(index, len(subject.doors), f"reverse engineering, {door.name}")
        ask = _counted(door, spent)
        looks = look(ask, owned, np.random.default_rng((plan.seed, 13)))
        # what was told at one door holds for all
        kind = looks.kind if kind == "unknown" else kind
        generator = np.random.default_rng((plan.seed, 14))
        copied = None
        if kind == "linear":
            linear = solve(ask, owned, generator, spare=SPARE_ROWS if looks.decimals is None else SPARE_ROUNDED)
            copied = None if linear is None else linear.answers
        elif kind == "piecewise constant":
            copied = find_paths(ask, owned, each - looks.queries, generator).answers
        agreed = None if copied is None else fidelity(copied(kept), truth, "probabilities")
        details[door.name] = {**asdict(looks), "fidelity": agreed}
        seen.append(_observation(looks, agreed, door.name))
        if agreed is not None:
            low, high = clopper_pearson(round(agreed * len(kept)), len(kept), 0.95)
            words = f"rows on which the solved model agrees, {door.name}"
            figures.append(Figure(f"reverse-engineering.fidelity.{door.name}", words, agreed, low, high, "of 1"))
    return StageResult("reverse-engineering", "done", (), tuple(figures), tuple(seen), spent[0], details)


def _observation(looks: Looks, agreed: float | None, door: str) -> Observation:
    rounded = (
        "in full"
        if looks.decimals is None
        else f"rounded to {looks.decimals} decimal{'' if looks.decimals == 1 else 's'}"
    )
    text = f"{door}: {_WORDS[looks.kind]}; answers come {rounded}, {looks.distinct} of {looks.rows} differ"
    if not looks.alone:
        text += "; an answer depends on what is asked with it"
    solved = agreed is not None and agreed >= SOLVED
    return Observation("reverse-engineering", "warning" if solved else "note", text, door)


def _counted(door: Door, spent: list[int]) -> Any:
    def ask(rows: Rows) -> Rows:
        spent[0] += len(rows)
        return np.asarray(door.ask(rows), np.float64)

    return ask


REVERSE_ENGINEERING = Stage(
    "reverse-engineering", 2, "reverse engineering: how the model is built", 1.0, _missing, _run
)
