"""When what operators changed counts in the running gate: at once, or as soon as it can.

The registry and the ledger have it by then, so whoever asked is told that it is done, and that it does not count yet.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from palladion.errors import PalladionError

RETRY_SECONDS = 2.0  # between tries: the registry may be held by a command, which is done in a moment
LATE = "a change of operators is recorded and not in effect yet"
PARTLY = "a policy was taken over in part: restart the gate"

log = logging.getLogger("palladion.gate")


class PendingError(PalladionError):
    """Something that is done and recorded, and not in effect yet."""


class Effect:
    """Puts what the registry says into effect, again and again until it is. For one event loop."""

    def __init__(
        self, reload: Callable[[], Awaitable[object]], *, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    ) -> None:
        """`reload` takes over all that the registry says of clients."""
        self._reload = reload
        self._sleep = sleep
        self._turn = asyncio.Lock()
        self._retrying: asyncio.Task[None] | None = None
        self._partly = False

    @property
    def faults(self) -> list[str]:
        """What is not in effect, for whoever asks whether the gate is well."""
        late = self._retrying is not None and not self._retrying.done()
        return [LATE] * late + [PARTLY] * self._partly

    async def take(self) -> None:
        """Put into effect what was committed. Raises PendingError where that fails; it is tried again then."""
        try:
            await self._once()
        except Exception as error:
            log.exception("what an operator changed is not in effect yet")
            if self._retrying is None or self._retrying.done():
                self._retrying = asyncio.create_task(self._retry())
            raise PendingError(
                "it is done and recorded, and not in effect in this gate yet",
                "do not ask for it again: the gate goes on trying, and its status tells",
            ) from error

    def took_part(self) -> None:
        """Say from now on that a policy was not taken over whole; nothing but a restart mends that."""
        self._partly = True

    async def close(self) -> None:
        """Try no more. Safe to call twice."""
        if self._retrying is not None:
            self._retrying.cancel()
            await asyncio.gather(self._retrying, return_exceptions=True)

    async def _retry(self) -> None:
        while True:
            await self._sleep(RETRY_SECONDS)
            try:
                await self._once()
            except Exception as error:  # noqa: BLE001 (whatever it is, the next try may be better)
                log.warning("what an operator changed is still not in effect: %s", error)
            else:
                return

    async def _once(self) -> None:
        # one after the other, so that what was read earlier does not take the place of what was read later
        async with self._turn:
            await self._reload()
