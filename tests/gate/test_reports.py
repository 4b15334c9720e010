"""What the ledger is told while nobody waits: each case and each refusal once, whatever comes in between."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from palladion.errors import BusyError, PalladionError, StorageError
from palladion.gate import reports as module
from palladion.gate.keeper import Keeper
from palladion.gate.reports import Reports
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.registry import Incident

from .gates import Bench, House, at, open_gate


class _Keeper:
    """As far as cases go."""

    def __init__(self) -> None:
        self.cases: list[Incident] = []

    def opened(self) -> list[Incident]:
        opened, self.cases = self.cases, []
        return opened


@dataclass
class _Scene:
    bench: Bench
    keeper: _Keeper = field(default_factory=_Keeper)
    said: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reports = Reports(
            self.bench.journal,
            self.bench.gate.stages,
            cast("Keeper", self.keeper),
            self.bench.clock,
            actor="gate",
            say=self.said.append,
            complain=self._complain,
        )

    def _complain(self, part: str, error: PalladionError) -> None:
        self.complaints.append(f"{part}: {error.message}")

    def open_cases(self, *ids: str) -> None:
        self.keeper.cases += [Incident(one, f"suspended: {one}", "open", ("a", "b"), at(1), None, None) for one in ids]

    def refuse(self, **reasons: int) -> None:
        self.bench.gate.stages.refusals.update({("acme", reason): count for reason, count in reasons.items()})

    def recorded(self) -> list[object]:
        told = {"incident.opened": "clients", "answer.refused": "requests"}
        return [(record.kind, record.details[told[record.kind]]) for record in self.bench.journal.records]


@pytest.fixture
def scene(house: House) -> _Scene:
    return _Scene(open_gate(house))


async def _give_up(scene: _Scene, report: Callable[[], Awaitable[None]], *, error: Exception | None) -> asyncio.Event:
    """Ask for a report, and stop waiting while it is recorded; the event lets that end, or fail."""
    journal, real = scene.bench.journal, scene.bench.journal.append
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def append(records: Sequence[Record]) -> list[Receipt]:
        receipts = [] if error else await real(records)
        begun.set()
        await go_on.wait()
        if error is not None:
            raise error
        return receipts

    async def work() -> None:
        await report()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(journal, "append", append)
        waiting = asyncio.create_task(work())
        await begun.wait()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()
    return go_on


def test_each_case_and_refusal_is_recorded_once(scene: _Scene) -> None:
    async def work() -> None:
        scene.open_cases("one", "two")
        scene.refuse(busy=3, unauthorized=1)
        for _ in range(2):
            await scene.reports.cases()
            await scene.reports.refusals()

    asyncio.run(work())
    cases = [("incident.opened", 2), ("incident.opened", 2)]
    assert scene.recorded() == [*cases, ("answer.refused", 3), ("answer.refused", 1)]
    assert scene.said == ["incident one: suspended: one", "incident two: suspended: two"]


@pytest.mark.parametrize("error", [BusyError("too many wait"), StorageError("the disk is full")])
def test_what_could_not_be_recorded_is_recorded_later_and_said_once(scene: _Scene, error: PalladionError) -> None:
    async def work() -> None:
        scene.open_cases("one", "two")
        scene.refuse(busy=3)
        scene.bench.journal.error = error
        await scene.reports.cases()
        await scene.reports.refusals()
        scene.bench.journal.error = None
        scene.refuse(busy=4)
        await scene.reports.cases()
        await scene.reports.refusals()

    asyncio.run(work())
    assert scene.recorded() == [("incident.opened", 2), ("incident.opened", 2), ("answer.refused", 7)]
    assert scene.complaints == [f"ledger: {error.message}"] * 2
    assert len(scene.said) == 2


def test_what_fails_for_another_reason_is_raised_and_loses_nothing_either(scene: _Scene) -> None:
    async def work() -> None:
        scene.open_cases("one")
        scene.refuse(busy=3)
        scene.bench.journal.error = RuntimeError("a bug")
        for report in (scene.reports.cases, scene.reports.refusals):
            with pytest.raises(RuntimeError):
                await report()
        scene.bench.journal.error = None
        await scene.reports.cases()
        await scene.reports.refusals()

    asyncio.run(work())
    assert scene.recorded() == [("incident.opened", 2), ("answer.refused", 3)]
    assert scene.complaints == []


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("what", ["cases", "refusals"])
def test_whoever_stops_waiting_loses_nothing_and_doubles_nothing(scene: _Scene, what: str, fails: bool) -> None:
    async def work() -> None:
        scene.open_cases("one")
        scene.refuse(busy=3)
        report = getattr(scene.reports, what)
        go_on = await _give_up(scene, report, error=StorageError("the disk is full") if fails else None)
        last = asyncio.create_task(report())
        for _ in range(3):
            await asyncio.sleep(0)
        go_on.set()
        await last

    asyncio.run(work())
    assert scene.recorded() == [("incident.opened", 2) if what == "cases" else ("answer.refused", 3)]


def test_more_refusals_than_one_append_takes_are_recorded_and_those_that_failed_again(
    scene: _Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_MAX", 2)
    journal, real = scene.bench.journal, scene.bench.journal.append

    async def append(records: Sequence[Record]) -> Any:
        if len(journal.records) == 2:
            raise StorageError("the disk is full")
        return await real(records)

    async def work() -> None:
        scene.refuse(a=1, b=2, c=3, d=4, e=5)
        monkeypatch.setattr(journal, "append", append)
        await scene.reports.refusals()
        left = Counter({("acme", "c"): 3, ("acme", "d"): 4, ("acme", "e"): 5})
        assert scene.bench.gate.stages.refusals == left
        monkeypatch.setattr(journal, "append", real)
        await scene.reports.refusals()

    asyncio.run(work())
    assert [count for _, count in cast("list[tuple[str, int]]", scene.recorded())] == [1, 2, 3, 4, 5]
    assert journal.sizes == [2, 2, 1]
