"""Deadlines of requests, by one timer for all of them: one for each would cost more than finding out who asks.

As `asyncio.timeout` in all but the moment: what is not done in time is cancelled at most `LATE_SECONDS` later.
"""

import asyncio
from types import TracebackType
from typing import Any

LATE_SECONDS = 0.05  # nobody waits for milliseconds to be told that it waited in vain


class Deadline:
    """What is to be done in time: a `with` block, which raises TimeoutError where it is not."""

    __slots__ = ("_before", "_expired", "_open", "_task", "at")

    def __init__(self, running: "set[Deadline]", at: float) -> None:
        """`at` is by the clock of the loop; `running` holds those whose block was entered and not left."""
        self.at = at
        self._open = running
        self._task: asyncio.Task[Any] | None = None
        self._before = 0
        self._expired = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline is for a task")
        self._task, self._before = task, task.cancelling()
        self._open.add(self)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.discard(self)
        task, self._task = self._task, None
        # where somebody else has cancelled the task as well, that goes on
        if self._expired and task is not None and task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """It is over."""
        self._open.discard(self)
        if self._task is not None and not self._expired:
            self._expired = True
            self._task.cancel()


class Deadlines:
    """The deadlines of a gate. One event loop at a time."""

    def __init__(self) -> None:
        self._open: set[Deadline] = set()
        self._loop: asyncio.AbstractEventLoop | None = None  # in which somebody looks at them

    def within(self, seconds: float) -> Deadline:
        """The deadline for what begins now."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(LATE_SECONDS, self._look, loop)
        return Deadline(self._open, loop.time() + seconds)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for deadline in [deadline for deadline in self._open if deadline.at <= now]:
            deadline.expire()
        if self._open:
            loop.call_later(LATE_SECONDS, self._look, loop)
        else:
            self._loop = None
