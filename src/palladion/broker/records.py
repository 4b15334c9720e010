"""What the broker decided, in the ledger; and the time, which its machine's clock must not take back."""

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TypeVar

from palladion.broker.asked import Asked
from palladion.errors import BusyError, PalladionError
from palladion.ledger.record import Record
from palladion.lifecycle.installation import Installation

LEDGER_SECONDS_MAX = 5.0  # for another command to give the ledger back: an approval is used up by then
_PAUSE_SECONDS = 0.05
_Result = TypeVar("_Result")
CLOCK_TOLERANCE = timedelta(minutes=5)  # by which a clock may be set right


class Clock:
    """The installation's clock, as long as it does not go back: leases, approvals and certificates would live again.

    A broker that starts anew begins anew: then leases from the future tell.
    """

    def __init__(self, installation: Installation, monotonic: Callable[[], float]) -> None:
        self._clock, self._monotonic = installation.clock, monotonic
        self._latest, self._latest_at = self._clock.now(), monotonic()

    def now(self) -> datetime:
        """The time. Raises PalladionError where it was set back."""
        now, at = self._clock.now(), self._monotonic()
        if now < self._latest + timedelta(seconds=at - self._latest_at) - CLOCK_TOLERANCE:
            raise PalladionError(
                f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC, and was ahead of that before",
                "set the clock right, and start the broker again",
            )
        if now > self._latest:
            self._latest, self._latest_at = now, at
        return now


def patiently(act: Callable[[], _Result], *, seconds: float = LEDGER_SECONDS_MAX) -> _Result:
    """What `act` returns, which needs the ledger: begun anew while another command has it. Raises BusyError."""
    until = time.monotonic() + seconds
    while True:
        try:
            return act()
        except BusyError:
            if time.monotonic() >= until:
                raise
        time.sleep(_PAUSE_SECONDS)


def record_of(
    what: str, actor: str, asked: Asked | None, details: Mapping[str, object], *, at: datetime, home: str
) -> Record:
    """The record of a decision; where nothing is known of what was asked, it is about `home`."""
    about: dict[str, object] = {}
    if asked is not None:
        about = {"file_id": asked.file_id, "header": asked.header_digest, "purpose": asked.purpose}
        if asked.recipient:
            about["recipient"] = asked.recipient
    subject = f"{asked.model}@{asked.version}" if asked else home
    return Record(f"broker.{what}", at, actor, subject, {**about, **details})
