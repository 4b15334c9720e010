"""Attacks that see labels alone: the gap attack, robustness to noise, and the distance to the boundary.

Gap: Yeom et al. (CSF 2018, arXiv:1709.01604). Noise and boundary distance: Choquette-Choo et al. (ICML 2021,
arXiv:2007.14321). The distance is measured along straight lines to rows of other classes by bisection, which costs a
tenth of HopSkipJump's queries. Every probe says what it costs before it asks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]
Inputs = NDArray[Any]
Labels = NDArray[np.int64]
# Rows in, the class that is named for each (rows,) out.
Namer = Callable[[Inputs], Labels]

NOISE_LEVELS = (0.1, 0.2, 0.4, 0.8)  # of a column's standard deviation
COPIES = 4  # of each row at each level
LINES, HALVINGS = 4, 5  # lines to rows of other classes, and bisections on each


class Probe(Protocol):
    """Asks for labels around rows; more robust rows get higher scores."""

    @property
    def queries_per_row(self) -> int:
        """The most that it asks about one row."""
        ...

    def scores(self, ask: Namer, rows: Inputs, labels: Labels, seed: int) -> Rows:
        """One score (rows,) for each of `rows` with these true labels. The same seed asks of every model alike."""
        ...


def gap_scores(named: Labels, labels: Labels) -> Rows:
    """1 where the model is right, else 0: shape of `named` (…, rows). Costs the one answer that is there."""
    return np.asarray(named == labels, np.float64)


@dataclass(frozen=True, eq=False)
class NoiseProbe:
    """How often a row keeps its label under noise, over some levels.

    `deviation`, `low` and `high` (inputs) are of the columns, `whole` those of whole numbers, which stay so.
    """

    deviation: Rows
    low: Rows
    high: Rows
    whole: NDArray[np.bool_]
    levels: tuple[float, ...] = NOISE_LEVELS
    copies: int = COPIES

    @property
    def queries_per_row(self) -> int:
        """The most that it asks about one row."""
        return len(self.levels) * self.copies

    def scores(self, ask: Namer, rows: Inputs, labels: Labels, seed: int) -> Rows:
        """The share (rows,) of noisy copies that are labelled right."""
        flat = rows.reshape(len(rows), -1).astype(np.float64)
        right = np.zeros(len(rows))
        generator = np.random.default_rng(seed)
        for level in self.levels:
            for _ in range(self.copies):
                noisy = flat + level * self.deviation * generator.standard_normal(flat.shape)
                noisy = np.where(self.whole, np.rint(noisy), noisy).clip(self.low, self.high)
                right += ask(_like(noisy, rows)) == labels
        return right / self.queries_per_row


@dataclass(frozen=True, eq=False)
class BoundaryProbe:
    """How far the boundary is on the way to rows of other classes, in standard deviations of the columns.

    `elsewhere` (n, …) with `labels` (n,) are rows to walk to. A row that is labelled wrong has the distance 0.
    """

    elsewhere: Inputs
    labels: Labels
    deviation: Rows
    lines: int = LINES
    halvings: int = HALVINGS

    @property
    def queries_per_row(self) -> int:
        """The most that it asks about one row."""
        return 1 + self.lines * self.halvings

    def scores(self, ask: Namer, rows: Inputs, labels: Labels, seed: int) -> Rows:
        """The mean distance (rows,) over the lines."""
        flat = rows.reshape(len(rows), -1).astype(np.float64)
        others = self.elsewhere.reshape(len(self.elsewhere), -1).astype(np.float64)
        kept = ask(rows) == labels
        found = np.zeros(len(rows))
        generator = np.random.default_rng(seed)
        divisor = np.where(self.deviation > 0, self.deviation, 1.0)
        for _ in range(self.lines):
            ends = others[self._ends(labels, generator)]
            length = np.sqrt(np.square((ends - flat) / divisor).mean(axis=1))
            # the label is right at `near`; that it is not at `far`, the end, is taken for granted
            near, far = np.zeros(len(rows)), np.ones(len(rows))
            for _ in range(self.halvings):
                middle = (near + far) / 2
                right = ask(_like(flat + middle[:, None] * (ends - flat), rows)) == labels
                near, far = np.where(right, middle, near), np.where(right, far, middle)
            found += length * near
        return np.asarray(np.where(kept, found / self.lines, 0.0))

    def _ends(self, labels: Labels, generator: np.random.Generator) -> NDArray[np.intp]:
        """An index into `elsewhere` of a row with another class, for each of `labels`."""
        order = np.argsort(self.labels, kind="stable")
        classes, counts = np.unique(self.labels, return_counts=True)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        place = np.searchsorted(classes, labels)
        known = (place < len(classes)) & (classes[np.minimum(place, len(classes) - 1)] == labels)
        own = np.where(known, counts[np.minimum(place, len(classes) - 1)], 0)
        start = np.where(known, starts[np.minimum(place, len(classes) - 1)], len(order))
        if (own == len(order)).any():
            raise ValueError("there is no row of another class to walk to")
        drawn = generator.integers(0, len(order) - own)
        # those of the row's own class are stepped over
        return order[np.where(drawn >= start, drawn + own, drawn)]


def noise_probe(inputs: Inputs) -> NoiseProbe:
    """A probe with the spread of `inputs` (rows, …)."""
    flat = inputs.reshape(len(inputs), -1).astype(np.float64)
    return NoiseProbe(flat.std(axis=0), flat.min(axis=0), flat.max(axis=0), (flat == np.rint(flat)).all(axis=0))


def boundary_probe(inputs: Inputs, labels: Labels) -> BoundaryProbe:
    """A probe that walks to `inputs` (rows, …) of other classes."""
    return BoundaryProbe(inputs, labels, inputs.reshape(len(inputs), -1).astype(np.float64).std(axis=0))


def _like(flat: Rows, rows: Inputs) -> Inputs:
    dtype = rows.dtype
    return (np.rint(flat) if dtype.kind in "iu" else flat).astype(dtype).reshape(rows.shape)
