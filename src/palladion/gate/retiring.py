"""What nothing new uses any more, closed when nothing old can use it either."""

import asyncio
from functools import partial
from typing import Protocol


class Closable(Protocol):
    """What holds connections, or a model in memory."""

    async def close(self) -> None:
        """Let go of them. Safe to call twice."""
        ...


class Retiring:
    """Closes what was replaced, after a while. For one event loop."""

    def __init__(self) -> None:
        self._closing: dict[Closable, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._closing)

    def put(self, item: Closable, seconds: float) -> None:
        """Close it in so many seconds: as long as a request can take that has it already."""
        closing = self._closing[item] = asyncio.create_task(_close_after(seconds, item))
        # a model that is not needed any more must not stay in memory
        closing.add_done_callback(partial(self._forget, item))

    async def close(self) -> None:
        """Close all of it now."""
        closing = dict(self._closing)  # which shrinks meanwhile
        for task in closing.values():
            task.cancel()
        for item in closing:
            await item.close()
        self._closing.clear()

    def _forget(self, item: Closable, _closing: asyncio.Task[None]) -> None:
        self._closing.pop(item, None)


async def _close_after(seconds: float, item: Closable) -> None:
    await asyncio.sleep(seconds)
    await item.close()
