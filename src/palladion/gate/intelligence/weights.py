"""How much a prior may move a client's threshold, so that over all clients the promised rate stays. Pure.

Weighted p-values (Genovese, Roeder and Wasserman, Biometrika 93, 2006): who is watched at p ≤ α · w is watched by
mistake with a probability of at most α · w, whatever others are; so where the weights' mean over clients is at most 1,
the mean of these probabilities is at most α. Weights may depend on anything but the client's queries. Here each client
gives up a share of α when it is first seen, and those whom a feed lists are given what others gave up, as long as there
is any. What was given is not taken back: that a list ends does not undo that a client may have been watched for it.
"""

import math
import struct
from collections.abc import Mapping

from palladion.errors import FormatError

PURPOSE = "intel-weights"  # under which the registry keeps what was given
GRANT_MIN = 0.05  # less moves nothing that anybody would notice, and would be kept for ever
_SAVED = struct.Struct("<d")


class Weights:
    """Which weight each client has. Clients enter and leave: only those who are known have given something up."""

    def __init__(self, share: float) -> None:
        """`share` is what each gives up, of 1."""
        self.share = share
        self._granted: dict[str, float] = {}  # beyond what it gave up, by client
        self._total = 0.0
        self._present = 0
        self._changed: set[str] = set()

    @property
    def left(self) -> float:
        """What was given up by those who are known, and given to nobody yet."""
        return max(0.0, self.share * self._present - self._total)

    @property
    def mean(self) -> float:
        """The largest mean that weights can have had, over the clients who are known; 1 at most once others are."""
        return 1 - self.share + self._total / self._present if self._present else 1.0

    def restore(self, granted: Mapping[str, float]) -> None:
        """Take over what was given in earlier runs, by client."""
        self._granted.update(granted)
        self._total = math.fsum(self._granted.values())

    def enter(self) -> None:
        """A client is known from now on."""
        self._present += 1

    def leave(self) -> None:
        """A client is known no more: what it gave up counts no more, and what it was given still does."""
        self._present -= 1

    def of(self, client: str, log_odds: float) -> float:
        """The weight of a client who is known, for a prior (nats); at most `exp(log_odds)`, and 1 where none is given.

        It is as large as what is left allows, and no smaller than it ever was for the same prior.
        """
        if self.share == 0:
            return 1.0
        low = 1 - self.share
        wanted = math.exp(log_odds) - low
        if log_odds <= 0:
            return low
        granted = self._granted.get(client, 0.0)
        more = min(wanted - granted, self.left)
        if more >= GRANT_MIN:
            granted += more
            self._granted[client] = granted
            self._total += more
            self._changed.add(client)
        return low + min(wanted, granted)

    def changes(self) -> dict[str, bytes]:
        """What was given, by client, as far as it changed since this was last asked: to be saved."""
        changed, self._changed = self._changed, set()
        return {client: _SAVED.pack(self._granted[client]) for client in changed}


def read_granted(saved: Mapping[str, bytes]) -> dict[str, float]:
    """What `changes` gave to be saved. Raises FormatError on anything else."""
    found: dict[str, float] = {}
    for client, data in saved.items():
        value = _SAVED.unpack(data)[0] if len(data) == _SAVED.size else math.nan
        if not 0 <= value < math.exp(3):
            raise FormatError(f"the saved weight of client {client} is not one that the gate wrote")
        found[client] = value
    return found
