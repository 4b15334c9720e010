"""What a campaign is weighed by and made of: a bank of measured queries, who calibrates, and the scores of accounts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from bench.watch_bank import Bank, World, make_world, nearness
from palladion.redteam.harvests import harvest
from palladion.redteam.people import Organisation, Person, ask, stranger
from palladion.watch.calibration import MEMBER_SIZES, About, Calibration, Organisations, client_supremum, group_suprema
from palladion.watch.client import QUERIES_MIN
from palladion.watch.conformal import Conformal
from palladion.watch.coverage import Coverage
from palladion.watch.features import REPEATS, Features
from palladion.watch.instruments import Instruments
from palladion.watch.scores import NormalScores
from palladion.watch.suspicion import CORRELATION

ALPHA = 0.001
HARVEST = 0.1  # of a ring account's queries
HONEST_QUERIES = 60
GROUP_HORIZON = 128  # queries of each member, as in `detection`
Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Size:
    """How much is simulated; `organisations` calibrate, so that fewer support no rate of `ALPHA`."""

    ring: int
    honest: int
    queries: int  # of an account of the ring
    rows: int
    styles: int
    fitted: int
    organisations: int
    clients: int
    groups: int  # honest ones of each size


@dataclass(frozen=True, eq=False)
class House:
    """What is measured once: the bank, who calibrates, and photographs or pen strokes by name."""

    size: Size
    bank: Bank
    calibration: Calibration
    harvests: dict[str, tuple[Rows, Rows]]

    @property
    def rate(self) -> float:
        """`ALPHA`, or the smallest rate that so many organisations support."""
        return max(ALPHA, *(found.rate_min for found in self.calibration.groups.values()))

    def scores(self, found: Rows) -> NDArray[np.float32]:
        """Scores come in steps of 2**-20 between -3 and 3: half the bytes hold them exactly."""
        return self.calibration.instruments.score_features(found).astype(np.float32)


def make_house(size: Size, generator: np.random.Generator) -> House:
    """Everything that is measured once. Raises FileNotFoundError where the data are not at hand."""
    world = make_world(generator, rows=size.rows)
    people = [stranger(world.pool, generator) for _ in range(size.fitted)]
    rows = np.concatenate([ask(world.pool, person, 50, generator).rows for person in people])
    features = Features.fit(rows.astype(np.float64), world.answers(rows))
    bank = Bank.measure(world, features, size.styles, generator)
    scores = NormalScores.fit(np.concatenate([item for _, item in bank.clients(size.fitted, 128, generator)]))
    fitted = [item for _, item in bank.clients(size.fitted, GROUP_HORIZON, generator)]
    coverage = Coverage.draw(features.directions.shape[1], generator)
    instruments = Instruments.of_scores(features, scores, coverage, fitted)
    alone = [
        client_supremum(instruments, instruments.score_features(item), size.queries)
        for _, item in bank.clients(size.clients, size.queries, generator)
    ]
    groups = calibrated_groups(bank, instruments, size.organisations, generator)
    about = About("digits", 1, "0" * 64, True, size.queries, GROUP_HORIZON, 0, datetime(2026, 1, 1, tzinfo=UTC))
    harvests = {
        "photographs": measured_harvest(world, features, "foreign", world.foreign, generator),
        "pen strokes": measured_harvest(world, features, "strokes", None, generator),
    }
    return House(size, bank, Calibration(about, instruments, Conformal.fit(np.array(alone)), groups), harvests)


def calibrated_groups(
    bank: Bank, instruments: Instruments, count: int, generator: np.random.Generator
) -> dict[int, Organisations]:
    """What so many honest organisations say of groups, by size."""
    by_size: dict[int, list[tuple[float, float]]] = {members: [] for members in MEMBER_SIZES}
    for _ in range(count):
        found = organisation(bank, instruments, max(MEMBER_SIZES), generator)
        for members, suprema in group_suprema(instruments, found).items():
            by_size[members].append(suprema)
    return {
        members: Organisations(*(Conformal.fit(np.array(of)) for of in zip(*found, strict=True)))
        for members, found in by_size.items()
    }


def organisation(
    bank: Bank,
    instruments: Instruments,
    members: int,
    generator: np.random.Generator,
    *,
    correlation: float = CORRELATION,
) -> list[Rows]:
    """The scores of colleagues, whose styles and habits have `correlation` of their variance in common."""
    common, style = Organisation(bank.pool, correlation, generator), int(generator.integers(bank.styles))
    found = []
    for _ in range(members):
        # two members both have the common style with probability `correlation`
        same = generator.random() < correlation**0.5
        own = style if same else int(generator.integers(bank.styles))
        found.append(instruments.score_features(bank.client(own, common.member(), GROUP_HORIZON, generator)))
    return found


def ring_of(
    bank: Bank, instruments: Instruments, harvested: tuple[Rows, Rows], members: int, generator: np.random.Generator
) -> list[Rows]:
    """The scores of accounts that have nothing in common but `HARVEST` of their queries, dealt out to them in turn."""
    stolen, found = round(HARVEST * GROUP_HORIZON), []
    dealt = generator.permutation(len(harvested[0]))[: stolen * members]
    for account in range(members):
        style = int(generator.integers(bank.styles))
        features = _mixed(bank, style, GROUP_HORIZON, harvested, dealt[account::members], generator)
        found.append(instruments.score_features(features))
    return found


def smallest_p(calibration: Calibration, members: Sequence[Rows]) -> float:
    """The smallest p-value that a group has in one epoch, whose members ask in turns; weighed as the watch does it."""
    scores = np.concatenate(members)
    turns = np.concatenate([np.arange(len(found)) for found in members])
    who = np.repeat(np.arange(len(members)), [len(found) for found in members])
    order = np.lexsort((who, turns))
    scores, asking = scores[order], who[order][:, None] == np.arange(len(members))
    asked, counts = np.cumsum(asking, axis=0), np.arange(1, len(scores) + 1)
    shares = calibration.shares.parts(np.cumsum(asking * scores[:, -1:], axis=0), asked).sum(axis=1)
    sums, squares = np.cumsum(scores, axis=0), np.square(asked).sum(axis=1)
    # from when everybody has asked once: before, it is another group
    return float(calibration.group_p_values(sums, counts, squares, shares)[max(QUERIES_MIN, len(members)) - 1 :].min())


def measured_harvest(
    world: World, features: Features, family: str, foreign: NDArray[np.float32] | None, generator: np.random.Generator
) -> tuple[Rows, Rows]:
    """The features and coordinates of what a family of thieves asks."""
    rows = harvest(family, world.pool, 5000, foreign, generator)
    return features.measure(rows.astype(np.float64), world.answers(rows))


def honest_accounts(house: House, generator: np.random.Generator) -> list[NDArray[np.float32]]:
    """The scores (distinct, scores) of each honest account's queries."""
    bank, found = house.bank, []
    for _ in range(house.size.honest):
        queries = 2 + int(generator.exponential(HONEST_QUERIES - 2))
        style = int(generator.integers(bank.styles))
        found.append(house.scores(bank.client(style, stranger(bank.pool, generator), queries, generator)))
    return found


