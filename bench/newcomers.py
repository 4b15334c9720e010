"""Does weighing all newcomers together find a ring that nothing links, and how often is it wrong about honest ones?

Accounts of docs/traffic.md on a table of card payments: each hides a part of foreign rows among honest ones, in a style
of its own, and no two have a link. Beside it what each account's own queries show, and the drift test.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.manner import clients_of
from bench.report import Report, main
from bench.watch_bank import World
from bench.watch_worlds import payments_world
from palladion.watch.calibration import client_supremum
from palladion.watch.conformal import Conformal
from palladion.watch.drift import DRIFT_QUERIES, Drift, Reference
from palladion.watch.instruments import Instruments
from palladion.watch.newcomers import Newcomers, NewcomersReference

ALPHA, ALPHA_OWN = 0.01, 0.001
QUERIES = 64  # of which DRIFT_QUERIES are distinct, with as many repeats as anybody has
Rows = NDArray[np.float64]

# share of the newcomers that are of the ring, share of foreign rows of each
RINGS: Sequence[tuple[float, float]] = ((0.3, 0.25), (0.3, 0.1), (0.3, 0.05), (0.15, 0.1), (0.05, 0.1))


@dataclass(frozen=True)
class _Size:
    """How much is simulated: newcomers of which blocks are drawn, and how many of these."""

    rows: int
    fitted: int
    clients: int
    honest: int
    ring: int
    blocks: int


QUICK = _Size(rows=2000, fitted=150, clients=999, honest=1500, ring=200, blocks=100)
LONG = _Size(rows=10_000, fitted=400, clients=2999, honest=20_000, ring=2000, blocks=1000)


@dataclass(frozen=True, eq=False)
class _Accounts:
    """Their mean scores (accounts, scores) after so many queries, and how unusual each is alone."""

    means: Rows
    suprema: Rows


def measure(report: Report) -> None:
    """Fill the report."""
    size = QUICK if report.quick else LONG
    generator = np.random.default_rng(report.seed)
    world = payments_world(generator, rows=size.rows)
    instruments = Instruments.fit(clients_of(world, size.fitted, QUERIES, generator), generator)
    calibrated = _accounts(world, instruments, size.clients, 0.0, generator)
    alone = Conformal.fit(calibrated.suprema)
    drift = Reference.of(list(calibrated.means * DRIFT_QUERIES), instruments.effects)
    together = NewcomersReference.fit(calibrated.means)
    if drift is None or together is None:
        raise ValueError("too few calibration clients")
    honest = _accounts(world, instruments, size.honest, 0.0, generator)
    _add_honest(report, together, honest, size, generator)
    for share, mix in RINGS:
        ring = _accounts(world, instruments, size.ring, mix, generator)
        what = f"{100 * share:.0f} % of newcomers hide {100 * mix:.0f} % of foreign rows each"
        told, needed, named = _told(together, honest, ring, share, size, generator)
        own = 100 * float((ring.suprema >= alone.threshold(max(ALPHA_OWN, alone.rate_min))).mean())
        left = _left(drift, instruments, honest, ring, share, together.size, size.blocks // 5, generator)
        found = f"after {needed:.0f} newcomers (median); {named:.0f} % of those named are of it; " if told else ""
        beside = (
            f"{found}without: {own:.3g} % of it suspected by their own queries at {100 * ALPHA_OWN:g} %, "
            f"and the drift test speaks in {left:.0f} % of blocks"
        )
        report.add(f"blocks of {together.size} told of: {what}", told, "%", reference=beside)


def _add_honest(
    report: Report, reference: NewcomersReference, honest: _Accounts, size: _Size, generator: np.random.Generator
) -> None:
    blocks = [_block(honest, honest, 0.0, reference.size, generator)[0] for _ in range(size.blocks)]
    p_values = np.array([reference.p_value(*reference.weigh(reference.look(means))) for means in blocks])
    beside = (
        f"{size.blocks} blocks of {reference.size} drawn from {size.honest:,} unseen honest newcomers; "
        f"at 10 %: {100 * (p_values <= 0.1).mean():.3g} %"
    )
    told = 100 * float((p_values <= ALPHA).mean())
    report.add(f"honest blocks told of, at {100 * ALPHA:g} %", told, "%", reference=beside)


def _told(
    reference: NewcomersReference,
    honest: _Accounts,
    ring: _Accounts,
    share: float,
    size: _Size,
    generator: np.random.Generator,
) -> tuple[float, float, float]:
    """Percentage of blocks told of; after how many newcomers, in the median; percentage of the named of the ring."""
    needed, named = [], []
    for _ in range(size.blocks):
        means, theirs = _block(honest, ring, share, reference.size, generator)
        newcomers, first = Newcomers(reference), 0
        for place in range(len(means)):
            newcomers.take(f"{place}", means[place], now=float(place + 1))
            alarm = newcomers.alarm(ALPHA) if place % 8 == 7 else None
            if alarm is not None:
                first = place + 1
                named.append(np.mean([theirs[int(name)] for name in alarm.named]))
                break
        needed.append(first)
    found = np.array([count for count in needed if count])
    if not len(found):
        return 0.0, float("nan"), float("nan")
    return 100 * len(found) / len(needed), float(np.median(found)), 100 * float(np.mean(named))


def _left(
    reference: Reference,
    instruments: Instruments,
    honest: _Accounts,
    ring: _Accounts,
    share: float,
    count: int,
    blocks: int,
    generator: np.random.Generator,
) -> float:
    """Percentage of blocks in which the drift test withdraws the claim, beginning with each."""
    left = 0
    for _ in range(blocks):
        drift = Drift(reference)
        for means in _block(honest, ring, share, count, generator)[0]:
            drift.count(instruments.effects, means * DRIFT_QUERIES, now=1.0)
        left += drift.left
    return 100 * left / blocks


def _block(
    honest: _Accounts, ring: _Accounts, share: float, count: int, generator: np.random.Generator
) -> tuple[Rows, NDArray[np.bool_]]:
    """The mean scores (count, scores) of newcomers in random order, and who is of the ring (count,)."""
    theirs = generator.permutation(count) < round(share * count)
    means = honest.means[generator.permutation(len(honest.means))[:count]]
    means[theirs] = ring.means[generator.permutation(len(ring.means))[: int(theirs.sum())]]
    return means, theirs


def _accounts(
    world: World, instruments: Instruments, count: int, mix: float, generator: np.random.Generator
) -> _Accounts:
    scores = instruments.score(clients_of(world, count, QUERIES, generator, mix=mix))
    means = [found[:DRIFT_QUERIES].mean(axis=0) for found in scores]
    return _Accounts(np.stack(means), np.array([client_supremum(instruments, found, QUERIES) for found in scores]))


if __name__ == "__main__":
    main("newcomers", (__doc__ or "").partition("\n")[0], measure)
