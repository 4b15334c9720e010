"""What is kept of end users: over a restart, out of memory, up to a number, and never at the reseller's expense."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palladion.clock import ManualClock
from palladion.errors import BusyError, ConflictError
from palladion.gate import keeper as keeper_module
from palladion.gate.callers import WATCH, LookedUpCallers
from palladion.gate.directory import Directory
from palladion.gate.end_users import EndUsers, SeeingBoth, asker_of
from palladion.gate.keeper import Keeper
from palladion.gate.rolls import read_looked_up
from palladion.lifecycle.clients import set_standing
from palladion.policy import WatchPolicy
from palladion.policy.resellers import ResellersPolicy
from palladion.registry import Client, Registry, StandingChange
from palladion.registry.rows import Standing
from palladion.watch.watch import Asked, Asker, Observation, Watch
from tests.lifecycle.installations import ACTOR, NOW

from .gates import MODEL, House, at, tiny_calibration
from .reselling import id_of, make_reseller

PURPOSE = "suspicion:test"
CALIBRATION = tiny_calibration()


@dataclass(eq=False)
class Kept:
    """A directory that looks up who asks, a keeper, and a real watch over a real registry."""

    house: House
    registry: Registry
    keeper: Keeper
    end_users: EndUsers
    directory: Directory
    watch: Watch

    @property
    def acme(self) -> str:
        return self.house.ids["acme"]

    def id_of(self, user: str) -> str:
        return id_of(self.house, user)

    def ask(self, user: str | None, rows: int = 3, *, seed: int = 1) -> Observation:
        """What is observed of a request of acme for an end user."""
        headers = {b"x-api-key": self.house.keys["acme"].encode()}
        headers |= {} if user is None else {b"palladion-end-user": user.encode()}
        caller = self.directory.identify(headers, self.registry._clock.now())
        self.directory.enter(caller)
        asker = Asker(caller.id, caller.client.organisation)
        if caller.end_user is not None:
            asker = asker_of(caller.end_user.client, asker, by_proxy=False)
        inputs = np.random.default_rng(seed).standard_normal((rows, 4))
        asked = Asked(asker, inputs, np.full((rows, 3), 1 / 3))
        (found,) = SeeingBoth(lambda: self.watch).observe_all(MODEL, [asked], now=NOW.timestamp())
        return found

    async def save(self) -> None:
        """As a gate does each second."""
        await self.keeper.states({PURPOSE: self.watch.changes(MODEL)})

    def load(self) -> list[str]:
        """As after a command."""
        roll = read_looked_up(self.registry, lookup=self.keeper.lookup, before=self.directory.mark)
        return self.directory.load(roll, self.keeper.unwritten)

    def queries(self, client: str) -> int:
        """How many queries of a client the watch knows of."""
        return sum(item.queries for item in self.watch.explain(client))

    def put(self, user: str, standing: Standing) -> StandingChange:
        """Let an end user stand so, as the watch does."""
        change = StandingChange(self.id_of(user), standing, "they are odd", WATCH, at(1))
        self.directory.change(change)
        return change


@pytest.fixture
def mine(house: House, tmp_path: Path) -> House:
    copied = house.copy(tmp_path)
    make_reseller(copied)
    return copied


@pytest.fixture
def clock() -> ManualClock:
    """When the registry is written to."""
    return ManualClock(at(5))


@pytest.fixture
def registry(mine: House, clock: ManualClock) -> Iterator[Registry]:
    # a busy registry says so at once: no test waits five seconds for it
    with Registry.open(mine.installation.paths.registry, clock, busy_timeout_ms=0) as opened:
        yield opened


def _use(
    mine: House, registry: Registry, work: Callable[[Kept], Awaitable[None]], policy: ResellersPolicy | None = None
) -> None:
    """Start, work, and stop in good order."""

    async def run() -> None:
        end_users = EndUsers(mine.root.derive("pseudonyms"), policy or ResellersPolicy())
        keeper = Keeper(registry, end_users)
        try:
            pepper = mine.root.derive("client-key-pepper")
            directory = Directory(pepper, end_users=end_users, decided=keeper.decided)
            directory.load(read_looked_up(registry, lookup=keeper.lookup))
            watch = Watch(WatchPolicy())
            watch.watch_model(MODEL, CALIBRATION, keeper.shelf(PURPOSE))
            await work(Kept(mine, registry, keeper, end_users, directory, watch))
        finally:
            keeper.close()

    asyncio.run(run())


def test_an_end_user_is_known_after_a_restart_with_what_was_observed_of_it(mine: House, registry: Registry) -> None:
    before: list[Observation] = []

    async def first(kept: Kept) -> None:
        before.append(kept.ask("ann", 5))
        kept.ask("bob", 2)
        await kept.keeper.standings([kept.put("bob", "throttled")])
        await kept.save()
        assert kept.end_users.waiting == {}

    async def second(kept: Kept) -> None:
        assert [kept.queries(kept.id_of(user)) for user in ("ann", "bob")] == [5, 2]
        assert kept.queries(kept.acme) == 7
        assert kept.directory.callers[kept.id_of("bob")].standing == "throttled"
        assert kept.directory.callers[kept.id_of("ann")].standing == "trusted"
        assert kept.end_users.waiting == {}

    _use(mine, registry, first)
    _use(mine, registry, second)


def test_no_name_of_an_end_user_is_written_anywhere(mine: House, registry: Registry) -> None:
    async def work(kept: Kept) -> None:
        kept.ask("ann-of-example")
        await kept.keeper.standings([kept.put("ann-of-example", "suspended")])
        await kept.save()
        with registry.read() as records:
            assert records.clients.get(kept.id_of("ann-of-example")).name == f"acme~{kept.id_of('ann-of-example')}"

    _use(mine, registry, work)
    written = [path for path in mine.installation.paths.directory.rglob("*") if path.is_file()]
    assert [path for path in written if b"ann-of-example" in path.read_bytes()] == []


def test_whoever_invents_an_end_user_for_each_query_gains_nothing(mine: House, registry: Registry) -> None:
    alone: list[Observation] = []
    invented: list[Observation] = []

    async def without(kept: Kept) -> None:
        alone.extend(kept.ask(None, 1, seed=seed) for seed in range(40))

    async def inventing(kept: Kept) -> None:
        invented.extend(kept.ask(f"user-{seed}", 1, seed=seed) for seed in range(40))

    _use(mine, registry, without)
    _use(mine, registry, inventing)
    # to the last bit, whatever is counted for end users beside
    assert [item.evidence for item in invented] == [item.evidence for item in alone]
    assert [item.verdict for item in invented] == [item.verdict for item in alone]


def test_an_end_user_is_judged_as_any_client_that_asks_the_same(mine: House, registry: Registry) -> None:
    async def work(kept: Kept) -> None:
        kept.ask("bob", 7, seed=9)
        ann = [kept.ask("ann", 2, seed=seed) for seed in range(10)]
        other = Watch(WatchPolicy())
        other.watch_model(MODEL, CALIBRATION, {})
        for seed, found in enumerate(ann):
            inputs = np.random.default_rng(seed).standard_normal((2, 4))
            own = other.observe(Asker("x", "y"), MODEL, inputs, np.full((2, 3), 1 / 3), now=NOW.timestamp())
            assert getattr(found, "end_user").evidence == own.evidence  # noqa: B009 (Resold alone has it)
        assert kept.watch.members(kept.id_of("ann"), MODEL) == {kept.id_of("ann")}
        assert kept.watch.members(kept.acme, MODEL) == {kept.acme}

    _use(mine, registry, work)


@pytest.mark.slow
def test_a_million_are_not_in_memory_at_once_and_come_back_as_they_were(mine: House, registry: Registry) -> None:
    users = [f"user-{number}" for number in range(60)]

    async def work(kept: Kept) -> None:
        known = kept.watch._models[MODEL]
        for user in users:
            kept.ask(user, 2)
        await kept.save()
        known.shrink(0)
        assert len(known) == 0
        kept.load()
        assert kept.directory.changed == 0
        kept.ask(users[0], 1, seed=2)
        assert kept.queries(kept.id_of(users[0])) == 3
        assert kept.queries(kept.id_of(users[1])) == 2
        assert len(known) <= 3

    _use(mine, registry, work)


@pytest.mark.slow
def test_beyond_the_number_of_the_policy_those_go_who_asked_longest_ago(
    mine: House, registry: Registry, clock: ManualClock
) -> None:
    async def work(kept: Kept) -> None:
        kept.ask("odd")
        await kept.keeper.standings([kept.put("odd", "suspended")])
        for number in range(100):
            kept.ask(f"user-{number}", 1, seed=number)
            if number % 10 == 9:
                await kept.save()
                clock.advance(timedelta(seconds=1))
        with registry.read() as records:
            # whoever has a history takes nobody's room
            assert records.end_users.count(kept.acme) <= 10 + 1
            assert records.clients.get(kept.id_of("odd")).standing == "suspended"
        assert kept.id_of("user-0") not in kept.directory.callers
        assert kept.directory.callers[kept.id_of("odd")].standing == "suspended"
        # whoever was dropped is somebody new, and the reseller was asked by all of them
        kept.ask("user-0")
        assert kept.id_of("user-0") in kept.end_users.waiting
        assert kept.queries(kept.acme) == 106

    _use(mine, registry, work, ResellersPolicy(end_users_max=10))


def test_a_busy_registry_loses_no_end_user_and_no_standing(mine: House, registry: Registry) -> None:
    async def work(kept: Kept) -> None:
        kept.ask("ann")
        with mine.installation.open_registry() as other, other.write():
            await kept.keeper.standings([kept.put("ann", "degraded")])
            with pytest.raises(BusyError):
                await kept.save()
        assert kept.id_of("ann") in kept.end_users.waiting
        # a reload meanwhile does not undo what is not written yet
        kept.load()
        assert kept.directory.callers[kept.id_of("ann")].standing == "degraded"
        await kept.save()
        assert kept.end_users.waiting == {}
        assert kept.keeper.unwritten == []
        kept.load()
        assert kept.directory.callers[kept.id_of("ann")].standing == "degraded"

    _use(mine, registry, work)
    with registry.read() as records:
        _, change = records.standings.history(id_of(mine, "ann"))
    assert (change.standing, change.actor) == ("degraded", WATCH)


def test_a_suspension_opens_a_case_about_the_end_user(mine: House, registry: Registry) -> None:
    async def work(kept: Kept) -> None:
        kept.ask("ann")
        await kept.keeper.standings([kept.put("ann", "suspended")])
        assert [news.case.clients for news in kept.keeper.opened()] == [(kept.id_of("ann"),)]

    _use(mine, registry, work)


def test_a_person_raises_an_end_user_by_the_name_it_has_here(mine: House, registry: Registry) -> None:
    async def work(kept: Kept) -> None:
        kept.ask("ann")
        await kept.keeper.standings([kept.put("ann", "suspended")])
        kept.load()
        name = f"acme~{kept.id_of('ann')}"
        set_standing(mine.installation, name, name, "trusted", reason="a mistake", actor=ACTOR)
        assert kept.load() == [kept.id_of("ann")]
        assert kept.directory.callers[kept.id_of("ann")].standing == "trusted"

    _use(mine, registry, work)


def test_everybody_is_counted_once(mine: House, registry: Registry) -> None:
    async def work(kept: Kept) -> None:
        clients = len(mine.ids)
        for user in ("ann", "bob", "ann"):
            kept.ask(user)
        assert len(kept.directory.callers) == clients + 2
        await kept.save()
        kept.load()
        assert len(kept.directory.callers) == clients + 2
        assert len(list(kept.directory.snapshot())) == clients + 2
        assert kept.directory.standings() == {"trusted": clients + 2}

    _use(mine, registry, work)


def _refuses(clients: Sequence[Client], *_: object) -> list[str]:
    raise ConflictError("they are not taken")


def test_end_users_who_cannot_be_registered_keep_no_standing_of_others_back(
    mine: House, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(kept: Kept) -> None:
        kept.ask("ann")
        enrol = keeper_module._enrol
        monkeypatch.setattr(keeper_module, "_enrol", _refuses)
        globex = StandingChange(mine.ids["globex"], "suspended", "they are odd", WATCH, at(1))
        own = kept.put("ann", "watched")
        await kept.keeper.standings([own, globex])
        assert kept.keeper.unwritten == [own]
        with registry.read() as records:
            assert records.clients.get(mine.ids["globex"]).standing == "suspended"
        monkeypatch.setattr(keeper_module, "_enrol", enrol)
        await kept.save()
        assert kept.keeper.unwritten == []
        with registry.read() as records:
            assert records.clients.get(kept.id_of("ann")).standing == "watched"

    _use(mine, registry, work)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_standing_on_its_way_to_the_registry_outlives_that_room_is_made(
    mine: House, registry: Registry, clock: ManualClock, recorded: bool
) -> None:
    async def work(kept: Kept) -> None:
        kept.ask("odd")
        await kept.save()
        clock.advance(timedelta(seconds=5))
        for number in range(12):
            kept.ask(f"user-{number}", 1, seed=number)
        change = kept.put("odd", "suspended")
        if recorded:
            await kept.keeper.standings([change])
        else:
            kept.keeper.unrecorded = lambda: [change]
        await kept.save()
        with registry.read() as records:
            assert kept.id_of("odd") in records.gate_states.load(PURPOSE)
        await kept.keeper.standings([change])
        kept.load()
        assert kept.directory.callers[kept.id_of("odd")].standing == "suspended"
        assert kept.directory.standings()["suspended"] == 1
        assert kept.directory.standings()["trusted"] <= len(mine.ids) + 10

    _use(mine, registry, work, ResellersPolicy(end_users_max=10))


def test_whoever_is_suspended_while_it_is_dropped_is_registered_again(
    mine: House, registry: Registry, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(kept: Kept) -> None:
        kept.ask("odd")
        await kept.save()
        clock.advance(timedelta(seconds=5))
        for number in range(12):
            kept.ask(f"user-{number}", 1, seed=number)
        enrol, changes = keeper_module._enrol, list[StandingChange]()

        def suspend(*arguments: Any) -> list[str]:
            dropped = enrol(*arguments)
            # as if the watch had, in the event loop, before that hears of who was dropped
            changes.extend([] if changes else [kept.put("odd", "suspended")])
            return dropped

        monkeypatch.setattr(keeper_module, "_enrol", suspend)
        await kept.save()
        assert kept.id_of("odd") in kept.end_users.waiting
        assert kept.directory.standings()["suspended"] == 1
        await kept.keeper.standings(changes)
        assert kept.keeper.unwritten == []
        kept.load()
        assert kept.directory.callers[kept.id_of("odd")].standing == "suspended"

    _use(mine, registry, work, ResellersPolicy(end_users_max=10))


def test_end_users_are_registered_some_at_a_time_and_a_suspension_waits_for_its_own_alone(
    mine: House, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(kept: Kept) -> None:
        enrol, sizes = keeper_module._enrol, list[int]()

        def counted(clients: Sequence[Client], *others: Any) -> list[str]:
            sizes.append(len(clients))
            return enrol(clients, *others)

        monkeypatch.setattr(keeper_module, "_enrol", counted)
        monkeypatch.setattr(keeper_module, "ENROLLED_AT_ONCE", 2)
        for number in range(6):
            kept.ask(f"user-{number}", 1, seed=number)
        await kept.keeper.standings([kept.put("user-4", "suspended")])
        assert (sizes, len(kept.end_users.waiting)) == ([1], 5)
        await kept.save()
        assert (sizes, kept.end_users.waiting) == ([1, 2, 2, 1], {})

    _use(mine, registry, work)


def test_what_is_known_of_who_begins_to_wait_meanwhile_is_saved_once_it_is_registered(
    mine: House, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(kept: Kept) -> None:
        kept.ask("ann")
        enrol = keeper_module._enrol

        def and_bob_comes(*arguments: Any) -> list[str]:
            if kept.id_of("bob") not in kept.end_users.waiting:
                kept.ask("bob")
                kept.keeper.put_aside({PURPOSE: {kept.id_of("bob"): b"state"}})
            return enrol(*arguments)

        monkeypatch.setattr(keeper_module, "_enrol", and_bob_comes)
        await kept.keeper.states({PURPOSE: {kept.id_of("ann"): b"state"}})
        monkeypatch.setattr(keeper_module, "_enrol", enrol)
        assert list(kept.keeper.unwritten_states(PURPOSE)[0]) == [kept.id_of("bob")]
        await kept.keeper.states({})
        with registry.read() as records:
            saved = records.gate_states.load(PURPOSE)
        assert {kept.id_of("ann"), kept.id_of("bob")} <= saved.keys()

    _use(mine, registry, work)


def test_a_reload_looks_nobody_up_who_waits_and_enrolments_are_no_changes(mine: House, registry: Registry) -> None:
    async def work(kept: Kept) -> None:
        for number in range(20):
            kept.ask(f"user-{number}", 1, seed=number)
        assert kept.directory.changed == 0
        looked = list[str]()
        caller = kept.keeper.lookup.caller
        kept.keeper.lookup.caller = lambda client, mark: looked.append(client) or caller(client, mark)  # type: ignore
        kept.load()
        assert looked == []
        assert kept.directory.standings() == {"trusted": len(mine.ids) + 20}
        assert kept.directory.callers[kept.id_of("user-3")].client == kept.end_users.waiting[kept.id_of("user-3")]
        kept.directory.renew_access(None)
        assert kept.id_of("user-3") in kept.directory.callers
        await kept.save()
        kept.load()
        assert kept.directory.standings() == {"trusted": len(mine.ids) + 20}

    _use(mine, registry, work)


def test_whoever_is_dropped_is_counted_no_more_as_it_stood(mine: House, registry: Registry) -> None:
    async def work(kept: Kept) -> None:
        kept.ask("ann")
        await kept.save()
        callers = kept.directory._callers
        assert isinstance(callers, LookedUpCallers)
        kept.put("ann", "watched")
        callers.drop([kept.id_of("ann")])
        assert kept.directory.standings()["watched"] == 0
        assert kept.directory.standings()["trusted"] == len(mine.ids)

    _use(mine, registry, work)


def test_end_users_of_who_is_revoked_go_and_what_was_decided_of_them_keeps_nothing_waiting(
    mine: House, registry: Registry
) -> None:
    async def work(kept: Kept) -> None:
        kept.ask("ann")
        with registry.write() as records:
            records.clients.revoke(kept.acme)
        kept.load()
        # a request that began before
        await kept.keeper.standings([kept.put("ann", "suspended")])
        assert kept.end_users.waiting == {}
        assert kept.keeper.unwritten == []
        assert kept.id_of("ann") not in kept.directory.callers

    _use(mine, registry, work)


def test_nothing_comes_back_of_a_reseller_that_is_forgotten(mine: House, registry: Registry) -> None:
    async def work(kept: Kept) -> None:
        kept.ask("ann")
        await kept.keeper.standings([kept.put("ann", "throttled")])
        await kept.save()
        kept.ask("ann", seed=3)
        kept.ask(None)
        with registry.write() as records:
            records.clients.revoke(kept.acme)
        kept.load()
        with registry.write() as records:
            assert records.gate_states.forget(kept.acme) > 0
        await kept.save()
        with registry.read() as records:
            assert records.gate_states.load(PURPOSE) == {}

    _use(mine, registry, work)
