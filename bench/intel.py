"""What do feeds cost a request: a client that is known, one that moves, and queries that are held against harvests?

In one process. The reference is what nobody gets around: reading the clock, and one look at a dictionary of floats.
"""

import asyncio
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np

from bench.report import Report, interleaved, main
from palladion.clock import SystemClock
from palladion.gate.intelligence.intelligence import Intelligence
from palladion.gate.intelligence.signatures import ROWS_AT_ONCE, Signatures
from palladion.intel.indicators import Content, LoadedFeed
from palladion.intel.networks import parse_network
from palladion.intel.sketch import sketch_of
from palladion.policy import Policy
from palladion.policy.intelligence import FeedPolicy
from palladion.watch.watch import Asked, Asker

KNOWN_US_MAX, QUERY_US_MAX = 3, 10  # of 180 that a gate has for a whole request
WIDTHS = (4, 30, 64, 784)  # numbers of a query: transactions, and pictures of 8x8 and of 28x28
BARRED = 64  # numbers up to which a query has to keep to its bar
HARVESTS = 1000  # the most that a feed has
CLIENTS = 32


def measure(report: Report) -> None:
    """Fill the report."""
    asks, items = (1000, 50_000) if report.quick else (5000, 1_000_000)
    generator = random.Random(1)
    begun = time.process_time()
    on, off = _intelligence(items, generator), Intelligence(Policy(), SystemClock(), key=bytes(32), name=str)
    report.add(f"building the tables of {items:,} networks", time.process_time() - begun, "s CPU")
    now = datetime.now(UTC)
    addresses = [f"{generator.randrange(1, 223)}.{generator.randrange(256)}.1.{number % 256}" for number in range(asks)]

    def noted(intelligence: Intelligence, *, moving: bool) -> Callable[[], None]:
        def run() -> None:
            for number in range(asks):
                address = addresses[number] if moving else addresses[number % CLIENTS]
                client = "moving" if moving else f"client{number % CLIENTS}"
                intelligence.note(client, address, None, now)
                intelligence.prior(client)

        return run

    runs: dict[str, Callable[[], object]] = {
        "reference": _reference(asks),
        "off": noted(off, moving=False),
        "known": noted(on, moving=False),
        "moving": noted(on, moving=True),
    }
    times = interleaved(runs, repeats=9 if report.quick else 41)
    reference = times["reference"]
    report.add("reading the clock and a float", reference.median / asks * 1e6, "µs CPU", reference=reference.noise)
    for run, name, bar in (
        ("off", "a request without feeds", None),
        ("known", "a request of a client that is known, three feeds", KNOWN_US_MAX),
        ("moving", "a request from another address each time, three feeds", None),
    ):
        value, beside = times[run].median / asks * 1e6, times[run].beside(reference, "the reference")
        if bar is None:
            report.add(name, value, "µs CPU", reference=beside)
        else:
            report.at_most(name, value, "µs CPU", bar, reference=beside)
    for width in WIDTHS:
        _add_queries(report, width)
    report.add(f"one comparison with {HARVESTS} harvests", _comparing_us(on), "µs CPU", reference="at 64, 128, 256, …")


def _add_queries(report: Report, width: int) -> None:
    signatures = Signatures(lambda _client, _sketch: None)
    rows = np.random.default_rng(3).standard_normal((ROWS_AT_ONCE, width))
    asked = [
        Asked(Asker(f"client{n % CLIENTS}", "one"), rows[n : n + 1], rows[n : n + 1, :0]) for n in range(len(rows))
    ]

    # one loop for all, as a gate has: making one takes a millisecond
    with asyncio.Runner() as runner:

        def run() -> None:
            for item in asked:
                signatures.saw([item])
            runner.run(signatures.work())

        timing = interleaved({"run": run}, repeats=11 if report.quick else 41)["run"]
    name, value = f"a query of {width} numbers in a signature", timing.median / len(rows) * 1e6
    if width <= BARRED:
        report.at_most(name, value, "µs CPU", QUERY_US_MAX, reference=f"noise {timing.noise}")
    else:
        report.add(name, value, "µs CPU", reference=f"noise {timing.noise}")


def _comparing_us(intelligence: Intelligence) -> float:
    sketch, feed = sketch_of([b"%d" % number for number in range(64)]), intelligence.feeds[-1]
    now = datetime.now(UTC)
    timing = interleaved({"run": lambda: feed.queries(sketch, now)}, repeats=21)["run"]
    return timing.median * 1e6


def _intelligence(items: int, generator: random.Random) -> Intelligence:
    """Two feeds of addresses that have so many together, and one of harvests."""
    end = (datetime.now(UTC) + timedelta(days=7)).timestamp()
    policies = (
        FeedPolicy(name="one", file="x", weight=0.5),
        FeedPolicy(name="two", file="x", kind="tor", weight=0.5),
        FeedPolicy(name="harvests", file="x", kind="queries", format="stix"),
    )
    feeds = []
    for policy in policies[:2]:
        texts = {
            f"{generator.randrange(1, 223)}.{generator.randrange(256)}.{generator.randrange(256)}.0/24"
            for _ in range(items // 2)
        }
        content = Content(networks=tuple((parse_network(text), end, 1.0) for text in sorted(texts)))
        feeds.append(LoadedFeed(policy, "ab" * 32, content, end))
    known = [(f"h{n}", sketch_of([b"%d %d" % (n, m) for m in range(8)]), end, 1.0) for n in range(HARVESTS)]
    feeds.append(LoadedFeed(policies[2], "ab" * 32, Content(queries=tuple(known)), end))
    made = Intelligence(Policy(feed=policies), SystemClock(), key=bytes(32), name=str)
    made.take(feeds)
    return made


def _reference(asks: int) -> Callable[[], None]:
    clock, states = SystemClock(), {"0011223344556677": 0.0}

    def run() -> None:
        for _ in range(asks):
            states["0011223344556677"] = max(states["0011223344556677"], clock.now().timestamp())

    return run


if __name__ == "__main__":
    main("intel", (__doc__ or "").partition("\n")[0], measure)
