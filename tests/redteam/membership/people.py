"""A small world for tests: noisy rows, targets that overfit to half of them, and a plan that costs little."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.redteam.membership.answers import softmax
from palladion.redteam.membership.plan import AttackPlan, Target
from palladion.redteam.membership.shadows import Network, Recipe, member_masks, train_networks

SEED = 21
ROWS, CLASSES, TARGETS = 240, 3, 2
RECIPE = Recipe(hidden=(48,), epochs=60, batch_rows=40, rate=2e-2)
PLAN = AttackPlan(references=8, recipe=RECIPE, seed=4, resamples=100, probed_rows=60, batch_references=4)


@dataclass(frozen=True, eq=False)
class World:
    """Rows, noisy labels, and networks that learnt from some of them."""

    inputs: NDArray[np.float64]
    labels: NDArray[np.int64]
    member: NDArray[np.bool_]
    networks: list[Network]

    def targets(self, shown: Any = None) -> list[Target]:
        """Targets that answer with probabilities, or with what `shown` makes of them."""
        return [
            Target(f"target {index}", Shown(network, shown), mask)
            for index, (network, mask) in enumerate(zip(self.networks, self.member, strict=True))
        ]


class Shown:
    """A target that can be counted and stopped: it counts its own queries, and raises after `stop` of them."""

    def __init__(self, network: Network, shown: Any = None, stop: int | None = None) -> None:
        self.network, self.shown, self.stop, self.queries = network, shown, stop, 0

    def __call__(self, rows: NDArray[Any]) -> NDArray[Any]:
        if self.stop is not None and self.queries + len(rows) > self.stop:
            raise KeyboardInterrupt
        self.queries += len(rows)
        whole = softmax(self.network(rows))
        return whole if self.shown is None else np.asarray(self.shown(whole))


@cache
def world() -> World:
    """The same for every test."""
    generator = np.random.default_rng(SEED)
    inputs = generator.standard_normal((ROWS, 6))
    labels = (inputs[:, :CLASSES] * 2).argmax(axis=1)
    noisy = generator.random(ROWS) < 0.3
    labels = np.where(noisy, generator.integers(0, CLASSES, ROWS), labels)
    member = member_masks(TARGETS, ROWS, generator)
    networks = train_networks(inputs, labels, member, classes=CLASSES, recipe=RECIPE, seeds=[100, 101])
    return World(inputs, labels, member, networks)
