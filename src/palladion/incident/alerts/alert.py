"""What an alert is: a plain value, made from what is on record. Who gets it and when is in `topics` and `routing`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Literal

from palladion.policy.alerting import SEVERITIES, AlertKind, Severity

Kind = AlertKind | Literal["test"]
SENTENCE_CHARACTERS_MAX = 400  # pagers cut at 1,024, chats earlier; what is longer is in the ledger
CASE_PLACE = "{case}"


@dataclass(frozen=True)
class Alert:
    """What happened, what was done about it, and what to do next; sentences for a person.

    `id` is the same whenever the same record is read. `thread` is what it is about: what comes later about the same is
    an update of it. `subject` is a pseudonym or a name of ours; `name` is how the registry calls it, for channels that
    are told names. `concerns` are pseudonyms of others whom it is about. `cause` is what it is a sign of, a key of
    `watch.taxonomy.DETECTIONS`, and empty for what is no detection.
    """

    id: str
    kind: Kind
    severity: Severity
    thread: str
    subject: str
    sentence: str
    time: datetime
    done: str = ""
    next: str = ""
    figures: Mapping[str, int | str] = field(default_factory=dict)
    case: str | None = None
    name: str = ""
    concerns: tuple[str, ...] = ()
    cause: str = ""


@dataclass(frozen=True)
class Opened:
    """A case was opened: news by itself only where nothing that led to it was told."""

    alert: Alert


@dataclass(frozen=True)
class Taken:
    """Somebody took a case on."""

    case: str


@dataclass(frozen=True)
class Ended:
    """What a thread was about is over."""

    thread: str


Event = Alert | Opened | Taken | Ended


def alert_id(thread: str, kind: str, entry: int) -> str:
    """The id of the alert that entry `entry` of the ledger is."""
    return sha256(f"{thread} {kind} {entry}".encode()).hexdigest()[:16]


def case_thread(case: str) -> str:
    """The thread of a case."""
    return f"case:{case}"


def rank(severity: Severity) -> int:
    """How severe, as a number."""
    return SEVERITIES.index(severity)


def link_of(alert: Alert, pattern: str) -> str:
    """Where a person reads more: `pattern` with the case's id in it; empty where it needs a case and there is none."""
    if CASE_PLACE not in pattern:
        return pattern
    return pattern.replace(CASE_PLACE, alert.case) if alert.case is not None else ""


def shortened(text: str, characters_max: int = SENTENCE_CHARACTERS_MAX) -> str:
    """Printable and no longer than that."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return shown if len(shown) <= characters_max else f"{shown[: characters_max - 1]}…"
