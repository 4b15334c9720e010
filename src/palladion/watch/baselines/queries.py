"""What the baselines look at in a client's queries, and what they all give: one figure after each query.

A detector is what all clients have in common; a session is what it holds of one of them, bounded whatever comes. Where
queries are cut makes no difference but for rounding. Exact repeats are for the caller to leave out, as the watch does.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from palladion.watch.rows import Rows


@dataclass(frozen=True, eq=False)
class Queries:
    """Queries in order: `inputs` (queries, inputs), whitened `coordinates` (queries, kept), classes `named` (queries,).

    Coordinates are those of `features`. Raises ValueError where these are not of as many queries.
    """

    inputs: Rows
    coordinates: Rows
    named: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not len(self.inputs) == len(self.coordinates) == len(self.named):
            sizes = f"{len(self.inputs)} inputs, {len(self.coordinates)} coordinates, {len(self.named)} classes"
            raise ValueError(f"{sizes}; expected one of each for every query")

    def __len__(self) -> int:
        return len(self.inputs)


class Session(Protocol):
    """One client."""

    def take(self, queries: Queries) -> Rows:
        """Take in queries: the statistic (queries,) after each, the larger the more suspicious; -inf before any."""
        ...

    @property
    def held_bytes(self) -> int:
        """What is held of the client."""
        ...


class Detector(Protocol):
    """One published method, fitted."""

    def begin(self) -> Session:
        """A client of whom nothing is known."""
        ...
