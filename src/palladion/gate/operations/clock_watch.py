"""Notices that the machine's clock was set: the ledger's times, expiries and rates rest on it; its order does not."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

from palladion.clock import Clock, timestamp
from palladion.errors import PalladionError
from palladion.ledger.record import Record, decode_record
from palladion.lifecycle.installation import Installation

LOOK_SECONDS = 30.0
JUMP_SECONDS = 2.0
SLEW = 0.0005  # of what passes: by no more a clock is disciplined without being set
WAITING_MAX = 100
BEHIND_SECONDS = 5.0  # that the last entry may be ahead of us at the start

log = logging.getLogger("palladion.gate")


class ClockWatch:
    """Compares the clock with one that cannot be set. For one event loop."""

    def __init__(
        self,
        clock: Clock,
        actor: str,
        subject: str,
        last: datetime | None,
        *,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """`last` is the time of the ledger's last entry; `steady` counts seconds and never jumps.

        While a machine sleeps, its steady clock may stand still: then waking is told as a jump ahead.
        """
        self._clock = clock
        self._actor = actor
        self._subject = subject
        self._steady = steady
        self._at, self._seconds = clock.now(), steady()
        self._first: Record | None = None
        if last is not None and self._at < last - timedelta(seconds=BEHIND_SECONDS):
            self._first = self._record(last, self._at)

    def look(self) -> Record | None:
        """What there is to be recorded since the last look, if the clock was set."""
        if self._first is not None:
            record, self._first = self._first, None
            return record
        # since it was right last, or many small steps would go unseen
        now, passed = self._clock.now(), self._steady() - self._seconds
        expected = self._at + timedelta(seconds=passed)
        if abs((now - expected).total_seconds()) <= JUMP_SECONDS + SLEW * passed:
            return None
        self._at, self._seconds = now, self._seconds + passed
        return self._record(expected, now)

    async def run(self, append: Callable[[Sequence[Record]], Awaitable[object]]) -> None:
        """Look again and again, until it is cancelled, and record what there is."""
        waiting: list[Record] = []  # until the ledger has them
        while True:
            record = self.look()
            if record is not None:
                log.warning("the clock was set by %s seconds", record.details["seconds"])
                waiting = [*waiting, record][-WAITING_MAX:]
            if waiting:
                try:
                    await append(waiting)
                    waiting = []
                except PalladionError as error:
                    log.warning("clock: %s", error.message)
            await asyncio.sleep(LOOK_SECONDS)

    def _record(self, expected: datetime, now: datetime) -> Record:
        details = {"expected": timestamp(expected), "seconds": round((now - expected).total_seconds())}
        return Record("clock.set", now, self._actor, self._subject, details)


def open_clock_watch(installation: Installation, actor: str) -> ClockWatch:
    """One of an installation's clock, from the last entry of its ledger on."""
    ((number, entry),) = installation.read_ledger().tail(1)
    last = decode_record(entry, what=f"entry {number}").time
    return ClockWatch(installation.clock, actor, installation.paths.home.name, last)
