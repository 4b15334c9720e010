"""Requests that come together are observed together: to the watch, each then costs a fraction of what it costs alone.

Owns which requests those are, and that each is answered in its turn as if it had come alone. What is observed, and what
follows from it, are the caller's affair.

While the ledger is being written, nobody is observed: the records of what came meanwhile wait for that anyway, and the
more come together, the less each costs. One alone, when nothing is being written, waits for nobody.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import msgspec

from palladion.clock import Clock
from palladion.gate.callers import Caller
from palladion.watch.watch import AnyAsked, Observation, Watch

ROWS_AT_ONCE = 256  # some 15 ms, in which nothing else happens; the rest waits for the next turn of the loop

_Answer = TypeVar("_Answer")


class Written(Protocol):
    """What follows from observations is written to it: `recorder.Recorder`."""

    @property
    def is_busy(self) -> bool:
        """Whether something is being written, or waits for that."""
        ...

    def follow(self, follow: Callable[[], None]) -> None:
        """Call `follow` in the event loop whenever something was written, or could not be."""
        ...


class Showing(NamedTuple):
    """What is observed: who asks, as of now, by which model's calibration, and what.

    `alone` is for a client that may begin anew with this observation: what was observed of it and of those linked to it
    before has to be settled by then, and what comes later must not count against it.
    """

    caller: Caller
    model: str
    asked: AnyAsked
    alone: bool = False
    weight: int = 1  # of each row, in rows of numbers


class _Waiting(msgspec.Struct, eq=False):
    """A request that waits for its observation."""

    model: str
    show: Callable[[], Showing]
    answer: Callable[[Caller, Observation], Any]
    done: asyncio.Future[Any]


class Together:
    """The requests that wait to be observed. One per process, used from one event loop."""

    def __init__(self, watch: Callable[[], Watch], clock: Clock) -> None:
        """`watch` is asked for each time, as another one can take its place."""
        self._watch = watch
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._due: asyncio.AbstractEventLoop | None = None  # that calls `_begin` or `_turn`
        self._owed = 0  # of those who wait, how many waited when it began: they are observed turn after turn
        self._written: Written | None = None

    def wait_for(self, written: Written) -> None:
        """Begin nothing while it is busy, until it calls: for one write at most, even if it is busy again by then."""
        self._written = written
        written.follow(self._go_on)

    def _go_on(self) -> None:
        loop = asyncio.get_running_loop()
        if self._waiting and self._due is not loop:
            self._due = loop
            # those whose records were written are answered first
            loop.call_soon(self._go)

    async def observe(
        self, model: str, show: Callable[[], Showing], answer: Callable[[Caller, Observation], _Answer]
    ) -> _Answer:
        """What `answer` makes of the observation; both are called soon, one right before and one right after it.

        Whatever either raises, is raised here. In between, requests that came later may be observed, but none of them
        is answered. Where many wait, those of one `model` are taken together. A request that is given up before its
        turn is not observed.
        """
        loop = asyncio.get_running_loop()
        if self._due is not loop:
            self._due = loop
            loop.call_soon(self._begin)
        done = loop.create_future()
        self._waiting.append(_Waiting(model, show, answer, done))
        return cast("_Answer", await done)

    def _begin(self) -> None:
        if self._waiting and (self._written is None or not self._written.is_busy):
            self._go()
        else:
            self._due = None

    def _go(self) -> None:
        self._owed = len(self._waiting)
        self._turn()

    def _turn(self) -> None:
        next_call = self._rest
        try:
            before = len(self._waiting)
            taken, showings = self._take()
            self._owed -= before - len(self._waiting)
            if self._owed > 0:
                next_call = self._turn
            if taken:
                self._observe(taken, showings)
        finally:
            asyncio.get_running_loop().call_soon(next_call)

    def _rest(self) -> None:
        # in this turn of the loop the answers' records come, in the next one they are handed over: then it is busy
        asyncio.get_running_loop().call_soon(self._begin)

    def _take(self) -> tuple[list[_Waiting], list[Showing]]:
        """The next requests that can be observed at once, in order."""
        taken: list[_Waiting] = []
        showings: list[Showing] = []
        others: list[_Waiting] = []
        rows = 0
        while self._waiting and rows < ROWS_AT_ONCE:
            item = self._waiting[0]
            if taken and item.model != taken[0].model:
                others.append(self._waiting.popleft())
                continue
            try:
                # nobody waits for it any more, or it is refused now
                showing = None if item.done.done() else item.show()
            except Exception as error:  # noqa: BLE001 (who waits gets it)
                item.done.set_exception(error)
                showing = None
            if showing is None:
                self._waiting.popleft()
                continue
            if taken and (showing.alone or showing.model != showings[0].model):
                break
            taken.append(self._waiting.popleft())
            showings.append(showing)
            rows += len(showing.asked) * showing.weight
            if showing.alone:
                break
        self._waiting.extendleft(reversed(others))
        return taken, showings

    def _observe(self, taken: list[_Waiting], showings: list[Showing]) -> None:
        now = self._clock.now().timestamp()
        try:
            observed = self._watch().observe_all(showings[0].model, [showing.asked for showing in showings], now=now)
        except Exception as error:  # noqa: BLE001 (who waits gets it)
            # what cannot be measured is found before anything changes, so the others can be observed without it
            if len(taken) == 1:
                taken[0].done.set_exception(error)
                return
            for item, showing in zip(taken, showings, strict=True):
                self._observe([item], [showing])
            return
        for item, showing, observation in zip(taken, showings, observed, strict=True):
            try:
                item.done.set_result(item.answer(showing.caller, observation))
            except Exception as error:  # noqa: BLE001 (likewise)
                item.done.set_exception(error)
