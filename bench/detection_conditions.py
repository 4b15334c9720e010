"""What if the model reads a table or photographs, and what if thieves were among the clients that calibrated?

Worlds of bench/watch_worlds.py beside MNIST: honest clients with styles of their own, also with styles that lie half as
far out again, and thieves of docs/traffic.md. Then calibrations of which one client in a hundred is a thief.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.report import Report, main
from bench.watch_bank import World
from bench.watch_chain import FIRST_QUERIES, Chain, Sizes, ask_honestly, flat, seen, supremum
from bench.watch_worlds import payments_world, photographs_world
from palladion.redteam.thieves import thief
from palladion.redteam.traffic import SimulatedClient
from palladion.watch.conformal import Conformal
from palladion.watch.coverage import Coverage
from palladion.watch.features import Features
from palladion.watch.instruments import Instruments
from palladion.watch.scores import NormalScores

ALPHA, ALPHA_WATCHED, ALPHA_TWICE = 0.0005, 0.01, 0.02
STRETCHED = 1.5  # how far out unseen styles lie, of those that were calibrated on
POISONED = 0.01  # share of the calibration clients
POISONED_BAR = 5.0  # points of power that this may cost
Rows = NDArray[np.float64]

# name, family, foreign rows?, share of the harvest, queries within which
CELLS: Sequence[tuple[str, str, bool, float, int]] = (
    ("foreign rows", "foreign", True, 1.0, 10),
    ("foreign rows made of the pool", "foreign", False, 1.0, 10),
    ("noise", "noise", False, 1.0, 10),
    ("marginals", "marginals", False, 1.0, 10),
    ("active learning", "active", False, 1.0, 10),
    ("half foreign rows", "foreign", True, 0.5, 50),
)


@dataclass(frozen=True)
class _Size:
    """How much is simulated."""

    rows: int
    honest: Sizes
    tested: int
    thieves: int


@dataclass(frozen=True)
class _Form:
    """A form of this script: sizes by world, the side of photographs, and of how many families each poisons."""

    payments: _Size
    photographs: _Size
    side: int
    poisoned: _Size
    poisons: int


QUICK = _Form(
    payments=_Size(rows=2000, honest=Sizes(fitted=150, clients=599, horizon=64), tested=150, thieves=20),
    photographs=_Size(rows=500, honest=Sizes(fitted=80, clients=199, horizon=50), tested=50, thieves=10),
    side=16,
    poisoned=_Size(rows=1000, honest=Sizes(fitted=100, clients=299, horizon=50), tested=100, thieves=20),
    poisons=2,
)
SMOKE = _Form(
    payments=_Size(rows=1000, honest=Sizes(fitted=80, clients=199, horizon=64), tested=40, thieves=4),
    photographs=_Size(rows=300, honest=Sizes(fitted=60, clients=120, horizon=50), tested=20, thieves=2),
    side=16,
    poisoned=_Size(rows=500, honest=Sizes(fitted=60, clients=120, horizon=50), tested=30, thieves=4),
    poisons=1,
)
LONG = _Form(
    payments=_Size(rows=10_000, honest=Sizes(fitted=1000, clients=9999, horizon=512), tested=5000, thieves=500),
    photographs=_Size(rows=5000, honest=Sizes(fitted=400, clients=1999, horizon=128), tested=1000, thieves=100),
    side=32,
    poisoned=_Size(rows=10_000, honest=Sizes(fitted=400, clients=3999, horizon=128), tested=1000, thieves=200),
    poisons=len(CELLS),
)


def measure(report: Report) -> None:
    """Fill the report."""
    form = SMOKE if report.smoke else QUICK if report.quick else LONG
    generator = np.random.default_rng(report.seed)
    for name, world, size in _worlds(report, form, generator):
        chain = Chain.simulate(world, size.honest, generator)
        _add_honest(report, name, chain, size, generator)
        for cell in CELLS:
            _add_thieves(report, name, chain, size, cell, generator)
    _add_poisoned(report, form, generator)


def _worlds(report: Report, form: _Form, generator: np.random.Generator) -> Iterator[tuple[str, World, _Size]]:
    size = form.payments
    yield "payments", payments_world(generator, rows=size.rows), size
    size = form.photographs
    try:
        yield "photographs", photographs_world(generator, rows=size.rows, side=form.side), size
    except FileNotFoundError:
        report.skip("photographs: MNIST and CIFAR-10 are expected as bench/watch_bank.py says")


def _add_honest(report: Report, world: str, chain: Chain, size: _Size, generator: np.random.Generator) -> None:
    for kind, stretched in (("", 1.0), (f" in styles {STRETCHED} times as far out", STRETCHED)):
        suprema = chain.honest(size.tested, generator, stretched=stretched)
        disturbed, watched = (suprema >= chain.threshold(rate) for rate in (ALPHA, ALPHA_WATCHED))
        beside = (
            f"promised {_rate(chain)}{', but not to these' if kind else ''}; {disturbed.sum()} of {len(suprema):,}, "
            f"{chain.horizon} queries each; at 1 %: {100 * watched.mean():.3g} %"
        )
        report.add(f"{world}: honest clients disturbed{kind}", 100 * float(disturbed.mean()), "%", reference=beside)


def _rate(chain: Chain) -> str:
    return f"{100 * chain.rate(ALPHA):.2g} %"


def _add_thieves(
    report: Report,
    world: str,
    chain: Chain,
    size: _Size,
    cell: tuple[str, str, bool, float, int],
    generator: np.random.Generator,
) -> None:
    name, *_, within = cell
    scored = [chain.scores(account) for account in _accounts(chain.world, cell, size.thieves, chain.horizon, generator)]
    soon, ever, watched = (
        _share(chain, scored, rate, limit)
        for rate, limit in ((ALPHA, within), (ALPHA, chain.horizon), (ALPHA_WATCHED, within))
    )
    beside = (
        f"at {_rate(chain)}; within {chain.horizon}: {ever:.3g} %; at 1 %, within {within}: {watched:.3g} %; "
        f"{chain.unlike([scores for _, scores in scored])}"
    )
    report.add(f"{world}: caught within {within} queries: {name}", soon, "%", reference=beside)


def _accounts(
    world: World, cell: tuple[str, str, bool, float, int], count: int, queries: int, generator: np.random.Generator
) -> list[SimulatedClient]:
    _, family, foreign, mix, _ = cell
    own = world.foreign if foreign else None
    return [thief(family, world.pool, queries, generator, foreign=own, mix=mix) for _ in range(count)]


def _share(chain: Chain, scored: Sequence[tuple[NDArray[np.int64], Rows]], rate: float, within: int) -> float:
    """Of accounts, the percentage that are caught within so many queries."""
    threshold = chain.threshold(rate)
    return 100 * float(np.mean([chain.first(*one, threshold) < within for one in scored]))


def _add_poisoned(report: Report, form: _Form, generator: np.random.Generator) -> None:
    """The same clients with and without thieves of one family among them, and how much less is seen of that family."""
    size = form.poisoned
    world, honest = payments_world(generator, rows=size.rows), size.honest
    asked = [ask_honestly(world, honest.horizon, generator) for _ in range(honest.fitted + honest.clients)]
    fitted, others = asked[: honest.fitted], asked[honest.fitted :]
    clean = _recorded(world, fitted, others, honest.horizon, generator)
    for cell in CELLS[: form.poisons]:
        accounts = _accounts(world, cell, round(POISONED * len(asked)), honest.horizon, generator)
        rows = [flat(account) for account in accounts]
        among = round(POISONED * len(fitted))
        poisoned = _recorded(
            world,
            rows[:among] + fitted[among:],
            rows[among:] + others[len(rows) - among :],
            honest.horizon,
            generator,
        )
        _add_power(report, cell, clean, poisoned, size, generator)


def _recorded(
    world: World,
    fitted: Sequence[NDArray[np.float32]],
    others: Sequence[NDArray[np.float32]],
    horizon: int,
    generator: np.random.Generator,
) -> Chain:
    """`Chain.fit` to recorded clients, among whom thieves may be."""
    rows = np.concatenate([one[:FIRST_QUERIES] for one in fitted])
    features = Features.fit(rows.astype(np.float64), world.answers(rows))
    measured = [seen(world, features, one)[1] for one in fitted]
    coverage = Coverage.draw(features.directions.shape[1], generator)
    scores = NormalScores.fit(np.concatenate(measured))
    instruments = Instruments.of_scores(features, scores, coverage, measured, recorded=True)
    suprema = [supremum(instruments, seen(world, features, one)[1]) for one in others]
    return Chain(world, instruments, Conformal.fit(np.array(suprema)), horizon)


def _add_power(
    report: Report,
    cell: tuple[str, str, bool, float, int],
    clean: Chain,
    poisoned: Chain,
    size: _Size,
    generator: np.random.Generator,
) -> None:
    name, *_, within = cell
    accounts = _accounts(clean.world, cell, size.thieves, clean.horizon, generator)
    scored = {chain: [chain.scores(account) for account in accounts] for chain in (clean, poisoned)}
    suprema = poisoned.honest(size.tested, generator)
    for rate, label in ((ALPHA, _rate(poisoned)), (ALPHA_WATCHED, "1 %"), (ALPHA_TWICE, "2 %")):
        before, after = (_share(chain, found, rate, within) for chain, found in scored.items())
        clean_late, late = (_share(chain, found, rate, clean.horizon) for chain, found in scored.items())
        disturbed = 100 * float((suprema >= poisoned.threshold(rate)).mean())
        beside = (
            f"{after:.3g} % of {before:.3g} %; within {clean.horizon}: {late:.3g} % of {clean_late:.3g} %; honest ones "
            f"beyond that threshold: {disturbed:.2g} % of {size.tested:,}"
        )
        if rate < POISONED:
            # of those who are a share of the calibration clients, no promise lets more than that be seen
            beside += f"; no more than {100 * max(rate, poisoned.rate(rate)) / POISONED:.0f} % is possible"
        what = f"1 % poisoned, at {label}: power within {within} queries lost on {name}"
        report.at_most(what, before - after, "points", POISONED_BAR, reference=beside)


if __name__ == "__main__":
    main("detection_conditions", (__doc__ or "").partition("\n")[0], measure)
