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


_SPELT = st.from_regex(r"\A[0-9 ]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{5,7}Z?\Z")


@given(_SPELT | st.datetimes().map(lambda moment: moment.isoformat(timespec="microseconds") + "Z"))
def test_what_is_read_is_what_strptime_and_strftime_agree_on(text: str) -> None:
    try:
        expected = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        expected = None
    if expected is None or expected.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z" != text:
        with pytest.raises(ValueError, match="not a canonical timestamp"):
            parse_timestamp(text)
    else:
        assert parse_timestamp(text) == expected


def test_timestamps_of_other_zones_are_written_in_utc() -> None:
    assert timestamp(NOON.astimezone(timezone(timedelta(hours=5)))) == "2026-03-01T12:00:00.000000Z"


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-01T12:00:00Z",
        "2026-03-01T12:00:00.0Z",
        "2026-3-01T12:00:00.000000Z",
        "2026-03-01T12:00:00.000000",
        "2026-03-01T12:00:00.000000+00:00",
        "2026-03-01T13:00:00.000000+01:00",
        "0001-01-01T00:00:00.000000+05:00",
        "2026-03-01T12:00:00.000000z",
        "2026-03-01T12:00:00,000000Z",
        "2026-03-01 12:00:00.000000Z",
        "20260301T120000.000000Z",
        "2026-W09-7T12:00:00.000000Z",
        "2026-03-01T12:00:00.0000001Z",
        "2026-03-01T24:00:00.000000Z",
        "2026-02-30T12:00:00.000000Z",
        "٢026-03-01T12:00:00.000000Z",
        "2026-03-01T12:00:00.000000Z\x00",
        "",
        "x",
    ],
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
