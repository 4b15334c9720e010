"""When does the watch say that traffic has left its calibration, and who is a discovery among many clients?

A network that reads MNIST; honest clients of docs/traffic.md, each measured as the gate measures it when it has asked
32 distinct queries. A stream is a random order of clients; its calibration is of others, drawn anew for each stream.
Thieves ask grey photographs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bench.report import Report, main
from bench.watch_bank import World, make_world
from palladion.redteam.people import Person, ask, stranger
from palladion.redteam.thieves import thief
from palladion.watch.conformal import Conformal
from palladion.watch.discoveries import FALSE_DISCOVERY_RATE, discoveries, e_value
from palladion.watch.drift import DRIFT_QUERIES, RATE, THIEF_SHARE, Drift, Reference
from palladion.watch.instruments import Episode, Instruments

ASKED = 64  # of which enough are distinct even where two in five are repeats
CALM = 300  # clients like calibration ones who come before traffic changes
GREY_LEVELS = 255
BRIGHTER = 5  # grey levels
SLOW_QUERIES = 100_000
SLOW_BRIGHTER = 20.0  # grey levels at the end of a slow drift
SLOW_STEPS = 20
ALPHA = 0.01
TESTED = 400
THIEVES = (0.0, 0.01, 0.05, 0.1)
Rows = NDArray[np.float64]
Change = Callable[[Person, np.random.Generator], NDArray[np.float32]]


@dataclass(frozen=True)
class _Size:
    """How much is simulated."""

    rows: int
    fitted: int
    calibrated: int
    clients: int
    changed: int
    streams: int
    length: int
    slow: int
    repeats: int


QUICK = _Size(
    rows=1000, fitted=100, calibrated=999, clients=500, changed=48, streams=100, length=500, slow=7, repeats=100
)
SMOKE = _Size(rows=300, fitted=60, calibrated=499, clients=420, changed=8, streams=10, length=320, slow=1, repeats=10)
LONG = _Size(
    rows=3000, fitted=500, calibrated=999, clients=5000, changed=500, streams=2000, length=2000, slow=100, repeats=3000
)


@dataclass(frozen=True, eq=False)
class _Clients:
    """What some clients gave: statistics (clients,) and mean scores (clients, scores)."""

    statistics: Rows
    means: Rows

    def __len__(self) -> int:
        return len(self.statistics)

    def some(self, chosen: NDArray[np.int64]) -> "_Clients":
        """Those at these places."""
        return _Clients(self.statistics[chosen], self.means[chosen])

    def then(self, other: "_Clients") -> "_Clients":
        """These, and others after them."""
        return _Clients(np.concatenate((self.statistics, other.statistics)), np.concatenate((self.means, other.means)))


def measure(report: Report) -> None:
    """Fill the report."""
    size = SMOKE if report.smoke else QUICK if report.quick else LONG
    generator = np.random.default_rng(report.seed)
    world = make_world(generator, rows=size.rows)
    instruments = _instruments(world, size.fitted, generator)
    honest = _ask(world, instruments, size.calibrated + size.clients, generator)
    thieves = _thieves(world, instruments, size.changed, generator)
    for share in (0.0, THIEF_SHARE):
        _add_calm(report, honest, thieves, share, size, generator)
    for name, change in _changes(world).items():
        changed = _ask(world, instruments, size.changed, generator, change)
        _add_change(report, name, honest, changed, size, generator)
    _add_slow(report, world, instruments, honest, size, generator)
    _add_ring(report, honest, thieves, size, generator)
    for share in THIEVES:
        _add_discoveries(report, honest, thieves, share, size, generator)


def _instruments(world: World, clients: int, generator: np.random.Generator) -> Instruments:
    people = [stranger(world.pool, generator) for _ in range(clients)]
    return Instruments.fit(
        [_episode(world, ask(world.pool, one, 2 * ASKED, generator).rows) for one in people], generator
    )


def _episode(world: World, rows: NDArray[np.float32]) -> Episode:
    flat = rows.reshape(len(rows), -1)
    return Episode(flat.astype(np.float64), world.answers(flat))


def _ask(
    world: World, instruments: Instruments, clients: int, generator: np.random.Generator, change: Change | None = None
) -> _Clients:
    """New honest clients, who or whose rows are changed."""
    sums = []
    for _ in range(clients):
        person = stranger(world.pool, generator)
        rows = ask(world.pool, person, ASKED, generator).rows if change is None else change(person, generator)
        sums.append(_sums(instruments, _episode(world, rows)))
    return _weighed(instruments, np.stack(sums))


def _thieves(world: World, instruments: Instruments, clients: int, generator: np.random.Generator) -> _Clients:
    accounts = [thief("foreign", world.pool, ASKED, generator, foreign=world.foreign) for _ in range(clients)]
    return _weighed(instruments, np.stack([_sums(instruments, _episode(world, one.rows)) for one in accounts]))


def _sums(instruments: Instruments, episode: Episode) -> Rows:
    (scores,) = instruments.score([episode])
    return np.asarray(scores[:DRIFT_QUERIES].sum(axis=0))


def _weighed(instruments: Instruments, sums: Rows) -> _Clients:
    counts = np.full(len(sums), DRIFT_QUERIES)
    return _Clients(instruments.effects.statistic(sums, counts), sums / DRIFT_QUERIES)


def _changes(world: World) -> dict[str, Change]:
    """What becomes of honest clients, by name; the styles of `people` are standard normal numbers."""
    pool = world.pool
    low = np.arange(len(pool.classes)) < len(pool.classes) // 2

    def half_of_the_classes(person: Person, generator: np.random.Generator) -> NDArray[np.float32]:
        shares = np.where(low, person.class_shares + 1e-9, 0)
        return ask(pool, replace(person, class_shares=shares / shares.sum()), ASKED, generator).rows

    def twice_as_different(person: Person, generator: np.random.Generator) -> NDArray[np.float32]:
        return ask(pool, replace(person, style=2 * person.style), ASKED, generator).rows

    def all_alike(person: Person, generator: np.random.Generator) -> NDArray[np.float32]:
        weights = pool.class_weights
        alike = replace(person, style=0 * person.style, class_shares=weights / weights.sum(), junk=0.0)
        return ask(pool, alike, ASKED, generator).rows

    return {
        "other styles, at twice the spread": twice_as_different,
        f"rows {BRIGHTER} of {GREY_LEVELS} grey levels brighter": partial(_brightened, world, BRIGHTER),
        "half of the classes alone": half_of_the_classes,
        "clients who are all alike": all_alike,
    }


def _brightened(world: World, levels: float, person: Person, generator: np.random.Generator) -> NDArray[np.float32]:
    rows = ask(world.pool, person, ASKED, generator).rows
    return world.pool.admit(rows + np.float32(levels))


def _split(honest: _Clients, size: _Size, generator: np.random.Generator) -> tuple[Drift, _Clients, _Clients]:
    """A test by calibration clients drawn anew, these, and all others in random order."""
    order = generator.permutation(len(honest))
    calibrated, others = honest.some(order[: size.calibrated]), honest.some(order[size.calibrated :])
    reference = Reference.fit(calibrated.statistics, calibrated.means)
    if reference is None:
        raise ValueError(f"{size.calibrated} calibration clients support no drift test")
    return Drift(reference), calibrated, others


def _until_left(drift: Drift, clients: _Clients) -> int:
    """How many of these clients it takes until the claim is withdrawn; 0 where all of them do not."""
    for count, (statistic, means) in enumerate(zip(clients.statistics, clients.means, strict=True), 1):
        drift.take(float(statistic), means, now=1.0)
        if drift.left:
            return count
    return 0


def _add_calm(
    report: Report, honest: _Clients, thieves: _Clients, share: float, size: _Size, generator: np.random.Generator
) -> None:
    fired = 0
    for _ in range(size.streams):
        drift, _, others = _split(honest, size, generator)
        stolen = generator.random(len(others)) < share
        stream = others.then(thieves.some(generator.integers(0, len(thieves), len(others))))
        places = np.where(stolen, len(others) + np.arange(len(others)), np.arange(len(others)))
        fired += _until_left(drift, stream.some(places[: size.length])) > 0
    what = f"streams whose claim is withdrawn, {share:.0%} thieves among honest clients"
    length = min(size.length, size.clients)
    beside = f"{fired} of {size.streams} streams of {length} clients, {size.calibrated} calibrated"
    report.at_most(what, 100 * fired / size.streams, "%", 100 * RATE, reference=beside)


def _add_change(
    report: Report, name: str, honest: _Clients, changed: _Clients, size: _Size, generator: np.random.Generator
) -> None:
    for calm in (0, CALM):
        found = []
        for _ in range(size.slow):
            drift, _, others = _split(honest, size, generator)
            _until_left(drift, others.some(np.arange(calm)))
            found.append(_until_left(drift, changed.some(generator.integers(0, len(changed), size.length))))
        left = [count for count in found if count]
        what = f"clients until withdrawal: {name}, " + (f"after {calm} honest ones" if calm else "from the start")
        beside = f"median of {size.slow} streams; {len(left)} of them withdrawn within {size.length} clients"
        median = float(np.median(left)) if 2 * len(left) > len(found) else float("inf")
        report.add(what, median, "clients", reference=beside)
    drift, calibrated, _ = _split(honest, size, generator)
    p_values = Conformal.fit(calibrated.statistics).p_values(changed.statistics)
    what, beside = f"clients with p <= 1 % at {DRIFT_QUERIES} queries: {name}", f"promised {ALPHA:.0%}"
    report.add(what, 100 * float((p_values <= ALPHA).mean()), "%", reference=beside)


def _add_slow(
    report: Report,
    world: World,
    instruments: Instruments,
    honest: _Clients,
    size: _Size,
    generator: np.random.Generator,
) -> None:
    """Rows become brighter bit by bit, over as many clients as ask 100,000 distinct queries."""
    clients = SLOW_QUERIES // DRIFT_QUERIES
    steps = [
        _ask(world, instruments, size.changed // 4, generator, partial(_brightened, world, levels))
        for levels in np.linspace(0, SLOW_BRIGHTER, SLOW_STEPS).tolist()
    ]
    found, before = [], []
    for _ in range(size.slow):
        drift, calibrated, _ = _split(honest, size, generator)
        each = [step.some(generator.integers(0, len(step), clients // SLOW_STEPS)) for step in steps]
        stream = each[0]
        for more in each[1:]:
            stream = stream.then(more)
        left = _until_left(drift, stream) or len(stream)
        p_values = Conformal.fit(calibrated.statistics).p_values(stream.statistics[:left])
        found.append(left * DRIFT_QUERIES)
        before.append(float((p_values <= ALPHA).mean()))
    name = f"a drift by {SLOW_BRIGHTER:.0f} grey levels over {SLOW_QUERIES:,} queries"
    beside = f"median of {size.slow} rows; {max(found):,} at the latest"
    report.at_most(
        f"queries until withdrawal: {name}", float(np.median(found)), "queries", SLOW_QUERIES / 2, reference=beside
    )
    what = f"clients with p <= 1 % at {DRIFT_QUERIES} queries before withdrawal: {name}"
    report.add(what, 100 * float(np.mean(before)), "%", reference=f"promised {ALPHA:.0%}")


def _add_ring(report: Report, honest: _Clients, thieves: _Clients, size: _Size, generator: np.random.Generator) -> None:
    """What an attacker pays who wants the claim to be withdrawn: linked accounts count once, these are not linked."""
    for calm in (0, CALM):
        found = []
        for _ in range(size.slow):
            drift, _, others = _split(honest, size, generator)
            _until_left(drift, others.some(np.arange(calm)))
            found.append(_until_left(drift, thieves.some(generator.integers(0, len(thieves), size.length))))
        when = f"after {calm} honest ones" if calm else "from the start"
        what = f"thieves that nothing links until withdrawal, in a row {when}"
        report.add(what, float(np.median(found)), "clients", reference=f"median of {size.slow} streams")


def _add_discoveries(
    report: Report, honest: _Clients, thieves: _Clients, share: float, size: _Size, generator: np.random.Generator
) -> None:
    stolen = int(share * TESTED)
    plain, false, caught = [], [], []
    for _ in range(size.repeats):
        _, calibrated, others = _split(honest, size, generator)
        tested = others.some(np.arange(TESTED - stolen)).then(thieves.some(generator.integers(0, len(thieves), stolen)))
        p_values = Conformal.fit(calibrated.statistics).p_values(tested.statistics)
        named = np.flatnonzero(p_values <= ALPHA)
        values = {f"{index:04}": e_value(float(p), size.calibrated) for index, p in enumerate(p_values)}
        found = np.array(discoveries(values, tested=TESTED), np.int64)
        plain.append(_false(named, stolen))
        false.append(_false(found, stolen))
        caught.append(float((found >= TESTED - stolen).sum()) / max(1, stolen))
    who = f"{stolen} thieves among {TESTED} clients"
    beside = f"{100 * float(np.mean(plain)):.1f} % where everybody with p <= {ALPHA:.0%} is named"
    bar = 100 * FALSE_DISCOVERY_RATE
    report.at_most(f"honest clients among discoveries: {who}", 100 * float(np.mean(false)), "%", bar, reference=beside)
    if stolen:
        report.add(f"thieves who are discoveries: {who}", 100 * float(np.mean(caught)), "%")


def _false(named: NDArray[np.int64], stolen: int) -> float:
    """The share of honest clients among those named; thieves come last."""
    return float((named < TESTED - stolen).sum()) / max(1, len(named))


if __name__ == "__main__":
    main("drift", (__doc__ or "").partition("\n")[0], measure)
