"""What is due of a topic: whom to tell what, and when its case goes on to the next level. Pure: (topic, now) → a plan.

Levels: the first is told at once, or when quiet hours end; the next when the time of the one before is over and nobody
has taken the case. After the last, its channels are told again, once, and the ledger says that nobody came.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from palladion.incident.alerts.routing import Routing
from palladion.incident.alerts.topics import LASTS_WITHOUT_CASE, Topic

Action = Literal["alert", "update", "taken", "ended", "refresh"]
# Alertmanager forgets with its own restart, so it is told again what lasts.
REFRESH = timedelta(minutes=5)


@dataclass(frozen=True)
class Telling:
    """Something to be told by one channel, of a topic; `number` counts the topic's tellings."""

    channel: str
    action: Action
    number: int


@dataclass(frozen=True)
class Plan:
    """What a topic becomes, and what is to be told."""

    topic: Topic
    tellings: tuple[Telling, ...] = ()


def plan(topic: Topic, reached: frozenset[str], routing: Routing, now: datetime) -> Plan:
    """What is due now. `reached` are the channels that were told of the topic, or are being told."""
    tellings: dict[str, Action] = {}
    # a channel that the policy names no more is told nothing more
    reached &= {item.name for item in routing.channels}
    after, told_at = _expired(topic, now), topic.told_at
    if told_at is None:
        if now >= after.settled_at:
            # also of what is over by now: it is on record, and nobody heard of it
            tellings |= dict.fromkeys(routing.direct(after.alert), "alert")
            after = replace(after, told=after.count, told_at=now, refreshed_at=now)
    elif after.state != after.told_state:
        if after.state != "open":
            tellings |= dict.fromkeys(sorted(reached), after.state)
        after = replace(after, told_state=after.state)
    elif after.count > after.told and now >= told_at + routing.repeat:
        quiet = routing.is_quiet(after.alert, now)
        tellings |= dict.fromkeys(
            sorted(reached.intersection(routing.direct(after.alert)) if quiet else reached), "update"
        )
        after = replace(after, told=after.count, told_at=now)
    if after.state != "ended":
        after = _rise(after, tellings, reached, routing, now)
    if after.state != "ended" and after.refreshed_at is not None and now >= after.refreshed_at + REFRESH:
        lasting = {item.name for item in routing.channels if item.kind == "alertmanager"} & reached
        tellings |= dict.fromkeys(sorted(lasting - tellings.keys()), "refresh")
        after = replace(after, refreshed_at=now)
    if tellings:
        after = replace(after, number=after.number + 1)
    return Plan(after, tuple(Telling(channel, action, after.number) for channel, action in tellings.items()))


def _rise(topic: Topic, tellings: dict[str, Action], reached: frozenset[str], routing: Routing, now: datetime) -> Topic:
    """Tell the next level, if it is its turn."""
    if topic.told_at is None or not routing.on_call(topic.alert) or routing.is_quiet(topic.alert, now):
        return topic
    if topic.level == 0:
        level = 1
    elif (
        topic.state == "open"
        and topic.level <= routing.levels
        and routing.escalates(topic.alert)
        and topic.level_at is not None
        and now >= topic.level_at + routing.patience(topic.level)
    ):
        level = topic.level + 1
    else:
        return topic
    for channel in routing.level(level, topic.alert):
        tellings[channel] = "update" if channel in reached else "alert"
    unrecorded = (*topic.unrecorded, level) if level > 1 else topic.unrecorded
    return replace(topic, level=level, level_at=now, unrecorded=unrecorded)


def _expired(topic: Topic, now: datetime) -> Topic:
    """Without a case nobody says that it is over."""
    quiet = topic.alert.case is None and topic.told_at is not None and topic.count == topic.told
    if topic.state == "open" and quiet and now >= topic.news_at + LASTS_WITHOUT_CASE:
        return replace(topic, state="ended")
    return topic
