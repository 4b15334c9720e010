"""A million clients in bounded memory: what one costs in memory and on the disk, what a miss costs, and what drifts.

In this process, by the parts that stand in every request's way: directory, limits, watch, and the keeper that saves.
Nothing is sent and no model runs. Clients ask in a sweep, each once, and then by Zipf's law. PALLADION_BENCH_MEDIUM=1
asks for a form between the quick and the long one.
"""

import asyncio
import gc
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.gate_house import LIMITS as UNLIMITED
from bench.gate_house import House, honest_rows, make_house
from bench.report import SEED, Report, main
from palladion.access.identity import BASE62, key_hasher
from palladion.clock import SystemClock, timestamp
from palladion.gate.directory import Directory
from palladion.gate.keeper import LIMITS, Keeper, encode_limits, load_limits
from palladion.gate.limits import Limits
from palladion.gate.problems import Problem
from palladion.gate.rolls import read_looked_up
from palladion.lifecycle.installation import Installation
from palladion.policy import RoutePolicy
from palladion.registry import Registry
from palladion.watch.calibration import Calibration
from palladion.watch.watch import Asked, Asker, Watch

MODEL = "fraud"
INPUTS = 64
TOGETHER = 16  # requests that are observed in one turn of the event loop
SECOND = 4000  # requests after which what changed is saved: a gate does so every second
ZIPF = 1.1
TEAM = 4  # clients of one organisation
SAMPLED = 300
GROWTH_MAX_PERCENT = 2.0
FULL = 0.98  # of the most that states ever take up: from there on, one is let go for each that comes
PARTS_MIN = 4  # of the twenty, after memory was full, that a drift can be told by
MIB = 1 << 20


@dataclass(frozen=True)
class Size:
    """How much is asked: clients, requests by Zipf's law after the sweep, made-up keys, and memory for states."""

    clients: int
    requests: int
    strangers: int
    resident_mb: int


SMOKE = Size(2000, 8000, 4000, 2)
QUICK = Size(10_000, 40_000, 20_000, 8)
MEDIUM = Size(30_000, 800_000, 30_000, 16)  # some ten minutes on two cores
LONG = Size(
    int(os.environ.get("PALLADION_BENCH_CLIENTS", "1000000")),
    int(os.environ.get("PALLADION_BENCH_REQUESTS", "5000000")),
    int(os.environ.get("PALLADION_BENCH_CLIENTS", "1000000")),
    64,
)


