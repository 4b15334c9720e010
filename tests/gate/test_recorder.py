"""The recorder: what is acknowledged is on the disk, nobody waits for ever, and nothing kills its thread."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from palladion.errors import BusyError, StorageError
from palladion.gate import recorder as module
from palladion.gate.recorder import FREEZE_SECONDS_MAX, WAITING_MAX, Recorder
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import Record
from palladion.ledger.writer import BATCH_MAX, Ledger, Receipt
from tests.ledger.ledgers import JOURNAL_KEY, KEY, ORIGIN, SIGNER, START, record

_Result = TypeVar("_Result")

WAIT_SECONDS_MAX = 30.0  # for another thread; a test that reaches it has failed
BROKEN = Record("no.such-kind", START, "a", "b")


class SlowLedger(Ledger):
    """A ledger whose appends wait for the test, and whose batches it can count."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, ORIGIN, SIGNER, JOURNAL_KEY)
        self.sizes: list[int] = []
        self.checkpoints = 0
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.error: Exception | None = None
        self.checkpoint_error: Exception | None = None

    def append(self, records: Sequence[Record]) -> list[Receipt]:
        self.begun.set()
        assert self.go_on.wait(WAIT_SECONDS_MAX)
        self.sizes.append(len(records))
        if self.error is not None:
            raise self.error
        return super().append(records)

    def checkpoint(self) -> bytes:
        self.checkpoints += 1
        if self.checkpoint_error is not None:
            raise self.checkpoint_error
        return super().checkpoint()

    async def has_begun(self) -> None:
        """Wait until the recorder's thread is inside an append."""
        assert await asyncio.to_thread(self.begun.wait, WAIT_SECONDS_MAX)


@pytest.fixture
def ledger(tmp_path: Path) -> SlowLedger:
    Ledger.create(tmp_path / "ledger", ORIGIN, SIGNER, JOURNAL_KEY).close()
    return SlowLedger(tmp_path / "ledger")


