"""What receivers are sent: the bytes of each protocol, from a topic. Pure.

Sources: Standard Webhooks 1.0 (webhook-id, webhook-timestamp, webhook-signature); Alertmanager's OpenAPI v2
(postableAlerts); PagerDuty Events API v2. Clients have the pseudonyms of the ledger unless `names`.
"""

import base64
import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import msgspec

from palladion.clock import timestamp
from palladion.incident.alerts.alert import Alert, link_of
from palladion.incident.alerts.planning import Action
from palladion.incident.alerts.topics import Topic
from palladion.watch.taxonomy import ids_of

# Alertmanager ends what it does not hear of: longer than a gate is usually down, so that its end is no all-clear.
LASTS = timedelta(hours=24)
# PagerDuty cuts, or refuses, what is longer (Events API v2).
SUMMARY_CHARACTERS_MAX = 1024
_TYPES = {"alert": "opened", "update": "updated", "taken": "taken", "ended": "ended", "refresh": "updated"}
_WORDS = {"alert": "", "update": "again: ", "taken": "taken: ", "ended": "over: ", "refresh": ""}
_PAGERDUTY = {
    "alert": "trigger",
    "update": "trigger",
    "refresh": "trigger",
    "taken": "acknowledge",
    "ended": "resolve",
}


@dataclass(frozen=True)
class Message:
    """One telling of a topic: `number` makes it one of its own, and is the same whenever it is sent again."""

    topic: Topic
    action: Action
    number: int
    link: str = ""  # the pattern of the policy

    @property
    def id(self) -> str:
        """By which a receiver knows that it has this one already."""
        return f"{self.topic.id}.{self.number}.{self.action}"


def subject_of(alert: Alert, *, names: bool) -> str:
    """Whom or what it is about, as a channel may know it."""
    return alert.name if names and alert.name else alert.subject


def title(message: Message, *, names: bool) -> str:
    """One line for people."""
    alert = message.topic.alert
    mark = "TEST, nothing happened: " if alert.kind == "test" else ""
    named = f" ({alert.name})" if names and alert.name else ""
    return f"{mark}{_WORDS[message.action]}{alert.severity}: {alert.sentence}{named}"


def text(message: Message, *, names: bool) -> str:
    """What a mail or a chat shows below the title."""
    topic, alert = message.topic, message.topic.alert
    lines = [
        f"About: {subject_of(alert, names=names)}",
        f"When: {timestamp(topic.since)}" + (f", {topic.count} times until {_last(topic)}" if topic.count > 1 else ""),
        *(
            [f"Figures: {', '.join(f'{name} {value}' for name, value in alert.figures.items())}"]
            if alert.figures
            else []
        ),
        *([f"A sign of: {alert.cause} ({', '.join(ids_of(alert.cause))})"] if alert.cause else []),
        *([f"Done: {alert.done}"] if alert.done else []),
        *([f"Next: {alert.next}"] if alert.next else []),
        *([f"Case: {alert.case}"] if alert.case else []),
        *([f"More: {link}"] if (link := link_of(alert, message.link)) else []),
    ]
    return "\n".join(lines)


def event_of(message: Message) -> str:
    """What a message tells of an alert: `alert.opened`, `alert.updated`, `alert.taken` or `alert.ended`."""
    return f"alert.{_TYPES[message.action]}"


def webhook_body(message: Message, *, names: bool, now: datetime) -> bytes:
    """The JSON of a webhook."""
    document = {
        "type": event_of(message),
        "timestamp": timestamp(now),
        "data": _document(message, names=names),
    }
    return msgspec.json.encode(document)


def webhook_headers(key: bytes, message_id: str, body: bytes, *, now: datetime) -> dict[str, str]:
    """The headers by which a receiver knows who sent `body`, and when: HMAC-SHA256 over id, time and body."""
    moment = str(int(now.timestamp()))
    signed = hmac.digest(key, b".".join((message_id.encode(), moment.encode(), body)), sha256)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": moment,
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }


def alertmanager_body(message: Message, *, names: bool, now: datetime) -> bytes:
    """An array of one alert. Its labels are what it is known by, so none of them ever changes."""
    topic, alert = message.topic, message.topic.alert
    labels = {
        "alertname": "PalladionAlert",
        "alert": topic.id,
        "kind": alert.kind,
        "severity": alert.severity,
        "service": "palladion",
    }
    annotations = {
        "summary": title(message, names=names),
        "description": text(message, names=names),
        "state": topic.state,
    }
    item: dict[str, Any] = {
        "labels": labels,
        "annotations": annotations,
        "startsAt": timestamp(topic.since),
        "endsAt": timestamp(now if message.action == "ended" else now + LASTS),
    }
    link = link_of(alert, message.link)
    return msgspec.json.encode([{**item, "generatorURL": link} if link else item])


def pagerduty_body(message: Message, key: str, *, names: bool, source: str) -> bytes:
    """An event; `key` is the integration's routing key, `source` who sends it."""
    alert = message.topic.alert
    event: dict[str, Any] = {
        "routing_key": key,
        "event_action": _PAGERDUTY[message.action],
        "dedup_key": message.topic.id,
    }
    if event["event_action"] == "trigger":
        event["payload"] = {
            "summary": title(message, names=names)[:SUMMARY_CHARACTERS_MAX],
            "source": source,
            "severity": alert.severity,
            "timestamp": timestamp(message.topic.since),
            "component": "palladion",
            "group": alert.case or alert.thread,
            "class": alert.kind,
            "custom_details": _document(message, names=names),
        }
        link = link_of(alert, message.link)
        if link:
            event["links"] = [{"href": link, "text": "the case"}]
    return msgspec.json.encode(event)


def _document(message: Message, *, names: bool) -> dict[str, Any]:
    topic, alert = message.topic, message.topic.alert
    return {
        "id": topic.id,
        "test": alert.kind == "test",
        "kind": alert.kind,
        "severity": alert.severity,
        "state": topic.state,
        "subject": subject_of(alert, names=names),
        "sentence": alert.sentence,
        "figures": dict(alert.figures),
        "cause": alert.cause or None,
        "techniques": list(ids_of(alert.cause)),
        "done": alert.done,
        "next": alert.next,
        "case": alert.case,
        "link": link_of(alert, message.link) or None,
        "first": timestamp(topic.since),
        "last": _last(topic),
        "count": topic.count,
        "level": topic.level,
    }


def _last(topic: Topic) -> str:
    return timestamp(max(topic.since, topic.alert.time, topic.news_at))
