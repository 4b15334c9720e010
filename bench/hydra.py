"""Is a ring of accounts found by what links them, how soon, and who honest is taken for one of it?

Each account of the ring asks 670 queries, a tenth of them photographs; honest accounts ask 60 on average. All ask at
random times over one campaign, ten queries a request. Links, groups and their p-values are the product's; queries come
from a bank (`watch_bank`), and cost no model here. A component is named when its p-value is 0.001 or less.
`PALLADION_BENCH_RING=24000 PALLADION_BENCH_HONEST=200000` is ten times as large as the default.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.hydra_crowd import ASTRAY, TOKEN_ACCOUNTS, Account, make_crowd, rates
from bench.hydra_house import (
    ALPHA,
    House,
    Rows,
    Size,
    honest_accounts,
    make_house,
    organisation,
    ring_accounts,
    smallest_p,
)
from bench.report import Report, main
from palladion.watch.calibration import client_supremum
from palladion.watch.campaigns import Group, p_values
from palladion.watch.links import ADDRESS, Links, Shown
from palladion.watch.residents import Residents, Unshelved
from palladion.watch.scratch import Scratch

REQUEST = 10  # queries
WITHIN = 0.1  # of the ring's queries, before which it should be named
RING_SHARE, HONEST_SHARE = 90.0, 0.1  # percent: of the ring in one component, and of all honest accounts in it
UPDATE_US = 20.0
LINK_MS = 20.0  # that the longest update of a link may take: the gate's loop stands still meanwhile
GROUP_SIZES, CORRELATIONS, NAMED = (2, 3, 5, 10, 20, 50, 100), (0.0, 0.1, 0.3), 0.01
MIB = 1 << 20


QUICK = Size(ring=80, honest=400, queries=100, rows=300, styles=20, fitted=60, organisations=120, clients=100, groups=5)
SMOKE = Size(ring=60, honest=140, queries=100, rows=200, styles=10, fitted=50, organisations=120, clients=100, groups=3)
LONG = Size(
    ring=int(os.environ.get("PALLADION_BENCH_RING", "2400")),
    honest=int(os.environ.get("PALLADION_BENCH_HONEST", "20000")),
    queries=670, rows=1000, styles=200, fitted=500, organisations=2000, clients=1000, groups=200,
)  # fmt: skip


@dataclass(frozen=True)
class _Row:
    """A campaign: what makes its crowd, what is harvested, and after which share of the ring's queries to stop."""

    name: str
    changes: Mapping[str, Any]
    until: float = 0.2
    family: str = "photographs"
    barred: bool = False


_ROWS = (
    _Row("4 kinds of links at 0.3", {"rate": 0.3}, until=1.0, barred=True),
    _Row("5 kinds at 0.3, organisations too", {"rate": 0.3, "organisations": True}),
    _Row("4 kinds at 0.15", {"rate": 0.15}),
    _Row("no links", {"rate": 0.0, "astray": 0.0}, until=1.0),
    _Row("no ring links, honest accounts at two networks more", {"rate": 0.0, "astray": 0.0, "roaming": 2}, until=1.0),
    _Row("4 kinds at 0.3, a tenth pen strokes", {"rate": 0.3}, family="pen strokes"),
)


def measure(report: Report) -> None:
    """Fill the report."""
    size = SMOKE if report.smoke else QUICK if report.quick else LONG
    generator = np.random.default_rng(report.seed)
    house = make_house(size, generator)
    honest = honest_accounts(house, generator)
    ring = ring_accounts(house, "photographs", generator)
    report.add(
        "accounts", size.ring + size.honest, "accounts",
        reference=f"{size.ring:,} of the ring with {size.queries} queries each, a tenth photographs; {size.honest:,} "
        f"honest with {np.mean([len(found) for found in honest]):.0f} distinct ones on average; {rates()}",
    )  # fmt: skip
    report.add(
        "p-value from which a component is named", house.rate, "p",
        reference=f"{size.organisations:,} honest organisations of each size calibrate",
    )  # fmt: skip
    _add_alone(report, house, ring)
    for row in _ROWS:
        if row.family != "photographs":
            ring = ring_accounts(house, row.family, generator)
        crowd = make_crowd(size.ring, size.honest, np.random.default_rng(report.seed), **row.changes)
        stream = _Stream(house, crowd, [*ring, *honest], np.random.default_rng(report.seed + 1), row.until)
        stream.run()
        _add_stream(report, row, stream)
        if row.barred:
            _add_costs(report, stream)
    _add_structure(report, size)
    _add_parting(report, size)
    _add_honest_groups(report, house, generator)


# 1. the campaign


@dataclass(eq=False)
class _Stream:
    """Everybody's requests in the order of time, and what came of them.

    `named_at` and `joined_at` are shares of the ring's queries: when its component was named, and when it held as many
    of the ring as at the end. `wronged` are honest accounts in a component that was ever named, by whether somebody of
    the ring was in it.
    """

    house: House
    crowd: Sequence[Account]
    scores: Sequence[NDArray[np.float32]]
    generator: np.random.Generator
    until: float
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
            if who.ring and asked / ring >= look:
                self._look(asked / ring)
                look += 0.0025 if look < 2 * WITHIN else 0.05
            if asked >= self.until * ring:
                break
        self._look(self.until)
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


def _add_alone(report: Report, house: House, ring: Sequence[NDArray[np.float32]]) -> None:
    """Whom the watch suspects with no links at all: each account by its own queries."""
    calibration = house.calibration
    rate = max(ALPHA, calibration.clients.rate_min)
    suprema = [client_supremum(calibration.instruments, own.astype(np.float64), house.size.queries) for own in ring]
    share = 100 * float(np.mean([calibration.clients.p_value(value) <= rate for value in suprema]))
    report.add(
        "accounts of the ring suspected by their own queries", share, "%",
        reference=f"of all their queries, at {100 * rate:.2g} % of {house.size.clients:,} honest clients",
    )  # fmt: skip


