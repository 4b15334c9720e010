"""Rates of queries: of each client, end user, organisation, network and model, and of all together; all or nothing.

The arithmetic is in `access.limits`. A request that one limit refuses spends nothing of the others; nothing here waits,
so that of any number of requests at once no more are admitted than one after the other.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from palladion.access.limits import SWEEP_SIZE, Rate, States, spent
from palladion.access.networks import caseless, network_of
from palladion.access.pseudonyms import pseudonym
from palladion.clock import Clock
from palladion.gate.callers import Caller
from palladion.gate.problems import Problem
from palladion.policy import ContractPolicy, LimitsPolicy, Policy

BURST_SECONDS = 10.0  # of the rate, where the policy names no burst
STATES_MAX = 1_000_000  # clients, organisations and models: there are as many as the registry and the policy name
USERS_MAX, USERS_OF_ONE_MAX = 262_144, 16_384  # names cost nothing; 64 clients have to work together to fill the room
NETWORKS_MAX, NETWORKS_OF_ONE_MAX = 65_536, 16_384  # likewise addresses, for whoever has a botnet
USERS_CACHED = 16_384  # hashing a name takes 8 µs
SAVED_MAX = 200  # states of others with a client's own; 16 KiB fit into a row

# Limits by name, and as a problem calls them.
WHOSE: Mapping[str, str] = {
    "client": "this client's rate",
    "user": "this end user's rate",
    "organisation": "this organisation's rate",
    "network": "this network's rate",
    "model": "the model's rate",
    "total": "the rate of all together",
}


class _Limit(NamedTuple):
    """A limit beside the client's own: name, rate, states, and what finds the key of whom it concerns, if anybody."""

    name: str
    rate: Rate
    states: States
    key: Callable[[Caller, str, str | None], str | None]


# A limit's name, rate and states, whose state it is, and what it would be.
_Charge = tuple[str, Rate, States, str, float]


