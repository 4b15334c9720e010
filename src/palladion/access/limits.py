"""Rate limits by GCRA, the generic cell rate algorithm (ITU-T I.371 Annex A): one number of state for each limit.

Pure: the caller hands in the time. The state is the theoretical arrival time, in seconds; `States` holds those of one
limit, in bounded memory.
"""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

SWEEP_SIZE = 1024  # states up to which nothing is gained by forgetting: some 100 KiB
ROUNDING_SECONDS = 1e-6  # seconds since 1970 in a double are exact to 2^-22 s: a wait below that is none
SWEEP_SECONDS = 1.0  # looking at 65,536 states takes 3 ms, and a crowd of newcomers must not make it a habit


@dataclass(frozen=True)
class Rate:
    """`per_second` units on average, and `burst` units at once."""

    per_second: float
    burst: float
    unit_seconds: float = field(init=False, repr=False)
    refill_seconds: float = field(init=False, repr=False)
    ahead_max: float = field(init=False, repr=False)  # seconds by which a state can be ahead of the time

    def __post_init__(self) -> None:
        if not (math.isfinite(self.per_second) and math.isfinite(self.burst) and self.per_second > 0 < self.burst):
            raise ValueError(f"a rate needs two positive numbers, got {self.per_second} and {self.burst}")
        object.__setattr__(self, "unit_seconds", 1 / self.per_second)
        object.__setattr__(self, "refill_seconds", self.burst / self.per_second)
        object.__setattr__(self, "ahead_max", self.refill_seconds + ROUNDING_SECONDS)

    def divided(self, divisor: float) -> "Rate":
        """The same limit for somebody who gets only a part of it; a burst of one unit always stays possible."""
        return Rate(self.per_second / divisor, max(1.0, self.burst / divisor))


class Admission(NamedTuple):
    """What a limit says: the new state, and the seconds to wait; 0 means admitted, otherwise nothing was spent."""

    state: float
    wait_seconds: float

    @property
    def admitted(self) -> bool:
        """Whether the units were spent."""
        return self.wait_seconds == 0


def admit(rate: Rate, state: float, now: float, units: float) -> Admission:
    """Spend `units` at the time `now`, or say how long to wait. More units than the burst are never admitted (inf).

    A clock that was set back cannot lock anybody out for longer than the burst takes to refill.
    """
    if units <= 0:
        raise ValueError(f"{units} units cannot be spent")
    after = spent(rate, state, now, units)
    arrival = after - units * rate.unit_seconds
    if units > rate.burst:
        return Admission(arrival, math.inf)
    wait = after - now - rate.refill_seconds
    return Admission(arrival, wait) if wait > ROUNDING_SECONDS else Admission(after, 0.0)


def spent(rate: Rate, state: float, now: float, units: float) -> float:
    """The state that spending `units` leaves; they may be spent if it is no further ahead than `rate.ahead_max`.

    What `admit` does, for those who ask many limits for each request: a fifth of the time.
    """
    full = now + rate.refill_seconds
    # a state further ahead than a full burst can only come from a clock that went back, or from a larger burst
    return (now if state < now else state if state < full else full) + units * rate.unit_seconds


class States:
    """The states of one limit by key, at most `states_max`, and at most `owned_max` that one owner has brought in.

    A state whose time is past is that of somebody unknown: only such are forgotten, because whoever else was would
    begin anew with a full burst. Where none can be forgotten, newcomers have to wait.
    """

    def __init__(self, states_max: int, owned_max: int | None = None) -> None:
        self.by_key: dict[str, float] = {}  # to be read; written by `put`, and of known keys directly where time counts
        self._owner: dict[str, str] = {}  # by key; empty unless there is an `owned_max`
        self._owned: Counter[str] = Counter()
        self._states_max = states_max
        self._owned_max = owned_max
        self._sweep_size = min(SWEEP_SIZE, states_max)
        self._sweep_at = -math.inf

    def __len__(self) -> int:
        return len(self.by_key)

    def wait(self, key: str, owner: str, now: float) -> float:
        """The seconds until a state of `key` may be `put`; 0 at once."""
        states = self.by_key
        if key in states or (len(states) < self._sweep_size and self._owned_max is None):
            return 0.0
        if now >= self._sweep_at and (len(states) >= self._sweep_size or self._is_full_of(owner)):
            self.sweep(now)
            self._sweep_at = now + SWEEP_SECONDS
        if len(states) < self._states_max and not self._is_full_of(owner):
            return 0.0
        return self._sweep_at - now

    def put(self, key: str, owner: str, state: float) -> None:
        """Keep a state. A newcomer's only if there was no `wait`."""
        if self._owned_max is not None and key not in self.by_key:
            self._owner[key] = owner
            self._owned[owner] += 1
        self.by_key[key] = state

    def sweep(self, now: float) -> None:
        """Forget every state whose time is past."""
        for key in [key for key, state in self.by_key.items() if state <= now]:
            del self.by_key[key]
            if self._owned_max is not None:
                self._owned[self._owner.pop(key)] -= 1
        self._owned = +self._owned
        self._sweep_size = min(self._states_max, 2 * len(self.by_key) + SWEEP_SIZE)

    def _is_full_of(self, owner: str) -> bool:
        return self._owned_max is not None and self._owned[owner] >= self._owned_max
