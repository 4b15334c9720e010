"""What the ledger is told while nobody waits: each case and each refusal once, whatever comes in between."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from palladion.errors import BusyError, PalladionError, StorageError
from palladion.gate import reports as module
from palladion.gate.keeper import Keeper
from palladion.gate.reports import Reports
from palladion.incident.cases import News
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.registry import Incident, StandingChange
from palladion.watch.drift import Drift
from palladion.watch.why import Why
from tests.watch import factories

from .gates import MODEL, Bench, House, at, open_gate


class _Keeper:
    """As far as cases go."""

    def __init__(self) -> None:
        self.cases: list[News] = []
        self.notes: list[str] = []

    async def run(self, note: partial[None]) -> None:
        assert note.func is module._note_case
        self.notes.append(note.args[1])

    def opened(self) -> list[News]:
        opened, self.cases = self.cases, []
        return opened


def _case(name: str) -> Incident:
    return Incident(name, f"suspended: {name}", "open", ("a", "b"), at(1), None, None)


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
        self.keeper.cases += [News(_case(one), True, ()) for one in ids]

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


def test_clients_that_an_open_case_took_in_are_recorded_by_pseudonym(scene: _Scene) -> None:
    scene.keeper.cases.append(News(_case("one"), False, ("b",)))
    asyncio.run(scene.reports.cases())
    (record,) = scene.bench.journal.records
    assert (record.kind, record.subject, record.actor) == ("incident.acted", "incident:one", "gate")
    assert record.details == {"text": "", "change": "join", "clients": [scene.bench.gate.stages.name("b")]}


@pytest.mark.slow
@pytest.mark.parametrize("fails", [False, True])
def test_a_suspension_that_is_for_a_person_opens_a_case(house: House, tmp_path: Path, fails: bool) -> None:
    mine = house.copy(tmp_path)
    bench = open_gate(mine)
    said: list[str] = []
    complaints: list[str] = []
    with mine.installation.open_registry() as registry:
        keeper = Keeper(registry)
        reports = Reports(
            bench.journal,
            bench.gate.stages,
            keeper,
            bench.clock,
            actor="gate",
            say=said.append,
            complain=lambda part, _: complaints.append(part),
        )
        for client in (mine.ids["globex"], "gone"):
            bench.gate.stages.asked.append(StandingChange(client, "suspended", "odd", "watch", at(1)))

        async def work() -> None:
            with pytest.MonkeyPatch.context() as patched:
                if fails:
                    patched.setattr(module, "_ask_cases", _refuse)
                await reports.cases()
            await reports.cases()
            await reports.cases()

        asyncio.run(work())
        keeper.close()
        with registry.read() as records:
            (case,) = records.incidents.of_client(mine.ids["globex"])
    assert case.title.startswith("asked to suspend: ")
    assert said == [f"incident {case.id}: {case.title}"]
    assert [(record.kind, record.subject) for record in bench.journal.records] == [
        ("incident.opened", f"incident:{case.id}")
    ]
    assert (complaints, bench.gate.stages.asked) == (["registry"] if fails else [], [])


def test_a_record_of_refusals_names_networks_and_those_that_failed_are_named_later(scene: _Scene) -> None:
    stages = scene.bench.gate.stages
    scene.refuse(busy=2)
    stages.refused_from = {("acme", "busy"): {"aa", "bb"}}
    scene.bench.journal.error = PalladionError("no disk")
    asyncio.run(scene.reports.refusals())
    stages.refused_from["acme", "busy"].add("cc")
    scene.bench.journal.error = None
    asyncio.run(scene.reports.refusals())
    (record,) = scene.bench.journal.records
    assert record.details == {"reason": "busy", "requests": 2, "network": ["aa", "bb", "cc"]}
    assert (stages.refused_from, stages.refusals) == ({}, Counter())


def test_the_record_of_a_case_says_why_and_what_links_its_clients(
    scene: _Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages, shared = scene.bench.gate.stages, {"payment:card-1": 2, "address:192.0.2.1": 2}
    monkeypatch.setattr(
        scene.bench.watch, "links_between", lambda clients: shared if list(clients) == ["a", "b"] else {}
    )
    stages.whys._kept["b"] = Why("campaign", "group")
    scene.open_cases("one")
    scene.keeper.cases.append(News(_case("two"), False, ("b",)))
    scene.keeper.cases.append(News(_case("three"), True, (), Why("decoy-key", "decoy")))
    asyncio.run(scene.reports.cases())
    opened, joined, decoy = scene.bench.journal.records
    assert (opened.details["cause"], opened.details["why"]) == ("campaign", {"test": "group"})
    assert [(item["kind"], item["accounts"]) for item in opened.details["links"]] == [("network", 2), ("payment", 2)]
    assert joined.details["links"] == opened.details["links"]
    assert decoy.details["cause"] == "decoy-key"
    assert "card" not in str(scene.bench.journal.records)
    assert scene.keeper.notes[0] == (
        "by the queries of linked accounts together; campaign (AML.T0024.002, AML.T0021, AML.T0008.005, ML05:2023); "
        "accounts linked: 2 share a network; 2 share a means of payment"
    )


def test_a_case_whose_links_cannot_be_looked_up_is_recorded_all_the_same(
    scene: _Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_clients: Sequence[str]) -> dict[str, int]:
        raise StorageError("the registry is gone")

    monkeypatch.setattr(scene.bench.watch, "links_between", fail)
    scene.open_cases("one")
    asyncio.run(scene.reports.cases())
    assert scene.recorded() == [("incident.opened", 2)]
    assert scene.complaints == ["registry: the registry is gone"]


def _refuse(*_: object) -> None:
    raise StorageError("the registry is full")


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


def _left(scene: _Scene) -> Drift:
    """Traffic has left the calibration of the model that is served."""
    watch = scene.bench.gate.stages.watch
    watch.watch_model(MODEL, factories.calibration(), {})
    drift = watch.drifts.watched[MODEL].drift
    assert drift is not None
    for _ in range(40):
        drift.take(9.0, np.full(len(factories.calibration().words), 9.0), now=at(1).timestamp())
    assert drift.left
    return drift


def test_traffic_that_left_its_calibration_is_told_once(scene: _Scene, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        await scene.reports.drifts()
        drift = _left(scene)
        for _ in range(2):
            await scene.reports.drifts()
        assert drift.told

    asyncio.run(work())
    (record,) = scene.bench.journal.records
    assert (record.kind, record.subject, record.actor, record.time) == ("watch.drifted", "fraud@3", "gate", at(1))
    assert (record.details["clients"], record.details["simulated"]) == (40, True)
    assert len(record.details["moved"]) == 3
    assert scene.said == ["warning: traffic has left the calibration of fraud@3: no rate is promised"]
    (line,) = [item for item in caplog.records if item.name == "palladion.gate"]
    assert (line.levelname, record.details["moved"][0] in line.getMessage()) == ("WARNING", True)


def _strange_newcomers(scene: _Scene) -> None:
    """Forty newcomers to the model that is served are all unlike honest ones."""
    watch = scene.bench.gate.stages.watch
    watch.watch_model(MODEL, factories.calibration(), {})
    newcomers = watch.drifts.watched[MODEL].newcomers
    assert newcomers is not None
    for number in range(40):
        newcomers.take(f"c{number}", np.full(len(factories.calibration().words), 2.0), now=at(1).timestamp())


def test_newcomers_who_are_unlike_honest_ones_are_told_of_once(scene: _Scene) -> None:
    async def work() -> None:
        await scene.reports.newcomers()
        _strange_newcomers(scene)
        for _ in range(2):
            await scene.reports.newcomers()

    asyncio.run(work())
    (record,) = scene.bench.journal.records
    assert (record.kind, record.subject, record.actor, record.time) == ("watch.newcomers", "fraud@3", "gate", at(1))
    assert (record.details["newcomers"], record.details["cause"]) == (40, "campaign")
    assert record.details["named"][0].startswith("client:")
    assert record.details["moved"]
    assert scene.said == ["warning: 40 newcomers to fraud@3 are unlike honest ones together"]


def test_newcomers_that_could_not_be_recorded_are_told_of_later(scene: _Scene) -> None:
    async def work() -> None:
        _strange_newcomers(scene)
        scene.bench.journal.error = StorageError("the disk is full")
        await scene.reports.newcomers()
        assert scene.said == []
        scene.bench.journal.error = None
        await scene.reports.newcomers()

    asyncio.run(work())
    assert [record.kind for record in scene.bench.journal.records] == ["watch.newcomers"]
    assert scene.complaints == ["ledger: the disk is full"]


def test_a_drift_that_could_not_be_recorded_is_told_later(scene: _Scene) -> None:
    async def work() -> None:
        _left(scene)
        scene.bench.journal.error = StorageError("the disk is full")
        await scene.reports.drifts()
        assert scene.said == []
        scene.bench.journal.error = None
        await scene.reports.drifts()

    asyncio.run(work())
    assert [record.kind for record in scene.bench.journal.records] == ["watch.drifted"]
    assert scene.complaints == ["ledger: the disk is full"]
