"""Group commit: one thread owns the ledger, and whatever waits is written and synced together.

An answer waits for its record here; while one batch is being synced, the next one gathers. What one turn of the event
loop brings goes to the thread in one piece, and comes back in one: waking somebody costs more than a record. Publishes
a checkpoint at least every second, unless a command holds that back to copy the folder.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from palladion.errors import BusyError
from palladion.gate.operations.meter import Histogram
from palladion.ledger.record import Record
from palladion.ledger.writer import BATCH_MAX, Ledger, Receipt

CHECKPOINT_SECONDS = 1.0  # a reader, or a witness, is at most so far behind
FREEZE_SECONDS_MAX = 60.0  # a copy of what checkpoints replace takes far less; a command that hangs must not stop them
WAITING_MAX = 16_384  # records that wait for the disk: at 10 ms a sync that is minutes, and answers are late anyway

_Result = TypeVar("_Result")

log = logging.getLogger("palladion.gate")


class _Batch(NamedTuple):
    """Records that belong together, and who waits for them."""

    records: Sequence[Record]
    done: "asyncio.Future[list[Receipt]]"


_Outcome = list[Receipt] | Exception


class Recorder:
    """Appends to a ledger that it owns from now on; asked from one event loop. Satisfies `admin.LedgerPort`."""

    def __init__(self, ledger: Ledger) -> None:
        self.writes = Histogram()  # of what is appended and synced together; by the thread alone
        self._ledger = ledger
        self._arrived: list[_Batch] = []  # in this turn of the loop, which alone knows of it
        self._accepted = 0  # records so far, written by the loop alone
        self._taken = 0  # of these, by the thread alone: the rest waits
        self._answered = 0  # of these, by the thread alone: it has told the loop
        self._told = 0  # of these, by the loop alone: whoever waited for them knows
        self._loop: asyncio.AbstractEventLoop | None = None  # that asks
        self._follow: Callable[[], None] | None = None
        self._waiting: deque[_Batch] = deque()
        self._jobs: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._sound = True
        self._frozen_until: float | None = None
        self._published_at_freeze = 0
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    @property
    def origin(self) -> str:
        """The log's name."""
        return self._ledger.origin

    @property
    def size(self) -> int:
        """How many entries are acknowledged."""
        return self._ledger.size

    @property
    def waiting(self) -> int:
        """How many records wait to be written."""
        return self._accepted - self._taken

    @property
    def is_busy(self) -> bool:
        """Whether records wait, or are being written."""
        return self._accepted != self._told

    def follow(self, follow: Callable[[], None]) -> None:
        """Call `follow` in the event loop whenever some records were written, or could not be."""
        self._follow = follow

    @property
    def sound(self) -> bool:
        """Whether the last write succeeded: after one that failed, the ledger takes nothing more."""
        return self._sound and not self._closing

    async def append(self, records: Sequence[Record]) -> list[Receipt]:
        """Append `records`, at most `BATCH_MAX`, in one piece; they are on the disk when this returns.

        Raises StorageError, BusyError, and ValueError on a record that cannot be one.
        """
        if len(records) > BATCH_MAX:
            raise ValueError(f"{len(records)} records in one piece, at most {BATCH_MAX} are allowed")
        if self._closing:
            raise BusyError("the ledger is closed")
        if self.waiting + len(records) > WAITING_MAX:
            raise BusyError("too many records wait for the disk")
        self._accepted += len(records)
        self._loop = loop = asyncio.get_running_loop()
        done: asyncio.Future[list[Receipt]] = loop.create_future()
        if not self._arrived:
            loop.call_soon(self._hand_over)
        self._arrived.append(_Batch(records, done))
        return await done

    async def checkpoint(self) -> bytes:
        """Publish everything acknowledged so far; returns the signed note."""
        return await self._call(self._ledger.checkpoint)

    async def freeze(self) -> None:
        """Publish what there is, and then nothing until `thaw`, a minute has passed, or the ledger must."""
        await self._call(self._freeze)

    async def thaw(self) -> bool:
        """Publish again; returns whether nothing was published since `freeze`."""
        return await self._call(self._thaw)

    async def close(self) -> None:
        """Write what waits, publish, and give the ledger back."""
        with self._wake:
            self._waiting += self._arrived
            self._arrived.clear()
            self._closing = True
            self._wake.notify()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    async def _call(self, function: Callable[[], _Result]) -> _Result:
        done: Future[_Result] = Future()
        with self._wake:
            if self._closing:
                raise BusyError("the ledger is closed")
            self._jobs.append((function, done))
            self._wake.notify()
        return await asyncio.wrap_future(done)

    def _hand_over(self) -> None:
        with self._wake:
            self._waiting += self._arrived
            self._wake.notify()
        self._arrived.clear()

    def _run(self) -> None:
        next_checkpoint = _now() + CHECKPOINT_SECONDS
        while True:
            with self._wake:
                if not (self._waiting or self._jobs or self._closing):
                    self._wake.wait(max(0.0, next_checkpoint - _now()))
                batches, jobs, closing = self._gather(), list(self._jobs), self._closing
                self._jobs.clear()
                closing = closing and not self._waiting
            self._answer(batches, self._written([batch.records for batch in batches]))
            for function, done in jobs:
                _fulfil(done, function)
            if _now() >= next_checkpoint:
                next_checkpoint = _now() + CHECKPOINT_SECONDS
                self._publish()
            if closing:
                break
        try:
            self._ledger.close()
        except Exception as error:  # noqa: BLE001 (nothing that was acknowledged is lost: the journal holds it)
            self._fail(error)

    def _gather(self) -> list[_Batch]:
        """The batches that fit into one append, in order; none of those that nobody waits for."""
        taken: list[_Batch] = []
        count = 0
        while self._waiting and count + len(self._waiting[0].records) <= BATCH_MAX:
            batch = self._waiting.popleft()
            self._taken += len(batch.records)
            # whoever gave up waiting gets no answer, and needs no record; who does so from here on has one all the same
            if not batch.done.cancelled():
                taken.append(batch)
                count += len(batch.records)
        return taken

    def _written(self, batches: list[Sequence[Record]]) -> list[_Outcome]:
        """What became of each batch: its receipts, or why there are none."""
        if not batches:
            return []
        try:
            begun = _now()
            receipts = iter(self._ledger.append([record for records in batches for record in records]))
            self.writes.observe(_now() - begun)
        except ValueError as error:
            # nothing was written, and the ledger is sound: one of them is no record, which is its sender's affair alone
            if len(batches) == 1:
                return [error]
            return [outcome for records in batches for outcome in self._written([records])]
        except Exception as error:  # noqa: BLE001 (whoever waits gets it; this thread must live on to tell the next)
            self._fail(error)
            return [error] * len(batches)
        return [list(islice(receipts, len(records))) for records in batches]

    def _answer(self, batches: list[_Batch], outcomes: list[_Outcome]) -> None:
        """Tell everybody who waits what became of their records, in one go."""
        loop = batches[0].done.get_loop() if batches else self._loop
        if loop is not None and (batches or self._taken != self._answered):
            self._answered = self._taken
            # where the loop was closed, nobody waits any more
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._tell, batches, outcomes, self._taken)

    def _tell(self, batches: list[_Batch], outcomes: list[_Outcome], taken: int) -> None:
        for batch, outcome in zip(batches, outcomes, strict=True):
            if batch.done.done():
                continue  # gave up meanwhile
            if isinstance(outcome, Exception):
                batch.done.set_exception(outcome)
            else:
                batch.done.set_result(outcome)
        self._told = taken
        if self._follow is not None:
            self._follow()

    def _publish(self) -> None:
        if self._frozen_until is not None and _now() < self._frozen_until:
            return
        try:
            self._ledger.checkpoint()
        except Exception as error:  # noqa: BLE001 (as above)
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """The ledger takes nothing more: say so once, to whoever asks whether we are ready and to the operator."""
        if self._sound:
            self._sound = False
            log.error("the ledger cannot be written, so nothing is answered any more: %s", error)

    def _freeze(self) -> None:
        self._ledger.checkpoint()
        self._published_at_freeze = self._ledger.published
        self._frozen_until = _now() + FREEZE_SECONDS_MAX

    def _thaw(self) -> bool:
        held = self._frozen_until is not None and self._ledger.published == self._published_at_freeze
        self._frozen_until = None
        return held


def _fulfil(done: "Future[Any]", function: Callable[[], Any]) -> None:
    if not done.set_running_or_notify_cancel():
        return
    try:
        done.set_result(function())
    except Exception as error:  # noqa: BLE001 (the caller gets it; a ledger that is broken tells `_publish` as well)
        done.set_exception(error)


def _now() -> float:
    # intervals only; wall time comes from the Clock
    return time.monotonic()