class Time:
    """The recorder's monotonic clock, turned by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """Stops the clock, so that nothing is published but when a test says so."""
    stopped = Time()
    monkeypatch.setattr(module, "_now", stopped)
    return stopped


def _use(ledger: Ledger, work: Callable[[Recorder], Awaitable[_Result]]) -> _Result:
    """The result of `work` with a recorder over `ledger`, which is closed afterwards."""

    async def run() -> _Result:
        recorder = Recorder(ledger)
        try:
            return await asyncio.wait_for(work(recorder), WAIT_SECONDS_MAX)
        finally:
            await recorder.close()

    return asyncio.run(run())


def _entries(ledger: Ledger) -> int:
    return LedgerReader(ledger.directory, KEY).size


def test_receipts_are_those_of_the_ledger(ledger: SlowLedger) -> None:
    receipts = _use(ledger, lambda recorder: recorder.append([record(0), record(1)]))
    assert [(receipt.origin, receipt.index) for receipt in receipts] == [(ORIGIN, 0), (ORIGIN, 1)]
    assert _entries(ledger) == 2


def test_what_waits_is_written_together(ledger: SlowLedger) -> None:
    ledger.go_on.clear()

    async def work(recorder: Recorder) -> list[list[Receipt]]:
        first = asyncio.create_task(recorder.append([record(0)]))
        await ledger.has_begun()
        others = [asyncio.create_task(recorder.append([record(n), record(n)])) for n in range(1, 11)]
        await asyncio.sleep(0)  # lets each of them stand in line
        ledger.go_on.set()
        return list(await asyncio.gather(first, *others))

    receipts = _use(ledger, work)
    assert ledger.sizes == [1, 20]
    # each has its own records, side by side
    assert [[receipt.index for receipt in some] for some in receipts] == [[0], *[[n, n + 1] for n in range(1, 21, 2)]]


def test_what_one_turn_of_the_loop_brings_is_written_together_though_nothing_was_in_the_way(
    ledger: SlowLedger,
) -> None:
    async def work(recorder: Recorder) -> list[list[Receipt]]:
        return list(await asyncio.gather(*(recorder.append([record(n)]) for n in range(10))))

    receipts = _use(ledger, work)
    assert ledger.sizes == [10]
    assert [some[0].index for some in receipts] == list(range(10))


def test_who_asks_from_a_loop_that_is_over_stops_nobody(ledger: SlowLedger) -> None:
    ledger.go_on.clear()
    recorder = Recorder(ledger)

    async def leave() -> None:
        asking = asyncio.create_task(recorder.append([record(0)]))
        await ledger.has_begun()
        asking.cancel()

    async def come() -> list[Receipt]:
        try:
            return await asyncio.wait_for(recorder.append([record(1)]), WAIT_SECONDS_MAX)
        finally:
            await recorder.close()

    asyncio.run(leave())
    ledger.go_on.set()
    assert asyncio.run(come())[0].index == 1


def test_a_batch_has_no_more_than_the_ledger_takes(ledger: SlowLedger) -> None:
    ledger.go_on.clear()

    async def work(recorder: Recorder) -> None:
        tasks = [asyncio.create_task(recorder.append([record(n) for n in range(400)])) for _ in range(4)]
        await ledger.has_begun()
        ledger.go_on.set()
        await asyncio.gather(*tasks)

    _use(ledger, work)
    assert sum(ledger.sizes) == 1600
    assert max(ledger.sizes) <= BATCH_MAX


def test_more_than_a_batch_in_one_piece_is_refused_and_stops_nobody(ledger: SlowLedger) -> None:
    async def work(recorder: Recorder) -> list[Receipt]:
        with pytest.raises(ValueError, match="1025 records"):
            await recorder.append([record(n) for n in range(BATCH_MAX + 1)])
        return await recorder.append([record(0)])

    assert _use(ledger, work)[0].index == 0


def test_a_record_that_is_none_fails_alone(ledger: SlowLedger) -> None:
    ledger.go_on.clear()

    async def work(recorder: Recorder) -> tuple[list[list[Receipt] | BaseException], bool]:
        first = asyncio.create_task(recorder.append([record(0)]))
        await ledger.has_begun()
        others = [asyncio.create_task(recorder.append([one])) for one in (record(1), BROKEN, record(2))]
        await asyncio.sleep(0)
        ledger.go_on.set()
        return await asyncio.gather(first, *others, return_exceptions=True), recorder.sound

    results, sound = _use(ledger, work)
    assert [type(result) for result in results] == [list, list, ValueError, list]
    assert sound
    assert _entries(ledger) == 3


def test_a_failed_write_is_told_to_all_who_wait_and_to_all_who_come(
    ledger: SlowLedger, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.go_on.clear()
    ledger.error = StorageError("the disk is full")

    async def work(recorder: Recorder) -> tuple[list[object], bool]:
        tasks = [asyncio.create_task(recorder.append([record(n)])) for n in range(3)]
        await ledger.has_begun()
        ledger.go_on.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        with pytest.raises(StorageError, match="the disk is full"):
            await recorder.append([record(9)])
        return list(results), recorder.sound

    results, sound = _use(ledger, work)
    assert [str(result) for result in results] == ["the disk is full"] * 3
    assert not sound
    assert [item.message for item in caplog.records].count(
        "the ledger cannot be written, so nothing is answered any more: the disk is full"
    ) == 1  # fmt: skip


def test_an_error_that_nobody_expected_does_not_end_the_thread(ledger: SlowLedger) -> None:
    ledger.error = MemoryError("no room")

    async def work(recorder: Recorder) -> None:
        for _ in range(2):
            with pytest.raises(MemoryError):
                await recorder.append([record(0)])
        ledger.error = None
        await recorder.append([record(0)])

    _use(ledger, work)


def test_a_checkpoint_that_fails_makes_the_recorder_unsound(ledger: SlowLedger, time: Time) -> None:
    async def work(recorder: Recorder) -> bool:
        await recorder.append([record(0)])
        ledger.checkpoint_error = StorageError("the disk is full")
        time.seconds += 2
        await recorder.append([record(1)])
        # asked of its thread, which has tried to publish by now
        await recorder.thaw()
        return recorder.sound

    assert _use(ledger, work) is False


def test_a_checkpoint_that_fails_unexpectedly_does_not_end_the_thread(ledger: SlowLedger, time: Time) -> None:
    ledger.checkpoint_error = RuntimeError("a bug")

    async def work(recorder: Recorder) -> None:
        await recorder.append([record(0)])
        time.seconds += 2
        await recorder.append([record(1)])
        await recorder.append([record(2)])

    _use(ledger, work)


def test_who_gives_up_waiting_gets_no_record_and_harms_nobody(ledger: SlowLedger) -> None:
    ledger.go_on.clear()

    async def work(recorder: Recorder) -> list[Receipt]:
        first = asyncio.create_task(recorder.append([record(0)]))
        await ledger.has_begun()
        given_up = asyncio.create_task(recorder.append([record(1)]))
        last = asyncio.create_task(recorder.append([record(2)]))
        await asyncio.sleep(0)
        given_up.cancel()
        first.cancel()  # too late: it is being written
        await asyncio.gather(given_up, first, return_exceptions=True)
        ledger.go_on.set()
        return await last

    assert _use(ledger, work)[0].index == 1
    assert _entries(ledger) == 2


async def _idle(recorder: Recorder) -> None:
    while recorder.is_busy:
        await asyncio.sleep(0.001)


def test_it_is_busy_until_those_who_wait_are_told_and_says_so_then(ledger: SlowLedger) -> None:
    ledger.go_on.clear()
    told: list[bool] = []

    async def work(recorder: Recorder) -> None:
        recorder.follow(lambda: told.append(recorder.is_busy))
        assert [recorder.is_busy] == [False]
        first = asyncio.create_task(recorder.append([record(0)]))
        await ledger.has_begun()
        second = asyncio.create_task(recorder.append([record(1)]))
        await asyncio.sleep(0)
        assert recorder.is_busy
        assert not told
        ledger.go_on.set()
        await asyncio.gather(first, second)
        assert told == [True, False]  # in between, the second one waited

    _use(ledger, work)


def test_it_does_not_stay_busy_with_what_failed_or_what_nobody_waited_for(ledger: SlowLedger) -> None:
    ledger.go_on.clear()

    async def work(recorder: Recorder) -> None:
        tasks = [asyncio.create_task(recorder.append([record(n)])) for n in range(2)]
        await ledger.has_begun()
        tasks.append(asyncio.create_task(recorder.append([record(2)])))
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        ledger.error = StorageError("the disk is full")
        ledger.go_on.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _idle(recorder)
        with pytest.raises(StorageError):
            await recorder.append([record(3)])
        await _idle(recorder)
        ledger.error = None
        assert await recorder.append([]) == []
        assert not recorder.is_busy

    _use(ledger, work)


def test_the_line_is_bounded_and_moves_on(ledger: SlowLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    assert WAITING_MAX > BATCH_MAX
    monkeypatch.setattr(module, "WAITING_MAX", 3)
    ledger.go_on.clear()

    async def work(recorder: Recorder) -> None:
        first = asyncio.create_task(recorder.append([record(0)]))
        await ledger.has_begun()
        waiting = [asyncio.create_task(recorder.append([record(n)])) for n in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="too many records wait"):
            await recorder.append([record(4)])
        ledger.go_on.set()
        await asyncio.gather(first, *waiting)
        await recorder.append([record(5)])

    _use(ledger, work)


def test_everything_is_published_a_second_later(ledger: SlowLedger, time: Time) -> None:
    async def work(recorder: Recorder) -> tuple[int, int]:
        await recorder.append([record(0), record(1)])
        before = _entries(ledger)
        time.seconds += 1.1
        await recorder.thaw()
        await recorder.thaw()  # done when the round of the first one is over, and with it the checkpoint
        return before, _entries(ledger)

    assert _use(ledger, work) == (0, 2)


def test_a_checkpoint_on_demand_covers_everything(ledger: SlowLedger, time: Time) -> None:
    async def work(recorder: Recorder) -> bytes:
        await recorder.append([record(0), record(1)])
        return await recorder.checkpoint()

    assert _use(ledger, work).startswith(f"{ORIGIN}\n2\n".encode())


def test_while_frozen_records_go_on_and_nothing_is_published(ledger: SlowLedger, time: Time) -> None:
    async def work(recorder: Recorder) -> tuple[int, bool]:
        await recorder.append([record(0)])
        await recorder.freeze()
        for _ in range(3):
            time.seconds += 10
            await recorder.append([record(1)])
        return _entries(ledger), await recorder.thaw()

    assert _use(ledger, work) == (1, True)
    assert _entries(ledger) == 4


def test_a_freeze_ends_by_itself_and_says_so(ledger: SlowLedger, time: Time) -> None:
    async def work(recorder: Recorder) -> tuple[int, bool]:
        await recorder.freeze()
        await recorder.append([record(0)])
        time.seconds += FREEZE_SECONDS_MAX + 1
        await recorder.append([record(1)])
        await recorder.append([record(2)])
        return _entries(ledger), await recorder.thaw()

    published, held = _use(ledger, work)
    assert published > 0
    assert held is False


def test_a_checkpoint_on_demand_breaks_a_freeze(ledger: SlowLedger, time: Time) -> None:
    async def work(recorder: Recorder) -> bool:
        await recorder.freeze()
        await recorder.append([record(0)])
        await recorder.checkpoint()
        return await recorder.thaw()

    assert _use(ledger, work) is False


def test_a_thaw_without_a_freeze_held_nothing(ledger: SlowLedger) -> None:
    assert _use(ledger, lambda recorder: recorder.thaw()) is False


def test_a_job_that_fails_tells_its_caller_and_the_next_one_is_done(ledger: SlowLedger, time: Time) -> None:
    async def work(recorder: Recorder) -> bytes:
        ledger.checkpoint_error = StorageError("the disk is full")
        with pytest.raises(StorageError, match="the disk is full"):
            await recorder.checkpoint()
        ledger.checkpoint_error = None
        return await recorder.checkpoint()

    assert _use(ledger, work).startswith(ORIGIN.encode())


def test_closing_writes_what_waits_and_gives_the_ledger_back(ledger: SlowLedger) -> None:
    ledger.go_on.clear()

    async def run() -> list[list[Receipt]]:
        recorder = Recorder(ledger)
        tasks = [asyncio.create_task(recorder.append([record(n) for n in range(600)])) for _ in range(4)]
        await ledger.has_begun()
        closing = asyncio.create_task(recorder.close())
        await asyncio.sleep(0)
        assert not recorder.sound
        with pytest.raises(BusyError, match="closed"):
            await recorder.append([record(0)])
        with pytest.raises(BusyError, match="closed"):
            await recorder.checkpoint()
        ledger.go_on.set()
        await closing
        return list(await asyncio.gather(*tasks))

    assert [some[-1].index for some in asyncio.run(run())] == [599, 1199, 1799, 2399]
    with Ledger(ledger.directory, ORIGIN, SIGNER, JOURNAL_KEY) as again:
        assert (again.size, again.published) == (2400, 2400)


def test_closing_a_broken_ledger_is_quiet(ledger: SlowLedger) -> None:
    ledger.checkpoint_error = StorageError("the disk is full")
    _use(ledger, lambda recorder: recorder.append([record(0)]))
