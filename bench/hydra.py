"""Is a ring of accounts found by what links them, how soon, and who honest is taken for one of it?

Each account of the ring asks 670 queries, a tenth of them photographs; honest accounts ask 60 on average. All ask at
random times over one campaign, ten queries a request. Links, groups and their p-values are the product's; queries come
from a bank (`watch_bank`), and cost no model here. A component is named when its p-value is 0.001 or less.
`PALLADION_BENCH_RING=24000 PALLADION_BENCH_HONEST=200000` is ten times as large as the default.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from bench.hydra_crowd import ASTRAY, COLLEAGUES, KINDS, SHARED_NETWORK, TOKEN_ACCOUNTS, Account, make_crowd
from bench.report import Report, main
from bench.watch_bank import Bank, World, make_world, nearness
from palladion.redteam.harvests import harvest
from palladion.redteam.people import Organisation, Person, ask, stranger
from palladion.watch.calibration import MEMBER_SIZES, About, Calibration, Organisations, client_supremum, group_suprema
from palladion.watch.campaigns import Group, p_values
from palladion.watch.conformal import Conformal
from palladion.watch.coverage import Coverage
from palladion.watch.features import REPEATS, Features
from palladion.watch.instruments import Instruments
from palladion.watch.links import Links
from palladion.watch.residents import Residents, Unshelved
from palladion.watch.scores import NormalScores
from palladion.watch.scratch import Scratch
from palladion.watch.suspicion import CORRELATION

ALPHA = 0.001
HARVEST = 0.1  # of a ring account's queries
HONEST_QUERIES = 60
GROUP_HORIZON = 128  # queries of each member, as in `detection`
REQUEST = 10  # queries
WITHIN = 0.1  # of the ring's queries, before which it should be named
RING_SHARE, HONEST_SHARE = 90.0, 0.1  # percent: of the ring in one component, and of all honest accounts in it
UPDATE_US = 20.0
MIB = 1 << 20
Rows = NDArray[np.float64]


@dataclass(frozen=True)
class _Size:
    """How much is simulated; `organisations` calibrate, so that fewer support no rate of `ALPHA`."""

    ring: int
    honest: int
    queries: int  # of an account of the ring
    rows: int
    styles: int
    fitted: int
    organisations: int
    clients: int


QUICK = _Size(ring=120, honest=1000, queries=200, rows=300, styles=30, fitted=100, organisations=250, clients=300)
LONG = _Size(
    ring=int(os.environ.get("PALLADION_BENCH_RING", "2400")),
    honest=int(os.environ.get("PALLADION_BENCH_HONEST", "20000")),
    queries=670, rows=1000, styles=200, fitted=500, organisations=2000, clients=1500,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class _House:
    """What is measured once: the bank, who calibrates, and photographs or pen strokes by name."""

    size: _Size
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


def measure(report: Report) -> None:
    """Fill the report."""
    size = QUICK if report.quick else LONG
    generator = np.random.default_rng(report.seed)
    house = _make_house(size, generator)
    honest = _honest(house, generator)
    ring = _ring(house, "photographs", generator)
    report.add(
        "accounts", size.ring + size.honest, "accounts",
        reference=f"{size.ring:,} of the ring with {size.queries} queries each, a tenth photographs; {size.honest:,} "
        f"honest with {np.mean([len(found) for found in honest]):.0f} distinct ones on average",
    )  # fmt: skip
    report.add(
        "p-value from which a component is named", house.rate, "p",
        reference=f"{size.organisations:,} honest organisations of each size calibrate",
    )  # fmt: skip
    _add_alone(report, house, ring)
    first = True
    for name, changes in _rows():
        crowd = make_crowd(size.ring, size.honest, np.random.default_rng(report.seed), **changes)
        stream = _Stream(house, crowd, [*ring, *honest], np.random.default_rng(report.seed + 1))
        stream.run()
        _add_stream(report, name, stream, barred=first)
        if first:
            _add_costs(report, stream)
        first = False
    crowd = make_crowd(size.ring, size.honest, np.random.default_rng(report.seed), rate=0.3)
    strokes = _ring(house, "pen strokes", generator)
    stream = _Stream(house, crowd, [*strokes, *honest], np.random.default_rng(report.seed + 1))
    stream.run()
    _add_stream(report, "4 kinds at 0.3, a tenth pen strokes", stream, barred=False)
    _add_structure(report, size)


def _rows() -> Iterator[tuple[str, dict[str, float]]]:
    yield "4 kinds of links at 0.3", {"rate": 0.3}
    yield "5 kinds at 0.3, organisations too", {"rate": 0.3, "organisations": True}
    yield "4 kinds at 0.15", {"rate": 0.15}
    yield "no links", {"rate": 0.0, "astray": 0.0}


# 1. what is measured once


def _make_house(size: _Size, generator: np.random.Generator) -> _House:
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
    return _House(size, bank, Calibration(about, instruments, Conformal.fit(np.array(alone)), groups), harvests)


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


def _honest(house: _House, generator: np.random.Generator) -> list[NDArray[np.float32]]:
    bank, found = house.bank, []
    for _ in range(house.size.honest):
        queries = 2 + int(generator.exponential(HONEST_QUERIES - 2))
        style = int(generator.integers(bank.styles))
        found.append(house.scores(bank.client(style, stranger(bank.pool, generator), queries, generator)))
    return found


def _ring(house: _House, family: str, generator: np.random.Generator) -> list[NDArray[np.float32]]:
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


# 2. the campaign


@dataclass(eq=False)
class _Stream:
    """Everybody's requests in the order of time, and what came of them.

    `named_at` and `joined_at` are shares of the ring's queries: when its component was named, and when it held as many
    of the ring as at the end. `wronged` are honest accounts in a component that was ever named, by whether somebody of
    the ring was in it.
    """

    house: _House
    crowd: Sequence[Account]
    scores: Sequence[NDArray[np.float32]]
    generator: np.random.Generator
    links: Links = field(init=False)
    residents: Residents = field(init=False)
    curve: list[tuple[float, float, float]] = field(default_factory=list)  # queries, in one component, its p
    wronged: dict[bool, set[str]] = field(default_factory=lambda: {True: set(), False: set()})
    link_seconds: float = 0.0
    shows: int = 0
    group_seconds: float = 0.0
    queries: int = 0

    def run(self) -> None:
        """All requests."""
        before, scratch = _resident(), Scratch()
        self.links = Links(scratch)
        self.residents = Residents("digits", self.house.calibration, Unshelved({}), self.links, scratch)
        ring = self.house.size.ring * self.house.size.queries
        asked, look = 0, 0.0
        for account, start in self._events():
            who, scores = self.crowd[account], self.scores[account][start : start + REQUEST]
            self._ask(who, scores.astype(np.float64))
            asked += len(scores) if who.ring else 0
            if asked / ring >= look:
                self._look(asked / ring)
                look += 0.0025 if look < 2 * WITHIN else 0.05
        self._look(1.0)
        self.grown = _resident() - before

    def _events(self) -> Iterator[tuple[int, int]]:
        accounts = np.concatenate(
            [np.full(-(-len(found) // REQUEST), number) for number, found in enumerate(self.scores)]
        )
        order = np.argsort(self.generator.random(len(accounts)))
        done = Counter[int]()
        for account in accounts[order].tolist():
            yield account, done[account] * REQUEST
            done[account] += 1

    def _ask(self, who: Account, scores: Rows) -> None:
        known = self.residents
        known.enter(who.name, who.organisation)
        began = time.thread_time()
        for shown in who.shown:
            change = self.links.show(who.name, who.organisation, shown)
            if change is not None:
                known.regroup(change)
        between = time.thread_time()
        group = known.group(who.name)
        turns = group.advance(who.name, scores, (), known.calibration)
        group.weigh(who.name, turns, p_values(known.calibration, turns), rate=self.house.rate)
        self.group_seconds += time.thread_time() - between
        self.link_seconds += between - began
        self.shows += len(who.shown)
        self.queries += len(scores)
        if group.latest <= self.house.rate:
            members = group.members
            honest = {name for name in members if name.startswith("h")}
            self.wronged[len(honest) < len(members)] |= honest

    def _look(self, asked: float) -> None:
        group = self.component()
        inside = sum(name.startswith("r") for name in group.members)
        self.curve.append((asked, 100 * inside / self.house.size.ring, group.p_value))

    def component(self) -> Group:
        """The group with the most accounts of the ring that have asked."""
        asked = [who for who in self.crowd[: self.house.size.ring] if who.name in self.residents]
        roots = [self.links.root(who.organisation) for who in asked]
        ((root, _),) = Counter(roots).most_common(1)
        return self.residents.group(asked[roots.index(root)].name)

    def first(self, *, share: float = 0.0, rate: float = 1.0) -> float:
        """After which share of the ring's queries, in percent, its component was as large and as unusual; infinite for
        never.
        """
        return next((100 * asked for asked, inside, p in self.curve if inside >= share and p <= rate), float("inf"))


def _add_alone(report: Report, house: _House, ring: Sequence[NDArray[np.float32]]) -> None:
    """Whom the watch suspects with no links at all: each account by its own queries."""
    calibration = house.calibration
    rate = max(ALPHA, calibration.clients.rate_min)
    suprema = [client_supremum(calibration.instruments, own.astype(np.float64), house.size.queries) for own in ring]
    share = 100 * float(np.mean([calibration.clients.p_value(value) <= rate for value in suprema]))
    report.add(
        "accounts of the ring suspected by their own queries", share, "%",
        reference=f"of all their queries, at {100 * rate:.2g} % of {house.size.clients:,} honest clients",
    )  # fmt: skip


def _add_stream(report: Report, name: str, stream: _Stream, *, barred: bool) -> None:
    size, rate = stream.house.size, stream.house.rate
    group = stream.component()
    inside = sum(member.startswith("r") for member in group.members)
    share, honest = 100 * inside / size.ring, group.size - inside
    linkable = sum(len([one for one in who.shown if "ring" in one.value or one.value.startswith("1.")]) > 0
                   or who.organisation.startswith("ring-") for who in stream.crowd[: size.ring])
    beside = f"{100 * linkable / size.ring:.1f} % have a link at all; {_curve(stream)}"
    if barred:
        report.at_least(f"{name}: of the ring in one component", share, "%", RING_SHARE, reference=beside)
    else:
        report.add(f"{name}: of the ring in one component", share, "%", reference=beside)
    whole, named = stream.first(share=0.95 * share), stream.first(share=0.95 * share, rate=rate)
    if np.isfinite(named):
        found = f"{name}: named, after of the ring's queries"
        beside = f"it held 95 % of these accounts after {whole:.2g} %; first p <= {rate:.2g} after {stream.first(rate=rate):.2g} %"
        if barred:
            report.at_most(found, named, "%", 100 * WITHIN, reference=beside)
        else:
            report.add(found, named, "%", reference=beside)
    else:
        report.add(f"{name}: smallest p of the component", min(p for _, _, p in stream.curve), "p", reference="never named")
    figure = 100 * honest / size.honest
    beside = f"{honest} of {size.honest:,}, because {_percent(ASTRAY)} of the ring is at a network of honest accounts"
    if barred:
        report.at_most(f"{name}: honest accounts in it", figure, "%", HONEST_SHARE, reference=beside)
    else:
        report.add(f"{name}: honest accounts in it", figure, "%", reference=f"{honest} of {size.honest:,}")
    wrong = len(stream.wronged[False])
    report.add(
        f"{name}: honest accounts ever named, with nobody of the ring", 100 * wrong / size.honest, "%",
        reference=f"{wrong} of {size.honest:,}; {len(stream.wronged[True])} more with accounts of the ring",
    )  # fmt: skip


def _curve(stream: _Stream) -> str:
    """How much of the ring was in one component after some of its queries."""
    shown = []
    for wanted in (0.01, 0.02, 0.05):
        inside = next((inside for asked, inside, _ in stream.curve if asked >= wanted), 0.0)
        shown.append(f"{inside:.0f} % after {_percent(wanted)}")
    return ", ".join(shown)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _add_costs(report: Report, stream: _Stream) -> None:
    """What the campaign's update costs, in the stream and for the ring's component alone and together."""
    events = f"{stream.shows:,} tokens shown, most of them lately; groups that join or part are regrouped in it"
    report.at_most(
        "link update", 1e6 * stream.link_seconds / stream.shows, "us CPU a token", UPDATE_US, reference=events
    )
    report.add(
        f"group update, {REQUEST} queries a request", 1e6 * stream.group_seconds / stream.queries, "us CPU a query",
        reference=f"{stream.queries:,} queries, of the ring's component and of accounts alone",
    )  # fmt: skip
    group, calibration = stream.component(), stream.residents.calibration
    name = next(member for member in group.members if member.startswith("r"))
    scores = stream.scores[int(name[1:])].astype(np.float64)
    for together in (1, 32):
        began, repeats = time.thread_time(), 3200 // together
        for _ in range(repeats):
            turns = [group.advance(name, scores[row : row + 1], (), calibration) for row in range(together)]
            weighed = p_values(calibration, [turn for part in turns for turn in part])
            for place, part in enumerate(turns):
                group.weigh(name, part, weighed[place : place + 1], rate=stream.house.rate)
        took = 1e6 * (time.thread_time() - began) / (repeats * together)
        what = f"update of a group of {group.size:,}, {together} request{'s together' if together > 1 else ''}"
        report.at_most(what, took, "us CPU a query", UPDATE_US, reference="one query each")
    report.add(
        "memory for links and groups", stream.grown / len(stream.crowd) / 1024, "KiB an account",
        reference=f"{stream.grown / MIB:.0f} MiB of RSS, state of each client included; tokens lie in a file",
    )  # fmt: skip


# 3. links alone


def _add_structure(report: Report, size: _Size) -> None:
    """What the limit of accounts for a token does to a ring, and who honest is drawn in; no queries are weighed."""
    for name, changes in (
        ("25 accounts a token", {"rate": 0.3, "per_token": TOKEN_ACCOUNTS + 5}),
        ("1 % of the ring at honest networks", {"rate": 0.3, "astray": 0.01}),
        ("5 % of the ring at honest networks", {"rate": 0.3, "astray": 0.05}),
        ("honest accounts at 2 networks each", {"rate": 0.3, "networks": 2}),
        ("honest accounts at 3 networks each", {"rate": 0.3, "networks": 3}),
    ):
        _add_links(report, name, make_crowd(size.ring, size.honest, np.random.default_rng(report.seed), **changes), size)


def _add_links(report: Report, name: str, crowd: Sequence[Account], size: _Size) -> None:
    links, generator, slowest = Links(), np.random.default_rng(report.seed), 0.0
    order = generator.permutation(len(crowd)).tolist()
    for who in (crowd[index] for index in order):
        for shown in who.shown:
            began = time.thread_time()
            links.show(who.name, who.organisation, shown)
            slowest = max(slowest, time.thread_time() - began)
    ring, honest = (Counter(links.root(who.organisation) for who in crowd if who.ring is of) for of in (True, False))
    root, inside = ring.most_common(1)[0]
    largest = honest.most_common(1)[0][1]
    report.add(
        f"{name}: of the ring in one component", 100 * inside / size.ring, "%",
        reference=f"{honest[root]} honest in it; the most honest in any: {largest}; longest update {1e3 * slowest:.1f} ms",
    )  # fmt: skip


def _resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main("hydra", (__doc__ or "").partition("\n")[0], measure)
