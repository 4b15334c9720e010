"""What do limits cost a request: the client's own rate, all six rates, all budgets; and what does a state take up?

One client asks over and over, with an end user and an address. The reference is what nobody gets around: reading the
clock, and one look at a dictionary of floats.
"""

import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from bench.report import Report, interleaved, main
from palladion.access.limits import States
from palladion.clock import SystemClock
from palladion.gate.callers import Caller
from palladion.gate.limits import Limits
from palladion.policy import LimitsPolicy, Policy
from palladion.registry import Client

OWN_US_MAX, ALL_US_MAX = 3, 8  # of 180 that a gate has for a whole request
WIDE: dict[str, Any] = {"queries_per_second": 1e6, "burst": 1_000_000}  # nobody is refused: a refusal is cheaper
RATES = {f"{name}_queries_per_second": 1e6 for name in ("user", "organisation", "network", "model", "total")}
BUDGETS = {
    f"{whose}{unit}_per_day": 10**12 for whose in ("", "organisation_") for unit in ("queries", "tokens", "information")
}
STATES = 100_000
SINCE = datetime(2026, 11, 24, tzinfo=UTC)


def measure(report: Report) -> None:
    """Fill the report."""
    asks = 1000 if report.quick else 5000
    own, every = _limits(**WIDE), _limits(**WIDE, **RATES, **BUDGETS, model_requests_max=100)
    runs: dict[str, Callable[[], object]] = {
        "reference": _reference(asks),
        "own": _admitting(own, asks),
        "all": _admitting(every, asks),
        "none reserved": _reserving(own, asks),
        "reserved": _reserving(every, asks),
        "room": _entering(own, asks),
    }
    times = interleaved(runs, repeats=9 if report.quick else 41)
    reference = times["reference"]
    report.add("reading the clock and a float", reference.median / asks * 1e6, "µs CPU", reference=reference.noise)

    def row(run: str, name: str, bar: float | None = None) -> None:
        time = times[run]
        beside = f"{time.beside(reference, 'the reference')}; best {time.best / asks * 1e6:.1f}"
        if bar is None:
            report.add(name, time.median / asks * 1e6, "µs CPU", reference=beside)
        else:
            report.at_most(name, time.median / asks * 1e6, "µs CPU", bar, reference=beside)

    row("own", "admitted by the client's rate alone", OWN_US_MAX)
    row("all", "admitted by all six rates", ALL_US_MAX)
    row("none reserved", "without budgets: reserved, settled, released")
    row("reserved", "six budgets and a model's place: reserved, settled, released")
    row("room", "a place among all requests")
    report.add("memory of one state", _state_bytes(), "bytes", reference=f"{STATES:,} states with owners")


def _limits(**limits: Any) -> Limits:
    return Limits(Policy(limits=LimitsPolicy(**limits)), SystemClock(), pseudonyms=bytes(32), work=bytes(32))


def _caller() -> Caller:
    client = Client("0011223344556677", "acme", "web", (), "trusted", SINCE, None)
    return Caller(client, "trusted", SINCE, "user:bench", user="alice@example.com")


def _reference(asks: int) -> Callable[[], None]:
    clock, states = SystemClock(), {"0011223344556677": 0.0}

    def run() -> None:
        for _ in range(asks):
            states["0011223344556677"] = max(states["0011223344556677"], clock.now().timestamp())

    return run


def _admitting(limits: Limits, asks: int) -> Callable[[], None]:
    admit, caller = limits.rates.admit, _caller()

    def run() -> None:
        for _ in range(asks):
            admit(caller, "fraud", 1, address="192.0.2.7")

    return run


def _reserving(limits: Limits, asks: int) -> Callable[[], None]:
    budgets, caller = limits.budgets, _caller()

    def run() -> None:
        for _ in range(asks):
            with budgets.open(caller, "fraud", seconds=20) as held:
                held.reserve(queries=1, information=1)
                held.begin()
                held.settle(information=0.5)

    return run


def _entering(limits: Limits, asks: int) -> Callable[[], None]:
    places = limits.places

    def run() -> None:
        for _ in range(asks):
            with places.room("0011223344556677"):
                pass

    return run


def _state_bytes() -> float:
    tracemalloc.start()
    states = States(STATES, STATES)
    for number in range(STATES):
        states.put(f"user:{number:020x}", "0011223344556677", 1_780_000_000.0 + number)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return taken / STATES


if __name__ == "__main__":
    main("limits", (__doc__ or "").partition("\n")[0], measure)
