"""What is a watch worth that has 20, 50 or 200 real clients to be calibrated on?

A network that reads MNIST. Real clients are simulated ones of docs/traffic.md whose rows the calibration is given with
their names, and nothing else: it makes its own simulated clients of some of their rows. Everything is repeated over
many draws of the clients, because one calibration of 20 is itself a draw. Somebody is seen whose p-value is the
smallest that the calibration supports: then a person is told to look.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.report import Report, main
from bench.watch_bank import World, make_world
from palladion.redteam.calibrate import Plan, calibrate_on
from palladion.redteam.people import ask, stranger
from palladion.redteam.thieves import thief
from palladion.redteam.validation import Validation
from palladion.watch.calibration import REAL_CLIENTS_MIN, About, Calibration, client_supremum
from palladion.watch.client import statistics
from palladion.watch.instruments import Episode
from palladion.watch.own_evidence import OwnEvidence
from palladion.watch.own_past import rate_together

HORIZON = 64  # queries of an epoch
EPOCHS = 3  # of a real client
ROWS = 340  # asked for as many distinct ones as that, because some clients repeat themselves
WITHIN = 50  # queries of a thief
RESAMPLES = 2000
ALPHA = 0.01  # at which the old way is looked at: what its simulated clients support and a person would watch
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ABOUT = About("digits", 1, "0" * 64, simulated=True, horizon=HORIZON, group_horizon=8, seed=0, created=NOW)
Rows = NDArray[np.float32]


@dataclass(frozen=True)
class _Thief:
    """A kind of harvest; `styled` passes it through the account's style."""

    name: str
    family: str
    foreign: bool = False
    mix: float = 1.0
    styled: bool = False

    def rows(self, world: World, queries: int, generator: np.random.Generator) -> Rows:
        """What one account asks."""
        foreign = world.foreign if self.foreign else None
        return thief(
            self.family, world.pool, queries, generator, foreign=foreign, mix=self.mix, styled=self.styled
        ).rows


THIEVES = (
    _Thief("photographs", "foreign", foreign=True),
    _Thief("pen strokes", "strokes"),
    _Thief("half photographs", "foreign", foreign=True, mix=0.5),
)
TAKERS = (
    _Thief("a quarter photographs", "foreign", foreign=True, mix=0.25),
    _Thief("styled pen strokes", "strokes", styled=True),
    _Thief("styled active learning", "active", styled=True),
    _Thief("in-distribution rows", "in-distribution"),
)


@dataclass(frozen=True)
class _Size:
    """How much is simulated: real clients there are, draws of some of them for each of `sizes`, and so on."""

    sizes: tuple[int, ...]
    clients: int
    draws: tuple[int, ...]
    unseen: int
    thieves: int
    simulated: int
    old_draws: int  # of the reference


QUICK = _Size(sizes=(20, 50, 120), clients=145, draws=(2, 1, 1), unseen=25, thieves=10, simulated=240, old_draws=1)
SMOKE = _Size(sizes=(20, 50), clients=75, draws=(1, 1), unseen=10, thieves=3, simulated=120, old_draws=1)
LONG = _Size(sizes=(20, 50, 200), clients=1000, draws=(60, 40, 20), unseen=150, thieves=40, simulated=1400, old_draws=3)


class Victim:
    """What `calibrate_on` asks."""

    def __init__(self, world: World) -> None:
        """The model of a world."""
        self._world = world

    def episodes(self, clients: Sequence[Rows]) -> list[Episode]:
        """Rows and answers of some clients."""
        return [Episode(rows.reshape(len(rows), -1).astype(np.float64), self._world.answers(rows)) for rows in clients]

    def labels(self, rows: Rows) -> NDArray[np.int64]:
        """The class of each row, by the model."""
        return np.asarray(self._world.answers(rows).argmax(axis=1), np.int64)


@dataclass(frozen=True, eq=False)
class _World:
    """Everything that draws are made of: rows of real clients, and of thieves by kind."""

    victim: Victim
    real: Sequence[Rows]
    thieves: Mapping[str, Sequence[Rows]]
    harvests: Mapping[str, Sequence[Rows]]
    size: _Size
    seed: int

    def calibrated(self, clients: Sequence[Rows], draw: int, *, old: bool = False) -> Calibration:
        """A calibration from real clients; `old` makes simulated ones of all their rows, as was done before."""
        owners = np.repeat(np.arange(len(clients)), [len(rows) for rows in clients])
        data = Validation(np.concatenate(clients), None, owners, (28, 28), channels_first=False)
        plan = Plan(self.size.simulated, organisations=1, horizon=HORIZON, group_horizon=8, seed=self.seed + draw)
        more: dict[str, Any] = {"real_min": REAL_CLIENTS_MIN} if old else {}
        return calibrate_on(ABOUT, self.victim, data, plan, progress=_quiet, **more)


@dataclass
class _Shares:
    """For each draw, the share of accounts of each kind that a person is told of; and beside honest ones alone."""

    seen: dict[str, list[float]] = field(default_factory=dict)
    alone: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, world: _World, calibration: Calibration, accounts: Sequence[Rows]) -> None:
        """One draw more of one kind."""
        tests, seen, alone = OwnEvidence(calibration, 0.001), 0, 0
        for episode in world.victim.episodes(accounts):
            state = calibration.new_state()
            scores, *_ = calibration.measure([(state, episode)])[0]
            stretches = tests.advance(state, scores, len(scores))
            tests.weigh(state, stretches, statistics(calibration, stretches))
            rate = tests.rate_min(state)
            seen += tests.is_beyond(state)
            alone += calibration.p_value(state.supremum) <= rate
        self.seen.setdefault(name, []).append(100 * seen / len(accounts))
        self.alone.setdefault(name, []).append(100 * alone / len(accounts))


