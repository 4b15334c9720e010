"""Time as a parameter. Code that needs the time takes a `Clock`; tests hand in a `ManualClock` and move it by hand."""

from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec

_write = msgspec.json.Encoder().encode


class Clock(Protocol):
    """Where the time comes from."""

    def now(self) -> datetime:
        """The current time, timezone-aware, in UTC."""
        ...


class SystemClock:
    """The machine's own clock. It can jump: nothing may assume that it is monotonic."""

    def now(self) -> datetime:
        """The current time in UTC."""
        return datetime.now(UTC)


class ManualClock:
    """A clock that moves only when told to; for tests and for replaying recorded traffic."""

    def __init__(self, start: datetime) -> None:
        if start.tzinfo is None:
            raise ValueError("a clock needs a timezone-aware start")
        self._now = start.astimezone(UTC)

    def now(self) -> datetime:
        """The time it was set to."""
        return self._now

    def advance(self, step: timedelta) -> None:
        """Move by `step`; a negative step is a clock that was set back."""
        self._now += step


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds and a `Z`: one spelling per instant, so that it sorts and signs."""
    if moment.tzinfo is None:
        raise ValueError("a timestamp needs a timezone-aware datetime")
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    if utc.microsecond:
        # the same text in a tenth of the time: each record has one
        return str(_write(utc), "ascii")[1:-1]
    return f"{utc.isoformat(timespec='seconds').removesuffix('+00:00')}.000000Z"


def parse_timestamp(text: str) -> datetime:
    """The instant of a `timestamp`. Raises ValueError on any other spelling."""
    try:
        # takes more spellings than ours, and is told from them by writing it again
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or not text.endswith("Z") or timestamp(moment) != text:
        raise ValueError(f"not a canonical timestamp: {text!r}")
    return moment
