"""Touches: each is counted, few are told, and what is told names who it was without repeating a key."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from palladion.access.certificates import Certificate
from palladion.access.identity import new_api_key
from palladion.clock import ManualClock
from palladion.errors import NotFoundError, StorageError
from palladion.gate import touches as module
from palladion.gate.keeper import Keeper
from palladion.gate.reports import Reports
from palladion.gate.requests import STRANGER, Peer, Request
from palladion.gate.touches import (
    AGENT_CHARACTERS_MAX,
    CLIENTS_MAX,
    TOLD_EVERY,
    TOUCHERS_MAX,
    Toucher,
    Touches,
    keep_touches,
    touched_record,
    toucher,
    verdict_on,
)
from palladion.ledger.record import encode_record
from palladion.policy import WatchPolicy
from palladion.registry import Decoy, Incident, Registry
from palladion.registry.decoys import new_id
from tests.lifecycle.installations import ACTOR, NOW

from .gates import Bench, House, open_gate

THIEF = Toucher(None, "192.0.2.7", "curl/8")
OTHER = Toucher(None, "192.0.2.8", "")


def _request(agent: bytes, address: str | None = "192.0.2.7", peer: Peer = STRANGER) -> Request:
    async def body() -> bytes:
        return b""

    return Request("POST", "/", {b"user-agent": agent}, body, address, peer)


def _nobody(peer: Peer) -> str | None:
    return None


def _named(peer: Peer) -> str | None:
    return None if peer.certificate is None else f"client-{peer.certificate.fingerprint}"


def _showing(fingerprint: str) -> Peer:
    return Peer(Certificate(fingerprint))


def test_the_first_touch_is_told_at_once_and_later_ones_together() -> None:
    touches = Touches(_nobody)
    touches.add("a", THIEF, NOW)
    (told,) = touches.due(NOW)
    assert (told.decoy, told.touches, told.first, told.last) == ("a", 1, NOW, NOW)
    for second in range(1, 60):
        touches.add("a", THIEF, NOW + timedelta(seconds=second))
        touches.add("b", OTHER, NOW + timedelta(seconds=second))
        due = touches.due(NOW + timedelta(seconds=second))
        assert [item.decoy for item in due] == (["b"] if second == 1 else [])
    assert touches.due(NOW + TOLD_EVERY - timedelta(seconds=1)) == []
    (later,) = touches.due(NOW + TOLD_EVERY)
    assert (later.decoy, later.touches) == ("a", 59)
    assert later.by == {THIEF: 59}


def test_a_flood_from_everywhere_takes_up_no_room() -> None:
    touches = Touches(_nobody)
    for number in range(10_000):
        touches.add("a", Toucher(None, f"2001:db8::{number:x}", f"agent {number}"), NOW)
    (told,) = touches.due(NOW)
    assert (len(told.by), told.others, told.touches) == (TOUCHERS_MAX, 10_000 - TOUCHERS_MAX, 10_000)
    assert told.by[Toucher(None, "2001:db8::0", "agent 0")] == 1
    assert len(encode_record(touched_record(told, actor="gate", name=str))) < 4096


def test_no_client_hides_behind_what_another_writes_into_its_requests() -> None:
    touches = Touches(_nobody)
    for number in range(50):
        touches.add("a", Toucher("loud", f"192.0.2.{number}", f"agent {number}"), NOW)
        touches.add("a", Toucher(None, f"198.51.100.{number}", ""), NOW)
    touches.add("a", Toucher("quiet", "192.0.2.1", "curl/8"), NOW)
    (told,) = touches.due(NOW)
    assert told.clients == ["loud", "quiet"]
    assert told.by[Toucher("loud", "192.0.2.0", "agent 0")] == 50
    assert (len(told.by), told.others, told.touches) == (2 + TOUCHERS_MAX, 50 - TOUCHERS_MAX, 101)


def test_more_clients_than_are_told_of_are_counted() -> None:
    touches = Touches(_nobody)
    for number in range(2 * CLIENTS_MAX):
        touches.add("a", Toucher(f"client-{number % (CLIENTS_MAX + 3)}", None, ""), NOW)
    (told,) = touches.due(NOW)
    assert (len(told.clients), told.others, told.touches) == (CLIENTS_MAX, 3, 2 * CLIENTS_MAX)
    assert len(encode_record(touched_record(told, actor="gate", name=str))) < 16_384


def test_what_is_put_aside_is_counted_and_a_flood_of_it_takes_up_no_room() -> None:
    touches = Touches(_named)
    for number in range(1000):
        second = NOW + timedelta(seconds=number)
        touches.put_aside("a", _request(b"curl/8", f"192.0.2.{number % 11}"), second)
        touches.put_aside("a", _request(b"%d" % number, "192.0.2.7", _showing(str(number % 70))), second)
        touches.put_aside("b", _request(b"curl/8", "192.0.2.9"), second)
        touches.put_aside(None, _request(b"%d" % number, "192.0.2.9", _showing(str(number))), second)
    held = [len(room) for aside in touches._aside.values() for room in (aside.strangers, aside.certified)]
    assert max(held) <= CLIENTS_MAX
    told, other = touches.due(NOW)
    assert (told.decoy, told.touches, other.decoy, other.touches) == ("a", 2000, "b", 1000)
    assert [who for who in told.by if who.client is None] == [
        Toucher(None, f"192.0.2.{last}", "curl/8") for last in range(TOUCHERS_MAX)
    ]
    assert told.clients == [f"client-{number}" for number in range(CLIENTS_MAX)]
    assert told.by[Toucher("client-0", "192.0.2.7", "0")] == len(range(0, 1000, 70))
    assert (told.first, told.last) == (NOW, NOW + timedelta(seconds=999))
    assert touches.due(NOW, every=True) == []


def test_while_somebody_waits_for_the_answer_to_a_decoy_nothing_is_looked_up_or_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_up: list[Peer] = []
    shown: list[bytes] = []
    real = module._shown

    def certified(peer: Peer) -> None:
        looked_up.append(peer)

    def show(client: str | None, address: str | None, program: bytes) -> Toucher:
        shown.append(program)
        return real(client, address, program)

    monkeypatch.setattr(module, "_shown", show)
    touches = Touches(certified)
    for number in range(2000):
        touches.put_aside("a", _request(b"%d" % number, peer=_showing(str(number % 3))), NOW)
        touches.put_aside("a", _request(b"%d" % number), NOW)
    assert (looked_up, shown) == ([], [])
    touches.due(NOW)
    assert len(looked_up) == len(shown) == 3 + TOUCHERS_MAX


def test_a_key_that_is_no_decoy_is_put_aside_and_forgotten() -> None:
    touches = Touches(_named)
    touches.put_aside(None, _request(b"curl/8"), NOW)
    assert list(touches._aside) == [None]
    assert touches.due(NOW, every=True) == []
    assert touches._aside == {}


def test_a_certificate_that_cannot_be_looked_up_now_loses_no_touch() -> None:
    broken = True

    def certified(peer: Peer) -> str | None:
        if broken:
            raise StorageError("the registry is busy")
        return _named(peer)

    touches = Touches(certified)
    for peer in (STRANGER, _showing("1")):
        touches.put_aside("a", _request(b"", peer=peer), NOW)
    with pytest.raises(StorageError):
        touches.due(NOW)
    broken = False
    (told,) = touches.due(NOW)
    assert (told.clients, told.touches) == (["client-1"], 2)


def test_at_the_end_every_touch_is_told() -> None:
    touches = Touches(_nobody)
    touches.add("a", THIEF, NOW)
    touches.due(NOW)
    touches.add("a", THIEF, NOW)
    assert touches.due(NOW) == []
    assert [item.touches for item in touches.due(NOW, every=True)] == [1]


def test_what_could_not_be_told_is_told_with_what_came_since() -> None:
    touches = Touches(_nobody)
    touches.add("a", THIEF, NOW)
    (failed,) = touches.due(NOW)
    later = NOW + timedelta(seconds=3)
    touches.add("a", OTHER, later)
    touches.give_back(failed)
    (told,) = touches.due(later)
    assert (told.first, told.last, told.by) == (NOW, later, {THIEF: 1, OTHER: 1})


def test_who_it_was_is_told_without_keys_or_what_a_terminal_obeys() -> None:
    key = new_api_key("live").text
    for agent in (key, f"x{key}", f"curl/8 {key} {key}", "a" * (AGENT_CHARACTERS_MAX - 20) + key):
        shown = toucher(_request(agent.encode()), None).agent
        assert key[10:16] not in shown
        assert len(shown) <= AGENT_CHARACTERS_MAX
    assert toucher(_request(b"\x1b[2J\xff\n ok"), None).agent == "?[2J?? ok"
    assert len(toucher(_request(b"a" * 60_000, "b" * 60_000), None).address or "") == 64
    assert toucher(None, "client1") == Toucher("client1", None, "")


def test_a_record_names_clients_by_pseudonym_and_strangers_by_where_they_came_from() -> None:
    touches = Touches(_nobody)
    touches.add("a", Toucher("client1", "192.0.2.9", "curl/8"), NOW)
    touches.add("a", THIEF, NOW)
    (told,) = touches.due(NOW)
    record = touched_record(told, actor="gate", name=lambda client: f"client:{client[::-1]}")
    assert (record.kind, record.subject, record.actor) == ("decoy.touched", "decoy:a", "gate")
    assert record.details["by"] == [
        {"client": "client:1tneilc", "touches": 1},
        {"address": "192.0.2.7", "user_agent": "curl/8", "touches": 1},
    ]
    assert b"192.0.2.9" not in encode_record(record)
    assert b"client1" not in encode_record(record)


def test_a_record_says_whether_a_key_was_used_or_queries_were_asked() -> None:
    touches = Touches(_nobody)
    touches.add("queries", THIEF, NOW)
    touches.put_aside("key", _request(b"curl"), NOW)
    causes = {
        touched.decoy: touched_record(touched, actor="gate", name=str).details["cause"] for touched in touches.due(NOW)
    }
    assert causes == {"queries": "decoy-query", "key": "decoy-key"}


def test_the_verdict_names_the_decoy_and_what_the_policy_says() -> None:
    assert verdict_on(["a"], WatchPolicy()).standing == "watched"
    assert verdict_on(["a", "b", "c"], WatchPolicy(decoys="degraded")).standing == "degraded"
    assert verdict_on(["a", "b", "c"], WatchPolicy()).reason == "asked what stands only in decoy a and 2 more"


class _Desk:
    """A registry with a decoy key, decoy rows and two clients."""

    def __init__(self, registry: Registry, house: House) -> None:
        self.registry, self.ids = registry, house.ids
        with registry.write() as records:
            self.key = records.decoys.add_key(
                new_id(), "wiki", prefix="pall_live_abcdef", key_hash=b"\1" * 32, organisation=None, actor=ACTOR
            ).id
            self.rows = records.decoys.add_queries(
                new_id(), "rows", "copy of May", model="fraud", data=b"x", count=1, actor=ACTOR
            ).id

    def touch(self, decoy: str, *by: Toucher) -> list[Incident]:
        touches = Touches(_nobody)
        for who in by:
            touches.add(decoy, who, NOW)
        with self.registry.write() as records:
            return keep_touches(records, touches.due(NOW), actor="gate")

    def close(self, case: Incident) -> None:
        with self.registry.write() as records:
            records.incidents.close(case.id, actor="user:ada", finding="our own test")

    def timeline(self, case: Incident) -> list[str]:
        with self.registry.read() as records:
            return [event.text for event in records.incidents.timeline(case.id)]

    def decoy(self, decoy: str) -> Decoy:
        with self.registry.read() as records:
            return records.decoys.get(decoy)


@pytest.fixture
def desk(house: House, tmp_path: Path) -> _Desk:
    mine = house.copy(tmp_path)
    return _Desk(Registry.open(mine.installation.paths.registry, ManualClock(NOW)), mine)


def test_a_stranger_opens_a_case_that_later_touches_join(desk: _Desk) -> None:
    (case,) = desk.touch(desk.key, THIEF)
    assert (case.title, case.clients, case.state) == ("decoy touched: wiki", (), "open")
    assert desk.touch(desk.key, THIEF, OTHER, OTHER) == []
    first, second = desk.timeline(case)
    assert first.endswith("its API key was used 2026-06-01T12:00:00.000000Z. By 192.0.2.7 (curl/8): 1")
    assert "its API key was used 3 times" in second
    assert second.endswith("192.0.2.7 (curl/8): 1; 192.0.2.8 (no user agent): 2")
    assert (desk.decoy(desk.key).touches, desk.decoy(desk.key).incident) == (4, case.id)


def test_after_its_case_was_closed_a_touch_opens_another(desk: _Desk) -> None:
    (case,) = desk.touch(desk.key, THIEF)
    desk.close(case)
    (again,) = desk.touch(desk.key, THIEF)
    assert again.id != case.id
    assert desk.decoy(desk.key).incident == again.id


def test_a_client_gets_a_case_of_its_own_or_joins_the_one_it_has(desk: _Desk) -> None:
    acme, globex = (Toucher(desk.ids[name], "192.0.2.1", "curl/8") for name in ("acme", "globex"))
    (case,) = desk.touch(desk.rows, acme)
    assert case.clients == (desk.ids["acme"],)
    assert "its rows were asked" in desk.timeline(case)[0]
    assert "acme/acme, 192.0.2.1 (curl/8): 1" in desk.timeline(case)[0]
    (other,) = desk.touch(desk.rows, acme, globex)
    assert other.clients == (desk.ids["globex"],)
    assert len(desk.timeline(case)) == 2
    assert desk.touch(desk.key, acme) == []
    assert desk.decoy(desk.rows).incident is None


def test_two_clients_that_come_together_are_one_case(desk: _Desk) -> None:
    both = [Toucher(desk.ids[name], None, "") for name in ("acme", "globex")]
    (case,) = desk.touch(desk.rows, *both)
    assert set(case.clients) == {desk.ids["acme"], desk.ids["globex"]}


def test_a_decoy_that_is_not_there_is_an_error(desk: _Desk) -> None:
    with pytest.raises(NotFoundError):
        desk.touch("ff" * 8, THIEF)


@dataclass
class _Told:
    """Reports over a registry that can be broken, and a journal that is a list."""

    bench: Bench
    registry: Registry
    said: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def run(self, work: Callable[[Reports, Keeper], Coroutine[object, object, None]]) -> None:
        async def with_keeper() -> None:
            keeper = Keeper(self.registry)
            reports = Reports(
                self.bench.journal,
                self.bench.gate.stages,
                keeper,
                self.bench.clock,
                actor="gate",
                say=self.said.append,
                complain=lambda part, error: self.complaints.append(part),
            )
            try:
                await work(reports, keeper)
            finally:
                keeper.close()

        asyncio.run(with_keeper())

    def touch(self, decoy: str, who: Toucher = THIEF) -> None:
        self.bench.gate.stages.touches.add(decoy, who, self.bench.clock.now())


@pytest.fixture
def told(desk: _Desk, house: House) -> _Told:
    return _Told(open_gate(house), desk.registry)


def test_a_touch_is_recorded_then_kept_and_its_case_is_said_and_recorded(told: _Told, desk: _Desk) -> None:
    async def work(reports: Reports, _: Keeper) -> None:
        told.touch(desk.key)
        await reports.cases()
        told.touch(desk.key)
        await reports.cases()

    told.run(work)
    assert told.bench.kinds == ["decoy.touched", "incident.opened"]
    assert [line.partition(": ")[2] for line in told.said] == ["decoy touched: wiki"]
    assert desk.decoy(desk.key).touches == 1
    told.run(lambda reports, _: reports.close())
    assert told.bench.kinds[2:] == ["decoy.touched"]
    assert desk.decoy(desk.key).touches == 2


@pytest.mark.parametrize("broken", ["ledger", "registry"])
def test_what_cannot_be_written_is_written_later_and_once(
    told: _Told, desk: _Desk, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(reports: Reports, keeper: Keeper) -> None:
        told.touch(desk.key)
        error = StorageError("the disk is full")

        async def fail(_: object) -> None:
            raise error

        with monkeypatch.context() as patched:
            if broken == "ledger":
                told.bench.journal.error = error
            else:
                patched.setattr(keeper, "run", fail)
            await reports.cases()
            told.touch(desk.key, OTHER)
            await reports.cases()
        told.bench.journal.error = None
        await reports.cases()
        await reports.close()

    told.run(work)
    assert set(told.complaints) == {broken}
    assert desk.decoy(desk.key).touches == 2
    recorded = [record.details["touches"] for record in told.bench.journal.records if record.kind == "decoy.touched"]
    assert sum(recorded) == 2
    assert told.bench.kinds.count("incident.opened") == 1


def test_a_touch_of_what_the_registry_does_not_know_keeps_no_other_from_its_case(
    told: _Told, desk: _Desk, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(reports: Reports, _: Keeper) -> None:
        told.touch("ff" * 8)
        told.touch(desk.key)
        for _round in range(2):
            await reports.cases()

    told.run(work)
    assert told.complaints == []
    assert told.bench.kinds == ["decoy.touched", "decoy.touched", "incident.opened"]
    assert desk.decoy(desk.key).touches == 1
    (line,) = [item.getMessage() for item in caplog.records if item.name == "palladion.gate"]
    assert line.startswith(f"touches of decoy {'ff' * 8} are in the ledger alone: ")


def test_touches_that_were_kept_before_the_registry_failed_are_kept_once(
    told: _Told, desk: _Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(reports: Reports, keeper: Keeper) -> None:
        told.touch(desk.key)
        told.touch(desk.rows)
        real, calls = keeper.run, 0

        async def fail_second(function: Callable[[Registry], object]) -> object:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise StorageError("the disk is full")
            return await real(function)

        monkeypatch.setattr(keeper, "run", fail_second)
        await reports.cases()
        assert (desk.decoy(desk.key).touches, desk.decoy(desk.rows).touches) == (1, 0)
        await reports.cases()

    told.run(work)
    assert (desk.decoy(desk.key).touches, desk.decoy(desk.rows).touches) == (1, 1)
    assert told.bench.kinds.count("decoy.touched") == 2


def test_a_look_up_that_fails_is_said_and_the_touch_told_later(told: _Told, desk: _Desk) -> None:
    touches, broken = told.bench.gate.stages.touches, True

    def certified(peer: Peer) -> str | None:
        if broken:
            raise StorageError("the registry is busy")
        return None

    touches._certified = certified

    async def work(reports: Reports, _: Keeper) -> None:
        nonlocal broken
        touches.put_aside(desk.key, _request(b""), told.bench.clock.now())
        await reports.cases()
        assert (told.complaints, told.bench.kinds) == (["registry"], [])
        broken = False
        await reports.cases()

    told.run(work)
    assert desk.decoy(desk.key).touches == 1
