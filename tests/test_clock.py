"""Clocks and the one spelling of an instant."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.clock import ManualClock, SystemClock, parse_timestamp, timestamp

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@given(st.datetimes(min_value=datetime(1000, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_a_timestamp_reads_back_as_the_same_instant(moment: datetime) -> None:
    assert parse_timestamp(timestamp(moment)) == moment


_ZONES = st.sampled_from([UTC, timezone(timedelta(hours=-9))])


@given(st.datetimes(min_value=datetime(1000, 1, 2), max_value=datetime(9999, 12, 30), timezones=_ZONES))  # noqa: DTZ001
def test_a_timestamp_is_spelt_as_by_strftime(moment: datetime) -> None:
    assert timestamp(moment) == moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def test_timestamps_of_other_zones_are_written_in_utc() -> None:
    assert timestamp(NOON.astimezone(timezone(timedelta(hours=5)))) == "2026-03-01T12:00:00.000000Z"


@pytest.mark.parametrize(
    "text", ["2026-03-01T12:00:00Z", "2026-03-01T12:00:00.0Z", "2026-3-01T12:00:00.000000Z", "", "x"]
)
def test_any_other_spelling_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_timestamp(text)


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="timezone"):
        timestamp(NOON.replace(tzinfo=None))
    with pytest.raises(ValueError, match="timezone"):
        ManualClock(NOON.replace(tzinfo=None))


def test_a_manual_clock_moves_only_when_told_even_backwards() -> None:
    clock = ManualClock(NOON)
    assert clock.now() == clock.now() == NOON
    clock.advance(timedelta(seconds=-30))
    assert clock.now() == NOON - timedelta(seconds=30)


def test_the_system_clock_is_in_utc() -> None:
    assert SystemClock().now().tzinfo is UTC
