"""Runs rules over records: one pass, one question to the index, and counts in windows that move with the records.

A window fires once, when it is full, and then begins anew: a burst of a thousand events is few alerts, not a thousand.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import resources
from pathlib import Path

from palladion import files
from palladion.errors import FormatError, NotFoundError
from palladion.intel.sigma.rule import RULE_BYTES_MAX, Rule, Window, member, parse_rule
from palladion.ledger.record import Record

GROUPS_MAX = 100_000  # that one rule counts at once; beyond that the one that was quiet longest is forgotten


@dataclass(frozen=True)
class Match:
    """A rule that applied: to which entries, of which group, and when."""

    rule: Rule
    group: tuple[str, ...]
    count: int
    first: datetime
    last: datetime
    entries: tuple[int, ...]  # the first and the last of them


def pack() -> dict[str, Rule]:
    """The rules that ship with this release, by name."""
    folder = resources.files("palladion.intel.sigma").joinpath("pack")
    found = sorted((item for item in folder.iterdir() if item.name.endswith(".yml")), key=lambda item: item.name)
    return {item.name.removesuffix(".yml"): parse_rule(item.read_bytes(), what=item.name) for item in found}


def load_rules(names: Sequence[str]) -> dict[str, Rule]:
    """Rules by name of the pack or by path; the whole pack without names. Raises NotFoundError, FormatError."""
    shipped = pack()
    if not names:
        return shipped
    found = {}
    for name in names:
        if name in shipped:
            found[name] = shipped[name]
        elif Path(name).is_file():
            found[name] = parse_rule(
                files.read_limited(Path(name), size_max=RULE_BYTES_MAX, what="the rule"), what=name
            )
        else:
            raise NotFoundError(f"no rule and no file is called {name!r}", f"the pack has {', '.join(shipped)}")
    return found


def kinds_of(rules: Iterable[Rule]) -> tuple[str, ...]:
    """The only kinds of records that any of these rules can fit; empty where one may fit all."""
    every = [rule.kinds for rule in rules]
    return () if not all(every) else tuple(sorted({kind for kinds in every for kind in kinds}))


def run_rules(rules: Sequence[Rule], entries: Iterable[tuple[int, Record]]) -> Iterator[Match]:
    """What applies to `entries` in their order, as it comes. Times are the records'; a clock set back counts as now."""
    states = [_State(rule) for rule in rules]
    for number, record in entries:
        for state in states:
            yield from state.seen(number, record)


@dataclass
class _Group:
    events: deque[tuple[datetime, int, str]] = field(default_factory=deque)  # time, entry, counted value


class _State:
    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._kinds = frozenset(rule.kinds)
        self._groups: dict[tuple[str, ...], _Group] = {}

    def seen(self, number: int, record: Record) -> Iterator[Match]:
        rule = self._rule
        if (self._kinds and record.kind not in self._kinds) or not rule.test(record):
            return
        if rule.window is None:
            yield Match(rule, (record.actor, record.subject), 1, record.time, record.time, (number, number))
            return
        for group in _groups(record, rule.window):
            match = self._count(rule.window, group, number, record)
            if match is not None:
                yield match

    def _count(self, window: Window, name: tuple[str, ...], number: int, record: Record) -> Match | None:
        group = self._groups.pop(name, None) or _Group()
        self._groups[name] = group  # again at the end: the order is that of the last event
        if len(self._groups) > GROUPS_MAX:
            del self._groups[next(iter(self._groups))]
        events = group.events
        values = member(record, window.counted) if window.counted else [""]
        now = max(record.time, events[-1][0]) if events else record.time
        events.extend((now, number, value) for value in values)
        while events and (now - events[0][0]).total_seconds() >= window.seconds:
            events.popleft()
        count = len({value for _, _, value in events}) if window.counted else len(events)
        if count < window.least:
            if window.counted and len(events) > 4 * window.least:
                _thin(events)
            return None
        match = Match(self._rule, name, count, events[0][0], now, (events[0][1], events[-1][1]))
        events.clear()
        return match


def _groups(record: Record, window: Window) -> list[tuple[str, ...]]:
    """The groups that a record is in: each value of a list is one."""
    groups: list[tuple[str, ...]] = [()]
    for name in window.group_by:
        values = member(record, name)
        groups = [(*group, value) for group in groups for value in values]
        if len(groups) > GROUPS_MAX:
            raise FormatError(f"one record is in more than {GROUPS_MAX} groups")
    return groups


def _thin(events: "deque[tuple[datetime, int, str]]") -> None:
    """Keep the last event of each value: what is older than that changes no count of values."""
    last = {value: (time, number, value) for time, number, value in events}
    events.clear()
    events.extend(sorted(last.values(), key=lambda event: (event[0], event[1])))
