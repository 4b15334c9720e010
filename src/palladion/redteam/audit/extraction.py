"""Extraction as a stage: thieves of every kind without defences, the best of them at every door, in the best way.

A defence is worth what the best adaptive thief still gets: from answers as they are, from labels alone, or averaged
over near-duplicates. Fidelity is the share of held-out rows on which copy and model name the same class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from palladion.errors import InconclusiveError
from palladion.redteam.audit.accounts import EndedError
from palladion.redteam.audit.result import Figure, StageResult
from palladion.redteam.audit.stage import Allowance, Plan, Profile, Stage
from palladion.redteam.audit.subject import Door, Subject
from palladion.redteam.copying import THIEVES, Loot, copy
from palladion.redteam.extraction import Interval, Rows, Target, Way, interval
from palladion.redteam.pool import Pool
from palladion.redteam.students import Effort

HELD_OUT = 0.3  # of the rows, which no thief asks
HELD_OUT_MAX = 2000
QUERIES = {"quick": (100, 1000), "standard": (100, 1000, 5000), "thorough": (100, 1000, 5000, 10_000)}
SEEDS = {"quick": 3, "standard": 5, "thorough": 10}
EFFORTS: Mapping[Profile, Effort] = {"quick": "machines", "standard": "all", "thorough": "all"}
COPYCAT = "foreign"  # and labels alone (Correia-Silva et al., IJCNN 2018): tried wherever labels are
ADVANCING = 2  # thieves who try the other doors too: those who got most without defences
FALLEN = 0.9  # of fidelity: what counts as a copy
TRIVIAL = 0.05  # above the commonest class: a student that is no better has learnt nothing


def _missing(subject: Subject) -> str | None:
    return None if subject.classes else "only models that name classes are copied so far"


@dataclass(frozen=True, eq=False)
class _Theft:
    """One audit's thefts, each counted."""

    subject: Subject
    loot: Loot
    seeds: range
    effort: Effort
    spent: list[int]

    def copied(self, door: Door, thief: str, queries: int, way: Way) -> Interval:
        values = [
            copy(self.loot, THIEVES[thief], self._counted(door), queries, seed, way=way, effort=self.effort)
            for seed in self.seeds
        ]
        return interval(values)

    def _counted(self, door: Door) -> Any:
        def ask(rows: Rows) -> Rows:
            self.spent[0] += len(rows)
            return np.asarray(door.ask(rows), np.float64)

        return ask


def _run(subject: Subject, plan: Plan, allowance: Allowance) -> StageResult:
    seeds = range(plan.seed, plan.seed + SEEDS[plan.profile])
    theft = _Theft(subject, _loot(subject, plan), seeds, EFFORTS[plan.profile], [0])
    counts = _affordable(subject, plan, allowance)
    table: list[dict[str, Any]] = []
    ended: tuple[str, ...] = ()
    try:
        _steal(theft, counts, table, allowance)
    except EndedError as error:
        # a thief who is cut off keeps what he has
        if not table:
            raise
        ended = (error.message,)
    measured = sorted({int(item["queries"]) for item in table})
    _check_learnt(table, theft.loot.target, measured[-1])
    figures = _figures(subject, table, measured)
    details = {"thieves": table, "held_out": len(theft.loot.target.held_out), "seeds": list(theft.seeds)}
    return StageResult("extraction", "done", ended, tuple(figures), (), theft.spent[0], details)


def _steal(theft: _Theft, counts: Sequence[int], table: list[dict[str, Any]], allowance: Allowance) -> None:
    """Fill the table: thief by thief without defences, then the best of them at every door."""
    first = theft.subject.doors[0]
    total = len(THIEVES) * len(counts)
    for index, thief in enumerate(THIEVES):
        for place, queries in enumerate(counts):
            allowance.progress(index * len(counts) + place, total, f"extraction, {thief}")
            table.append(_entry(first.name, thief, "raw", queries, theft.copied(first, thief, queries, "raw")))
    ranked = sorted(THIEVES, key=lambda thief: -_mean_of(table, thief, counts[-1]))[:ADVANCING]
    for queries in counts:
        allowance.progress(0, 0, "extraction, labels alone")
        # labels are the same behind every door: nothing wrong is ever said
        named = [(thief, theft.copied(first, thief, queries, "labels")) for thief in dict.fromkeys([*ranked, COPYCAT])]
        for door in theft.subject.doors:
            table += [_entry(door.name, thief, "labels", queries, found) for thief, found in named]
            table.append(
                _entry(door.name, "own rows", "averaged", queries, theft.copied(door, "own rows", queries, "averaged"))
            )
            if door is not first and door.answers != "label":
                for thief in ranked:
                    found = theft.copied(door, thief, queries, "raw")
                    table.append(_entry(door.name, thief, "raw", queries, found))


