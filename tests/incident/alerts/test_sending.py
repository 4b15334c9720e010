"""Sending what is due: in order, until something fails, and tests that say that they are tests."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from palladion.clock import ManualClock
from palladion.errors import StorageError
from palladion.incident.alerts.messages import Message, title
from palladion.incident.alerts.outbox import Outbox
from palladion.incident.alerts.sending import Outcome, send_due, send_test
from palladion.policy.alerting import AlertPolicy

from .factories import NOW, alert, routing

FAILED = "it is down"


class _Channel:
    """Takes everything, unless it is down."""

    def __init__(self) -> None:
        self.policy = AlertPolicy(name="chat")
        self.sent: list[Message] = []
        self.down = False

    def send(self, message: Message) -> None:
        """Keep it."""
        if self.down:
            raise StorageError(FAILED)
        self.sent.append(message)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox.open(tmp_path / "alerts.sqlite") as opened:
        alerts = [alert(id=f"{number:016x}", thread=f"t{number}", case=None, kind="drift") for number in range(3)]
        opened.take_in(alerts, {}, place=None, now=NOW, repeat=timedelta(hours=1))
        opened.plan(routing(), NOW)
        yield opened


def test_what_is_due_is_sent_in_order_and_once(outbox: Outbox) -> None:
    channel, clock = _Channel(), ManualClock(NOW)
    assert send_due(outbox, channel, clock) == [Outcome("chat")] * 3
    assert send_due(outbox, channel, clock) == []
    assert [message.topic.id[-1] for message in channel.sent] == ["0", "1", "2"]


def test_after_a_failure_nothing_more_is_tried_and_all_of_it_later(outbox: Outbox) -> None:
    channel, clock = _Channel(), ManualClock(NOW)
    channel.down = True
    assert send_due(outbox, channel, clock) == [Outcome("chat", FAILED)]
    channel.down = False
    assert len(send_due(outbox, channel, clock)) == 2
    clock.advance(timedelta(seconds=5))
    assert len(send_due(outbox, channel, clock)) == 1
    assert sorted(message.topic.id[-1] for message in channel.sent) == ["0", "1", "2"]


def test_one_topic_can_be_sent_alone_and_no_more_than_so_many(outbox: Outbox) -> None:
    channel, clock = _Channel(), ManualClock(NOW)
    assert len(send_due(outbox, channel, clock, topic=f"{1:016x}")) == 1
    assert len(send_due(outbox, channel, clock, most=1)) == 1
    assert [message.topic.id[-1] for message in channel.sent] == ["1", "0"]


def test_a_test_says_that_it_is_one_and_leaves_nothing_open() -> None:
    channel = _Channel()
    assert send_test(channel, NOW) == Outcome("chat")
    assert [message.action for message in channel.sent] == ["alert", "ended"]
    assert all(title(message, names=True).startswith("TEST") for message in channel.sent)
    channel.down = True
    assert send_test(channel, NOW).error == FAILED