class Rates:
    """All rates of a gate. For one event loop."""

    def __init__(self, policy: Policy, clock: Clock, *, pseudonyms: bytes, refused: Counter[str]) -> None:
        """`pseudonyms` is the key of these: no name of an end user is kept. `refused` counts refusals by limit."""
        self.changed: set[str] = set()  # clients whose states are not as they were saved
        self._clock = clock
        self._refused = refused
        self._latest, self._ahead = -math.inf, 0.0
        self._clients = States(STATES_MAX)
        self._states = {
            "user": States(USERS_MAX, USERS_OF_ONE_MAX),
            "organisation": States(STATES_MAX),
            "network": States(NETWORKS_MAX, NETWORKS_OF_ONE_MAX),
            "model": States(STATES_MAX),
            "total": States(1),
        }
        self._touched: dict[str, dict[str, States]] = {}  # by client, the keys of others' states that it spent
        self._touched_max = SWEEP_SIZE
        self._user = lru_cache(USERS_CACHED)(
            lambda client, user: pseudonym(pseudonyms, f"{client}/{caseless(user)}").replace("client:", "user:")
        )
        self.renew(policy)

    def renew(self, policy: Policy) -> None:
        """Go by another policy from now on; what was spent stays spent."""
        limits = policy.limits
        self._own = _divisible(Rate(limits.queries_per_second, limits.burst))
        self._contracts = {
            contract.organisation_and_name: _divisible(_rate_of(contract, limits))
            for contract in policy.contract
            if contract.queries_per_second or contract.burst
        }
        keys: dict[str, Callable[[Caller, str, str | None], str | None]] = {
            "user": lambda caller, model, address: None if caller.user is None else self._user(caller.id, caller.user),
            "organisation": lambda caller, model, address: f"organisation:{caller.client.organisation}",
            "network": lambda caller, model, address: None if address is None else f"network:{network_of(address)}",
            "model": lambda caller, model, address: f"model:{model}",
            "total": lambda caller, model, address: "total:",
        }
        self._limits = [
            _Limit(name, _rate(per_second, getattr(limits, f"{name}_burst")), self._states[name], key)
            for name, key in keys.items()
            if (per_second := getattr(limits, f"{name}_queries_per_second"))
        ]

    def admit(
        self,
        caller: Caller,
        model: str,
        queries: int,
        *,
        rows: int = 1,
        divisor: int = 1,
        user_divisor: int = 1,
        address: str | None = None,
        spending: bool = True,
    ) -> None:
        """Spend `queries` of all limits, or of none; unless `spending`, only see whether it could. Raises Problem.

        The client's own rate is divided by `divisor`; with a `user_divisor`, its end user gets that part of it and no
        more. `address` is the peer's, where it can be believed. A request of
        more `rows` than can ever be asked at once is told so; there are at least as many rows as `queries`.
        """
        now, client = self._now(), caller.id
        own = self._own
        if self._contracts:
            own = self._contracts.get((caller.client.organisation, caller.client.name), own)
        rate = own[divisor]
        state = self._clients.by_key.get(client)
        after = spent(rate, state or 0.0, now, queries)
        refused = (
            after - now > rate.ahead_max
            or rows > rate.burst
            or (state is None and self._clients.wait(client, client, now) > 0)
        )
        charges: list[_Charge] = []
        for name, shared, states, find in self._limits:
            key = find(caller, model, address)
            if key is not None:
                state = states.by_key.get(key)
                value = spent(shared, state or 0.0, now, queries)
                crowded = state is None and states.wait(key, client, now) > 0
                refused = refused or crowded or value - now > shared.ahead_max or rows > shared.burst
                charges.append((name, shared, states, key, value))
        if user_divisor > 1 and caller.user is not None:
            charge = self._of_user(caller.id, caller.user, own[user_divisor], now, queries)
            refused = refused or charge[-1] - now > charge[1].ahead_max or rows > charge[1].burst
            refused = refused or (charge[3] not in charge[2].by_key and charge[2].wait(charge[3], client, now) > 0)
            charges.append(charge)
        if refused:
            charges.append(("client", rate, self._clients, client, after))
            raise self._refusal(charges, client, now, queries, rows)
        # nothing was spent until here, and nothing is refused from here on
        if not spending:
            return
        self._clients.put(client, client, after)
        self.changed.add(client)
        if charges:
            touched = self._touched.get(client)
            if touched is None:
                touched = self._touched[client] = {}
            for _, _, states, key, value in charges:
                states.put(key, client, value)
                touched[key] = states

    def _of_user(self, client: str, user: str, rate: Rate, now: float, queries: int) -> "_Charge":
        """What is spent of an end user's part of a client's rate, beside what each end user may ask."""
        states, key = self._states["user"], f"{self._user(client, user)}/part"
        return "user", rate, states, key, spent(rate, states.by_key.get(key, 0.0), now, queries)

    def _refusal(self, charges: "list[_Charge]", client: str, now: float, queries: int, rows: int) -> Problem:
        """What is told of the limit that one has to wait for longest; coming back earlier would be refused again."""
        longest, refusing = 0.0, ""
        for name, rate, states, key, after in charges:
            if rows > rate.burst:
                self._refused[f"{name}-rate"] += 1
                return Problem("rate-limited", f"{rows} rows are more than can ever be asked at once: send fewer")
            ahead, state = after - now, states.by_key.get(key)
            wait = ahead - rate.refill_seconds if ahead > rate.ahead_max else 0.0
            if state is None:
                wait = max(wait, states.wait(key, client, now))
            elif state - now > rate.refill_seconds:
                # a larger burst than there is now had let it go so far: else it would stand still until that is over
                states.put(key, client, now + rate.refill_seconds)
            if wait > longest:
                longest, refusing = wait, name
        self._refused[f"{refusing}-rate"] += 1
        return Problem("rate-limited", f"{WHOSE[refusing]} is used up", retry_after_seconds=longest)

    def own(self, client: str) -> float:
        """The state of a client's own rate, by the clock as it is."""
        return max(0.0, self._clients.by_key.get(client, 0.0) - self._ahead)

    def shared(self, client: str) -> dict[str, float]:
        """The states of others that a client's queries were spent of, by the clock as it is; the latest, if many."""
        touched = self._touched.get(client)
        if touched is None:
            return {}
        found = {key: states.by_key.get(key, 0.0) - self._ahead for key, states in touched.items()}
        if len(found) <= SAVED_MAX:
            return found
        return dict(sorted(found.items(), key=lambda item: -item[1])[:SAVED_MAX])

    def restore(self, client: str, own: float, shared: Mapping[str, float]) -> None:
        """Take up saved states. Of what several clients have spent together, the latest state counts."""
        now = self._now()
        if own > now:
            self._take(self._clients, client, client, own, now)
        for key, state in shared.items():
            states = self._states.get(key.partition(":")[0])
            if states is not None and self._take(states, key, client, state, now):
                self._touched.setdefault(client, {})[key] = states

    def forget(self) -> None:
        """Let go of what does not count any more, of those who asked since the last time; of all, now and then."""
        now = self._now()
        everybody = len(self._touched) >= self._touched_max
        for client in list(self._touched) if everybody else self.changed & self._touched.keys():
            touched = self._touched[client]
            for key in [key for key, states in touched.items() if states.by_key.get(key, 0.0) <= now]:
                del touched[key]
            if not touched:
                del self._touched[client]
        if everybody:
            self._touched_max = 2 * len(self._touched) + SWEEP_SIZE

    def states(self) -> Iterator[tuple[str, Mapping[str, float]]]:
        """What is held, by limit, for people and tests."""
        yield "client", self._clients.by_key
        for name, states in self._states.items():
            yield name, states.by_key

    @staticmethod
    def _take(states: States, key: str, owner: str, state: float, now: float) -> bool:
        if state <= max(now, states.by_key.get(key, 0.0)) or states.wait(key, owner, now):
            return False
        states.put(key, owner, state)
        return True

    def _now(self) -> float:
        """The time, which never goes back: where the clock was set back, it goes on from where it was."""
        now = self._clock.now().timestamp() + self._ahead
        if now < self._latest:
            self._ahead += self._latest - now
            now = self._latest
        self._latest = now
        return now


def _divisible(rate: Rate) -> "_Divided":
    return _Divided({1: rate})


class _Divided(dict[int, Rate]):
    """A rate by what it is divided by, each made once."""

    def __missing__(self, divisor: int) -> Rate:
        rate = self[divisor] = self[1].divided(divisor)
        return rate


def _rate(per_second: float, burst: float) -> Rate:
    return Rate(per_second, burst or max(1.0, BURST_SECONDS * per_second))


def _rate_of(contract: ContractPolicy, limits: LimitsPolicy) -> Rate:
    if contract.queries_per_second:
        return _rate(contract.queries_per_second, contract.burst)
    return Rate(limits.queries_per_second, contract.burst)
