"""Keeps in the registry what the gate has to find again: standings (and the cases they open), suspicion and limits.

Registry writes have a thread of their own: a command can hold the registry's lock while it waits for a record of its
own, so they must never stand in the way of the ledger or of the event loop. What cannot be written is tried again.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from palladion.errors import ConflictError, FormatError, NotFoundError, PalladionError
from palladion.gate.directory import WATCH
from palladion.gate.limits import Saved, decode_saved, encode_saved
from palladion.gate.served import Served
from palladion.incident.cases import suspend_case
from palladion.registry import Incident, Records, Registry, StandingChange

LIMITS = "limits"
CLIENTS_AT_ONCE = 1000  # in one statement: SQLite takes 32,766 variables
_Result = TypeVar("_Result")


class Keeper:
    """Writes to an open registry, in order, from one thread. To be called from one event loop."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="registry")
        self._unwritten: list[StandingChange] = []
        self._opened: list[Incident] = []
        self._unsaved: dict[str, dict[str, bytes]] = {}
        self._writing, self._saving = asyncio.Lock(), asyncio.Lock()

    @property
    def unwritten(self) -> Sequence[StandingChange]:
        """Changes of standing that the registry does not have yet, oldest first."""
        return self._unwritten

    def opened(self) -> list[Incident]:
        """Cases that suspensions have opened since this was last asked."""
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

    def aside(self, purpose: str) -> Mapping[str, bytes]:
        """States of a purpose, by client, that are newer than those in the registry."""
        return self._unsaved.get(purpose, {})

    async def states(self, states: Mapping[str, Mapping[str, bytes]]) -> None:
        """Write states by purpose and client, and whatever an earlier call could not. Raises PalladionError."""
        async with self._saving:
            self.put_aside(states)
            await self.standings([])
            saving, self._unsaved = {purpose: unsaved for purpose, unsaved in self._unsaved.items() if unsaved}, {}
            if not saving:
                return
            try:
                await self.run(lambda registry: _write_states(registry, saving))
            except BaseException:
                # what was put aside meanwhile is newer
                newer, self._unsaved = self._unsaved, saving
                self.put_aside(newer)
                raise

    def close(self) -> None:
        """End the thread, after what waits is written."""
        self._thread.shutdown(wait=True)

    async def _write(self) -> None:
        async with self._writing:
            waiting = list(self._unwritten)
            if not waiting:
                return  # written with those of somebody who came just before
            try:
                self._opened += await self.run(lambda registry: _write_standings(registry, waiting))
            except PalladionError:
                return
            # only now, so that a call that failed has lost nothing
            del self._unwritten[: len(waiting)]


def suspicion_purpose(served: Served) -> str:
    """Under which name the suspicion of a model is kept: states of one calibration mean nothing under another."""
    digest = served.calibration_row.digest[:16] if served.calibration_row else "none"
    return f"suspicion:{served.route.model}:{digest}"


def load_suspicion(registry: Registry, served: Served) -> dict[str, bytes]:
    """The saved suspicion of a model's clients."""
    with registry.read() as records:
        return records.gate_states.load(suspicion_purpose(served))


def encode_limits(limits: Mapping[str, Saved]) -> dict[str, bytes]:
    """What was spent of limits, by client, as it is saved under `LIMITS`."""
    return {client: encode_saved(saved) for client, saved in limits.items()}


def load_limits(registry: Registry) -> dict[str, Saved]:
    """What was saved of limits, by client. Raises FormatError on what was not written here."""
    with registry.read() as records:
        saved = records.gate_states.load(LIMITS)
    limits = {}
    for client, data in saved.items():
        try:
            limits[client] = decode_saved(data)
        except FormatError as error:
            raise FormatError(f"the saved limit of client {client} is not one that the gate wrote: {error}") from None
    return limits


def _write_standings(registry: Registry, changes: Sequence[StandingChange]) -> list[Incident]:
    """Write the changes, and a case for each reason of a suspension; returns the cases that are new."""
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
    return [case for case, new in cases if new]


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
