"""Rate limits by GCRA, the generic cell rate algorithm (ITU-T I.371 Annex A): one number of state for each limit.

Pure: the caller keeps the state and hands in the time. The state is the theoretical arrival time, in seconds.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """`per_second` units on average, and `burst` units at once."""

    per_second: float
    burst: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.per_second) and math.isfinite(self.burst) and self.per_second > 0 < self.burst):
            raise ValueError(f"a rate needs two positive numbers, got {self.per_second} and {self.burst}")

    def divided(self, divisor: float) -> "Rate":
        """The same limit for somebody who gets only a part of it; a burst of one unit always stays possible."""
        return Rate(self.per_second / divisor, max(1.0, self.burst / divisor))


@dataclass(frozen=True)
class Admission:
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
    refill_seconds = rate.burst / rate.per_second
    # a state further ahead than a full burst can only come from a clock that went back, or from a larger burst
    arrival = min(max(state, now), now + refill_seconds)
    if units > rate.burst:
        return Admission(arrival, math.inf)
    after = arrival + units / rate.per_second
    wait = after - refill_seconds - now
    # seconds since 1970 in a double are exact to 2^-22 s: a wait below that is rounding
    return Admission(arrival, wait) if wait > 1e-6 else Admission(after, 0.0)
