"""Marks in the text that an engine writes: no request asks for text without one, and each client has a key of its own.

What a request must say is in `mark.text.engines`. SGLang takes a key with each request: it is made here, of the gate
root, and is on record before the first text that it marks, since a key that nobody knows of would never be tested.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

from palladion.keys import Root
from palladion.ledger.record import Record
from palladion.lifecycle.text import KEY_GIVEN, PURPOSE
from palladion.mark.text.engines import Engine, engine_key, marked_request
from palladion.mark.text.gumbel import text_key

ACTOR = "gate"


class TextMarks:
    """The marks of one engine."""

    def __init__(self, engine: Engine, root: Root) -> None:
        self._engine = engine
        self._key = root.derive(PURPOSE)
        self._given: set[tuple[str, str]] = set()  # tenant and epoch, since the start: at most one a client and month

    async def marked(
        self,
        request: Mapping[str, Any],
        tenant: str,
        now: datetime,
        record: Callable[[Record], Awaitable[object]],
    ) -> dict[str, Any]:
        """A request of which no answer goes unmarked; `tenant` is the client's pseudonym. Raises as `record` does."""
        if self._engine != "sglang":
            return marked_request(request, self._engine, key=0)
        epoch = now.strftime("%Y-%m")
        if (tenant, epoch) not in self._given:
            await record(Record(KEY_GIVEN, now, ACTOR, tenant, {"epoch": epoch, "engine": self._engine}))
            self._given = {item for item in self._given if item[1] == epoch} | {(tenant, epoch)}
        return marked_request(request, self._engine, key=engine_key(text_key(self._key, tenant, epoch)))
