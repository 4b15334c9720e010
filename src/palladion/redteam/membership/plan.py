"""What an attack on membership spends: rows, references and queries, within the budget of each target."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from palladion.errors import PalladionError
from palladion.redteam.membership.figures import SIDE_MIN
from palladion.redteam.membership.oracle import Ask
from palladion.redteam.membership.shadows import Recipe

Mask = NDArray[np.bool_]

JUDGED_MIN = 200  # rows: fewer leave intervals around AUC that are wider than .15
PROBED_MIN = 2 * SIDE_MIN
REFERENCES_MAX = 4096


@dataclass(frozen=True, eq=False)
class Target:
    """A model that is attacked: how to ask it, and which rows (rows,) of the auditor's data it was trained on."""

    name: str
    ask: Ask
    member: Mask


@dataclass(frozen=True)
class AttackPlan:
    """How much is spent. The same plan and data give the same report, as far as the targets answer alike.

    `queries` is the budget of each target, never exceeded; None is what everything costs. `probed_rows` are judged by
    label-only attacks as well. `confidence` is of a figure's intervals of all attacks together. `processes` train
    references side by side.
    """

    references: int = 16
    recipe: Recipe = field(default_factory=Recipe)
    seed: int = 1
    queries: int | None = None
    probe: Literal["noise", "boundary"] = "noise"
    probed_rows: int = 400
    resamples: int = 2000
    confidence: float = 0.95
    batch_references: int = 8
    processes: int = 1

    def __post_init__(self) -> None:
        if self.references < 2 or self.references % 2 or self.references > REFERENCES_MAX:
            raise ValueError(f"{self.references} references: an even number of 2 to {REFERENCES_MAX} was expected")
        if self.batch_references < 1 or self.processes < 1 or self.probed_rows < 0:
            raise ValueError("references are trained in batches and processes of at least 1")

    def seed_of(self, *path: int) -> int:
        """A seed for one purpose, of this plan's."""
        return int(np.random.SeedSequence((self.seed, *path)).generate_state(1)[0])


@dataclass(frozen=True, eq=False)
class Spending:
    """Which rows are judged by every attack, which (places among these) by label-only ones too, and what it costs."""

    judged: NDArray[np.intp]
    probed: NDArray[np.intp]
    queries: int


def minimum_queries(views: int = 1, population: int = 0) -> int:
    """The fewest queries of one target that say anything: `JUDGED_MIN` rows in each view, and the population."""
    return JUDGED_MIN * views + population


def spend(plan: AttackPlan, targets: Sequence[Target], *, views: int, population: int, per_probe: int) -> Spending:
    """How the budget is spent: on as many rows as there are, and what is left on probes with labels alone.

    Raises PalladionError for a budget below the minimum, and for too few members or others of a target among the rows.
    """
    rows = len(targets[0].member)
    budget = plan.queries if plan.queries is not None else rows * views + population + plan.probed_rows * per_probe
    least = minimum_queries(views, population)
    if rows < JUDGED_MIN:
        raise PalladionError(f"{rows} rows are too few to judge membership on: at least {JUDGED_MIN} were expected")
    if budget < least:
        raise PalladionError(f"a budget of {budget} queries is too small: at least {least} were expected")
    count = min(rows, (budget - population) // views)
    left = budget - population - count * views
    judged = _balanced(targets[0].member, np.random.default_rng(plan.seed_of(1)))[:count]
    probes = min(count, plan.probed_rows, left // per_probe)
    # the first rows of a balanced order: both sides are among them
    probed = np.arange(probes if probes >= PROBED_MIN else 0)
    for target in targets:
        members = int(target.member[judged].sum())
        if min(members, count - members) < SIDE_MIN:
            raise PalladionError(
                f"of {count} rows {members} are members of {target.name}: at least {SIDE_MIN} members and {SIDE_MIN} "
                "others were expected"
            )
    return Spending(judged, probed, count * views + population + len(probed) * per_probe)


def _balanced(member: Mask, generator: np.random.Generator) -> NDArray[np.intp]:
    """All rows, members and others by turns as long as there are both."""
    sides = [generator.permutation(np.flatnonzero(side)) for side in (member, ~member)]
    turns = np.concatenate([2 * np.arange(len(side)) + offset for offset, side in enumerate(sides)])
    return np.concatenate(sides)[np.argsort(turns, kind="stable")]
