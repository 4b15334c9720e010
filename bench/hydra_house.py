"""What a campaign is weighed by and made of: a bank of measured queries, who calibrates, and the scores of accounts."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from bench.watch_bank import Bank, World, make_world, nearness
from palladion.redteam.harvests import harvest
from palladion.redteam.people import Organisation, Person, ask, stranger
from palladion.watch.calibration import MEMBER_SIZES, About, Calibration, Organisations, client_supremum, group_suprema
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
    by_size: dict[int, list[tuple[float, float]]] = {count: [] for count in MEMBER_SIZES}
    for _ in range(size.organisations):
        for count, suprema in group_suprema(instruments, _organisation(bank, instruments, generator)).items():
            by_size[count].append(suprema)
    groups = {
        count: Organisations(*(Conformal.fit(np.array(of)) for of in zip(*found, strict=True)))
        for count, found in by_size.items()
    }
    about = About("digits", 1, "0" * 64, True, size.queries, GROUP_HORIZON, 0, datetime(2026, 1, 1, tzinfo=UTC))
    harvests = {
        "photographs": _harvest(world, features, "foreign", world.foreign, generator),
        "pen strokes": _harvest(world, features, "strokes", None, generator),
    }
    return House(size, bank, Calibration(about, instruments, Conformal.fit(np.array(alone)), groups), harvests)


def _organisation(bank: Bank, instruments: Instruments, generator: np.random.Generator) -> list[Rows]:
    """The scores of ten colleagues, whose styles and habits have `CORRELATION` of their variance in common."""
    common, style = Organisation(bank.pool, CORRELATION, generator), int(generator.integers(bank.styles))
    found = []
    for _ in range(max(MEMBER_SIZES)):
        # two members both have the common style with probability CORRELATION
        same = generator.random() < CORRELATION**0.5
        own = style if same else int(generator.integers(bank.styles))
        found.append(instruments.score_features(bank.client(own, common.member(), GROUP_HORIZON, generator)))
    return found


def _harvest(
    world: World, features: Features, family: str, foreign: NDArray[np.float32] | None, generator: np.random.Generator
) -> tuple[Rows, Rows]:
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
    odd, odd_coordinates = house.harvests[family]
    stolen, found = round(HARVEST * queries), []
    for account in range(house.size.ring):
        # a program that repeats itself or sends junk would only be easier to see
        person: Person = replace(stranger(bank.pool, generator), duplicates=0.0, junk=0.0)
        plain, coordinates = bank.asked(int(generator.integers(bank.styles)), person, queries - stolen, generator)
        dealt = (account * stolen + np.arange(stolen)) % len(odd)
        order = generator.permutation(len(plain) + stolen)
        features = np.concatenate([plain, odd[dealt]])[order]
        features[:, REPEATS] = nearness(np.concatenate([coordinates, odd_coordinates[dealt]])[order])
        found.append(house.scores(features))
    return found
