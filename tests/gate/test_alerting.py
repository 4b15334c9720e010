"""A gate's alerts, from the record to real receivers: at least once, after a crash too, and nobody waits for them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from palladion.access.pseudonyms import pseudonym
from palladion.errors import PolicyError, StorageError
from palladion.gate.alerting import Alerting, open_alerting, open_cases
from palladion.gate.keeper import Keeper
from palladion.gate.recorder import Recorder
from palladion.gate.witnessing import Witnessing
from palladion.incident.alerts.outbox import FILE, Outbox
from palladion.incident.cases import act, opened_record, suspend_case
from palladion.ledger.record import Record, decode_record
from palladion.lifecycle.installation import Installation
from palladion.policy.alerting import AlertPolicy, LevelPolicy, OnCallPolicy
from palladion.registry import Incident
from palladion.registry.decoys import new_id
from tests.incident.alerts.receivers import (
    KEY_TEXT,
    ROUTING_KEY,
    Receiver,
    receiver,
    require_alertmanager,
    require_pagerduty,
    require_signed,
)
from tests.lifecycle.installations import NOW, Made, make

CHAT = {"name": "chat", "kind": "webhook", "secret": "hook", "severity": "info"}


@pytest.fixture
def made(tmp_path: Path) -> Made:
    made = make(tmp_path)
    for name, text in (("hook", KEY_TEXT), ("pd", ROUTING_KEY)):
        path = made.home / name
        path.write_text(text)
        path.chmod(0o600)
    with made.installation.open_registry() as registry, registry.write() as records:
        for name in ("web", "app"):
            records.clients.add(name, organisation="acme", actor="user:ann")
    return made


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as opened:
        yield opened


class _Scene:
    """A gate with nothing but a ledger, a registry and alerts."""

    def __init__(self, made: Made, recorder: Recorder, keeper: Keeper, alerting: Alerting) -> None:
        self.made = made
        self.recorder = recorder
        self.keeper = keeper
        self.alerting = alerting

    async def record(self, *records: Record) -> None:
        """Append, and publish a checkpoint."""
        await self.recorder.append(records)
        await self.recorder.checkpoint()

    async def look(self, seconds: float = 0) -> None:
        """What a gate does after so many seconds, until all that is due was sent or tried."""
        self.made.clock.advance(timedelta(seconds=seconds))
        await self.alerting.look()
        await asyncio.gather(*self.alerting._sending.values())

    async def suspend(self, *names: str) -> Incident:
        """Suspend clients as the gate does; returns the case."""
        key = self.made.installation.open_gate_root().derive("pseudonyms")

        def write(registry: Any) -> Incident:
            with registry.write() as records:
                ids = [records.clients.named("acme", name).id for name in names]
                return suspend_case(records, ids, reason="unlike", actor="watch")[0]

        case = await self.keeper.run(write)
        details = {"from": "watched", "to": "suspended", "reason": "unlike"}
        changes = [
            Record("standing.changed", self.made.clock.now(), "watch", pseudonym(key, client), details)
            for client in case.clients
        ]
        await self.record(*changes)
        return case


def _installation(made: Made, *alerts: dict[str, Any], **oncall: Any) -> Installation:
    policy = msgspec.structs.replace(
        made.installation.policy,
        alert=tuple(AlertPolicy(**item) for item in alerts),
        oncall=OnCallPolicy(**oncall),
    )
    return Installation(made.installation.paths, policy, made.clock)


@asynccontextmanager
async def _gate(made: Made, installation: Installation, *, dies: bool = False, witness: Any = None) -> Any:
    root = installation.open_gate_root()
    recorder = Recorder(installation.lock_ledger(root))
    with installation.open_registry() as registry:
        keeper = Keeper(registry)
        alerting = open_alerting(installation, root, keeper, recorder, cast("Witnessing | None", witness), actor="gate")
        assert alerting is not None
        try:
            yield _Scene(made, recorder, keeper, alerting)
        finally:
            if not dies:
                await alerting.close()
            keeper.close()
            await recorder.close()


def _run(course: Callable[[], Awaitable[None]]) -> None:
    async def work() -> None:
        await course()

    asyncio.run(work())


def _types(there: Receiver) -> list[str]:
    return [got.json["type"] for got in there.got]


def _recorded(made: Made, kind: str) -> list[Record]:
    entries = made.installation.read_ledger().entries()
    found = [decode_record(data, what="it") for _, data in entries]
    return [record for record in found if record.kind == kind]


@pytest.mark.slow
def test_a_suspension_is_one_signed_message_and_its_end_another(made: Made, there: Receiver) -> None:
    installation = _installation(made, {**CHAT, "url": there.url, "names": True}, link="https://w.example/{case}")

    async def course() -> None:
        async with _gate(made, installation) as scene:
            await scene.look()
            case = await scene.suspend("web", "app")
            await scene.look(1)
            await scene.record(opened_record(case))
            await scene.look(1)
            await scene.look(20)
            assert _types(there) == ["alert.opened"]
            await scene.record(
                Record("incident.acknowledged", made.clock.now(), "user:ann", f"incident:{case.id}", {"text": ""})
            )
            await scene.look(1)
            await scene.record(
                Record("incident.closed", made.clock.now(), "user:ann", f"incident:{case.id}", {"text": "x"})
            )
            await scene.look(1)
            await scene.look(1)

    _run(course)
    assert _types(there) == ["alert.opened", "alert.taken", "alert.ended"]
    for got in there.got:
        require_signed(got)
    data = there.got[0].json["data"]
    assert (data["kind"], data["severity"], data["count"]) == ("campaign", "critical", 2)
    assert {data["subject"]} <= {"acme/web, acme/app", "acme/app, acme/web"}
    assert data["link"] == f"https://w.example/{data['case']}"
    assert len({got.headers["webhook-id"] for got in there.got}) == 3
    assert len({got.json["data"]["id"] for got in there.got}) == 1


def test_what_was_recorded_before_alerts_were_wanted_is_none(made: Made, there: Receiver) -> None:
    installation = _installation(made, {**CHAT, "url": there.url})

    async def course() -> None:
        async with _gate(made, installation) as scene:
            await scene.suspend("web")
            await scene.look()
            await scene.look(20)

    _run(course)
    assert there.got == []


@pytest.mark.slow
def test_who_dies_before_or_after_reading_sends_it_when_it_is_back(made: Made, there: Receiver) -> None:
    installation = _installation(made, {**CHAT, "url": there.url})

    async def read_and_die() -> None:
        there.answers = [503]
        async with _gate(made, installation, dies=True) as scene:
            await scene.look()
            await scene.record(opened_record(await scene.suspend("web")))
            await scene.look()

    async def record_and_die() -> None:
        async with _gate(made, installation, dies=True) as scene:
            await scene.record(Record("clock.set", made.clock.now(), "gate", "home", {"seconds": 90}))

    async def come_back() -> None:
        async with _gate(made, installation) as scene:
            await scene.look(60)

    _run(read_and_die)
    _run(record_and_die)
    assert there.got == []
    _run(come_back)
    assert sorted(got.json["data"]["kind"] for got in there.got) == ["operational", "suspension"]
    _run(come_back)
    assert len(there.got) == 2


@pytest.mark.slow
def test_a_receiver_that_is_down_gets_it_later_and_holds_up_no_other(made: Made, there: Receiver) -> None:
    with receiver() as down:
        installation = _installation(made, {**CHAT, "url": there.url}, {**CHAT, "name": "down", "url": down.url})
        down.answers = [500] * 3

        async def course() -> None:
            async with _gate(made, installation) as scene:
                await scene.look()
                await scene.record(opened_record(await scene.suspend("web")))
                for _ in range(5):
                    await scene.look(4)
                    assert len(there.got) == 1
                assert scene.alerting.faults == []
                await scene.look(30)
                assert scene.alerting.faults == ["alerts cannot be sent by down"]
                assert down.got == []
                await scene.look(300)
                assert scene.alerting.faults == []

        _run(course)
        assert len(down.got) == 1
    assert len(there.got) == 1


@pytest.mark.slow
def test_levels_are_paged_until_somebody_takes_the_case_and_the_ledger_says_so(made: Made, there: Receiver) -> None:
    with receiver() as alertmanager:
        installation = _installation(
            made,
            {"name": "pager", "kind": "pagerduty", "secret": "pd", "url": there.url},
            {"name": "am", "kind": "alertmanager", "url": alertmanager.url},
            levels=(LevelPolicy(channels=("pager",), minutes=5), LevelPolicy(channels=("am",), minutes=5)),
        )

        async def course() -> None:
            async with _gate(made, installation) as scene:
                await scene.look()
                case = await scene.suspend("web")
                await scene.record(opened_record(case))
                await scene.look(1)
                assert (len(there.got), len(alertmanager.got)) == (1, 0)
                await scene.look(299)
                assert alertmanager.got == []
                await scene.look(1)
                assert len(alertmanager.got) == 1
                # the same way as palladion incident take
                step = Record(
                    "incident.acknowledged", made.clock.now(), "user:ann", f"incident:{case.id}", {"text": ""}
                )
                await scene.record(step)
                await scene.look(1)
                await scene.look(1200)

        _run(course)
        assert [require_pagerduty(got)["event_action"] for got in there.got] == ["trigger", "acknowledge"]
        assert {require_alertmanager(got)["labels"]["kind"] for got in alertmanager.got} == {"suspension"}
    (record,) = _recorded(made, "incident.escalated")
    assert record.details == {"alert": record.details["alert"], "level": 2, "channels": ["am"], "last": False}
    assert record.subject.startswith("incident:")


@pytest.mark.slow
def test_that_nobody_came_is_on_record(made: Made, there: Receiver) -> None:
    installation = _installation(made, {**CHAT, "url": there.url}, levels=(LevelPolicy(channels=("chat",), minutes=5),))

    async def course() -> None:
        async with _gate(made, installation) as scene:
            await scene.look()
            await scene.record(opened_record(await scene.suspend("web")))
            for _ in range(4):
                await scene.look(300)
            await scene.record()

    _run(course)
    assert _types(there) == ["alert.opened", "alert.updated"]
    assert [(item.details["level"], item.details["last"]) for item in _recorded(made, "incident.escalated")] == [
        (1, True)
    ]


def test_a_ledger_that_another_has_seen_otherwise_is_told_and_recorded_once(made: Made, there: Receiver) -> None:
    class _Witness:
        contradicted = True

    installation = _installation(made, {**CHAT, "url": there.url})

    async def course() -> None:
        async with _gate(made, installation, witness=_Witness()) as scene:
            for _ in range(3):
                await scene.look(1)
                await scene.record()

    _run(course)
    assert len(_recorded(made, "ledger.contradicted")) == 1
    assert [got.json["data"]["kind"] for got in there.got] == ["ledger"]


@pytest.mark.slow
@pytest.mark.parametrize("writable", [True, False])
def test_a_ledger_that_takes_nothing_is_told_although_it_is_not_on_record(
    made: Made, there: Receiver, monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    installation = _installation(made, {**CHAT, "url": there.url})

    def fail(*_: object, **__: object) -> None:
        raise StorageError("the disk is full")

    async def course() -> None:
        async with _gate(made, installation) as scene:
            await scene.look()
            monkeypatch.setattr(scene.recorder, "_sound", False)
            if not writable:
                monkeypatch.setattr(Outbox, "take_in", fail)
            for _ in range(3):
                await scene.look(1)

    _run(course)
    assert len(there.got) == 1
    assert there.got[0].json["data"]["sentence"].startswith("the ledger takes nothing more")


def test_a_ledger_that_was_changed_on_the_disk_is_told_once(made: Made, there: Receiver) -> None:
    installation = _installation(made, {**CHAT, "url": there.url})

    async def course() -> None:
        async with _gate(made, installation) as scene:
            await scene.look()
            await scene.record(Record("clock.set", made.clock.now(), "gate", "home", {"seconds": 90}))
            for path in (installation.paths.ledger / "tile" / "entries").rglob("*"):
                if path.is_file():
                    path.write_bytes(path.read_bytes().replace(b'"seconds":90', b'"seconds":91'))
            for _ in range(3):
                await scene.look(1)
            assert scene.alerting.faults == ["alerts do not follow the ledger: the log says why"]

    _run(course)
    assert [got.json["data"]["sentence"].partition(":")[0] for got in there.got] == [
        "the ledger on the disk is not what was signed"
    ]
    with Outbox.open(installation.paths.directory / FILE) as outbox:
        assert [topic.count for topic in outbox.topics()] == [1]


@pytest.mark.slow
def test_a_look_that_is_cut_short_ends_before_the_last_one(made: Made, there: Receiver) -> None:
    installation = _installation(made, {**CHAT, "url": there.url})

    async def course() -> None:
        async with _gate(made, installation) as scene:
            await scene.look()
            await scene.record(Record("clock.set", made.clock.now(), "gate", "home", {"seconds": 90}))
            running = asyncio.create_task(scene.alerting.run())
            await asyncio.sleep(0)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    _run(course)
    assert [got.json["data"]["count"] for got in there.got] == [1]


@pytest.mark.slow
def test_what_is_old_is_no_alert_and_a_ledger_that_was_restored_begins_anew(made: Made, there: Receiver) -> None:
    installation = _installation(made, {**CHAT, "url": there.url})

    async def course() -> None:
        async with _gate(made, installation) as scene:
            await scene.look()
            await scene.record(Record("clock.set", NOW, "gate", "home", {"seconds": 90}))
            await scene.look(8 * 24 * 3600)

    _run(course)
    assert there.got == []
    with Outbox.open(installation.paths.directory / FILE) as outbox:
        origin = installation.policy.ledger.origin
        outbox.take_in((), {}, place=(origin, 10**6), now=NOW, repeat=timedelta(hours=1))

    async def again() -> None:
        async with _gate(made, installation) as scene:
            await scene.look()
            await scene.record(Record("clock.set", made.clock.now(), "gate", "home", {"seconds": 90}))
            await scene.look(1)

    _run(again)
    assert len(there.got) == 1


@pytest.mark.slow
def test_a_case_that_a_person_takes_at_the_command_line_is_heard(made: Made, there: Receiver) -> None:
    installation = _installation(made, {**CHAT, "url": there.url})
    cases: list[str] = []

    async def begin() -> None:
        async with _gate(made, installation) as scene:
            await scene.look()
            case = await scene.suspend("web")
            cases.append(case.id)
            await scene.record(opened_record(case))
            await scene.look(1)

    async def go_on() -> None:
        async with _gate(made, installation) as scene:
            await scene.look(1)

    _run(begin)
    act(installation, cases[0], "acknowledge", "", actor="user:ann")
    _run(go_on)
    assert _types(there) == ["alert.opened", "alert.taken"]


def test_open_cases_are_known_by_whom_and_what_they_concern(made: Made) -> None:
    key = made.installation.open_gate_root().derive("pseudonyms")
    with made.installation.open_registry() as registry, registry.write() as records:
        web, app = (records.clients.named("acme", name).id for name in ("web", "app"))
        both = records.incidents.open("both", actor="watch", clients=[web, app])
        later = records.incidents.open("later", actor="watch", clients=[web])
        taken = records.incidents.open("taken", actor="gate")
        records.incidents.acknowledge(taken.id, actor="user:ann")
        closed = records.incidents.open("closed", actor="gate")
        records.incidents.close(closed.id, actor="user:ann", finding="nothing")
        decoy = new_id()
        records.decoys.add_key(decoy, "wiki", prefix="pall_x", key_hash=bytes(32), organisation=None, actor="user:ann")
        records.decoys.touch(decoy, 1, at=made.clock.now(), incident=taken.id)
        found = open_cases(records, key, named=True)
        unnamed = open_cases(records, key, named=False)
    assert set(found) == {both.id, later.id, taken.id, pseudonym(key, web), pseudonym(key, app), f"decoy:{decoy}"}
    assert found[pseudonym(key, app)].id == both.id
    assert sorted(found[both.id].name.split(", ")) == ["acme/app", "acme/web"]
    assert (found[both.id].several, found[both.id].taken) == (True, False)
    assert (found[later.id].several, found[f"decoy:{decoy}"].taken) == (False, True)
    assert {case.name for case in unnamed.values()} == {""}


def test_without_channels_there_is_nothing_and_one_that_cannot_send_is_refused(made: Made) -> None:
    def opened(*alerts: dict[str, Any]) -> Alerting | None:
        installation = _installation(made, *alerts)
        parts: Sequence[Any] = (installation.open_gate_root(), None, None, None)
        return open_alerting(installation, *parts, actor="gate")

    assert opened() is None
    with pytest.raises(PolicyError, match="alert chat: webhook needs a url"):
        opened(CHAT)
    assert not (made.installation.paths.directory / FILE).exists()


def test_a_gate_that_cannot_write_its_outbox_goes_on(made: Made, there: Receiver) -> None:
    installation = _installation(made, {**CHAT, "url": there.url})

    async def course() -> None:
        async with _gate(made, installation, dies=True) as scene:
            await scene.look()
            await scene.record(Record("clock.set", made.clock.now(), "gate", "home", {"seconds": 90}))
            scene.alerting._outbox._connection.execute("PRAGMA query_only = ON")
            await scene.look(1)
            assert there.got == []
            scene.alerting._outbox._connection.execute("PRAGMA query_only = OFF")
            await scene.look(1)

    _run(course)
    assert len(there.got) == 1
