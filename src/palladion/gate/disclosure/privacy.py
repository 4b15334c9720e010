"""What noise with a differential-privacy guarantee has to offer, and the account of what was spent of it.

No mechanism is here: noise without a proof would be none. Basic composition (Dwork and Roth 2014, Theorem 3.16): what
was spent adds up, whatever the order.
"""

import math
from typing import Any, Protocol

from numpy.typing import NDArray


class Mechanism(Protocol):
    """Noise with a proof."""

    @property
    def epsilon(self) -> float:
        """What one row costs at most."""
        ...

    def disclose(self, scores: NDArray[Any]) -> NDArray[Any]:
        """Scores (rows, …) with noise, from randomness of its own. Costs `epsilon` for each row."""
        ...


class PrivacyAccount:
    """What was spent of a privacy budget, by client."""

    def __init__(self, epsilon_max: float) -> None:
        """`epsilon_max` is the budget of each client. Raises ValueError for one that is no positive number."""
        if not 0 < epsilon_max < math.inf:
            raise ValueError(f"a privacy budget of {epsilon_max} was got, a positive number was expected")
        self._epsilon_max = epsilon_max
        self._spent: dict[str, float] = {}

    def spend(self, client: str, epsilon: float, rows: int) -> bool:
        """Spend `epsilon` for each of `rows`, or nothing where so much is not left: then nothing may be disclosed."""
        if not 0 < epsilon < math.inf or rows < 1:
            raise ValueError(f"{rows} rows of epsilon {epsilon} cannot be spent")
        spent = math.fsum([self._spent.get(client, 0.0), epsilon * rows])
        if spent > self._epsilon_max:
            return False
        self._spent[client] = spent
        return True

    def spent(self, client: str) -> float:
        """What a client has had of its budget."""
        return self._spent.get(client, 0.0)