def measure(report: Report) -> None:
    """Fill the report."""
    size = SMOKE if report.smoke else QUICK if report.quick else LONG
    generator = np.random.default_rng(report.seed)
    source = make_world(generator, rows=3000)
    world = _World(
        Victim(source),
        [_honest(source, generator) for _ in range(size.clients)],
        {kind.name: [kind.rows(source, WITHIN, generator) for _ in range(size.thieves)] for kind in THIEVES},
        {kind.name: [kind.rows(source, HORIZON, generator) for _ in range(size.thieves)] for kind in TAKERS},
        size,
        report.seed,
    )
    for count, draws in zip(size.sizes, size.draws, strict=True):
        _add(report, world, count, draws, generator)


def _honest(world: World, generator: np.random.Generator) -> Rows:
    """What a real client asks in `EPOCHS` epochs, without repeats."""
    rows = ask(world.pool, stranger(world.pool, generator), ROWS, generator).rows
    kept = np.sort(np.unique(rows, axis=0, return_index=True)[1])[: EPOCHS * HORIZON]
    return world.pool.shaped(rows[kept])


def _add(report: Report, world: _World, count: int, draws: int, generator: np.random.Generator) -> None:
    shares, old, unseen = _Shares(), list[float](), world.size.unseen
    for draw in range(draws):
        order = generator.permutation(len(world.real))
        chosen = [world.real[index] for index in order[:count]]
        others = [world.real[index] for index in order[count : count + unseen]]
        calibration = world.calibrated(chosen, draw)
        shares.add("first", world, calibration, [rows[:HORIZON] for rows in others])
        for name, accounts in world.thieves.items():
            shares.add(name, world, calibration, accounts)
        if calibration.past is not None:
            shares.add("third", world, calibration, others)
            for name, harvests in world.harvests.items():
                taken = [np.concatenate([rows[: 2 * HORIZON], harvest]) for rows, harvest in zip(others, harvests)]  # noqa: B905
                shares.add(f"taken over: {name}", world, calibration, taken)
        if draw < world.size.old_draws:
            before = world.calibrated(chosen, draw, old=True)
            old.append(_beyond(world, before, [rows[:HORIZON] for rows in others]))
    _add_rates(report, count, calibration, shares, old, generator)
    for kind in THIEVES:
        report.add(
            f"{count} clients: {kind.name} seen within {WITHIN} queries",
            float(np.mean(shares.seen[kind.name])),
            "%",
            reference=f"{draws} draws, {world.size.thieves} thieves; the old way nobody is disturbed",
        )
    for kind in TAKERS if calibration.past is not None else ():
        name = f"taken over: {kind.name}"
        alone = float(np.mean(shares.alone[name]))
        report.add(
            f"{count} clients: accounts taken over for {kind.name}, seen within {HORIZON} queries",
            float(np.mean(shares.seen[name])),
            "%",
            reference=f"{alone:.3g} % at the same rate without a past",
        )


def _add_rates(
    report: Report,
    count: int,
    calibration: Calibration,
    shares: _Shares,
    old: Sequence[float],
    generator: np.random.Generator,
) -> None:
    """Honest clients who are seen, beside the rate that the calibration states."""
    rates = {"first": calibration.clients.rate_min}
    if calibration.past is not None:
        rates["third"] = rate_together(calibration.clients.rate_min, calibration.past.rate_min)
    for epoch, rate in rates.items():
        each = np.array(shares.seen[epoch])
        means = generator.choice(each, (RESAMPLES, len(each))).mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        noise = f"95 % {low:.2g} to {high:.2g} % over {len(each)} draws"
        what = f"{count} clients: honest ones seen in their {epoch} epoch"
        if report.quick:
            report.add(what, float(each.mean()), "%", reference=f"stated {100 * rate:.3g} %; {noise}")
        else:
            # the stated rate holds where it is not below what chance leaves of the measured one
            report.at_most(
                f"{what}, lower bound", float(low), "%", 100 * rate, reference=f"{each.mean():.3g} %; {noise}"
            )
    beside = f"stated {100 * ALPHA:.2g} %, for clients like simulated ones made of their rows"
    report.add(f"{count} clients: honest ones beyond simulated thresholds", float(np.mean(old)), "%", reference=beside)


def _beyond(world: _World, calibration: Calibration, accounts: Sequence[Rows]) -> float:
    """The share of accounts whose p-value is at most `ALPHA`, in percent."""
    suprema = [
        client_supremum(calibration.instruments, scores, HORIZON)
        for scores in calibration.instruments.score(world.victim.episodes(accounts))
    ]
    return 100 * float(np.mean([calibration.p_value(value) <= ALPHA for value in suprema]))


def _quiet(done: int, total: int, stage: str = "") -> None:
    """Nobody watches."""


if __name__ == "__main__":
    main("few_clients", (__doc__ or "").partition("\n")[0], measure)
