"""Does something again and again in the background; one time that fails ends nothing."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from palladion.errors import PalladionError

log = logging.getLogger("palladion.gate")


async def every(seconds: float, action: Callable[[], Awaitable[None]], *, at_once: bool = False) -> None:
    """Do it every so many seconds until this is cancelled, the first time `at_once` or when they have passed."""
    if not at_once:
        await asyncio.sleep(seconds)
    while True:
        try:
            await action()
        except PalladionError as error:
            log.warning("a background task failed: %s", error.message)
        except Exception:
            log.exception("a background task failed")
        await asyncio.sleep(seconds)