@dataclass(eq=False)
class Many:
    """The parts of a gate that know clients."""

    house: House
    registry: Registry
    calibration: Calibration
    size: Size
    rows: NDArray[Any] = field(init=False)
    scores: NDArray[Any] = field(init=False)

    def __post_init__(self) -> None:
        generator = self.house.generator
        self.rows = honest_rows(INPUTS, 4096, generator).astype(np.float64)
        self.scores = generator.dirichlet(np.ones(10), 4096)
        self.open()

    def open(self) -> None:
        """Begin, as a gate does that is started."""
        installation = self.house.installation
        root = installation.open_gate_root()
        policy = msgspec.structs.replace(
            installation.policy,
            watch=msgspec.structs.replace(installation.policy.watch, resident_mb=self.size.resident_mb),
        )
        self.keeper = Keeper(self.registry)
        self.directory = Directory(root.derive("client-key-pepper"))
        self.directory.load(read_looked_up(self.registry, lookup=self.keeper.lookup, gate=root))
        self.limits = Limits(policy, SystemClock(), pseudonyms=root.derive("pseudonyms"), work=root.derive("work"))
        self.limits.restore(load_limits(self.registry))
        self.watch = Watch(policy.watch, scratch=installation.paths.directory / "bench-scratch.sqlite")
        self.purpose = f"suspicion:{MODEL}:bench"
        self.watch.watch_model(MODEL, self.calibration, self.keeper.shelf(self.purpose))
        self.route = RoutePolicy(model=MODEL)
        self.clock = SystemClock()
        self.asked = 0

    async def ask(self, clients: NDArray[np.int64], seconds: list[float] | None = None) -> None:
        """Each of these clients asks a query, in order; what changed is saved every `SECOND` requests, beside that."""
        saving: asyncio.Task[None] | None = None
        for start in range(0, len(clients), TOGETHER):
            began = time.thread_time()
            self._ask(clients[start : start + TOGETHER])
            if seconds is not None:
                seconds.append(time.thread_time() - began)
            self.asked += TOGETHER
            if self.asked % SECOND < TOGETHER:
                if saving is not None:
                    await saving
                saving = asyncio.create_task(self.save())
                await asyncio.sleep(0)
        if saving is not None:
            await saving
        await self.save()

    async def save(self) -> None:
        """What a gate does every second."""
        states = {self.purpose: self.watch.changes(MODEL, absent_max=256)}
        states[LIMITS] = encode_limits(self.limits.changes())
        await self.keeper.states(states)

    def _ask(self, clients: NDArray[np.int64]) -> None:
        now = self.clock.now()
        asked = []
        for client in clients.tolist():
            caller = self.directory.identify({b"authorization": b"Bearer " + key_text(client)}, now)
            with self.limits.places.room(caller.id), self.limits.budgets.open(caller, MODEL, seconds=30) as held:
                held.reserve(queries=1)
                self.limits.rates.admit(caller, MODEL, 1)
                held.settle()
            row = (client * 2_654_435_761 + self.asked) & 4095
            asker = Asker(
                caller.id, caller.client.organisation, f"10.{client >> 16 & 255}.{client >> 8 & 255}.{client & 255}"
            )
            asked.append(Asked(asker, self.rows[row : row + 1] + self.asked * 1e-9, self.scores[row : row + 1]))
        self.watch.observe_all(MODEL, asked, now=now.timestamp())

    def close(self) -> None:
        """Let go of everything but the registry."""
        self.keeper.close()


