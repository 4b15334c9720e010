"""Keeps in the registry what the gate has to find again: standings (and the cases they open), suspicion and limits.

Registry writes have a thread of their own: a command can hold the registry's lock while it waits for a record of its
own, so they must never stand in the way of the ledger or of the event loop. What cannot be written is tried again.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property, partial
from itertools import islice
from typing import TypeVar

from palladion.errors import ConflictError, FormatError, NotFoundError, PalladionError
from palladion.gate.callers import WATCH
from palladion.gate.end_users import EndUsers
from palladion.gate.limits import Saved as SavedLimits
from palladion.gate.limits import decode_saved, encode_saved
from palladion.gate.served import Served
from palladion.incident.cases import News, suspend_case
from palladion.registry import Client, Records, Registry, StandingChange
from palladion.registry.lookup import Lookup
from palladion.watch.client import ClientState
from palladion.watch.kinds import AnyCalibration
from palladion.watch.residents import Kept

LIMITS = "limits"
CLIENTS_AT_ONCE = 1000  # in one statement: SQLite takes 32,766 variables
ENROLLED_AT_ONCE = 2000  # in one transaction, which takes some 0.3 s: who was suspended meanwhile waits no longer
TRIED_MAX = 100  # saved states that are read before a model is watched: those of another version are all alike
_Result = TypeVar("_Result")


class Keeper:
    """Writes to an open registry, in order, from one thread. To be called from one event loop."""

    def __init__(self, registry: Registry, end_users: EndUsers | None = None) -> None:
        """`end_users` are registered before anything is kept of them, if there are any."""
        self._registry = registry
        self._end_users = end_users
        self.decided: dict[str, int] = {}  # by reseller, how many of its end users were counted that have a history
        self.unrecorded: Callable[[], Iterable[StandingChange]] = tuple  # says what changes are on their way here
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="registry")
        self._unwritten: list[StandingChange] = []
        self._opened: list[News] = []
        self._unsaved: dict[str, dict[str, bytes]] = {}
        self._saving_now: dict[str, dict[str, bytes]] = {}
        self._writing, self._saving = asyncio.Lock(), asyncio.Lock()

    @property
    def unwritten(self) -> Sequence[StandingChange]:
        """Changes of standing that the registry does not have yet, oldest first."""
        return self._unwritten

    def opened(self) -> list[News]:
        """Cases that suspensions have opened, or that have taken clients in, since this was last asked."""
        opened, self._opened = self._opened, []
        return opened

    async def run(self, function: Callable[[Registry], _Result]) -> _Result:
        """Do something with the registry in its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, self._registry)

    async def standings(self, changes: Iterable[StandingChange]) -> None:
        """Write changes of standing. What cannot be written now is in the ledger already, and is tried again later."""
        self._unwritten += changes
        # whoever stops waiting does not end it halfway: the cases that it opens would never be told of
        await asyncio.shield(self._write())

    def put_aside(self, states: Mapping[str, Mapping[str, bytes]]) -> None:
        """Take states by purpose and client, to be written with the next ones. Of one client's the last one counts."""
        for purpose, changed in states.items():
            self._unsaved.setdefault(purpose, {}).update(changed)

    @cached_property
    def lookup(self) -> Lookup:
        """What reads single rows of the registry in the event loop."""
        return Lookup(self._registry.path)

    def shelf(self, purpose: str) -> "Saved":
        """The states that are saved for a purpose, for a watch."""
        return Saved(self, purpose)

    def newest(self, purpose: str, client: str) -> bytes | None:
        """The state of a client that is newer than that in the registry, if there is one."""
        data = self._unsaved.get(purpose, {}).get(client)
        return self._saving_now.get(purpose, {}).get(client) if data is None else data

    def unwritten_states(self, purpose: str) -> tuple[Mapping[str, bytes], Mapping[str, bytes]]:
        """The states that wait for being written, and those that are being written, by client."""
        return self._unsaved.get(purpose, {}), self._saving_now.get(purpose, {})

    async def states(self, states: Mapping[str, Mapping[str, bytes]]) -> None:
        """Write states by purpose and client, and whatever an earlier call could not. Raises PalladionError."""
        # before anything else can happen: what a watch has handed over is to be found here from now on
        self.put_aside(states)
        async with self._saving:
            await self.standings([])
            await self._enrol()
            saving = self._taken()
            if not saving:
                return
            self._saving_now = saving
            try:
                await self.run(lambda registry: _write_states(registry, saving))
            except BaseException:
                # what was put aside meanwhile is newer
                newer, self._unsaved = self._unsaved, saving
                self.put_aside(newer)
                raise
            finally:
                self._saving_now = {}

    def close(self) -> None:
        """End the thread, after what waits is written."""
        self._thread.shutdown(wait=True)
        if "lookup" in self.__dict__:
            self.lookup.close()

    @property
    def _waiting(self) -> Mapping[str, Client]:
        """The end users whom the registry does not have yet, by id."""
        return {} if self._end_users is None else self._end_users.waiting

    def _taken(self) -> dict[str, dict[str, bytes]]:
        """The states to be written now; those of end users who still wait stay, since the registry would lose them."""
        waiting, every, self._unsaved = self._waiting, self._unsaved, {}
        taken: dict[str, dict[str, bytes]] = {}
        for purpose, states in every.items():
            later = {client: states.pop(client) for client in waiting.keys() & states.keys()}
            if later:
                self._unsaved[purpose] = later
            if states:
                taken[purpose] = states
        return taken

    async def _enrol(self) -> None:
        """Register the end users who have come until now. Raises PalladionError, and then they go on waiting."""
        new = list(self._waiting.values())
        for start in range(0, len(new), ENROLLED_AT_ONCE):
            # not while standings are written: one whose row is dropped meanwhile would lose its own
            async with self._writing:
                await self._register(new[start : start + ENROLLED_AT_ONCE])

    async def _register(self, clients: Sequence[Client]) -> None:
        end_users = self._end_users
        if end_users is None or not clients:
            return
        spare = {change.client for changes in (self._unwritten, self.unrecorded()) for change in changes}
        most, decided = end_users.policy.end_users_max, dict(self.decided)
        gone = await self.run(partial(_enrol, clients, most, spare, decided))
        self.decided.update(decided)
        end_users.written([client.id for client in clients], gone)

    async def _write(self) -> None:
        async with self._writing:
            changes = list(self._unwritten)
            if not changes:
                return  # written with those of somebody who came just before
            waiting = self._waiting
            concerned = {change.client for change in changes}
            new = [waiting[client] for client in sorted(concerned & waiting.keys())]
            # what keeps end users from being registered is told by `states`; it keeps no standing of others back
            with suppress(PalladionError):
                await self._register(new)
            held = [change for change in changes if change.client in waiting]
            ready = [change for change in changes if change.client not in waiting]
            try:
                self._opened += await self.run(lambda registry: _write_standings(registry, ready))
            except PalladionError:
                return
            # only now, so that a call that failed has lost nothing
            self._unwritten[: len(changes)] = held


