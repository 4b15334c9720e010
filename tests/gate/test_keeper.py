"""The keeper: what it is given is in the registry, or still with it; the registry being busy loses nothing."""

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import pytest

from palladion.clock import ManualClock
from palladion.errors import BusyError, FormatError
from palladion.gate import keeper as module
from palladion.gate.callers import WATCH
from palladion.gate.keeper import LIMITS, Keeper, encode_limits, load_limits, suspicion_purpose, try_suspicion
from palladion.gate.limits import Saved
from palladion.gate.served import open_route
from palladion.incident.cases import News
from palladion.policy import RoutePolicy
from palladion.registry import Registry, StandingChange
from palladion.registry.rows import Standing
from tests.lifecycle.installations import ACTOR

from .gates import MODEL, House, at

_Result = TypeVar("_Result")


@pytest.fixture
def mine(house: House, tmp_path: Path) -> House:
    return house.copy(tmp_path)


@pytest.fixture
def registry(mine: House) -> Iterator[Registry]:
    # a busy registry says so at once: no test waits five seconds for it
    with Registry.open(mine.installation.paths.registry, ManualClock(at(5)), busy_timeout_ms=0) as opened:
        yield opened


def _use(registry: Registry, work: Callable[[Keeper], Awaitable[_Result]]) -> _Result:
    async def run() -> _Result:
        keeper = Keeper(registry)
        try:
            return await work(keeper)
        finally:
            keeper.close()

    return asyncio.run(run())


@contextmanager
def _busy(mine: House) -> Iterator[None]:
    """A command that holds the registry's write lock."""
    with mine.installation.open_registry() as other, other.write():
        yield


def _change(mine: House, standing: Standing, hours: float = 1, client: str = "acme") -> StandingChange:
    return StandingChange(mine.ids.get(client, client), standing, "they are odd", WATCH, at(hours))


def _history(registry: Registry, mine: House, client: str = "acme") -> list[Standing]:
    with registry.read() as records:
        return [change.standing for change in records.standings.history(mine.ids[client])]


def _saved(registry: Registry, purpose: str) -> dict[str, bytes]:
    with registry.read() as records:
        return records.gate_states.load(purpose)


def test_changes_of_standing_are_written_in_order(registry: Registry, mine: House) -> None:
    async def work(keeper: Keeper) -> None:
        await keeper.standings([_change(mine, "throttled"), _change(mine, "watched", client="globex")])
        await keeper.standings([_change(mine, "degraded", 2)])
        assert keeper.unwritten == []

    _use(registry, work)
    assert _history(registry, mine) == ["trusted", "throttled", "degraded"]
    assert _history(registry, mine, "globex") == ["trusted", "watched"]
    with registry.read() as records:
        last = records.standings.current()[mine.ids["acme"]]
    assert (last.actor, last.reason) == (WATCH, "they are odd")


def test_a_suspension_opens_one_case_for_all_whom_it_concerns(registry: Registry, mine: House) -> None:
    async def work(keeper: Keeper) -> list[list[News]]:
        both = [_change(mine, "suspended"), _change(mine, "suspended", client="globex")]
        await keeper.standings([_change(mine, "throttled"), *both])
        await keeper.standings([_change(mine, "trusted", 2)])
        opened = [keeper.opened(), keeper.opened()]
        await keeper.standings([_change(mine, "suspended", 3)])
        return [*opened, keeper.opened()]

    first, again, later = _use(registry, work)
    assert [set(news.case.clients) for news in first] == [{mine.ids["acme"], mine.ids["globex"]}]
    assert again == []
    assert later == [], "a second suspension adds to the case that is open"
    with registry.read() as records:
        assert [event.kind for event in records.incidents.timeline(first[0].case.id)] == ["opened", "acted"]


def test_what_a_busy_registry_did_not_take_is_written_with_the_next(registry: Registry, mine: House) -> None:
    async def work(keeper: Keeper) -> None:
        with _busy(mine):
            await keeper.standings([_change(mine, "throttled")])
        assert keeper.unwritten == [_change(mine, "throttled")]
        await keeper.standings([_change(mine, "degraded", 2)])

    _use(registry, work)
    assert _history(registry, mine) == ["trusted", "throttled", "degraded"]


def test_it_is_written_with_the_states_where_nothing_else_comes(registry: Registry, mine: House) -> None:
    async def work(keeper: Keeper) -> None:
        with _busy(mine):
            await keeper.standings([_change(mine, "throttled")])
        await keeper.states({})

    _use(registry, work)
    assert _history(registry, mine) == ["trusted", "throttled"]


def test_changes_that_come_while_others_are_written_are_all_kept(registry: Registry, mine: House) -> None:
    changes = [_change(mine, "watched", 1), _change(mine, "throttled", 2), _change(mine, "degraded", 3)]

    async def work(keeper: Keeper) -> None:
        await asyncio.gather(*(keeper.standings([change]) for change in changes))
        assert keeper.unwritten == []

    _use(registry, work)
    assert _history(registry, mine) == ["trusted", "watched", "throttled", "degraded"]


