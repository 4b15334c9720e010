"""A client that asks for very long: how often is an honest one ever disturbed, and what does a query cost then?

Honest clients of a table of card payments (bench/watch_worlds.py) ask for a hundred epochs, in one style or in a style
that drifts; beside that what is promised, a rate for each epoch. Then the cost of a query to the watch itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import cycle, islice

import numpy as np
from numpy.typing import NDArray

from bench.report import Report, interleaved, main
from bench.watch_chain import Chain, Sizes, ask_honestly
from bench.watch_worlds import payments_world
from palladion.policy import WatchPolicy
from palladion.redteam.people import ask, stranger
from palladion.watch.calibration import About, Calibration
from palladion.watch.client import ClientState
from palladion.watch.watch import Asker, Watch

MODEL, NOW = "bench", 1_780_000_000.0
DRIFT = 1.0  # deviations that every number of a style goes, up or down, while the client asks
ASKED = (1_000, 100_000, 10_000_000)  # queries before those whose cost is measured
FLAT = 1.25  # times the cost at first
AT_ONCE = 256  # queries of a request
ROWS = 8 * AT_ONCE  # that are asked in turns where cost is measured: none is remembered when it comes again
Rows = NDArray[np.float64]


@dataclass(frozen=True)
class _Size:
    """How much is simulated."""

    rows: int
    honest: Sizes
    clients: int
    epochs: int
    cost_queries: int


QUICK = _Size(rows=2000, honest=Sizes(fitted=200, clients=499, horizon=100), clients=20, epochs=20, cost_queries=200)
LONG = _Size(
    rows=20_000, honest=Sizes(fitted=400, clients=1999, horizon=1000), clients=60, epochs=100, cost_queries=500
)


def measure(report: Report) -> None:
    """Fill the report."""
    size = QUICK if report.quick else LONG
    generator = np.random.default_rng(report.seed)
    world = payments_world(generator, rows=size.rows)
    chain = Chain.simulate(world, size.honest, generator)
    for name, drift in (("always in one style", 0.0), ("whose style drifts by one deviation", DRIFT)):
        _add_disturbed(report, chain, size, name, drift, generator)
    _add_costs(report, chain, size, generator)


def _add_disturbed(
    report: Report, chain: Chain, size: _Size, name: str, drift: float, generator: np.random.Generator
) -> None:
    rate = chain.rate(WatchPolicy().alpha_suspected)
    threshold, horizon = chain.threshold(rate), chain.horizon
    total = size.epochs * horizon
    first = np.array([_first(chain, total, drift, threshold, generator) for _ in range(size.clients)])
    ever, early = (100 * float((first < limit).mean()) for limit in (total, horizon))
    promised = 100 * min(1.0, size.epochs * rate)
    what = f"honest clients ever disturbed in {total:,} queries, {name}"
    beside = (
        f"{(first < total).sum()} of {size.clients}; {early:.3g} % in the first of {size.epochs} epochs of {horizon:,} "
        f"distinct queries; a rate of {100 * rate:.2g} % in each promises {promised:.3g} %"
    )
    # the promise is of a mean over clients, and so many show it with so much chance
    noise = 196 * (promised / 100 * max(0.0, 1 - promised / 100) / size.clients) ** 0.5
    report.at_most(what, ever, "%", min(100.0, promised + noise), reference=beside)


def _first(chain: Chain, total: int, drift: float, threshold: float, generator: np.random.Generator) -> int:
    """About how many queries an honest client has asked when it is first disturbed; `total` if it never is."""
    state, person = ClientState.of(chain.instruments), stranger(chain.world.pool, generator)
    way = drift * generator.choice([-1.0, 1.0], len(person.style))
    for start in range(0, total, AT_ONCE):
        now = replace(person, style=person.style + way * start / total)
        rows = ask(chain.world.pool, now, AT_ONCE, generator).rows
        inputs, answers = rows.astype(np.float64), chain.world.answers(rows)
        state.read(chain.instruments, inputs, answers, horizon=chain.horizon, threshold=threshold)
        if state.suspected:
            return start
    return total


def _add_costs(report: Report, chain: Chain, size: _Size, generator: np.random.Generator) -> None:
    """What one more query costs, asked alone by a client that has asked so many before."""
    rows = ask_honestly(chain.world, ROWS, generator)
    inputs, answers = rows.astype(np.float64), chain.world.answers(rows)
    saved = _states(chain, inputs, answers)
    runs = {
        f"{asked:,}": _observing(chain, state, inputs, answers, size.cost_queries) for asked, state in saved.items()
    }
    times = interleaved(runs, repeats=5)
    first = times[f"{ASKED[0]:,}"]
    for asked, state in saved.items():
        time = times[f"{asked:,}"]
        how = "set up by hand from that of 100,000" if asked == ASKED[-1] else "asked one after the other"
        beside = f"{time.beside(first, f'after {ASKED[0]:,}')}; state of {len(state):,} bytes, {how}"
        what, micros = f"one query after {asked:,}", 1e6 * time.median / size.cost_queries
        if asked == ASKED[0]:
            report.add(what, micros, "us of CPU", reference=beside)
        else:
            bar = FLAT * 1e6 * first.median / size.cost_queries
            report.at_most(what, micros, "us of CPU", bar, reference=beside)


def _states(chain: Chain, inputs: Rows, answers: Rows) -> dict[int, bytes]:
    """Saved states of a client that has asked so many queries: the same rows in turns, but no exact repeats of 256."""
    state, found = ClientState.of(chain.instruments), {}
    for asked in ASKED[:-1]:
        while state.queries < asked:
            start = state.queries % ROWS
            part = slice(start, start + min(AT_ONCE, asked - state.queries))
            state.read(chain.instruments, inputs[part], answers[part], horizon=chain.horizon)
        found[asked] = state.to_bytes()
    # ten million queries would take minutes: what counts them says so, and nothing else of a state grows
    state.queries, state.epoch = ASKED[-1], ASKED[-1] // chain.horizon
    return found | {ASKED[-1]: state.to_bytes()}


def _observing(chain: Chain, state: bytes, inputs: Rows, answers: Rows, count: int) -> Callable[[], object]:
    about = About(MODEL, 1, "00" * 32, True, chain.horizon, 1, 0, datetime(2026, 6, 1, tzinfo=UTC))
    watch, asker = Watch(WatchPolicy()), Asker("client", "organisation")
    watch.watch_model(MODEL, Calibration(about, chain.instruments, chain.calibrated, {}), {"client": state})
    places = cycle(range(ROWS))

    def run() -> None:
        for at in islice(places, count):
            watch.observe(asker, MODEL, inputs[at : at + 1], answers[at : at + 1], now=NOW)

    return run


if __name__ == "__main__":
    main("watch_epochs", (__doc__ or "").partition("\n")[0], measure)
