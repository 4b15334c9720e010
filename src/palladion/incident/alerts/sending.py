"""Sends what is due by one channel, in order, and keeps what came of it."""

from dataclasses import dataclass
from datetime import datetime

from palladion.clock import Clock
from palladion.errors import PalladionError
from palladion.incident.alerts.alert import Alert, Kind, alert_id
from palladion.incident.alerts.channels import Channel
from palladion.incident.alerts.messages import Message
from palladion.incident.alerts.outbox import Outbox
from palladion.incident.alerts.topics import Topic

AT_ONCE = 100  # by one channel, before others' business is looked after


@dataclass(frozen=True)
class Outcome:
    """What came of one sending: nothing in `error` means that it is there. `lost` is one that was given up."""

    channel: str
    error: str = ""
    lost: bool = False


def send_due(
    outbox: Outbox, channel: Channel, clock: Clock, *, link: str = "", topic: str | None = None, most: int = AT_ONCE
) -> list[Outcome]:
    """Send what is due, of one `topic` or of all, until something fails. Raises StorageError of the outbox itself."""
    outcomes: list[Outcome] = []
    name = channel.policy.name
    while len(outcomes) < most and (due := outbox.due(name, clock.now(), topic=topic)) is not None:
        about, delivery = due
        try:
            channel.send(Message(about, delivery.action, delivery.number, link))
        except PalladionError as error:
            lost = outbox.failed(delivery, error.message, clock.now())
            # the next would most likely fail as well, and take its time
            return [*outcomes, Outcome(name, error.message, lost)]
        outbox.sent(delivery, clock.now())
        outcomes.append(Outcome(name))
    return outcomes


def send_test(channel: Channel, now: datetime, *, link: str = "") -> Outcome:
    """Send an alert that says it is a test, and that it is over; not through the outbox. Failing is an outcome too."""
    about = test_topic(now)
    try:
        channel.send(Message(about, "alert", 1, link))
        # so that no page stays open
        channel.send(Message(about, "ended", 2, link))
    except PalladionError as error:
        return Outcome(channel.policy.name, error.message)
    return Outcome(channel.policy.name)


def test_topic(now: datetime) -> Topic:
    """What a test is about."""
    kind: Kind = "test"
    alert = Alert(
        id=alert_id("test", kind, int(now.timestamp() * 1000)),
        kind=kind,
        severity="info",
        thread="test",
        subject="test",
        sentence="this is a test of the channel",
        time=now,
        next="nothing is to be done",
    )
    return Topic.of(alert, now)
