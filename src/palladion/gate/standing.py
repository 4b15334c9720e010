"""Puts what the watch asks for into effect: a standing changes for one client, or for a whole campaign, once.

Where a client is only observed, the change is proposed in the ledger and nothing else happens. A client under contract
is degraded at most, and its suspension is proposed, for a person to decide.
"""

from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime

from palladion.gate.callers import WATCH, Caller
from palladion.gate.directory import Directory
from palladion.gate.disclosure import rate_divisor
from palladion.gate.modes import Modes
from palladion.policy import RoutePolicy, WatchPolicy
from palladion.registry import StandingChange
from palladion.registry.rows import Standing
from palladion.watch.response import Verdict, next_standing, rank
from palladion.watch.watch import Observation
from palladion.watch.why import Why

# Of campaigns that need not be looked through again for now: a set of so many takes some 6 MB.
SETTLED_MEMBERS_MAX = 100_000
PROPOSED_MAX = 100_000  # some 20 MB; what was proposed before is proposed again: end users can be invented
UNDER_CONTRACT = "no further than degraded: the client has a contract, so that a person has to suspend it"
_Settled = tuple[str, str, Standing, frozenset[str]]  # a route and its mode, the standing that was asked for, of whom


@dataclass(frozen=True)
class Step:
    """A change of standing, how the client stood before, and the route on which it was only proposed, if it was.

    `for_a_person` says that a route which enforces would have made it, had the client no contract. `why` is None for
    what rests on nothing that was observed: a standing that rises.
    """

    before: Caller
    change: StandingChange
    proposed_on: str | None = None
    for_a_person: bool = False
    why: Why | None = None

    @property
    def raised(self) -> bool:
        """Whether the client stands better than before."""
        return rank(self.change.standing) < rank(self.before.standing)


