"""What clients may have in memory at once, of bodies that arrive or are computed on: each of them, and all together."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from palladion.gate.problems import Problem

QUERIES_EACH, QUERIES_TOTAL = 2, 8  # of the largest queries that one client, and all, may have in memory at once


class InFlight:
    """How much each client has in flight, in bytes or in requests. For one event loop."""

    def __init__(self, *, each: int, total: int) -> None:
        """At most `each` of one client, and `total` of all."""
        self._each, self._total = each, total
        self._held: Counter[str] = Counter()

    @contextmanager
    def holding(self, client: str, size: int) -> Iterator[None]:
        """Hold so much while the context lasts. Raises Problem where it is more than is left."""
        if self._held[client] + size > self._each:
            raise Problem("busy", "what this client sent before is being worked on", retry_after_seconds=1)
        if self._held.total() + size > self._total:
            raise Problem("busy", "what others sent is being worked on", retry_after_seconds=1)
        self._held[client] += size
        try:
            yield
        finally:
            self._held[client] -= size
            if not self._held[client]:
                del self._held[client]
