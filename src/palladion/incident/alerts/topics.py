"""What was alerted and is not over: a topic is all that came of one thread and one sort. Pure; `outbox` keeps them.

Here it is decided what is news and what is more of the same, so that nobody is paged twice for one thing: a case takes
in what led to it, and what happens again is counted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Literal

from palladion.incident.alerts.alert import Alert, Ended, Event, Kind, Opened, Taken, case_thread, rank, shortened

State = Literal["open", "taken", "ended"]
# How long something waits for the case that it may open: the gate opens one within a second, and tries again for as
# long as its registry cannot be written.
SETTLE = timedelta(seconds=10)
# What nobody can take, because it is no case, is over when so long nothing came of it.
LASTS_WITHOUT_CASE = timedelta(hours=24)
# A campaign is a suspension of several: later members are no other sort of news.
_SORTS: Mapping[str, str] = MappingProxyType({"campaign": "suspension"})


@dataclass(frozen=True)
class Topic:
    """One thing that people are told of. `id` is that of its first alert, by which receivers know it again.

    Its severity and kind never change: what is more severe is a topic of its own. `count` is how often it happened,
    `told` how much of that was told, `number` how many tellings there were. `level` is the one of who is on call that
    was told last; `unrecorded` are levels of which the ledger does not know yet.
    """

    id: str
    key: str
    alert: Alert
    since: datetime
    news_at: datetime
    settled_at: datetime
    state: State = "open"
    count: int = 1
    told: int = 0
    told_at: datetime | None = None
    told_state: State = "open"
    refreshed_at: datetime | None = None
    number: int = 0
    level: int = 0
    level_at: datetime | None = None
    unrecorded: tuple[int, ...] = ()

    @classmethod
    def of(cls, alert: Alert, now: datetime) -> "Topic":
        """What an alert begins, if nothing is known of it."""
        return cls(alert.id, key_of(alert), alert, now, now, now)

    @property
    def over(self) -> bool:
        """Whether nothing is left to be told, or to be waited for."""
        return self.state == "ended" and self.told_state == "ended" and not self.unrecorded

    @property
    def waits(self) -> bool:
        """Whether nobody was told yet."""
        return self.told_at is None and self.level == 0 and self.state != "ended"


@dataclass(frozen=True)
class OpenCase:
    """A case that is not closed: what it concerns, by the subjects of records, and whether somebody has taken it.

    `several` says that it is about more than one client.
    """

    id: str
    subjects: frozenset[str]
    several: bool = False
    taken: bool = False
    name: str = ""


@dataclass(frozen=True)
class Heard:
    """What an event changed: topics that are new or other than before, and ids of those that a case took in."""

    changed: tuple[Topic, ...] = ()
    absorbed: tuple[str, ...] = ()


def hear(
    topics: Iterable[Topic], event: Event, cases: Mapping[str, OpenCase], *, now: datetime, repeat: timedelta
) -> Heard:
    """What an event changes in the topics, of which those that are over may be left out after `repeat`.

    `cases` are the open cases by what they concern, and by their own id.
    """
    match event:
        case Taken(case):
            concerned = [topic for topic in topics if topic.alert.case == case and topic.state == "open"]
            return Heard(tuple(replace(topic, state="taken") for topic in concerned))
        case Ended(thread):
            concerned = [topic for topic in topics if topic.alert.thread == thread and topic.state != "ended"]
            return Heard(tuple(replace(topic, state="ended") for topic in concerned))
        case Opened(alert):
            return _hear_alert(list(topics), alert, _case_of(alert, cases), now, repeat, weak=True)
        case Alert():
            return _hear_alert(list(topics), event, _case_of(event, cases), now, repeat, weak=False)


def key_of(alert: Alert) -> str:
    """By what two alerts are of one topic: the thread, and the sort of news."""
    return f"{alert.thread} {_SORTS.get(alert.kind, alert.kind)}"


def _case_of(alert: Alert, cases: Mapping[str, OpenCase]) -> OpenCase | None:
    names = (alert.case or "", *_whom(alert))
    return next((cases[name] for name in names if name in cases), None)


def _whom(alert: Alert) -> tuple[str, ...]:
    return (alert.subject, *alert.concerns)


def _hear_alert(
    topics: list[Topic], alert: Alert, case: OpenCase | None, now: datetime, repeat: timedelta, *, weak: bool
) -> Heard:
    absorbed: list[Topic] = []
    if any(topic.id == alert.id for topic in topics):
        return Heard()
    if case is not None:
        kind: Kind = "campaign" if alert.kind == "suspension" and case.several else alert.kind
        alert = replace(alert, kind=kind, case=case.id, thread=case_thread(case.id), name=shortened(case.name))
        waiting = [topic for topic in topics if topic.waits and topic.alert.case is None]
        absorbed = [topic for topic in waiting if not case.subjects.isdisjoint(_whom(topic.alert))]
    gone = tuple(topic.id for topic in absorbed)
    # 1. what led to a case tells more than that it was opened
    best = max((topic.alert for topic in absorbed), key=lambda item: rank(item.severity), default=None)
    if best is not None and (weak or rank(best.severity) > rank(alert.severity)):
        kind = "campaign" if alert.kind == "campaign" and best.kind == "suspension" else best.kind
        alert = replace(
            best,
            kind=kind,
            severity=max(alert.severity, best.severity, key=rank),
            case=alert.case,
            thread=alert.thread,
            name=alert.name,
            figures={**best.figures, **alert.figures},
        )
    more = sum(topic.count for topic in absorbed) - (1 if weak and absorbed else 0)
    # 2. of a case of which people know already, that it is open is no news
    if weak and not absorbed and any(topic.alert.thread == alert.thread and topic.state != "ended" for topic in topics):
        return Heard()
    known = [topic for topic in topics if topic.key == key_of(alert) and _counts(topic, now, repeat)]
    old = max(known, key=lambda topic: topic.news_at, default=None)
    if old is not None and rank(alert.severity) <= rank(old.alert.severity):
        return Heard((_counted(old, alert, now, 1 + more),), gone)
    # 3. what is more severe is told at once, as something of its own
    ended = () if old is None or old.state == "ended" else (replace(old, state="ended"),)
    return Heard((_new(alert, case, now, 1 + more), *ended), gone)


def _new(alert: Alert, case: OpenCase | None, now: datetime, count: int) -> Topic:
    waits = SETTLE if alert.case is None and alert.kind in {"suspension", "decoy"} else timedelta(0)
    state: State = "taken" if case is not None and case.taken else "open"
    return replace(Topic.of(alert, now), settled_at=now + waits, state=state, told_state=state, count=count)


def _counted(old: Topic, alert: Alert, now: datetime, count: int) -> Topic:
    shown = old.alert
    if rank(alert.severity) == rank(old.alert.severity):
        # receivers know it by these
        shown = replace(alert, id=old.alert.id, kind=old.alert.kind, name=alert.name or old.alert.name)
    if old.state != "ended":
        return replace(old, alert=shown, news_at=now, count=old.count + count)
    # what goes up and down is still the same: told again, but not before its time
    again: State = "open" if old.told_state == "ended" else old.told_state
    return replace(old, alert=shown, news_at=now, count=old.count + count, state=again, told_state=again)


def _counts(topic: Topic, now: datetime, repeat: timedelta) -> bool:
    """Whether more of the same belongs to it."""
    return topic.state != "ended" or now < (topic.told_at or topic.news_at) + repeat
