"""How often the ledger hears of those who prove who they are and are no operators: once an hour each. Pure.

Anybody with an account at the provider, or on the machine, is such a stranger, and a ledger keeps what it is told.
"""

from collections import OrderedDict
from dataclasses import dataclass

HOUR_SECONDS = 3600.0
STRANGERS_MAX = 1024  # told of one by one within an hour; all others together are told of once


@dataclass
class _Told:
    at: float
    since: int = 0


class Strangers:
    """Who was told of when. For one event loop."""

    def __init__(self, strangers_max: int = STRANGERS_MAX) -> None:
        self._strangers_max = strangers_max
        self._told: OrderedDict[str, _Told] = OrderedDict()  # oldest first
        self._others: _Told | None = None

    def count(self, identity: str, now: float) -> int | None:
        """How many refusals a record about this one stands for; None where there must be no record.

        What was not recorded is in the next record of the same identity. Where too many come within an hour, those
        who have no place count as one, named by whoever of them came first.
        """
        known = self._told.get(identity)
        if known is None and not self._has_room(now):
            known = self._others
            if known is None or now >= known.at + HOUR_SECONDS:
                self._others = _Told(now)
        elif known is None or now >= known.at + HOUR_SECONDS:
            self._told[identity] = _Told(now)
            self._told.move_to_end(identity)
        if known is None or now >= known.at + HOUR_SECONDS:
            return 1 + (known.since if known is not None else 0)
        known.since += 1
        return None

    def _has_room(self, now: float) -> bool:
        while self._told and now >= next(iter(self._told.values())).at + HOUR_SECONDS:
            self._told.popitem(last=False)
        return len(self._told) < self._strangers_max
