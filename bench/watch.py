"""What does the watch cost for each query, alone and with others that came together, and what does a client take up?

Synthetic honest rows of ten classes; every client has a full memory and asks one new row at a time. The reference is
what nobody gets around: one matrix product of the same rows with the directions kept, and a BLAKE2b digest of each row.
"""

import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from bench.report import SEED, Report, interleaved, main
from palladion.policy import WatchPolicy
from palladion.watch.calibration import About, Calibration, calibrate
from palladion.watch.client import STATE_BYTES_MAX
from palladion.watch.instruments import Episode
from palladion.watch.memory import DIGESTS
from palladion.watch.watch import Asked, Asker, Watch

Rows = NDArray[np.float64]

MODEL, NOW = "bench", 1_780_000_000.0
CLASSES, LATENTS, NOISE = 10, 60, 0.3
CLIENTS = 256  # their states are larger than a core's cache, as those of real clients are
SIZES = (1, 8, 32)  # requests that come together
ALONE_US_MAX, TOGETHER_US_MAX = 100, 50  # of a request of 784 numbers, alone and with 31 others
BAR_INPUTS = 784


@dataclass(frozen=True, eq=False)
class _World:
    """Where honest rows come from, and a model that answers."""

    plane: Rows
    weights: Rows
    generator: np.random.Generator

    def rows(self, count: int) -> Rows:
        latents = self.generator.standard_normal((count, len(self.plane)))
        noise = NOISE * self.generator.standard_normal((count, self.plane.shape[1]))
        return np.asarray(latents @ self.plane + noise)

    def answers(self, rows: Rows) -> Rows:
        shown = np.exp(rows @ self.weights)
        return np.asarray(shown / shown.sum(axis=1, keepdims=True))

    def client(self, queries: int) -> Episode:
        rows = self.rows(queries)
        return Episode(rows, self.answers(rows))


def measure(report: Report) -> None:
    """Fill the report."""
    for inputs in (64, BAR_INPUTS) if report.quick else (64, BAR_INPUTS, 3072):
        world = _world(inputs)
        calibration = _calibration(world)
        _cost(report, world, calibration, members=1, quick=report.quick)
        if inputs == BAR_INPUTS:
            _cost(report, world, calibration, members=4, quick=report.quick)
            _state(report, world, calibration)


def _cost(report: Report, world: _World, calibration: Calibration, *, members: int, quick: bool) -> None:
    """The cost of a query where so many clients each are linked, for every number of requests together."""
    inputs = world.plane.shape[1]
    watch, askers = _watch(calibration), _askers(members)
    _warm(watch, askers, world)
    repeats = 5 if quick else 15
    runs: dict[str, Callable[[], object]] = {}
    for size in SIZES if members == 1 else SIZES[-1:]:
        runs[f"watch {size}"] = _observing(watch, askers, world, size, repeats)
        runs[f"reference {size}"] = _reference(calibration, world, size)
    times = interleaved(runs, repeats=repeats)
    for size in SIZES if members == 1 else SIZES[-1:]:
        time, reference = times[f"watch {size}"], times[f"reference {size}"]
        beside = f"{time.beside(reference, 'product and digest')}; best {time.best / CLIENTS * 1e6:.0f}"
        name = f"{inputs:,} inputs, {size} {'request' if size == 1 else 'requests together'}"
        name += f", {members} clients of each organisation" if members > 1 else ""
        value, unit = time.median / CLIENTS * 1e6, "µs CPU a query"
        if inputs == BAR_INPUTS and members == 1 and size in {1, SIZES[-1]}:
            report.at_most(name, value, unit, ALONE_US_MAX if size == 1 else TOGETHER_US_MAX, reference=beside)
        else:
            report.add(name, value, unit, reference=beside)


def _observing(watch: Watch, askers: list[Asker], world: _World, size: int, repeats: int) -> Callable[[], object]:
    """A run in which every client asks once; no row is ever asked again."""
    prepared: Iterator[tuple[Rows, Rows]] = iter(
        [(rows, world.answers(rows)) for rows in (world.rows(len(askers)) for _ in range(repeats + 1))]
    )

    def run() -> None:
        rows, scores = next(prepared)
        for start in range(0, len(askers), size):
            places = range(start, start + size)
            requests = [Asked(askers[at], rows[at : at + 1], scores[at : at + 1]) for at in places]
            watch.observe_all(MODEL, requests, now=NOW)

    return run


def _reference(calibration: Calibration, world: _World, size: int) -> Callable[[], object]:
    rows, directions = world.rows(CLIENTS), calibration.instruments.features.directions

    def run() -> None:
        for start in range(0, CLIENTS, size):
            part = rows[start : start + size]
            np.matmul(part, directions)
            for row in part:
                blake2b(row, digest_size=8).digest()

    return run


def _state(report: Report, world: _World, calibration: Calibration) -> None:
    """What a client takes up whose memory is full, saved and in this process."""
    askers = _askers(1)[:64]
    tracemalloc.start()
    watch = _watch(calibration)
    before, _ = tracemalloc.get_traced_memory()
    _warm(watch, askers, world, queries=DIGESTS)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    saved = max(len(state) for state in watch.changes(MODEL).values())
    report.at_most("state of a client, saved", saved, "bytes", STATE_BYTES_MAX, reference="one model; memory full")
    report.add("state of a client, in memory", (after - before) / len(askers), "bytes", reference="alone in its group")


def _warm(watch: Watch, askers: list[Asker], world: _World, queries: int = 70) -> None:
    for asker in askers:
        episode = world.client(queries)
        watch.observe(asker, MODEL, episode.inputs, episode.scores, now=NOW)


def _watch(calibration: Calibration) -> Watch:
    watch = Watch(WatchPolicy())
    watch.watch_model(MODEL, calibration, {})
    return watch


def _askers(members: int) -> list[Asker]:
    return [Asker(f"client-{at}", f"organisation-{at // members}", f"198.51.100.{at}") for at in range(CLIENTS)]


def _world(inputs: int) -> _World:
    generator = np.random.default_rng(SEED)
    plane = generator.standard_normal((min(LATENTS, inputs), inputs))
    return _World(plane, 3 * generator.standard_normal((inputs, CLASSES)) / inputs, generator)


def _calibration(world: _World) -> Calibration:
    about = About(
        model=MODEL,
        version=1,
        content="00" * 32,
        simulated=True,
        horizon=128,
        group_horizon=24,
        seed=SEED,
        created=datetime(2026, 1, 1, tzinfo=UTC),
    )
    clients = (world.client(40) for _ in range(100))
    organisations = ([world.client(12) for _ in range(10)] for _ in range(40))
    return calibrate(about, [world.client(40) for _ in range(40)], clients, organisations, world.generator)


if __name__ == "__main__":
    main("watch", (__doc__ or "").partition("\n")[0], measure)