def ring_accounts(house: House, family: str, generator: np.random.Generator) -> list[NDArray[np.float32]]:
    """The scores of each account's queries: its harvest, rows of one pool dealt out, among honest ones of its style."""
    bank, queries = house.bank, house.size.queries
    harvested = house.harvests[family]
    stolen, found = round(HARVEST * queries), []
    for account in range(house.size.ring):
        dealt = (account * stolen + np.arange(stolen)) % len(harvested[0])
        style = int(generator.integers(bank.styles))
        found.append(house.scores(_mixed(bank, style, queries, harvested, dealt, generator)))
    return found


def _mixed(
    bank: Bank,
    style: int,
    queries: int,
    harvested: tuple[Rows, Rows],
    dealt: NDArray[np.int64],
    generator: np.random.Generator,
) -> Rows:
    """The features of what an account of that style asks, the rows of a harvest dealt to it among them."""
    # a program that repeats itself or sends junk would only be easier to see
    person: Person = replace(stranger(bank.pool, generator), duplicates=0.0, junk=0.0)
    plain, coordinates = bank.asked(style, person, queries - len(dealt), generator)
    order = generator.permutation(len(plain) + len(dealt))
    features = np.concatenate([plain, harvested[0][dealt]])[order]
    features[:, REPEATS] = nearness(np.concatenate([coordinates, harvested[1][dealt]])[order])
    return features