class Saved:
    """The states of a model's clients in the registry, and those on their way there; satisfies `residents.Shelf`."""

    def __init__(self, keeper: Keeper, purpose: str) -> None:
        self.purpose = purpose
        self._keeper = keeper

    def get(self, client: str) -> Kept | None:
        """What was saved last of a client."""
        newest = self._keeper.newest(self.purpose, client)
        if newest is not None:
            return Kept(self._keeper.lookup.organisation(client), newest)
        found = self._keeper.lookup.state(self.purpose, client)
        return None if found is None else Kept(*found)

    def of(self, organisation: str) -> Iterable[tuple[str, bytes]]:
        """What the registry has of the clients of an organisation that are let in, by client."""
        return self._keeper.lookup.states(self.purpose, organisation)

    def pending(self) -> Collection[str]:
        """Those whose newest state the registry does not have yet."""
        return _Either(*self._keeper.unwritten_states(self.purpose))


class _Either(Collection[str]):
    def __init__(self, first: Mapping[str, bytes], second: Mapping[str, bytes]) -> None:
        self._first, self._second = first, second

    def __contains__(self, client: object) -> bool:
        return client in self._first or client in self._second

    def __iter__(self) -> Iterator[str]:
        return iter({**self._first, **self._second})

    def __len__(self) -> int:
        return len({**self._first, **self._second})


