"""Rules on what clients ask a language model that has no calibration: counted here, and settled as any verdict is.

Rules alone ask for *watched* and no more (`watch.text.ruled`). Whoever is watched by them, and by nothing else, is
trusted again as after any verdict: after quiet hours, or by a person. What a reseller asks for an end user counts for
each of both by itself.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Sequence

from palladion.gate.callers import WATCH, Caller
from palladion.gate.end_users import Resold
from palladion.gate.keeper import Keeper
from palladion.gate.stages import Stages
from palladion.gate.touches import UNOBSERVED
from palladion.policy import RoutePolicy
from palladion.watch.text.ngrams import SALT_MAX, NgramHash
from palladion.watch.text.query import Query
from palladion.watch.text.ruled import Ruled
from palladion.watch.watch import Observation

CLIENTS_MAX = 16_384  # in memory, some 20 MiB; who asked longest ago is read again when it asks, where states are kept


class RuledClients:
    """What is counted of the clients of every model without a calibration. For one event loop."""

    def __init__(self, *, salt: int | None = None) -> None:
        """`salt` says which middle parts of long texts are looked at; drawn anew where it is not given."""
        # it is nobody's business, and may change with a restart
        self._hashing = NgramHash(secrets.randbelow(SALT_MAX) if salt is None else salt)
        self._known: OrderedDict[tuple[str, str], Ruled] = OrderedDict()  # by model and client
        self._keeper: Keeper | None = None

    def keep(self, keeper: Keeper) -> None:
        """Read from there, and save there, from now on; without it everything is forgotten with the process."""
        self._keeper = keeper

    async def hear(self, stages: Stages, caller: Caller, route: RoutePolicy, queries: Sequence[Query]) -> Caller:
        """The caller as it stands after these queries; what follows is in effect and recorded.

        Raises Problem where it cannot be recorded, FormatError where what was saved of the client cannot be read.
        """
        for place, query in enumerate(queries):
            if place:
                await asyncio.sleep(0)  # of many texts each takes some 0.1 ms, in which nothing else happens
            caller = await self._count(stages, caller, route, query)
        return caller

    async def _count(self, stages: Stages, caller: Caller, route: RoutePolicy, query: Query) -> Caller:
        caller, now = stages.directory.current(caller), stages.clock.now().timestamp()
        # as it stands itself, which need not be as low as this request
        own = stages.directory.callers[caller.id]
        observation = self.observe(own, route.model, query, now=now)
        if caller.end_user is not None:
            beside = self.observe(caller.end_user, route.model, query, now=now)
            if observation is not None or beside is not None:
                observation = Resold.of(observation or UNOBSERVED, beside or UNOBSERVED)
        if observation is None:
            return caller
        steps = stages.settle(caller, route, observation)
        if steps:
            await stages.record([], steps, route)
        return stages.directory.current(caller)

    def observe(self, caller: Caller, model: str, query: Query, *, now: float) -> Observation | None:
        """Count a query of a client, by how it stands itself; what has to be settled, if anything has.

        `now` in seconds since 1970.
        """
        ruled = self._of(model, caller.id)
        if caller.standing == "trusted" and caller.since.timestamp() > ruled.alarmed_at > 0:
            ruled.forgive()  # it was raised since, by time or by a person: its old requests must not lower it again
        observation = ruled.observe(query, self._hashing, now=now)
        self._save(model, caller.id, ruled)
        # what lowered it to anything else is not these rules' to take back
        own = ruled.alarmed_at > 0 and caller.standing == "watched" and caller.decided_by == WATCH
        return None if observation.verdict.cause is None and not own else observation

    def _of(self, model: str, client: str) -> Ruled:
        place = (model, client)
        ruled = self._known.get(place)
        if ruled is None:
            kept = None if self._keeper is None else self._keeper.shelf(_purpose(model)).get(client)
            ruled = Ruled.new() if kept is None else Ruled.from_bytes(kept.data)
            self._known[place] = ruled
        self._known.move_to_end(place)
        while len(self._known) > CLIENTS_MAX:
            self._known.popitem(last=False)
        return ruled

    def _save(self, model: str, client: str, ruled: Ruled) -> None:
        if self._keeper is not None:
            self._keeper.put_aside({_purpose(model): {client: ruled.to_bytes()}})


def _purpose(model: str) -> str:
    """Under which name it is kept: apart from the suspicion by a calibration."""
    return f"rules:{model}"
