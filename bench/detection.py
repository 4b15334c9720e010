"""Whom does the watch disturb, and how soon does it see a thief? On simulated clients of docs/traffic.md.

A network that reads MNIST; honest clients differ in style, classes, junk, repeats. The threshold is that of a rate of
0.05 % from calibration clients whom no other row contains. An honest client is disturbed if it is ever throttled or
worse. Thieves' families are in none of what is fitted; a thief counts as caught at its n-th query of all kinds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from bench.hydra_house import GROUP_HORIZON, calibrated_groups, measured_harvest, ring_of, smallest_p
from bench.report import Report, main
from bench.watch_bank import Bank, World, make_world, nearness
from palladion.policy import WatchPolicy
from palladion.redteam.people import ask, stranger
from palladion.redteam.thieves import thief
from palladion.redteam.traffic import SimulatedClient
from palladion.watch.calibration import About, Calibration
from palladion.watch.client import QUERIES_MIN
from palladion.watch.conformal import Conformal
from palladion.watch.coverage import Coverage
from palladion.watch.features import REPEATS, Features
from palladion.watch.instruments import Instruments
from palladion.watch.scores import NormalScores

ALPHA = 0.0005
RESAMPLES = 2000
SMALL = (20, 50, 200)  # calibration clients of those who have few
NEVER = np.iinfo(np.int64).max
Rows = NDArray[np.float64]


@dataclass(frozen=True)
class _Size:
    """How much is simulated."""

    rows: int
    styles: int
    fitted: int
    clients: int
    horizon: int
    organisations: int
    thieves: int
    rings: int


QUICK = _Size(rows=300, styles=60, fitted=150, clients=2000, horizon=128, organisations=400, thieves=40, rings=100)
SMOKE = _Size(rows=200, styles=12, fitted=80, clients=400, horizon=100, organisations=120, thieves=4, rings=6)
LONG = _Size(
    rows=1000, styles=500, fitted=1000, clients=10_000, horizon=1000, organisations=2000, thieves=1000, rings=200
)

# name, family, foreign rows?, share of the harvest, styled, queries within which, share to be caught, is that a bar
CELLS: Sequence[tuple[str, str, bool, float, bool, int, float | None]] = (
    ("photographs", "foreign", True, 1.0, False, 10, 99),
    ("drawn shapes", "foreign", False, 1.0, False, 10, 99),
    ("noise", "noise", False, 1.0, False, 10, 99),
    ("smooth noise", "smooth", False, 1.0, False, 10, 99),
    ("active learning", "active", False, 1.0, False, 10, 99),
    ("pen strokes", "strokes", False, 1.0, False, 30, 95),
    ("half photographs", "foreign", True, 0.5, False, 50, 95),
    ("half drawn shapes", "foreign", False, 0.5, False, 50, 95),
    ("half noise", "noise", False, 0.5, False, 50, 95),
    ("styled photographs", "foreign", True, 1.0, True, 10, None),
    ("styled pen strokes", "strokes", False, 1.0, True, 100, None),
    ("styled active learning", "active", False, 1.0, True, 100, None),
    ("jbda", "jbda", False, 1.0, False, 100, None),
    ("styled jbda", "jbda", False, 1.0, True, 100, None),
    ("half pen strokes", "strokes", False, 0.5, False, 100, None),
    ("half active learning", "active", False, 0.5, False, 100, None),
    ("a quarter photographs", "foreign", True, 0.25, False, 100, None),
    ("a tenth photographs", "foreign", True, 0.1, False, 100, None),
    ("mixtures of pairs", "blend", False, 1.0, False, 100, None),
    ("in distribution", "in-distribution", False, 1.0, False, 100, None),
)
_RINGS: Sequence[tuple[str, str, bool, int, float]] = (
    ("photographs", "foreign", True, 10, 99),
    ("drawn shapes", "foreign", False, 10, 99),
    ("pen strokes", "strokes", False, 30, 90),
)


def measure(report: Report) -> None:
    """Fill the report."""
    size = SMOKE if report.smoke else QUICK if report.quick else LONG
    generator = np.random.default_rng(report.seed)
    world = make_world(generator, rows=size.rows)
    features = reference(world, size.fitted, generator)
    bank = Bank.measure(world, features, size.styles, generator)
    scores = NormalScores.fit(np.concatenate([item for _, item in bank.clients(size.fitted, 128, generator)]))
    fitted = [item for _, item in bank.clients(size.fitted, size.horizon, generator)]
    coverage = Coverage.draw(features.directions.shape[1], generator)
    instruments = Instruments.of_scores(features, scores, coverage, fitted)
    calibrated = Conformal.fit(_suprema(bank, instruments, size, generator)[1])
    _add_honest(report, world, bank, instruments, calibrated, size, generator)
    _add_small(report, calibrated, generator)
    threshold = calibrated.threshold(ALPHA)
    for cell in CELLS:
        _add_thieves(report, world, instruments, threshold, size, generator, cell)
    _add_rings(report, world, bank, instruments, size, generator)


def reference(world: World, clients: int, generator: np.random.Generator) -> Features:
    """Features fitted to the queries of so many honest clients."""
    people = [stranger(world.pool, generator) for _ in range(clients)]
    rows = np.concatenate([ask(world.pool, person, 50, generator).rows for person in people])
    return Features.fit(rows.astype(np.float64), world.answers(rows))


def _suprema(
    bank: Bank, instruments: Instruments, size: _Size, generator: np.random.Generator
) -> tuple[NDArray[np.int64], Rows]:
    """The style of each of the clients, and the largest value of its statistic."""
    styles, suprema = [], []
    for style, measured in bank.clients(size.clients, size.horizon, generator):
        styles.append(style)
        suprema.append(float(statistic(instruments, instruments.score_features(measured)).max()))
    return np.array(styles), np.array(suprema)


def statistic(instruments: Instruments, scores: Rows) -> Rows:
    """The statistic after each query (queries,), by all tests of a client; before it is weighed, minus infinity."""
    found = instruments.path(scores)
    found[: QUERIES_MIN - 1] = -np.inf
    return found


def _add_honest(
    report: Report,
    world: World,
    bank: Bank,
    instruments: Instruments,
    calibrated: Conformal,
    size: _Size,
    generator: np.random.Generator,
) -> None:
    threshold = calibrated.threshold(ALPHA)
    if not np.isfinite(threshold):
        threshold = float(calibrated.suprema[-1])  # so few clients support only 1 / (clients + 1)
    unseen = Bank.measure(world, instruments.features, size.styles, generator)
    for name, theirs in (("of the styles calibrated on", bank), ("of other styles", unseen)):
        styles, suprema = _suprema(theirs, instruments, size, generator)
        disturbed = np.asarray(suprema >= threshold)
        low, high = _interval(styles, disturbed, generator)
        what = f"honest clients ever disturbed, {name}"
        beside = (
            f"{disturbed.sum()} of {len(disturbed):,}, {size.horizon:,} queries each; 95 % {low:.2f} to {high:.2f} %"
        )
        if name.startswith("of the") and not report.quick:
            report.at_most(f"{what}, upper bound", high, "%", 0.2, reference=beside)
        else:
            report.add(what, 100 * float(disturbed.mean()), "%", reference=beside)
        watched = suprema >= calibrated.threshold(0.01)
        report.add(f"honest clients ever watched, {name}", 100 * float(watched.mean()), "%", reference="promised 1 %")


def _interval(
    styles: NDArray[np.int64], disturbed: NDArray[np.bool_], generator: np.random.Generator
) -> tuple[float, float]:
    """95 % of the rate in percent: styles drawn again; where none is disturbed, by the rule of three."""
    count = int(styles.max()) + 1
    each, hits = np.bincount(styles, minlength=count), np.bincount(styles, disturbed, minlength=count)
    drawn = generator.integers(0, count, (RESAMPLES, count))
    rates = 100 * hits[drawn].sum(axis=1) / np.maximum(each[drawn].sum(axis=1), 1)
    low, high = np.quantile(rates, [0.025, 0.975])
    return float(low), float(max(high, 300 / len(disturbed)))


def _add_small(report: Report, calibrated: Conformal, generator: np.random.Generator) -> None:
    """What few calibration clients promise: how often one more honest client passes the largest of so many."""
    repeats = 4000
    for count in SMALL:
        drawn = np.stack([generator.choice(calibrated.suprema, count + 1, replace=False) for _ in range(repeats)])
        rate = 100 * float((drawn[:, -1] >= drawn[:, :-1].max(axis=1)).mean())
        promised = 100 / (count + 1)
        noise = 196 * (promised / 100 * (1 - promised / 100) / repeats) ** 0.5
        what = f"honest clients disturbed where {count} calibrate"
        report.at_most(what, rate, "%", promised + noise, reference=f"promised {promised:.2g} %, the smallest there is")


def _add_thieves(
    report: Report,
    world: World,
    instruments: Instruments,
    threshold: float,
    size: _Size,
    generator: np.random.Generator,
    cell: tuple[str, str, bool, float, bool, int, float | None],
) -> None:
    name, family, foreign, mix, styled, within, bar = cell
    caught = []
    for _ in range(size.thieves):
        account = thief(
            family, world.pool, within, generator, foreign=world.foreign if foreign else None, mix=mix, styled=styled
        )
        caught.append(_first(statistic(instruments, _scores(world, instruments, account)) >= threshold))
    queries = np.array(caught)
    share = 100 * float((queries != NEVER).mean())
    median = np.median(queries)
    beside = f"median {median + 1:.0f}" if median < NEVER // 2 else "median never"
    what, unit = f"caught within {within} queries: {name}", "%"
    if bar is None:
        report.add(what, share, unit, reference=beside)
    else:
        report.at_least(what, share, unit, bar, reference=beside)


def _scores(world: World, instruments: Instruments, account: SimulatedClient) -> Rows:
    """The scores (queries, features) of an account's queries; repeats are counted too, which helps the thief."""
    rows = account.rows.reshape(len(account.rows), -1)
    found, coordinates = instruments.features.measure(rows.astype(np.float64), world.answers(rows))
    found[:, REPEATS] = nearness(coordinates)
    return instruments.score_features(found)