def _loot(subject: Subject, plan: Plan) -> Loot:
    order = np.random.default_rng((plan.seed, 0)).permutation(len(subject.rows))
    held_out = min(HELD_OUT_MAX, int(HELD_OUT * len(order)))
    kept, owned = order[:held_out], order[held_out:]
    truth = np.asarray(subject.doors[0].ask(subject.rows[kept]), np.float64)
    target = Target(subject.rows[owned], subject.rows[kept], truth, "probabilities", subject.whole)
    rows = subject.rows[owned].astype(np.float32)
    shaped = rows if subject.image is None else rows.reshape(len(rows), *subject.image)
    labels = np.zeros(len(rows), np.int64) if subject.labels is None else subject.labels[owned]
    return Loot(target, Pool(shaped, labels, subject.image))


def _affordable(subject: Subject, plan: Plan, allowance: Allowance) -> tuple[int, ...]:
    """As many of the profile's counts of queries as the budget reaches for, from the smallest on."""
    seeds, doors = SEEDS[plan.profile], len(subject.doors)
    each = seeds * (len(THIEVES) + ADVANCING + 1 + doors + (doors - 1) * ADVANCING)
    counts: list[int] = []
    for queries in QUERIES[plan.profile]:
        if (sum(counts) + queries) * each > allowance.queries:
            break
        counts.append(queries)
    if not counts:
        raise InconclusiveError(
            f"a budget of {allowance.queries} queries is too small for {len(THIEVES)} thieves with "
            f"{QUERIES[plan.profile][0]} each",
            "raise redteam.queries",
        )
    return tuple(counts)


def _check_learnt(table: Sequence[dict[str, Any]], target: Target, queries: int) -> None:
    """A copy that is no better than a constant says that something between us and the model is wrong."""
    common = float(np.bincount(target.truth.argmax(axis=1)).max() / len(target.truth))
    best = max(item["mean"] for item in table if item["queries"] == queries)
    if best <= min(common + TRIVIAL, 1 - TRIVIAL / 10) and common < 1 - TRIVIAL:
        raise InconclusiveError(
            f"no thief's copy agrees with the model about more than {best:.1%} of rows, and its commonest answer is "
            f"{common:.1%} of them",
            "check the scaling of the rows, and how answers are read",
        )


def _figures(subject: Subject, table: Sequence[dict[str, Any]], counts: Sequence[int]) -> list[Figure]:
    found = []
    for door in subject.doors:
        fallen = None
        for queries in counts:
            here = [item for item in table if item["door"] == door.name and item["queries"] == queries]
            if not here:
                continue
            best = max(here, key=lambda item: float(item["mean"]))
            words = f"fidelity of the best copy after {queries} queries, {door.name} ({best['thief']}, {best['way']})"
            key = f"extraction.fidelity.{queries}.{door.name}"
            found.append(Figure(key, words, best["mean"], best["low"], best["high"], "of 1"))
            if fallen is None and best["mean"] >= FALLEN:
                fallen = queries
        if fallen is not None:
            key, words = (
                f"extraction.fallen.{door.name}",
                f"queries until a copy agrees about {FALLEN:.0%}, {door.name}",
            )
            found.append(Figure(key, words, fallen, None, None, "queries", worse="low"))
    return found


def _entry(door: str, thief: str, way: str, queries: int, found: Interval) -> dict[str, Any]:
    return {"door": door, "thief": thief, "way": way, "queries": queries} | {
        "mean": found.mean,
        "low": None if found.low is None else max(found.low, 0.0),
        "high": found.high,
    }


def _mean_of(table: Sequence[dict[str, Any]], thief: str, queries: int) -> float:
    return float(next(item["mean"] for item in table if item["thief"] == thief and item["queries"] == queries))


EXTRACTION = Stage("extraction", 2, "extraction: how good a copy can be made", 4.0, _missing, _run)
