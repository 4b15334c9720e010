"""Coverage as a detector: how many buckets of the input space a client's queries have fallen into.

Dubiński, Pawlak, Boenisch, Trzciński, Dziedzic, "Bucks for Buckets (B4B): Active Defenses Against Stealing Encoders",
NeurIPS 2023: who steals covers more of the space than who uses. The buckets are those of the watch's own information
budget (`palladion.watch.coverage`), which is no detector.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from palladion.watch import coverage
from palladion.watch.baselines.queries import Queries
from palladion.watch.rows import Rows


@dataclass(frozen=True, eq=False)
class Covering:
    """The method: hyperplanes through whitened coordinates, whose sides are the buckets."""

    planes: coverage.Coverage

    def begin(self) -> "CoveringSession":
        """A client of whom nothing is known."""
        return CoveringSession(self.planes)


@dataclass(eq=False)
class CoveringSession:
    """The buckets that a client has touched."""

    planes: coverage.Coverage
    bitmap: NDArray[np.uint8] = field(default_factory=coverage.empty_bitmap)

    def take(self, queries: Queries) -> Rows:
        """The share of all buckets that is touched, after each query."""
        before = coverage.count(self.bitmap)
        buckets = self.planes.buckets(queries.coordinates) if len(queries) else []
        new = [len(coverage.mark(self.bitmap, [bucket])) for bucket in buckets]
        return np.asarray((before + np.cumsum(new)) / coverage.BUCKETS, np.float64)

    @property
    def held_bytes(self) -> int:
        """What is held of the client."""
        return self.bitmap.nbytes
