"""Alerts, topics and records for tests."""

from datetime import UTC, datetime, timedelta
from typing import Any

from palladion.incident.alerts.alert import Alert
from palladion.incident.alerts.routing import Routing
from palladion.incident.alerts.topics import Topic
from palladion.ledger.record import Record
from palladion.policy.alerting import AlertPolicy, LevelPolicy, OnCallPolicy

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
CLIENT, OTHER = "client:0a1b", "client:2c3d"
CASE = "3f2a" * 8


def at(seconds: float) -> datetime:
    """So many seconds after `NOW`."""
    return NOW + timedelta(seconds=seconds)


def suspended(client: str = CLIENT, to: str = "suspended", actor: str = "watch") -> Record:
    """A standing that was changed."""
    details = {"from": "throttled", "to": to, "reason": "the account's queries are unlike", "route": "/v1"}
    return Record("standing.changed", NOW, actor, client, details)


def record(kind: str, subject: str = f"incident:{CASE}", actor: str = "gate", **details: Any) -> Record:
    """A record of the gate."""
    return Record(kind, NOW, actor, subject, details)


def alert(**changes: Any) -> Alert:
    """A critical alert about a case."""
    values: dict[str, Any] = {
        "id": "00" * 8,
        "kind": "suspension",
        "severity": "critical",
        "thread": f"case:{CASE}",
        "subject": CLIENT,
        "sentence": f"{CLIENT} was suspended",
        "time": NOW,
        "case": CASE,
    }
    return Alert(**{**values, **changes})


def topic(**changes: Any) -> Topic:
    """What that alert begins."""
    return Topic.of(alert(**changes), NOW)


def routing(*levels: tuple[str, int], channels: tuple[AlertPolicy, ...] = (), **oncall: Any) -> Routing:
    """Channels `chat` and one for each level, by level's name and minutes."""
    named = tuple(dict.fromkeys(name for name, _ in levels))
    policies = channels or tuple(AlertPolicy(name=name) for name in ("chat", *named))
    made = tuple(LevelPolicy(channels=(name,), minutes=minutes) for name, minutes in levels)
    return Routing(policies, OnCallPolicy(levels=made, **oncall))
