"""MMD: whether a window of queries and honest ones come from one distribution, by a kernel two-sample statistic.

Gretton, Borgwardt, Rasch, Schölkopf, Smola, "A Kernel Two-Sample Test", JMLR 13 (2012), lemma 6 (unbiased), with a
Gaussian kernel of the median distance; as used on windows of queries by detectors of extraction (arXiv:2606.05725).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from palladion.watch.baselines.distances import squared_distances
from palladion.watch.baselines.queries import Queries
from palladion.watch.rows import Rows

WINDOW = 100  # the smallest that the paper measures
REFERENCE_ROWS = 500  # honest rows compared with: more take longer, and the window's own noise is larger
_AT_ONCE = 256  # queries whose kernels are in memory together


@dataclass(frozen=True, eq=False)
class Mmd:
    """The method: honest coordinates (rows, kept), the kernel's width, and the last `window` queries that count.

    It says something from the `first` query on; the paper's windows are full.
    """

    reference: Rows
    width: float
    window: int = WINDOW
    first: int = WINDOW

    def __post_init__(self) -> None:
        if not 2 <= self.first <= self.window:
            raise ValueError(f"windows of {self.window} from query {self.first} on, expected a first from 2 to that")

    @classmethod
    def fit(
        cls,
        clients: Sequence[Rows],
        generator: "np.random.Generator",
        *,
        window: int = WINDOW,
        first: int = WINDOW,
    ) -> "Mmd":
        """From the coordinates (queries, kept) of honest clients. Raises ValueError on fewer than two rows."""
        every = np.concatenate(clients)
        if len(every) < 2:
            raise ValueError(f"{len(every)} honest rows, at least 2 are needed")
        reference = every[generator.permutation(len(every))[:REFERENCE_ROWS]]
        squared = squared_distances(reference, reference)[np.tril_indices(len(reference), -1)]
        width = float(np.sqrt(np.median(squared)))
        return cls(reference, max(width, 1e-9), window, first)

    def begin(self) -> "MmdSession":
        """A client of whom nothing is known."""
        return MmdSession(self)

    def kernel(self, rows: Rows, others: Rows) -> Rows:
        """exp(-d² / 2 width²) of each two (rows, others)."""
        return np.asarray(np.exp(squared_distances(rows, others) / (-2 * self.width * self.width)))

    @cached_property
    def honest(self) -> float:
        """The mean kernel of two honest rows."""
        count = len(self.reference)
        return float(self.kernel(self.reference, self.reference).sum() - count) / (count * (count - 1))


class MmdSession:
    """The coordinates of the last queries, and the mean kernel of each with honest rows."""

    def __init__(self, method: Mmd) -> None:
        self._method = method
        self._ring: NDArray[np.float32] = np.empty((0, method.reference.shape[1]), np.float32)
        self._likeness: Rows = np.empty(0)

    def take(self, queries: Queries) -> Rows:
        """The squared discrepancy of the window that ends with each query."""
        starts = range(0, len(queries), _AT_ONCE)
        parts = [self._take(queries.coordinates[start : start + _AT_ONCE]) for start in starts]
        return np.concatenate(parts) if parts else np.empty(0)

    @property
    def held_bytes(self) -> int:
        """What is held of the client."""
        return self._ring.nbytes + self._likeness.nbytes

    def _take(self, coordinates: Rows) -> Rows:
        method, rows = self._method, coordinates.astype(np.float32)
        history = np.concatenate([self._ring, rows])
        own = history.astype(np.float64)
        new = method.kernel(rows.astype(np.float64), method.reference).mean(axis=1)
        likeness = np.concatenate([self._likeness, new])
        ends = np.arange(len(self._ring) + 1, len(history) + 1)
        starts = np.maximum(ends - method.window, 0)
        counts = ends - starts
        # sums over a square of the kernel from its cumulative sums, corner by corner
        kernel = np.zeros((len(own) + 1, len(own) + 1))
        kernel[1:, 1:] = method.kernel(own, own).cumsum(axis=0).cumsum(axis=1)
        within = kernel[ends, ends] - 2 * kernel[starts, ends] + kernel[starts, starts]
        total = np.concatenate([[0.0], likeness.cumsum()])
        across = (total[ends] - total[starts]) / counts
        pairs = np.maximum(counts * (counts - 1), 1)
        found = (within - counts) / pairs - 2 * across + method.honest
        found[counts < method.first] = -np.inf
        self._ring = history[-method.window :].copy()
        self._likeness = likeness[-method.window :].copy()
        return np.asarray(found)