def _add_stream(report: Report, row: _Row, stream: _Stream) -> None:
    size, rate, name, barred = stream.house.size, stream.house.rate, row.name, row.barred
    group = stream.component()
    inside = sum(member.startswith("r") for member in group.members)
    share, honest = 100 * inside / size.ring, group.size - inside
    linkable = sum(who.linked for who in stream.crowd)
    beside = f"{100 * linkable / size.ring:.1f} % have a link at all; {_curve(stream)}"
    if barred:
        report.at_least(f"{name}: of the ring in one component", share, "%", RING_SHARE, reference=beside)
    else:
        report.add(f"{name}: of the ring in one component", share, "%", reference=beside)
    whole, named = stream.first(share=0.95 * share), stream.first(share=0.95 * share, rate=rate)
    if np.isfinite(named):
        found = f"{name}: named with 95 % of these, after of the ring's queries"
        early = stream.first(rate=rate)
        beside = f"it held 95 % of these after {whole:.2g} %; a part of it had p <= {rate:.2g} after {early:.2g} %"
        if barred:
            report.at_most(found, named, "%", 100 * WITHIN, reference=beside)
        else:
            report.add(found, named, "%", reference=beside)
    else:
        report.add(
            f"{name}: smallest p of the component", min(p for _, _, p in stream.curve), "p", reference="never named"
        )
    figure = 100 * honest / size.honest
    beside = f"{honest} of {size.honest:,}, because {_percent(ASTRAY)} of the ring is at a network of honest accounts"
    if barred:
        report.at_most(f"{name}: honest accounts in it", figure, "%", HONEST_SHARE, reference=beside)
    else:
        report.add(f"{name}: honest accounts in it", figure, "%", reference=f"{honest} of {size.honest:,}")
    wrong = len(stream.wronged[False])
    if row.until < 1:
        return
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


# 2. links alone


def _add_structure(report: Report, size: Size) -> None:
    """What the limit of accounts for a token does to a ring, and who honest is drawn in; no queries are weighed."""
    rows: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("25 accounts a token", {"rate": 0.3, "per_token": TOKEN_ACCOUNTS + 5}),
        ("1 % of the ring at honest networks", {"rate": 0.3, "astray": 0.01}),
        ("5 % of the ring at honest networks", {"rate": 0.3, "astray": 0.05}),
        ("honest accounts at one network more", {"rate": 0.3, "roaming": 1}),
        ("honest accounts at two networks more", {"rate": 0.3, "roaming": 2}),
    )
    for name, changes in rows:
        _add_links(
            report, name, make_crowd(size.ring, size.honest, np.random.default_rng(report.seed), **changes), size
        )


def _add_links(report: Report, name: str, crowd: Sequence[Account], size: Size) -> None:
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
        reference=f"{honest[root]} honest in it; the most honest in any: {largest}; longest update "
        f"{1e3 * slowest:.1f} ms",
    )  # fmt: skip


def _add_parting(report: Report, size: Size) -> None:
    """How long the loop stands still when two halves of a large group were held together by one network alone."""
    links, half, slowest, updates = Links(), size.honest // 2, 0.0, 0
    for account in range(2 * half):
        place = account // 10
        links.show(f"c{account}", f"c{account}", Shown(ADDRESS, f"10.{place >> 8}.{place & 255}.1"))
        if account % 10 == 0 and account not in {0, half}:
            links.show(f"c{account}", f"c{account}", Shown(ADDRESS, f"10.{place - 1 >> 8}.{place - 1 & 255}.1"))
    both = ["c5", f"c{half + 5}", *(f"x{number}" for number in range(TOKEN_ACCOUNTS - 1))]
    for name in both:
        links.show(name, name, Shown(ADDRESS, "192.0.2.1"))
    while links.parting:
        began = time.thread_time()
        links.show("c0", "c0", Shown(ADDRESS, "10.0.0.1"))
        slowest, updates = max(slowest, time.thread_time() - began), updates + 1
    parts = sorted(len(links.organisations(links.root(name))) for name in both[:2])
    report.at_most(
        f"longest update of a link while {2 * half:,} linked accounts are parted", 1e3 * slowest, "ms CPU", LINK_MS,
        reference=f"into {parts[0]:,} and {parts[1]:,}, after {updates} updates; the group is judged whole meanwhile",
    )  # fmt: skip


# 3. honest groups


def _add_honest_groups(report: Report, house: House, generator: np.random.Generator) -> None:
    """How often honest groups are unusual, by their size and by how much their members have in common."""
    calibration, count = house.calibration, house.size.groups
    rate = max(NAMED, house.rate)
    for correlation in CORRELATIONS:
        found: dict[int, list[float]] = {members: [] for members in GROUP_SIZES}
        for _ in range(count):
            everybody = organisation(
                house.bank, calibration.instruments, max(GROUP_SIZES), generator, correlation=correlation
            )
            for members in GROUP_SIZES:
                found[members].append(smallest_p(calibration, everybody[:members]))
        for members, smallest in found.items():
            named = sum(value <= rate for value in smallest)
            report.add(
                f"honest groups of {members} whose members correlate by {correlation} with p <= {rate:.2g}",
                100 * named / count, "%", reference=f"{named} of {count}",
            )  # fmt: skip


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main("hydra", (__doc__ or "").partition("\n")[0], measure)