def test_who_stands_so_already_or_is_gone_stops_nobody(registry: Registry, mine: House) -> None:
    changes = [_change(mine, "trusted"), _change(mine, "watched", client="gone"), _change(mine, "watched")]
    _use(registry, lambda keeper: keeper.standings(changes))
    assert _history(registry, mine) == ["trusted", "watched"]


def test_what_a_person_decided_meanwhile_is_not_overwritten(registry: Registry, mine: House) -> None:
    async def work(keeper: Keeper) -> None:
        with _busy(mine):
            await keeper.standings([_change(mine, "degraded", 1)])
        with registry.write() as records:  # at hour 5
            records.standings.change(mine.ids["acme"], "watched", reason="I know them", actor=ACTOR)
        await keeper.states({})
        assert keeper.unwritten == []

    _use(registry, work)
    assert _history(registry, mine) == ["trusted", "watched"]


def test_what_the_watch_decided_after_a_person_is_written(registry: Registry, mine: House) -> None:
    with registry.write() as records:  # at hour 5
        records.standings.change(mine.ids["acme"], "watched", reason="I know them", actor=ACTOR)
    _use(registry, lambda keeper: keeper.standings([_change(mine, "degraded", 6)]))
    assert _history(registry, mine) == ["trusted", "watched", "degraded"]


def _given_up(work: Callable[[Keeper], Coroutine[Any, Any, None]]) -> Callable[[Keeper], Awaitable[None]]:
    """Something that a keeper is asked for, by somebody who stops waiting while its thread is busy."""
    hold = threading.Event()

    async def run(keeper: Keeper) -> None:
        blocking = asyncio.create_task(keeper.run(lambda _: hold.wait(30)))
        waiting = asyncio.create_task(work(keeper))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
        hold.set()
        await asyncio.gather(blocking, waiting, return_exceptions=True)
        assert waiting.cancelled()

    return run


def test_a_write_that_nobody_waits_for_any_more_is_not_forgotten(registry: Registry, mine: House) -> None:
    async def work(keeper: Keeper) -> None:
        await _given_up(lambda keeper: keeper.standings([_change(mine, "throttled")]))(keeper)
        await keeper.states({})
        assert keeper.unwritten == []

    _use(registry, work)
    assert _history(registry, mine) == ["trusted", "throttled"]


