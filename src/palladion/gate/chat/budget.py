"""What a budget is: a part is reserved before the model is asked, and settled when it is known what it cost.

Who has how much is decided elsewhere (`gate.budgets`); without a budget nothing is counted.
"""

from typing import Protocol

from palladion.gate.callers import Caller
from palladion.policy import RoutePolicy


class Reservation(Protocol):
    """What is set aside for one request. Settled once; a second time does nothing."""

    def exceeded(self, tokens: int) -> bool:
        """Whether so many tokens are more than there are: what was reserved and what is left beside it."""
        ...

    def settle(self, tokens: int, *, queries: float | None = None, information: float = 0) -> None:
        """Charge what was used, more or less than was reserved, and give back the rest; None is as reserved."""
        ...


class Budget(Protocol):
    """Where it is reserved: `stages.Stages` is one."""

    def reserve(
        self, caller: Caller, route: RoutePolicy, *, queries: float, tokens: float, information: float
    ) -> Reservation:
        """Set `queries`, `tokens` and `information` aside. Raises Problem where they are not left."""
        ...


class _Free:
    """A reservation of what costs nothing."""

    def exceeded(self, tokens: int) -> bool:
        return False

    def settle(self, tokens: int, *, queries: float | None = None, information: float = 0) -> None:
        pass


class Unlimited:
    """No budget. Satisfies `Budget`."""

    def reserve(
        self, caller: Caller, route: RoutePolicy, *, queries: float, tokens: float, information: float
    ) -> Reservation:
        """Whatever is asked."""
        return _FREE


_FREE = _Free()
