"""Who gets an alert, and when it is quiet."""

from datetime import UTC, datetime

import pytest

from palladion.incident.alerts.routing import takes
from palladion.policy.alerting import AlertPolicy

from .factories import alert, routing


def test_a_channel_takes_what_is_severe_enough_and_of_its_kinds() -> None:
    channel = AlertPolicy(name="chat", severity="warning", about=("decoy", "drift"))
    assert takes(channel, alert(kind="decoy"))
    assert takes(channel, alert(kind="drift", severity="warning"))
    assert not takes(channel, alert(kind="drift", severity="info"))
    assert not takes(channel, alert(kind="suspension"))


def test_channels_of_levels_are_told_by_levels_alone() -> None:
    found = routing(("pager", 5), ("boss", 5))
    assert found.direct(alert()) == ("chat",)
    assert [found.level(number, alert()) for number in (1, 2, 3)] == [("pager",), ("boss",), ("boss",)]
    assert found.on_call(alert())
    assert not routing().on_call(alert())


def test_what_nobody_can_take_or_is_not_severe_does_not_go_on() -> None:
    found = routing(("pager", 5), severity="critical")
    assert found.escalates(alert())
    assert not found.escalates(alert(case=None))
    assert not found.escalates(alert(severity="warning"))


@pytest.mark.parametrize(
    ("moment", "quiet"),
    [
        # 22:00 in Berlin is 20:00 UTC in summer and 21:00 in winter
        (datetime(2026, 7, 1, 19, 59, tzinfo=UTC), False),
        (datetime(2026, 7, 1, 20, 0, tzinfo=UTC), True),
        (datetime(2026, 1, 1, 20, 0, tzinfo=UTC), False),
        (datetime(2026, 1, 1, 21, 0, tzinfo=UTC), True),
        (datetime(2026, 7, 2, 4, 59, tzinfo=UTC), True),
        (datetime(2026, 7, 2, 5, 0, tzinfo=UTC), False),
    ],
)
def test_quiet_hours_are_those_on_the_wall(moment: datetime, quiet: bool) -> None:
    found = routing(("pager", 5), quiet_from="22:00", quiet_until="07:00", zone="Europe/Berlin")
    assert found.is_quiet(alert(severity="warning"), moment) is quiet
    assert not found.is_quiet(alert(), moment)


def test_quiet_hours_within_a_day() -> None:
    found = routing(("pager", 5), quiet_from="12:00", quiet_until="13:00")
    noon = datetime(2026, 7, 1, 12, 30, tzinfo=UTC)
    assert found.is_quiet(alert(severity="warning"), noon)
    assert not found.is_quiet(alert(severity="warning"), noon.replace(hour=13))
    assert not routing(("pager", 5)).is_quiet(alert(severity="info"), noon)