def test_a_case_that_is_opened_while_nobody_waits_any_more_is_told_of(
    registry: Registry, mine: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, go_on = threading.Event(), threading.Event()
    real = module._write_standings

    def write(registry: Registry, changes: Sequence[StandingChange]) -> list[News]:
        cases = real(registry, changes)
        written.set()
        go_on.wait(30)
        return cases

    monkeypatch.setattr(module, "_write_standings", write)

    async def work(keeper: Keeper) -> list[News]:
        waiting = asyncio.create_task(keeper.standings([_change(mine, "suspended")]))
        await asyncio.to_thread(written.wait, 30)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        go_on.set()
        await keeper.states({})
        return keeper.opened()

    assert [news.case.clients for news in _use(registry, work)] == [(mine.ids["acme"],)]


def test_states_are_saved_by_purpose_and_client(registry: Registry, mine: House) -> None:
    acme, globex = mine.ids["acme"], mine.ids["globex"]

    async def work(keeper: Keeper) -> None:
        await keeper.states({"one": {acme: b"1", globex: b"2"}, "two": {}})
        await keeper.states({"one": {acme: b"3"}})

    _use(registry, work)
    assert _saved(registry, "one") == {acme: b"3", globex: b"2"}
    assert _saved(registry, "two") == {}


def test_states_that_could_not_be_saved_are_saved_with_the_next(registry: Registry, mine: House) -> None:
    acme, globex = mine.ids["acme"], mine.ids["globex"]

    async def work(keeper: Keeper) -> None:
        with _busy(mine), pytest.raises(BusyError):
            await keeper.states({"one": {acme: b"old", globex: b"2"}})
        await keeper.states({"one": {acme: b"new"}})

    _use(registry, work)
    assert _saved(registry, "one") == {acme: b"new", globex: b"2"}


def test_a_save_that_is_cancelled_loses_nothing(registry: Registry, mine: House) -> None:
    async def work(keeper: Keeper) -> None:
        await _given_up(lambda keeper: keeper.states({"one": {mine.ids["acme"]: b"1"}}))(keeper)
        await keeper.states({})

    _use(registry, work)
    assert _saved(registry, "one") == {mine.ids["acme"]: b"1"}


@pytest.mark.parametrize("fails", [True, False])
def test_what_is_put_aside_while_others_are_saved_is_saved_after_them(
    registry: Registry, mine: House, fails: bool
) -> None:
    acme, globex = mine.ids["acme"], mine.ids["globex"]

    async def work(keeper: Keeper) -> None:
        real = keeper.run

        async def run(function: Callable[[Registry], _Result]) -> _Result:
            keeper.put_aside({"one": {acme: b"new"}})
            if fails:
                raise BusyError("the registry is busy")
            return await real(function)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(keeper, "run", run)
            with pytest.raises(BusyError) if fails else nullcontext():
                await keeper.states({"one": {acme: b"old", globex: b"2"}})
        await keeper.states({})

    _use(registry, work)
    assert _saved(registry, "one") == {acme: b"new", globex: b"2"}


def test_saves_at_once_lose_nothing_either(registry: Registry, mine: House) -> None:
    async def work(keeper: Keeper) -> None:
        await asyncio.gather(*(keeper.states({"one": {mine.ids[name]: b"1"}}) for name in ("acme", "globex", "brief")))

    _use(registry, work)
    assert _saved(registry, "one") == {mine.ids[name]: b"1" for name in ("acme", "globex", "brief")}


def test_more_clients_than_one_statement_takes_are_saved(
    registry: Registry, mine: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palladion.gate.keeper.CLIENTS_AT_ONCE", 2)
    states = {client: client.encode() for client in mine.ids.values()}
    _use(registry, lambda keeper: keeper.states({"one": states}))
    assert len(states) == 4
    assert _saved(registry, "one") == states


def test_limits_come_back_as_they_were(registry: Registry, mine: House) -> None:
    limits = {mine.ids["acme"]: Saved(1_700_000_000.123456), mine.ids["globex"]: Saved(0.1, {"total:": 0.2})}
    _use(registry, lambda keeper: keeper.states({LIMITS: encode_limits(limits)}))
    assert dict(load_limits(registry)) == limits


@pytest.mark.parametrize("data", [b"", b"1234567", *(encode_limits({"": Saved(x)})[""] for x in (math.nan, math.inf))])
def test_a_saved_limit_that_is_none_is_refused(registry: Registry, mine: House, data: bytes) -> None:
    _use(registry, lambda keeper: keeper.states({LIMITS: {mine.ids["acme"]: data}}))
    with pytest.raises(FormatError, match=f"the saved limit of client {mine.ids['acme']}"):
        list(load_limits(registry))


def test_suspicion_is_kept_by_model_and_calibration(registry: Registry, mine: House) -> None:
    uncalibrated = open_route(mine.installation, RoutePolicy(model=MODEL))
    purpose = suspicion_purpose(uncalibrated)
    assert purpose == f"suspicion:{MODEL}:none"
    _use(registry, lambda keeper: keeper.states({purpose: {mine.ids["acme"]: b"state"}, "other": {}}))
    assert _saved(registry, purpose) == {mine.ids["acme"]: b"state"}
    with pytest.raises(FormatError, match="not one that the watch wrote"):
        try_suspicion(registry, uncalibrated)


def test_a_shelf_has_what_is_on_its_way_before_what_was_written(registry: Registry, mine: House) -> None:
    acme, globex = mine.ids["acme"], mine.ids["globex"]

    async def work(keeper: Keeper) -> None:
        shelf = keeper.shelf("one")
        await keeper.states({"one": {acme: b"old", globex: b"theirs"}, "two": {acme: b"other"}})
        assert (shelf.get(acme), list(shelf.pending())) == (("acme", b"old"), [])

        keeper.put_aside({"one": {acme: b"new"}})

        assert shelf.get(acme) == ("acme", b"new")
        assert list(shelf.of("acme")) == [(acme, b"old")]  # what is pending has to stay in memory
        assert (acme in shelf.pending(), globex in shelf.pending()) == (True, False)
        assert (list(shelf.pending()), len(shelf.pending())) == ([acme], 1)
        await keeper.states({})
        assert list(shelf.of("acme")) == [(acme, b"new")]
        assert acme not in shelf.pending()
        assert (shelf.get("nobody"), list(shelf.of("nobody"))) == (None, [])

    _use(registry, work)


def test_what_is_handed_over_is_found_from_that_moment_on(registry: Registry, mine: House) -> None:
    acme = mine.ids["acme"]

    async def work(keeper: Keeper) -> None:
        shelf, held, seen = keeper.shelf("one"), threading.Event(), []
        busy = asyncio.create_task(keeper.run(lambda registry: held.wait(10)))
        await asyncio.sleep(0)
        first = asyncio.create_task(keeper.states({"one": {acme: b"first"}}))
        await asyncio.sleep(0)
        seen.append((shelf.get(acme), acme in shelf.pending()))
        second = asyncio.create_task(keeper.states({"one": {acme: b"second"}}))
        await asyncio.sleep(0)
        seen.append((shelf.get(acme), acme in shelf.pending()))
        held.set()
        await asyncio.gather(busy, first, second)
        assert seen == [(("acme", b"first"), True), (("acme", b"second"), True)]
        assert (shelf.get(acme), list(shelf.pending())) == (("acme", b"second"), [])

    _use(registry, work)


def test_what_could_not_be_written_stays_on_the_shelf(registry: Registry, mine: House) -> None:
    acme = mine.ids["acme"]

    async def work(keeper: Keeper) -> None:
        with _busy(mine), pytest.raises(BusyError):
            await keeper.states({"one": {acme: b"state"}})
        assert keeper.shelf("one").get(acme) == ("acme", b"state")
        assert acme in keeper.shelf("one").pending()

    _use(registry, work)
