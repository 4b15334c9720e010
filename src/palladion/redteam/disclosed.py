"""What each step of disclosure costs an honest user, and what it costs a thief, on a user's own model and data.

Beside each step stands the same thief without any: a defence is worth the difference, and no more.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError, PalladionError
from palladion.gate.contract import Contract
from palladion.gate.disclosure import Level, Terms
from palladion.gate.disclosure.rounding import DECIMALS_ALL
from palladion.policy import RoutePolicy
from palladion.redteam.extraction import Api, Interval, Target, Way, interval, steal
from palladion.redteam.utility import Cost, cost_of_classes, cost_of_numbers, cost_of_vectors
from palladion.redteam.victim import Rows, Victim

HELD_OUT = 0.3  # of the rows, which no thief asks
HELD_OUT_MAX = 2000
QUERIES_MIN = 40  # ten rows for the thief who asks each four times
UNDEFENDED = "undefended"
_LEVELS: Mapping[str, Level] = {"trusted": "contract", "throttled": "reduced", "degraded": "label"}


@dataclass(frozen=True)
class Plan:
    """How hard the thieves try: queries of each, seeds and the first of them, and the CPU minutes for all."""

    queries: int | None = None  # None: 1,000, or all rows that are not held out
    seeds: int = 5
    first_seed: int = 1
    minutes: float = 5.0


class Progress(Protocol):
    """Told how far it is."""

    def __call__(self, done: int, total: int, stage: str = "") -> None:
        """`done` of `total`."""
        ...


@dataclass(frozen=True)
class Theft:
    """What thieves got of one step: the fidelity of each way of theirs."""

    ways: Mapping[Way, Interval]

    @property
    def best(self) -> Way:
        """The way that got most."""
        return max(self.ways, key=lambda way: self.ways[way].mean)


@dataclass(frozen=True)
class StepMeasured:
    """One step: the standing that gets it, and its costs."""

    standing: str
    terms: Terms
    honest: Cost
    theft: Theft


@dataclass(frozen=True)
class Measurement:
    """All steps, what a thief gets of undefended answers, and on what this rests."""

    undefended: Theft
    steps: Sequence[StepMeasured]
    rows: int
    held_out: int
    queries: int
    seeds: Sequence[int]
    planned_seeds: int


@dataclass
class _Fidelities:
    """Fidelity by step, way and seed, as they come in."""

    found: dict[tuple[str, Way], list[float]] = field(default_factory=dict)

    def add(self, step: str, way: Way, value: float) -> None:
        self.found.setdefault((step, way), []).append(value)

    def theft(self, step: str) -> Theft:
        return Theft({way: interval(values) for (name, way), values in self.found.items() if name == step})


def measure(
    victim: Victim, route: RoutePolicy, plan: Plan, *, progress: Progress, cpu_seconds: Callable[[], float]
) -> Measurement:
    """Measure every step that the route has. Raises PalladionError where the rows are too few for the queries.

    After each seed it stops if the next one would take it beyond the plan's minutes of `cpu_seconds`.
    """
    order = np.random.default_rng((plan.first_seed, 0)).permutation(len(victim.rows))
    held_out = min(HELD_OUT_MAX, int(HELD_OUT * len(order)))
    kept, pool = order[:held_out], order[held_out:]
    queries = min(1000, len(pool)) if plan.queries is None else plan.queries
    if not QUERIES_MIN <= queries <= len(pool):
        raise PalladionError(
            f"{queries} queries cannot be measured: {len(pool)} of the {len(order)} rows are not held out",
            f"give --queries between {QUERIES_MIN} and {len(pool)}",
        )
    steps = steps_of(victim.contract, route)
    goal = "probabilities" if victim.goal_is_classes else "numbers"
    target = Target(victim.rows[pool], victim.rows[kept], victim.truth[kept], goal, victim.whole)  # type: ignore[arg-type]
    trials = _trials(victim, steps)
    fidelities, seeds, started = _Fidelities(), list[int](), cpu_seconds()
    for number in range(plan.seeds):
        seed = plan.first_seed + number
        for done, (names, api, way) in enumerate(trials):
            progress(number * len(trials) + done, plan.seeds * len(trials), "thieves")
            value = steal(target, api, way, queries, seed)
            for name in names:
                fidelities.add(name, way, value)
        seeds.append(seed)
        if (cpu_seconds() - started) * (number + 2) / (number + 1) > plan.minutes * 60:
            break
    measured = [
        StepMeasured(standing, terms, _honest(victim, terms, kept), fidelities.theft(standing))
        for standing, terms in steps.items()
    ]
    return Measurement(
        fidelities.theft(UNDEFENDED), measured, len(order), held_out, queries, seeds, planned_seeds=plan.seeds
    )


def steps_of(contract: Contract, route: RoutePolicy) -> dict[str, Terms]:
    """What holds for each standing that is answered; a route without perturbation watches at no cost."""
    steps = {"trusted": Terms(contract, "contract")}
    method = None if route.perturbation == "none" else route.perturbation
    if method is not None:
        steps["watched"] = Terms(contract, "contract", method, route.perturbation_max)
    for standing in ("throttled", "degraded"):
        steps[standing] = Terms(contract, _LEVELS[standing], method, route.perturbation_max if method else 0.0)
    return steps


def _trials(victim: Victim, steps: Mapping[str, Terms]) -> list[tuple[list[str], Api, Way]]:
    """Every training that is needed: for which steps it counts, whom it asks, and how."""
    whole = undefended(victim.contract)
    names: dict[Terms, list[str]] = {whole: [UNDEFENDED]}
    for name, terms in steps.items():
        names.setdefault(terms, []).append(name)  # a contract without limits is no defence
    found: list[tuple[list[str], Api, Way]] = []
    for terms, alike in names.items():
        api = _api(victim, terms)
        if "label" not in {terms.level, terms.contract.answer} or not victim.goal_is_classes:
            found.append((alike, api, "raw"))
        found.append((alike, api, "averaged"))
    if victim.goal_is_classes:
        # no step changes a label, so one student of labels stands for all
        found.append(([UNDEFENDED, *steps], _api(victim, whole), "labels"))
    return found


def undefended(contract: Contract) -> Terms:
    """All that the model says."""
    whole = Contract(contract.scores, contract.label, contract.kind, "scores", DECIMALS_ALL, 0, rank=contract.rank)
    return Terms(whole, "contract")


def _api(victim: Victim, terms: Terms) -> Api:
    return lambda rows: victim.answers(rows, terms)


def _honest(victim: Victim, terms: Terms, kept: NDArray[np.int64]) -> Cost:
    """What a step costs on the held-out rows."""
    rows, truth = victim.rows[kept], victim.truth[kept]
    shown = victim.disclosed(rows, terms)
    right = None if victim.right is None else victim.right[kept]
    if victim.goal_is_classes:
        cost = cost_of_classes(shown, truth, None if right is None else _classes(right, truth))
    elif shown is None:
        return {}
    elif victim.contract.kind == "embedding":
        cost = cost_of_vectors(shown, truth)
    else:
        values = None if right is None or truth.shape[1] != 1 else right.astype(np.float64)[:, None]
        cost = cost_of_numbers(shown, truth, values)
    return {**cost, "decisions_changed": victim.decisions_changed(rows, terms)}


def _classes(right: NDArray[Any], truth: Rows) -> NDArray[np.int64]:
    labels = right.astype(np.int64)
    if (labels != right).any() or labels.min() < 0 or labels.max() >= truth.shape[1]:
        raise FormatError(f"labels are numbers of classes, from 0 to {truth.shape[1] - 1}")
    return labels
