"""SEAT: how many pairs of a client's queries are nearly the same one.

Zhang, Chen, Wagner, "SEAT: Similarity Encoder by Adversarial Training for Detecting Model Extraction Attack Queries",
AISec 2021. The paper trains an encoder; here the whitened coordinates of the watch stand in for it, because no network
may be trained where the watch is calibrated. Pairs are counted as published, among the last `RING` queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palladion.watch.baselines.distances import squared_distances
from palladion.watch.baselines.queries import Queries
from palladion.watch.rows import Rows

SIMILAR = 1e-4  # of the pairs of an honest client are so near by chance, as in the paper
RING = 512  # queries that a new one is compared with; 64 KiB for 32 coordinates
_AT_ONCE = 256  # queries whose distances are in memory together


@dataclass(frozen=True)
class Seat:
    """The method: queries nearer than `radius` are a similar pair."""

    radius: float

    @classmethod
    def fit(cls, clients: Sequence[Rows]) -> "Seat":
        """From the coordinates (queries, kept) of honest clients. Raises ValueError where these have no pair."""
        pairs = [squared_distances(rows, rows)[np.tril_indices(len(rows), -1)] for rows in clients]
        every = np.concatenate(pairs) if pairs else np.empty(0)
        if not len(every):
            raise ValueError(f"{len(pairs)} honest clients have no pair of queries, at least one is needed")
        return cls(float(np.sqrt(np.quantile(every, SIMILAR))))

    def begin(self) -> "SeatSession":
        """A client of whom nothing is known."""
        return SeatSession(self.radius)


class SeatSession:
    """The coordinates of the last queries, and how many similar pairs there were."""

    def __init__(self, radius: float) -> None:
        self._squared_radius = radius * radius
        self._ring: NDArray[np.float32] | None = None
        self._pairs = 0

    def take(self, queries: Queries) -> Rows:
        """The number of similar pairs after each query."""
        starts = range(0, len(queries), _AT_ONCE)
        parts = [self._take(queries.coordinates[start : start + _AT_ONCE]) for start in starts]
        return np.concatenate(parts) if parts else np.empty(0)

    @property
    def held_bytes(self) -> int:
        """What is held of the client."""
        return 0 if self._ring is None else self._ring.nbytes

    def _take(self, coordinates: Rows) -> Rows:
        rows = coordinates.astype(np.float32)
        history = rows if self._ring is None else np.concatenate([self._ring, rows])
        before = len(history) - len(rows)
        # how many places back each of the history lies; a query is compared with the RING before it
        back = np.arange(before, len(history))[:, None] - np.arange(len(history))
        near = squared_distances(rows.astype(np.float64), history.astype(np.float64)) <= self._squared_radius
        near &= (back > 0) & (back <= RING)
        found = self._pairs + np.cumsum(near.sum(axis=1))
        self._pairs = int(found[-1])
        self._ring = history[-RING:].copy()
        return found.astype(np.float64)
