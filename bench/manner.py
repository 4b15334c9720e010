"""Does it tell thieves who ask honest rows how they ask: evenly, all night, in bursts; and what does that cost others?

Honest clients and thieves of docs/traffic.md on a table of card payments, all with hours. The test of manner beside the
four others, and without it, with the same instruments and the same clients.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bench.report import Report, main
from bench.watch_bank import World
from bench.watch_worlds import payments_world
from palladion.redteam import hours
from palladion.redteam.people import ask, stranger
from palladion.watch.client import QUERIES_MIN
from palladion.watch.conformal import Conformal
from palladion.watch.instruments import Episode, Instruments
from palladion.watch.manner import HABITS_BYTES
from palladion.watch.own_tests import TESTS

ALPHA, ALPHA_WATCHED = 0.001, 0.01
MONDAY_S = 4 * hours.DAY_S  # simulated time begins on one, and 1970 on a Thursday
AT_ONCE = 500  # clients whose rows the model answers together
Rows = NDArray[np.float64]
Times = Callable[[int, float, np.random.Generator], Rows]

# name, hours (None: a person's), share of foreign rows
THIEVES: Sequence[tuple[str, Times | None, float]] = (
    ("honest rows, one every 2 s", hours.relentless, 0.0),
    ("honest rows, as slow as a service, evenly day and night", hours.patient, 0.0),
    ("honest rows, in bursts day and night", hours.bursts, 0.0),
    ("honest rows, as a service does", hours.steady, 0.0),
    ("honest rows, as people do", None, 0.0),
    ("half foreign rows, as people do", None, 0.5),
    ("a quarter foreign rows, as people do", None, 0.25),
    ("a tenth foreign rows, as people do", None, 0.1),
)


@dataclass(frozen=True)
class _Size:
    """How much is simulated."""

    rows: int
    fitted: int
    clients: int
    horizon: int
    tested: int
    thieves: int


QUICK = _Size(rows=2000, fitted=150, clients=999, horizon=64, tested=2000, thieves=60)
LONG = _Size(rows=10_000, fitted=1000, clients=9999, horizon=256, tested=10_000, thieves=500)


@dataclass(frozen=True, eq=False)
class _Judge:
    """Instruments, and the largest statistics of calibration clients."""

    instruments: Instruments
    calibrated: Conformal

    @classmethod
    def of(cls, instruments: Instruments, clients: Sequence[Episode]) -> "_Judge":
        return cls(instruments, Conformal.fit(_suprema(instruments, clients)))

    def caught(self, paths: Sequence[Rows], rate: float, within: int) -> float:
        """The percentage of accounts with these statistics that are beyond the threshold within so many queries."""
        threshold = self.calibrated.threshold(max(rate, self.calibrated.rate_min))
        return 100 * float(np.mean([path[: within - QUERIES_MIN + 1].max() >= threshold for path in paths]))


def measure(report: Report) -> None:
    """Fill the report."""
    size = QUICK if report.quick else LONG
    generator = np.random.default_rng(report.seed)
    world = payments_world(generator, rows=size.rows)
    whole = Instruments.fit(clients_of(world, size.fitted, size.horizon, generator), generator, recorded=True)
    if whole.own is None:
        raise ValueError("instruments without further tests")
    plain = replace(whole, own=replace(whole.own, manner=None, scales=whole.own.scales[:TESTS]))
    clients = clients_of(world, size.clients, size.horizon, generator)
    judges = [_Judge.of(instruments, clients) for instruments in (plain, whole)]
    honest = clients_of(world, size.tested, size.horizon, generator)
    paths = [_paths(judge.instruments, honest) for judge in judges]
    for rate in (ALPHA, ALPHA_WATCHED):
        before, after = (judge.caught(found, rate, size.horizon) for judge, found in zip(judges, paths, strict=True))
        beside = f"{before:.3g} % without it; {size.tested:,} unseen clients, {size.horizon} queries each"
        report.add(f"honest clients beyond the threshold of {100 * rate:g} %", after, "%", reference=beside)
    for name, times, mix in THIEVES:
        thieves = clients_of(world, size.thieves, size.horizon, generator, times=times, mix=mix)
        _add_thieves(report, name, judges, [_paths(judge.instruments, thieves) for judge in judges], size)
    report.add("state of a client, more", HABITS_BYTES, "bytes", reference="whatever it asks")


def _add_thieves(
    report: Report, name: str, judges: Sequence[_Judge], paths: Sequence[Sequence[Rows]], size: _Size
) -> None:
    early = size.horizon // 2
    shares = [
        [judge.caught(found, rate, within) for judge, found in zip(judges, paths, strict=True)]
        for rate, within in ((ALPHA_WATCHED, size.horizon), (ALPHA_WATCHED, early), (ALPHA, size.horizon))
    ]
    (before, ever), (before_soon, soon), (before_sure, sure) = shares
    beside = (
        f"{before:.3g} % without the test; within {early}: {soon:.3g} ({before_soon:.3g}) %; "
        f"at {100 * ALPHA:g} %: {sure:.3g} ({before_sure:.3g}) %"
    )
    report.add(f"watched at 1 % within {size.horizon} queries: {name}", ever, "%", reference=beside)


def clients_of(
    world: World,
    count: int,
    queries: int,
    generator: np.random.Generator,
    *,
    times: Times | None = None,
    mix: float = 0.0,
) -> list[Episode]:
    """So many clients with that share of foreign rows at random places; they keep a person's hours, or these."""
    found: list[Episode] = []
    while len(found) < count:
        people = [stranger(world.pool, generator) for _ in range(min(AT_ONCE, count - len(found)))]
        asked = np.stack([ask(world.pool, person, queries, generator).rows for person in people])
        stolen = generator.random(asked.shape[:2]) < mix
        asked[stolen] = world.foreign[generator.integers(0, len(world.foreign), int(stolen.sum()))]
        scores = world.answers(asked.reshape(-1, asked.shape[2])).reshape(*asked.shape[:2], -1)
        for person, rows, answers in zip(people, asked.astype(np.float64), scores, strict=True):
            at = (person.times if times is None else _paced(times, person.pace))(queries, generator)
            found.append(Episode(rows, answers, MONDAY_S + at))
    return found


def _paced(times: Times, pace: float) -> Callable[[int, np.random.Generator], Rows]:
    return lambda queries, generator: times(queries, pace, generator)


def _paths(instruments: Instruments, clients: Sequence[Episode]) -> list[Rows]:
    """The statistic of each client after each distinct query from the `QUERIES_MIN`-th on."""
    scored = zip(instruments.score(clients), map(instruments.manners, clients), strict=True)
    return [instruments.path(scores, manners)[QUERIES_MIN - 1 :] for scores, manners in scored]


def _suprema(instruments: Instruments, clients: Sequence[Episode]) -> Rows:
    return np.array([path.max() for path in _paths(instruments, clients)])


if __name__ == "__main__":
    main("manner", (__doc__ or "").partition("\n")[0], measure)
