"""What the watch needs of a calibration, whatever a model is asked: numbers (`calibration`) or texts (`text.watched`).

Everything that differs between the two kinds is behind this: what is remembered of a client and how requests are
measured, which scores come of it, and how these are weighed.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from palladion.watch.calibration import About
from palladion.watch.client import ClientState, Scored, Weighs
from palladion.watch.drift import Reference
from palladion.watch.rows import Rows


class MemberTest(Protocol):
    """What members add to a test of their group that looks at each of them (`shares`)."""

    def parts(self, sums: Rows, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """What members add (n, 3) whose last scores sum up to `sums` (n,) over `counts` (n,) queries."""
        ...

    def part(self, total: float, count: int) -> tuple[int, int, int]:
        """The same of one member."""
        ...


class AnyCalibration(Protocol):
    """A calibration of either kind: `Calibration`, `WatchedTexts`."""

    @property
    def about(self) -> About:
        """What it is of and from."""
        ...

    @property
    def words(self) -> Mapping[str, str]:
        """The scores in order by name, and what an unusual one means to a person who asks why."""
        ...

    @property
    def shares(self) -> MemberTest:
        """The test of a group that looks at each member."""
        ...

    @property
    def drift(self) -> Reference | None:
        """What the drift test holds clients against; None where it has none."""
        ...

    @property
    def beginnings(self) -> Weighs:
        """What weighs a client's first queries, for the drift test."""
        ...

    def new_state(self) -> ClientState:
        """The state of a client that never asked."""
        ...

    def fits(self, state: ClientState) -> bool:
        """Whether a saved state is one of this calibration, as far as its sizes tell."""
        ...

    def measure(self, requests: Sequence[tuple[ClientState, Any]]) -> list[Scored]:
        """Measure requests of this kind, in order, each with the state of who asked, whose memory remembers them.

        Where one cannot be measured, this raises, and nothing is remembered of any.
        """
        ...

    def statistic(self, sums: Rows, counts: NDArray[np.int64]) -> Rows:
        """One number (n,) of the summed scores (n, scores) of clients over `counts` (n,) queries, 1 or more each.

        The larger, the more unusual.
        """
        ...

    def p_value(self, statistic: float) -> float:
        """The p-value of a client whose statistic has been at most that."""
        ...

    @property
    def rate_min(self) -> float:
        """The smallest p-value that a client can have."""
        ...

    def threshold(self, alpha: float) -> float:
        """What the statistic of so small a share of honest clients is ever larger than."""
        ...

    def group_p_values(
        self, sums: Rows, counts: NDArray[np.int64], squares: NDArray[np.int64], shares: NDArray[np.int64]
    ) -> Rows:
        """The p-value (n,) of a group after each of several queries (`calibration.group_p_values`)."""
        ...

    def deviations(self, sums: Rows, count: int) -> Rows:
        """How many standard deviations of an honest client each mean score (scores,) is off; for explanations."""
        ...
