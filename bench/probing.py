"""How soon does the watch see who probes: boundary walks, inversion, membership, augmentation beside honest use?

Thieves of docs/traffic.md who choose the next query by the labels of the last ones, against a network that reads MNIST.
Nothing is fitted to them. A thief counts as caught at its n-th query of all kinds, and one that has asked honestly
before at the n-th from its first synthetic one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.report import Report, main
from bench.watch_bank import make_world
from bench.watch_chain import NEVER, Chain, Sizes
from palladion.redteam.thieves import ring, thief
from palladion.redteam.traffic import SimulatedClient, honest_organisations
from palladion.watch.calibration import Organisations, group_suprema
from palladion.watch.conformal import Conformal
from palladion.watch.suspicion import CORRELATION

ALPHA, ALPHA_WATCHED = 0.0005, 0.01
WITHIN = 60  # queries: the goal set for augmentation beside honest use
PROBES = ("boundary", "inversion", "membership")
SYNTHETIC = "augmentation"
ACCOUNTS = 10  # that a ring has
BAR = 99  # percent of augmentations, from the first synthetic query on
_WAYS: Sequence[tuple[str, float, bool]] = (("alone", 1.0, False), ("half", 0.5, False), ("half, styled", 0.5, True))
Rows = NDArray[np.float64]


@dataclass(frozen=True)
class _Size:
    """How much is simulated."""

    rows: int
    honest: Sizes
    tested: int
    thieves: int
    before: int
    organisations: int
    each: int
    rings: int


QUICK = _Size(
    rows=1000,
    honest=Sizes(fitted=150, clients=999, horizon=100),
    tested=100,
    thieves=15,
    before=40,
    organisations=39,
    each=30,
    rings=4,
)
LONG = _Size(
    rows=5000,
    honest=Sizes(fitted=1000, clients=9999, horizon=512),
    tested=2500,
    thieves=500,
    before=300,
    organisations=2000,
    each=128,
    rings=200,
)


def measure(report: Report) -> None:
    """Fill the report."""
    size = QUICK if report.quick else LONG
    generator = np.random.default_rng(report.seed)
    try:
        world = make_world(generator, rows=size.rows)
    except FileNotFoundError:
        report.skip("everything: MNIST and CIFAR-10 are expected as bench/watch_bank.py says")
        return
    chain = Chain.simulate(world, size.honest, generator)
    honest = chain.honest(size.tested, generator)
    for rate in (ALPHA, ALPHA_WATCHED):
        found = honest >= chain.threshold(rate)
        beside = f"{found.sum()} of {len(found):,} clients of {chain.horizon} queries"
        name = f"other honest clients beyond the threshold of {_rate(chain, rate)}"
        report.add(name, 100 * float(found.mean()), "%", reference=beside)
    for family in (*PROBES, SYNTHETIC):
        for way, mix, styled in _WAYS:
            _add_alone(report, chain, size, family, way, mix, generator, styled=styled)
    _add_later(report, chain, size, generator)
    _add_rings(report, chain, size, generator)


def _rate(chain: Chain, rate: float) -> str:
    return f"{100 * chain.rate(rate):.2g} %"


def _add_alone(
    report: Report,
    chain: Chain,
    size: _Size,
    family: str,
    way: str,
    mix: float,
    generator: np.random.Generator,
    *,
    styled: bool,
) -> None:
    accounts = [
        thief(
            family, chain.world.pool, size.honest.horizon, generator, mix=mix, styled=styled, labels=chain.world.labels
        )
        for _ in range(size.thieves)
    ]
    _add_caught(report, chain, f"{family}, {way}", accounts)


def _add_later(report: Report, chain: Chain, size: _Size, generator: np.random.Generator) -> None:
    """Who has asked honestly for a while, and goes on doing so, beside synthetic queries."""
    for way, mix in (("alone", 1.0), ("half", 0.5)):
        accounts = [
            thief(SYNTHETIC, chain.world.pool, size.honest.horizon - size.before, generator, mix=mix, after=size.before)
            for _ in range(size.thieves)
        ]
        what = f"{SYNTHETIC} after {size.before} honest queries, {way}"
        _add_caught(report, chain, what, accounts, bar=BAR)


def _add_caught(
    report: Report, chain: Chain, what: str, accounts: Sequence[SimulatedClient], *, bar: float | None = None
) -> None:
    """Queries of all kinds until an account is caught, from the first of its harvest on; who was before, counts too."""
    begun = np.array([int(account.attack.argmax()) if bar is not None else 0 for account in accounts])
    scored = [chain.scores(account) for account in accounts]
    places = {
        rate: np.array([chain.first(*one, chain.threshold(rate)) for one in scored]) for rate in (ALPHA, ALPHA_WATCHED)
    }
    queries = {rate: np.where(found == NEVER, np.inf, found - begun + 1.0) for rate, found in places.items()}
    soon, watched = (100 * float((found <= WITHIN).mean()) for found in queries.values())
    late = 100 * float(np.isfinite(queries[ALPHA]).mean())
    beside = (
        f"{_median(queries[ALPHA])}, {late:.3g} % ever in {len(accounts[0].rows)}; at 1 %: {watched:.3g} %, "
        f"{_median(queries[ALPHA_WATCHED])}; {chain.unlike([scores for _, scores in scored])}"
    )
    name = f"caught within {WITHIN} queries: {what}"
    if bar is None:
        report.add(name, soon, "%", reference=beside)
    else:
        report.at_least(name, soon, "%", bar, reference=beside)


def _median(queries: Rows) -> str:
    median = float(np.median(queries))
    return f"median {median:.0f}" if np.isfinite(median) else "median never"


def _add_rings(report: Report, chain: Chain, size: _Size, generator: np.random.Generator) -> None:
    """Probes that are dealt out to linked accounts, against honest organisations of as many members."""
    pool = chain.world.pool
    groups = honest_organisations(pool, size.organisations, ACCOUNTS, size.each, generator, correlation=CORRELATION)
    suprema = [_of_group(chain, members) for members in groups]
    honest = Organisations(*(Conformal.fit(np.array(found)) for found in zip(*suprema, strict=True)))
    rate = max(0.001, honest.rate_min)
    for family in (*PROBES, SYNTHETIC):
        for way, mix in (("alone", 1.0), ("half", 0.5)):
            rings = [
                ring(family, pool, ACCOUNTS, size.each, generator, mix=mix, labels=chain.world.labels)
                for _ in range(size.rings)
            ]
            pooled, shares = np.array([_of_group(chain, members) for members in rings]).T
            caught = 100 * float((honest.p_values(pooled, shares) <= rate).mean())
            accounts = [chain.scores(one) for members in rings for one in members]
            own = 100 * np.mean([chain.first(*one, chain.threshold(ALPHA)) != NEVER for one in accounts])
            beside = (
                f"{size.rings} rings, {size.each} queries of each account, at {100 * rate:.2g} % of "
                f"{size.organisations} groups; accounts caught alone {own:.3g} %"
            )
            report.add(f"rings of {ACCOUNTS} caught: {family}, {way}", caught, "%", reference=beside)


def _of_group(chain: Chain, members: Sequence[SimulatedClient]) -> tuple[float, float]:
    return group_suprema(chain.instruments, [chain.scores(one)[1] for one in members])[ACCOUNTS]


if __name__ == "__main__":
    main("probing", (__doc__ or "").partition("\n")[0], measure)
