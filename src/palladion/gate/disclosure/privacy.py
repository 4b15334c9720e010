"""What noise with a differential-privacy guarantee has to offer, and what budgets allow of it.

Two sums of everything answered are kept: of ε (basic composition: Dwork and Roth 2014, theorem 3.16) and of ρ, which
concentrated differential privacy adds up as well (Bun and Steinke, TCC 2016). What was spent is the smaller of the two
figures they come to. Both hold for questions that depend on earlier answers; what one answer costs is the operator's
choice and does not depend on any.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from palladion.private.dp.accounting import zcdp_epsilon
from palladion.registry.privacy import PrivacySpent


class Mechanism(Protocol):
    """Noise with a proof."""

    @property
    def epsilon(self) -> float:
        """What one row costs at most."""
        ...

    def disclose(self, scores: NDArray[Any]) -> NDArray[Any]:
        """Scores (rows, …) with noise, from randomness of its own. Costs `epsilon` for each row."""
        ...


@dataclass(frozen=True)
class PrivacyBudget:
    """How much may be spent on a model: by each client, and by all together."""

    epsilon_per_client: float
    epsilon_total: float
    delta: float

    def __post_init__(self) -> None:
        for epsilon in (self.epsilon_per_client, self.epsilon_total):
            if not 0 < epsilon < math.inf:
                raise ValueError(f"a privacy budget of {epsilon} was got, a positive number was expected")
        if not 0 < self.delta < 1:
            raise ValueError(f"δ is {self.delta}, between 0 and 1 was expected")

    def allows(self, own: PrivacySpent, together: PrivacySpent) -> bool:
        """Whether what a client, and all together, would have spent is within both budgets."""
        within = spent_epsilon(own, self.delta) <= self.epsilon_per_client
        return within and spent_epsilon(together, self.delta) <= self.epsilon_total


def spent_epsilon(spent: PrivacySpent, delta: float) -> float:
    """What was spent, at δ: the smaller of what the two compositions come to."""
    if spent.answers == 0:
        return 0.0
    return min(spent.epsilon, zcdp_epsilon(spent.rho, delta))


def cost_of(epsilon: float, rho: float, rows: int) -> PrivacySpent:
    """What so many rows cost. Raises ValueError for what is no cost."""
    if not epsilon > 0 or not 0 < rho < math.inf or rows < 1:
        raise ValueError(f"{rows} rows of ε {epsilon} and ρ {rho} cannot be spent")
    return PrivacySpent(rows, epsilon * rows, rho * rows)


def answers_within(epsilon: float, rho: float, budget: float, delta: float, *, most: int = 10_000_000) -> int:
    """How many answers a budget buys, up to `most`."""
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        within = spent_epsilon(cost_of(epsilon, rho, middle), delta) <= budget
        low, high = (middle, high) if within else (low, middle)
    return low