def _add_rings(
    report: Report, world: World, bank: Bank, instruments: Instruments, size: _Size, generator: np.random.Generator
) -> None:
    """Linked accounts that hide a tenth of harvest each, weighed as the watch weighs groups of their number."""
    groups = calibrated_groups(bank, instruments, size.organisations, generator)
    about = About("digits", 1, "0" * 64, True, size.horizon, GROUP_HORIZON, 0, datetime(2026, 1, 1, tzinfo=UTC))
    calibration = Calibration(about, instruments, Conformal(np.zeros(1)), groups)
    rate_min = max(found.rate_min for found in groups.values())
    rate = max(WatchPolicy().alpha_campaign, rate_min)
    for name, family, foreign, accounts, bar in _RINGS:
        rows = world.foreign if foreign else None
        harvested = measured_harvest(world, instruments.features, family, rows, generator)
        rings = (ring_of(bank, instruments, harvested, accounts, generator) for _ in range(size.rings))
        p_values = np.array([smallest_p(calibration, members) for members in rings])
        caught = int((p_values <= rate).sum())
        what = f"rings of {accounts} with a tenth of {name}, caught"
        beside = f"{caught} of {size.rings} rings, {GROUP_HORIZON} queries each, at {100 * rate:.2g} % of groups"
        beside += f"; {size.organisations:,} honest organisations calibrate"
        if rate_min <= 0.001:
            beside += f"; at 0.1 %: {100 * float((p_values <= 0.001).mean()):.1f} %"
        report.at_least(what, 100 * caught / size.rings, "%", bar, reference=beside)


def _first(found: NDArray[np.bool_]) -> int:
    return int(found.argmax()) if found.any() else NEVER


if __name__ == "__main__":
    main("detection", (__doc__ or "").partition("\n")[0], measure)
