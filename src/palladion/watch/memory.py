"""What is remembered of a client's recent queries: enough to know an exact repeat and to measure how near a new one is.

Bounded whatever comes: digests of the last queries, and whitened coordinates of the last distinct ones. How queries
are cut into requests makes no difference.
"""

from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from palladion.watch.features import REPEATS, Features
from palladion.watch.rows import Rows, preceding

DIGESTS = 256  # an exact repeat within so many queries teaches nothing new and is not counted again
RING = 64  # iterative probing comes back to a query within a few dozen others


@dataclass(frozen=True, eq=False)
class Measured:
    """The distinct queries of a batch: `features` (distinct, features) and `coordinates` (distinct, kept)."""

    features: Rows
    coordinates: Rows


@dataclass(eq=False)
class Memory:
    """Digests (up to DIGESTS,) of the last queries and coordinates (up to RING, kept) of the last distinct ones."""

    digests: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    ring: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))

    def measure(self, features: Features, inputs: Rows, scores: Rows) -> Measured:
        """Measure the queries of a batch that are no exact repeats, and remember them."""
        fresh = self.fresh(inputs)
        found, coordinates = features.measure(inputs[fresh], scores[fresh])
        found[:, REPEATS] = self.nearness(coordinates)
        return Measured(found, coordinates)

    def fresh(self, inputs: Rows) -> NDArray[np.bool_]:
        """Which queries (queries,) were not asked before, within the last `DIGESTS`."""
        data, size = inputs.tobytes(), inputs.itemsize * inputs.shape[1]
        rows = [data[row * size : (row + 1) * size] for row in range(len(inputs))]
        digests = b"".join([blake2b(row, digest_size=8).digest() for row in rows])
        # no query has the digest 0 by chance
        none = np.zeros(DIGESTS - len(self.digests), np.uint64)
        every = np.concatenate([none, self.digests, np.frombuffer(digests, np.uint64)])
        fresh: NDArray[np.bool_] = (preceding(every, DIGESTS) != every[DIGESTS:, None]).all(axis=1)
        self.digests = every[max(len(none), len(inputs)) :].copy()
        return fresh

    def nearness(self, coordinates: Rows) -> Rows:
        """Log distance of each query to the nearest of the `RING` before it; NaN where there is none."""
        ring = self.ring if self.ring.size else coordinates[:0]
        none = np.full((RING - len(ring), coordinates.shape[1]), np.nan)
        history = np.concatenate([none, ring, coordinates])
        self.ring = history[max(len(none), len(coordinates)) :].astype(np.float32)
        squares = np.square(history).sum(axis=1)
        # (queries, RING); by a matrix product for each query, since all differences would take ten times as long
        products = np.matmul(coordinates[:, None, :], preceding(history, RING).transpose(0, 2, 1))[:, 0, :]
        distances = squares[RING:, None] - 2 * products + preceding(squares, RING)
        nearest = np.fmin.reduce(distances, axis=1)
        nearness: Rows = 0.5 * np.log(np.maximum(nearest, 0) + 1e-6)
        return nearness