def suspicion_purpose(served: Served) -> str:
    """Under which name the suspicion of a model is kept: states of one calibration mean nothing under another."""
    digest = served.calibration_row.digest[:16] if served.calibration_row else "none"
    return f"suspicion:{served.route.model}:{digest}"


def try_suspicion(registry: Registry, served: Served) -> None:
    """Read some of the saved suspicion of a model's clients. Raises FormatError on what its watch could not read."""
    try_states(registry, suspicion_purpose(served), served.calibration)


def try_states(registry: Registry, purpose: str, calibration: AnyCalibration | None) -> None:
    """Read some of the states that are saved for a purpose. Raises FormatError on those of another calibration."""
    lookup = Lookup(registry.path)
    try:
        for client, data in islice(lookup.saved(purpose), TRIED_MAX):
            state = ClientState.from_bytes(data)
            if calibration is not None and not calibration.fits(state):
                raise FormatError(f"the saved state of client {client} belongs to another calibration")
    finally:
        lookup.close()


def encode_limits(limits: Mapping[str, SavedLimits]) -> dict[str, bytes]:
    """What was spent of limits, by client, as it is saved under `LIMITS`."""
    return {client: encode_saved(saved) for client, saved in limits.items()}


def load_limits(registry: Registry) -> Iterator[tuple[str, SavedLimits]]:
    """What was saved of limits, client by client. Raises FormatError on what was not written here."""
    lookup = Lookup(registry.path)
    try:
        for client, data in lookup.saved(LIMITS):
            try:
                yield client, decode_saved(data)
            except FormatError as error:
                what = f"the saved limit of client {client} is not one that the gate wrote"
                raise FormatError(f"{what}: {error}") from None
    finally:
        lookup.close()


def _enrol(
    clients: Sequence[Client], most: int, spare: Collection[str], decided: dict[str, int], registry: Registry
) -> list[str]:
    with registry.write() as records:
        return records.end_users.enrol(clients, most=most, spare=spare, decided=decided)


def _write_standings(registry: Registry, changes: Sequence[StandingChange]) -> list[News]:
    """Write the changes, and a case for each reason of a suspension; returns what has become of the cases."""
    suspended: defaultdict[str, list[str]] = defaultdict(list)
    with registry.write() as records:
        for change in changes:
            try:
                written = _write_standing(records, change)
            except (ConflictError, NotFoundError):
                continue  # the client stands so already, or is gone
            if written and change.standing == "suspended":
                suspended[change.reason].append(change.client)
        cases = [suspend_case(records, clients, reason=reason, actor=WATCH) for reason, clients in suspended.items()]
    return [news for news in cases if news.new or news.joined]


def _write_standing(records: Records, change: StandingChange) -> bool:
    last = records.standings.history(change.client)[-1]
    # the registry dates a change when it is written, so those of the watch itself are no later decisions
    if last.actor == WATCH or last.at <= change.at:
        records.standings.change(change.client, change.standing, reason=change.reason, actor=change.actor)
        return True
    return False


def _write_states(registry: Registry, saved: Mapping[str, Mapping[str, bytes]]) -> None:
    with registry.write() as records:
        for purpose, states in saved.items():
            clients = list(states)
            for start in range(0, len(clients), CLIENTS_AT_ONCE):
                some = clients[start : start + CLIENTS_AT_ONCE]
                records.gate_states.save(purpose, {client: states[client] for client in some})
