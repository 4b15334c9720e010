"""When the steps of suspicion begin for one account: not with the query that crosses a threshold, but somewhat later.

How much later, a keyed hash (BLAKE2b, RFC 7693) of model, account and epoch says: nobody outside can foretell it, and
it is the same after a restart and in a replay. All steps are put off by the same number of queries, so that whoever
sees a further one learns nothing more of the threshold, and with several accounts no more than docs/watch.md says.
Steps are only ever put off.
"""

import math
from hashlib import blake2b

import msgspec

AT_ONCE = 0  # an onset that puts nothing off
_BYTES = 8
_ACCOUNT, _GROUP = b"account", b"group"


class Onsets:
    """The onsets of all accounts, each a number of 64 bits, drawn evenly. Never prints its key."""

    def __init__(self, key: bytes | None = None) -> None:
        """`key` is the gate root's "onsets", at most 64 bytes; without one, every step begins at once."""
        self._key = key

    def of_account(self, model: str, client: str, epoch: int) -> int:
        """The onset for an account, by id, on a model in one of its epochs."""
        return self._drawn(_ACCOUNT, model, client, epoch)

    def of_group(self, model: str, first: str) -> int:
        """The onset for linked accounts, by the first of their ids: one for all, or the soonest of many would count."""
        return self._drawn(_GROUP, model, first)

    def _drawn(self, whose: bytes, *text: str | int) -> int:
        if self._key is None:
            return AT_ONCE
        drawn = blake2b(msgspec.json.encode(text), digest_size=_BYTES, key=self._key, person=whose)
        return int.from_bytes(drawn.digest())


def delay_max(degrade_after: int, spread: float) -> int:
    """The most suspicious queries by which each step is put off: that share of `degrade_after`."""
    return math.floor(degrade_after * spread)


def delay(onset: int, degrade_after: int, spread: float) -> int:
    """By how many suspicious queries: from 0 to `delay_max`, each as likely as the others."""
    return onset * (delay_max(degrade_after, spread) + 1) >> 8 * _BYTES
