"""A clock that was set is recorded, one that merely goes is not."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from palladion.clock import ManualClock
from palladion.errors import StorageError
from palladion.gate.operations.clock_watch import ClockWatch
from palladion.ledger.record import Record, decode_record, encode_record

START = datetime(2026, 11, 26, 12, tzinfo=UTC)


class _Machine:
    def __init__(self) -> None:
        self.clock, self.seconds = ManualClock(START), 100.0

    def watch(self, last: datetime | None = None) -> ClockWatch:
        return ClockWatch(self.clock, "gate", "home", last, steady=lambda: self.seconds)

    def pass_(self, seconds: float, *, jump: float = 0.0) -> None:
        self.seconds += seconds
        self.clock.advance(timedelta(seconds=seconds + jump))


@pytest.mark.parametrize("jump", [0.0, 1.5, -1.5])
def test_time_that_passes_is_no_jump(jump: float) -> None:
    machine = _Machine()
    watch = machine.watch(START + timedelta(seconds=4))
    for _ in range(3):
        machine.pass_(5)
        assert watch.look() is None
    machine.pass_(5, jump=jump)
    assert watch.look() is None


def test_many_small_steps_are_a_jump() -> None:
    machine = _Machine()
    watch = machine.watch()
    seen = []
    for _ in range(120):
        machine.pass_(30, jump=-1.9)
        seen.append(watch.look())
    found = [record.details["seconds"] for record in seen if record is not None]
    assert sum(found) <= -200


def test_a_clock_that_is_slewed_is_no_jump() -> None:
    machine = _Machine()
    watch = machine.watch()
    for _ in range(2000):
        machine.pass_(30, jump=0.0145)
        assert watch.look() is None


@pytest.mark.parametrize("jump", [-3600, 7200, -2.6])
def test_a_jump_is_recorded_once_with_its_length(jump: float) -> None:
    machine = _Machine()
    watch = machine.watch()
    machine.pass_(5, jump=jump)
    record = watch.look()
    assert record is not None
    assert (record.kind, record.actor, record.subject) == ("clock.set", "gate", "home")
    assert record.details == {"expected": "2026-11-26T12:00:05.000000Z", "seconds": round(jump)}
    assert decode_record(encode_record(record), what="it") == record
    machine.pass_(5)
    assert watch.look() is None


def test_a_clock_behind_the_ledger_is_told_at_the_start() -> None:
    machine = _Machine()
    watch = machine.watch(START + timedelta(hours=1))
    record = watch.look()
    assert record is not None
    assert record.details["seconds"] == -3600
    machine.pass_(5)
    assert watch.look() is None


def test_what_is_seen_is_appended() -> None:
    machine, kept = _Machine(), list[Record]()

    async def append(records: Sequence[Record]) -> None:
        kept.extend(records)

    async def run() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(machine.watch(START + timedelta(hours=1)).run(append), 0.05)

    asyncio.run(run())
    assert [record.kind for record in kept] == ["clock.set"]


@pytest.mark.slow
def test_what_cannot_be_appended_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palladion.gate.operations.clock_watch.LOOK_SECONDS", 0.005)
    machine, kept, failures = _Machine(), list[Record](), [StorageError("full"), StorageError("full")]

    async def append(records: Sequence[Record]) -> None:
        if failures:
            raise failures.pop()
        kept.extend(records)

    async def run() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(machine.watch(START + timedelta(hours=1)).run(append), 0.2)

    asyncio.run(run())
    assert [record.kind for record in kept] == ["clock.set"]