def measure(report: Report) -> None:
    """Fill the report."""
    size = (
        SMOKE
        if report.smoke
        else QUICK
        if report.quick
        else MEDIUM
        if os.environ.get("PALLADION_BENCH_MEDIUM")
        else LONG
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        house = make_house(folder, {MODEL: INPUTS}, SEED)
        house.configure([{"model": MODEL}], limits={**UNLIMITED, "queries_per_day": 1_000_000})
        installation = Installation.find(house.home, house.installation.clock, exact=True)
        house = House(installation, house.keys, house.generator)
        calibration = _calibration(installation)
        with installation.open_registry() as registry:
            path = registry.path
            took = _register(path, size.clients, installation.open_gate_root().derive("client-key-pepper"))
            report.add("clients registered", size.clients, "clients", reference=f"rows written in {took:.0f} s")
            registered = _disk(path)
            asyncio.run(_run(report, Many(house, registry, calibration, size), registered))


async def _run(report: Report, many: Many, registered: int) -> None:
    size, path = many.size, many.registry.path
    many.close()
    before = _resident()
    began = time.process_time()
    many.open()
    report.add("start", time.process_time() - began, "s CPU", reference="directory, limits and watch; no state is read")
    report.add("RSS of a gate that was started", _resident() / MIB, "MiB", reference=f"{before / MIB:.0f} before")
    # 1. a sweep: everybody asks once
    generator = np.random.default_rng(SEED)
    began = time.process_time()
    await many.ask(generator.permutation(size.clients))
    took = time.process_time() - began
    swept = _resident()
    report.add(
        "sweep: each client once",
        took / size.clients * 1e6,
        "µs CPU a request",
        reference="of all threads, with saving",
    )
    report.at_most(
        "RSS after the sweep", swept / MIB, "MiB", 2 * size.resident_mb + 192,
        reference=f"{size.resident_mb} MiB for states, {many.watch.residents:,} in memory",
    )  # fmt: skip
    grown = max(0, swept - before) / size.clients
    report.add("of a client, in memory", grown, "bytes", reference="growth by all clients")
    await many.save()
    many.keeper.lookup.close()
    del many.keeper.__dict__["lookup"]
    report.add(
        "of a client, on the disk", (_disk(path) - registered) / size.clients, "bytes", reference="one query each"
    )
    many.close()
    many.open()
    # 2. traffic by Zipf's law
    await _zipf(report, many, generator)
    # 3. a restart
    _restart(report, many, generator)
    # 4. keys that nobody has
    _strangers(report, many)
    many.close()


async def _zipf(report: Report, many: Many, generator: np.random.Generator) -> None:
    size, parts = many.size, 20
    order = generator.permutation(size.clients)
    resident: list[int] = []
    states: list[int] = []  # bytes that they take up, which the policy bounds
    seconds: list[float] = []
    misses = many.watch.misses
    for _ in range(parts):
        ranks = _ranks(size.clients, size.requests // parts, generator)
        await many.ask(order[ranks], seconds)
        resident.append(_resident())
        states.append(many.watch.resident_bytes)
    hits = 1 - (many.watch.misses - misses) / size.requests
    report.add("Zipf: requests whose state was in memory", 100 * hits, "%", reference=f"{size.requests:,}, s = {ZIPF}")
    middle, late = float(np.median(seconds)), float(np.quantile(seconds, 0.99))
    report.add(
        f"{TOGETHER} requests together, median",
        middle * 1e6 / TOGETHER,
        "µs CPU a request",
        reference="misses included",
    )
    report.add(
        f"{TOGETHER} requests together, 99th percentile", late * 1e3, "ms CPU", reference="the loop stands still"
    )
    _add_drift(report, resident, states, size.requests // parts)
    report.add("of a client, saved", _state_bytes(many), "bytes", reference="mean of a sample")
    report.add("a miss", _cost(many, generator, fresh=False), "µs", reference="a state read, and its group made")
    report.add("a look for a client that never asked", _cost(many, generator, fresh=True), "µs")


def _add_drift(report: Report, resident: list[int], states: list[int], requests: int) -> None:
    """How memory grew over parts of so many requests: in all, and once states had filled what they may take up."""

    def drift(first: int) -> tuple[float, str]:
        passed = requests * (len(resident) - 1 - first)
        over = f"{resident[first] / MIB:.1f} to {resident[-1] / MIB:.1f} MiB over {passed:,} requests"
        return 100 * (resident[-1] / resident[first] - 1), over

    grown, over = drift(0)
    report.add("RSS drift, while states fill memory too", grown, "%", reference=over)
    full = next(part for part, size in enumerate(states) if size >= FULL * max(states))
    if full > len(states) - 1 - PARTS_MIN:
        report.skip(f"States filled memory after {requests * (full + 1):,} requests: the drift after that needs more.")
        return
    grown, over = drift(full)
    report.at_most(
        "RSS drift, from when memory was full", grown, "%", GROWTH_MAX_PERCENT,
        reference=f"{over}; full after {requests * (full + 1):,}",
    )  # fmt: skip


def _restart(report: Report, many: Many, generator: np.random.Generator) -> None:
    ids = [_id(number) for number in generator.choice(many.size.clients, SAMPLED, replace=False).tolist()]
    before = {client: (many.watch.explain(client), many.watch.members(client, MODEL)) for client in ids}
    many.close()
    many.open()
    same = 0
    for client in ids:
        ((was,), members), ((now,), again) = (
            before[client],
            (many.watch.explain(client), many.watch.members(client, MODEL)),
        )
        # the group's smallest p-value begins anew with a process; everything else is the same
        same += _kept(was) == _kept(now) and members == again
    report.at_least(
        "states equal after a restart", 100 * same / SAMPLED, "%", 100, reference=f"{SAMPLED} sampled, to the bit"
    )


def _kept(explanation: Any) -> tuple[Any, ...]:
    """What a restart keeps: all but the smallest p-value of the group, which begins anew."""
    it = explanation
    return (it.queries, it.statistic, it.p_value, it.group, it.buckets, it.group_buckets)


def _strangers(report: Report, many: Many) -> None:
    generator = np.random.default_rng(SEED + 1)
    before, now, refused = _resident(), many.clock.now(), 0
    began = time.process_time()
    for _ in range(many.size.strangers):
        text = b"pall_test_" + bytes(generator.integers(97, 123, 34, dtype=np.uint8))
        try:
            many.directory.identify({b"authorization": b"Bearer " + text}, now)
        except Problem:
            refused += 1
    took = time.process_time() - began
    assert refused == many.size.strangers
    growth = 100 * (_resident() / before - 1)
    report.at_most(
        "RSS growth by made-up keys", growth, "%", GROWTH_MAX_PERCENT, reference=f"{refused:,} keys, all refused"
    )
    report.add("a made-up key", took / refused * 1e6, "µs CPU", reference="hashed, looked up, refused")


def _cost(many: Many, generator: np.random.Generator, *, fresh: bool) -> float:
    """Microseconds of CPU for reading one client's state."""
    (known,) = many.watch._models.values()
    known.shrink(0)
    ids = [
        f"{number:016x}" if fresh else _id(number)
        for number in generator.permutation(many.size.clients)[:1000].tolist()
    ]
    began = time.process_time()
    for client in ids:
        known.find(client)
    return (time.process_time() - began) / len(ids) * 1e6


def _state_bytes(many: Many) -> float:
    shelf = many.keeper.shelf(many.purpose)
    found = [shelf.get(_id(number)) for number in range(0, many.size.clients, max(1, many.size.clients // 1000))]
    return float(np.mean([len(item.data) for item in found if item is not None]))


def _ranks(clients: int, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Ranks from 0 by Zipf's law, cut off at so many clients."""
    weights = np.cumsum(np.arange(1, clients + 1, dtype=np.float64) ** -ZIPF)
    return np.asarray(np.searchsorted(weights, generator.random(count) * weights[-1]).clip(0, clients - 1), np.int64)


def key_text(number: int) -> bytes:
    """The API key of a client, which is none that is given out: its checksum is not looked at where it is known."""
    digits = bytearray(b"0" * 34)
    for place in range(6):
        number, digit = divmod(number, len(BASE62))
        digits[place] = ord(BASE62[digit])
    return b"pall_test_" + bytes(digits)


def _id(number: int) -> str:
    return f"c{number:015x}"


def _register(path: Path, clients: int, pepper: bytes) -> float:
    """Write clients with a key each, as `client add` would, past everything that makes that slow."""
    began, now, digest = time.perf_counter(), timestamp(SystemClock().now()), key_hasher(pepper)

    def rows(make: Callable[[int], tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        return map(make, range(clients))

    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO client (id, organisation, name, scopes, created) VALUES (?, ?, ?, '[]', ?)",
            rows(lambda number: (_id(number), f"team{number // TEAM}", f"app{number}", now)),
        )
        connection.executemany(
            "INSERT INTO standing_change (client, standing, reason, actor, at) "
            "VALUES (?, 'trusted', 'registered', ?, ?)",
            rows(lambda number: (_id(number), "user:bench", now)),
        )
        connection.executemany(
            "INSERT INTO client_key (prefix, client, hash, created) VALUES (?, ?, ?, ?)",
            rows(lambda number: (f"k{number}", _id(number), digest(key_text(number)), now)),
        )
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return time.perf_counter() - began


def _calibration(installation: Installation) -> Calibration:
    from palladion.gate.served import open_route

    calibration = open_route(installation, RoutePolicy(model=MODEL)).calibration
    assert calibration is not None
    return calibration


def _resident() -> int:
    gc.collect()
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _disk(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.stat().st_size


if __name__ == "__main__":
    main("gate_many", (__doc__ or "").partition("\n")[0], measure)
