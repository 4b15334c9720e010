"""Whether a client is only observed on a route, and what its standing means there: as its contract says, or the route.

A client that is observed is withheld nothing for suspicion; one that a person suspended is let in nowhere.
"""

from typing import Literal

from palladion.gate.callers import Caller
from palladion.gate.disclosure import LEVELS, Level
from palladion.policy import Policy, RoutePolicy
from palladion.registry.rows import Standing

Mode = Literal["observe", "enforce"]


class Modes:
    """Of one policy."""

    def __init__(self, policy: Policy) -> None:
        self._own: dict[tuple[str, str], Mode] = {
            item.organisation_and_name: item.mode for item in policy.contract if item.mode
        }

    def of(self, caller: Caller, route: RoutePolicy) -> Mode:
        """Which of the two holds for a caller on a route."""
        own = self._own.get((caller.client.organisation, caller.client.name)) if self._own else None
        return own or route.mode

    def effective(self, caller: Caller, route: RoutePolicy) -> Standing:
        """The standing that counts for a caller on a route: trusted for who is observed, unless it is suspended."""
        if caller.standing not in {"trusted", "suspended"} and self.of(caller, route) == "observe":
            return "trusted"
        return caller.standing

    def level(self, caller: Caller, route: RoutePolicy) -> Level | None:
        """How much an answer discloses to a caller on a route; None for nothing: it is suspended."""
        return LEVELS.get(self.effective(caller, route))