class Standings:
    """Decides which clients change, and remembers what was proposed already. Changes the directory, writes nothing."""

    def __init__(
        self, directory: Directory, policy: WatchPolicy, modes: Modes, *, contracts: Collection[tuple[str, str]] = ()
    ) -> None:
        """`contracts` are organisation and name of the clients that only a person may suspend."""
        self._directory = directory
        self._policy, self._modes, self._contracts = policy, modes, contracts
        self._proposed: dict[tuple[str, str], Standing] = {}
        self._settled: set[_Settled] = set()
        self._settled_members = 0
        self._settled_version = -1

    def renew(self, policy: WatchPolicy, modes: Modes, *, contracts: Collection[tuple[str, str]]) -> None:
        """Go by another policy from now on; what was proposed stays proposed."""
        self._settled.clear()  # who was only observed may be enforced now
        self._policy, self._modes, self._contracts = policy, modes, contracts

    def settle(
        self, caller: Caller, concerned: AbstractSet[str], route: RoutePolicy, observation: Observation, now: datetime
    ) -> list[Step]:
        """The changes that an observation brings: in effect in the directory when this returns, or only proposed.

        `concerned` are the ids of those for whom the verdict counts: the caller, or everybody in its campaign.
        """
        steps: list[Step] = []
        settled: _Settled | None = None
        if len(concerned) > 1:
            settled = (route.route, route.mode, observation.verdict.standing, frozenset(concerned))
        again = settled is not None and self._is_settled(settled)
        for client in (caller.id,) if again else sorted(concerned):
            known = self._directory.callers.get(client)
            if known is None:
                continue
            # an end user is observed, and under contract, as its reseller is
            mode = self._modes.of(self._directory.reseller_of(known), route)
            target = self._target(known, observation, caller, now)
            reason = observation.verdict.reason
            if mode == "enforce" and target == "suspended" and self._has_contract(known):
                steps += self._ask(known, route, observation.verdict, now)
                target = max(known.standing, "degraded", key=rank)
                reason = f"{reason}; {UNDER_CONTRACT}"
            if mode == "enforce" and target != known.standing:
                if rank(target) < rank(known.standing):
                    self._proposed.pop((client, route.route), None)  # what was asked of a person is over
                steps.append(Step(known, self._change(known, target, reason, now)))
            elif mode == "observe" and self._is_news(known, target, route):
                proposal = StandingChange(client, target, reason, WATCH, now)
                steps.append(Step(known, proposal, route.route))
        if settled is not None and not again and not steps:
            self._remember(settled)
        return steps

    def may_rise(self, caller: Caller, now: datetime) -> bool:
        """Whether an observation could raise a client now, or the end user that it asks for."""
        if caller.end_user is not None:
            own = self._directory.callers.get(caller.id)
            return self.may_rise(caller.end_user, now) or (own is not None and self.may_rise(own, now))
        below = caller.standing not in {"trusted", "suspended"} and caller.decided_by == WATCH
        return below and (now - caller.since).total_seconds() / 3600 >= self._policy.recover_hours

    def rate_divisors(self, caller: Caller, route: RoutePolicy) -> tuple[int, int]:
        """What a caller's rate is divided by for its standing on a route, and for that of its end user alone.

        An end user that stands lower than its reseller gets a part of that one's rate, and the others what they had.
        """
        divisor = rate_divisor(self._modes.effective(caller, route))
        if caller.end_user is None or divisor == 1:
            return divisor, 1
        own = self._directory.callers.get(caller.id)
        whole = divisor if own is None else rate_divisor(self._modes.effective(own, route))
        return whole, divisor if divisor > whole else 1

    def revert(self, steps: Iterable[Step]) -> None:
        """Take back what could not be recorded, unless more has happened since. The evidence will ask for it again."""
        self._settled.clear()
        for step in steps:
            client = step.change.client
            if step.proposed_on is not None:
                self._proposed.pop((client, step.proposed_on), None)
            elif (known := self._directory.callers.get(client)) and known.since == step.change.at:
                self._directory.put(step.before)

    def forget(self, client: str) -> None:
        """Propose anew what was proposed for a client before; for one whose standing a person raised."""
        self._settled.clear()
        self._proposed = {place: standing for place, standing in self._proposed.items() if place[0] != client}

    def _is_settled(self, settled: _Settled) -> bool:
        """Whether this verdict changed nobody when it was last given, and could not change anybody but the caller now.

        A campaign can have thousands of members, each of whom asks: they must not all be looked through each time.
        """
        if self._settled_version != self._directory.version:
            self._settled.clear()
        return settled in self._settled

    def _remember(self, settled: _Settled) -> None:
        if not self._settled or self._settled_members + len(settled[-1]) > SETTLED_MEMBERS_MAX:
            self._settled, self._settled_members = set(), 0
        self._settled.add(settled)
        self._settled_members += len(settled[-1])
        self._settled_version = self._directory.version

    def _target(self, known: Caller, observation: Observation, caller: Caller, now: datetime) -> Standing:
        quiet_hours = 0.0
        if known.id == caller.id and known.decided_by == WATCH:
            # what a person decided, time does not undo
            since = (now - known.since).total_seconds() / 3600
            quiet_hours = min(observation.quiet_hours, since)
        return next_standing(known.standing, observation.verdict, quiet_hours=quiet_hours, policy=self._policy)

    def _has_contract(self, known: Caller) -> bool:
        client = self._directory.reseller_of(known).client
        return (client.organisation, client.name) in self._contracts

    def _ask(self, known: Caller, route: RoutePolicy, verdict: Verdict, now: datetime) -> list[Step]:
        """Propose to suspend a client, unless that was proposed already, or done."""
        if not self._is_news(known, "suspended", route):
            return []
        asked = StandingChange(known.id, "suspended", verdict.reason, WATCH, now)
        return [Step(known, asked, route.route, for_a_person=True)]

    def _change(self, known: Caller, target: Standing, reason: str, now: datetime) -> StandingChange:
        if rank(target) < rank(known.standing):
            reason = f"nothing suspicious for {self._policy.recover_hours} hours"
        change = StandingChange(known.id, target, reason, WATCH, now)
        self._directory.change(change)
        return change

    def _is_news(self, known: Caller, target: Standing, route: RoutePolicy) -> bool:
        place = (known.id, route.route)
        if rank(target) <= max(rank(known.standing), rank(self._proposed.get(place, "trusted"))):
            return False
        self._proposed[place] = target
        while len(self._proposed) > PROPOSED_MAX:
            self._proposed.pop(next(iter(self._proposed)))
        return True
