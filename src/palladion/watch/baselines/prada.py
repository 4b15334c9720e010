"""PRADA: whether the distances of a client's queries to its earlier ones of the same class look normal.

Juuti, Szyller, Marchal, Asokan, "PRADA: Protecting against DNN Model Stealing Attacks", EuroS&P 2019, algorithm 1. As
published but for two bounds on what is held, which the paper lacks: rows of the growing sets, and distances.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from palladion.watch.baselines.normality import COUNT_MIN, shapiro_wilk
from palladion.watch.baselines.queries import Queries
from palladion.watch.rows import Rows

DISTANCES_MIN = 100  # the paper's; it decides with more distances than that
ROWS_MAX = 1024  # of all classes' growing sets, single precision: 3 MiB for inputs of 784
DISTANCES_MAX = 1000  # the last ones: W of more moves slowly, and sorting them for each query does not pay
OUTLIER_DEVIATIONS = 3.0  # distances further out are left out, as in the paper


@dataclass(frozen=True)
class Prada:
    """The method: `distances_min` are needed before it says anything. Nothing is fitted."""

    distances_min: int = DISTANCES_MIN

    def __post_init__(self) -> None:
        if not COUNT_MIN <= self.distances_min < DISTANCES_MAX:
            raise ValueError(f"{self.distances_min} distances at least, expected {COUNT_MIN} to {DISTANCES_MAX - 1}")

    def begin(self) -> "PradaSession":
        """A client of whom nothing is known."""
        return PradaSession(self.distances_min)


@dataclass(eq=False)
class _Growing:
    """The growing set of a class: its rows, how far each lay from those before it, and the limit to get in."""

    rows: NDArray[np.float32]
    distances: list[float] = field(default_factory=lambda: [0.0])
    limit: float = 0.0


@dataclass(eq=False)
class PradaSession:
    """Growing sets by class, and the last distances."""

    distances_min: int
    sets: dict[int, _Growing] = field(default_factory=dict)
    distances: list[float] = field(default_factory=list)
    rows: int = 0

    def take(self, queries: Queries) -> Rows:
        """1 - W after each query: the published rule alarms where W is below a limit."""
        inputs = queries.inputs.astype(np.float32)
        found = np.empty(len(queries))
        for place, (row, named) in enumerate(zip(inputs, queries.named.tolist(), strict=True)):
            self._add(row, named)
            found[place] = self._statistic()
        return found

    @property
    def held_bytes(self) -> int:
        """What is held of the client."""
        members = self.sets.values()
        return sum(one.rows.nbytes + 8 * len(one.distances) for one in members) + 8 * len(self.distances)

    def _add(self, row: NDArray[np.float32], named: int) -> None:
        growing = self.sets.get(named)
        if growing is None:
            if self.rows < ROWS_MAX:
                self.sets[named] = _Growing(row[None].copy())
                self.rows += 1
            return
        nearest = float(np.sqrt(np.square(growing.rows - row, dtype=np.float64).sum(axis=1).min()))
        self.distances = [*self.distances[-DISTANCES_MAX + 1 :], nearest]
        if nearest > growing.limit and self.rows < ROWS_MAX:
            growing.rows = np.concatenate([growing.rows, row[None]])
            growing.distances.append(nearest)
            so_far = np.array(growing.distances)
            growing.limit = max(growing.limit, float(so_far.mean() - so_far.std()))
            self.rows += 1

    def _statistic(self) -> float:
        if len(self.distances) <= self.distances_min:
            return float("-inf")
        distances = np.array(self.distances)
        off = np.abs(distances - distances.mean())
        kept = distances[off < OUTLIER_DEVIATIONS * distances.std()]
        # all alike: nothing lies within no deviation, and nothing tells them from normal ones
        return 1.0 - shapiro_wilk(kept) if len(kept) >= COUNT_MIN else 0.0
