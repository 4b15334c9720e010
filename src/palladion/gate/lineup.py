"""What is served, and how it changes while requests are answered: new versions, calibrations, and upstreams.

Each change is a swap between two requests. What was replaced is closed when no request can use it any more.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

from palladion.errors import PalladionError, PolicyError
from palladion.gate.curves import require_curve
from palladion.gate.gate import Gate
from palladion.gate.keeper import Keeper, suspicion_purpose, try_suspicion
from palladion.gate.readiness import Waiting
from palladion.gate.retiring import Retiring
from palladion.gate.served import OnTrial, Served, open_canary, open_route, renew_route
from palladion.gate.sources.layered import layers_for
from palladion.gate.sources.source import Source
from palladion.gate.stages import Journal
from palladion.gate.trial import Finding
from palladion.gate.upstream.discovery import Sought
from palladion.gate.upstream.source import UpstreamSource
from palladion.gate.upstream.sources import comes_from_elsewhere
from palladion.gate.withdrawing import without_file
from palladion.ledger.record import Record
from palladion.lifecycle.canary import ended_record
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import record_opened
from palladion.policy import Policy, RoutePolicy
from palladion.policy.compare import same_table
from palladion.registry import CalibrationRow, Canary, Registry, Version
from palladion.seal.structure import SealedInfo

ACTOR = "gate"
LET_GO_SECONDS = 5.0  # until it is looked again whether a change is over, and keys can be given up

Lines = Mapping[str, Served]
Waits = Mapping[str, Waiting]
Check = Callable[[Lines, Waits], None]

log = logging.getLogger("palladion.gate")


class Lineup:
    """The routes of a running gate. Used from one event loop."""

    def __init__(
        self,
        installation: Installation,
        gate: Gate,
        *,
        keeper: Keeper,
        journal: Journal,
        keep: Callable[[], Awaitable[None]],
        swapped: Callable[[Served], None],
    ) -> None:
        """`keep` writes what is known of clients before it is put aside; `swapped` is told of each new route."""
        self.purposes: dict[str, str] = {}  # under which the suspicion of each model that is watched is kept
        self._installation = installation
        self._gate = gate
        self._keeper = keeper
        self._journal = journal
        self._keep = keep
        self._swapped = swapped
        self._changing = asyncio.Lock()  # one change at a time: each begins with what is there
        self._retired = Retiring()
        self._ending: set[asyncio.Task[None]] = set()
        self._one_ending = asyncio.Lock()  # several routes may find the same
        gate.failing = self._failing
        if installation.file_keys is not None:
            loop = asyncio.get_running_loop()
            installation.file_keys.follow(lambda file_id: loop.call_soon_threadsafe(self._lose, file_id))

    def open(self, registry: Registry, waiting: Mapping[str, Waiting]) -> None:
        """Serve the routes of the policy, those that are `waiting` for their upstream as such."""
        routes = self._installation.policy.route
        here = [route for route in routes if route.route not in waiting and route.protocol != "openai"]
        self._gate.serve({route.route: open_route(self._installation, route) for route in here}, waiting=waiting)
        for model in {item.route.model for item in self._gate.served.values()}:
            for name, item in _watched(self._gate.served.values(), model).items():
                try_suspicion(registry, item)
                self._watch_by(name, item)

    async def renew(self, model: str) -> None:
        """Serve what the registry says should be served: all routes of a model at once."""
        async with self._changing, self._opening() as opened:
            routes = {path: item for path, item in self._gate.served.items() if item.route.model == model}
            current = await self._keeper.run(partial(_current, model))
            if all(current.is_served(item) for item in routes.values()):
                return
            for path, item in routes.items():
                # a model that runs here and is promoted no more goes on as it is
                if current.version is not None or item.route.upstream:
                    # in a thread that nothing else waits for: a large model takes minutes
                    opened[path] = await asyncio.to_thread(self._renewed, item, current)
            if opened:
                await self._swap(opened)

    def _renewed(self, item: Served, current: "_Current") -> Served:
        """What is to answer on a route now, with as much as can be kept of what is in memory already."""
        kept = next((known for known in item.all if known.is_current(current.version, current.calibration)), None)
        if kept is None or isinstance(item.source, UpstreamSource):
            return open_route(self._installation, item.route, _upstream_of(item))
        on_trial, canary = item.on_trial, current.canary
        if canary is None:
            on_trial = None
        elif on_trial is None or not on_trial.is_current(canary, current.canary_calibration):
            on_trial = open_canary(self._installation, item.route, canary)
        return replace(kept, is_canary=False, on_trial=on_trial)

    async def found(self, route: RoutePolicy, source: UpstreamSource) -> None:
        """Serve a model whose upstream was reached, or described it anew. Raises as `open_route` does."""
        async with self._changing, self._opening() as opened:
            # as the policy says now: it may have changed since the route was first looked for
            now = next((item for item in self._installation.policy.route if item.route == route.route), None)
            if now is None:
                # only what a policy names is served, whoever looked for it before
                raise PolicyError(f"the policy has no route {route.route} any more")
            opened[route.route] = await asyncio.to_thread(open_route, self._installation, now, source)
            await self._swap(opened)

    async def change(
        self,
        policy: Policy,
        record: Record,
        swap: Callable[[Lines, Waits], None],
        check: Check,
        sought: Sought | None = None,
    ) -> None:
        """Serve the routes of another policy, which `record` tells of.

        `sought` are the upstreams that describe themselves and were not asked before.
        `check` raises for what could not be served; then `swap` puts everything into effect, and must not raise.
        Raises as `open_route` does, and StorageError where it cannot be recorded; then nothing changes.
        """
        async with self._changing, self._opening() as opened:
            wanted = {route.route: route for route in policy.route if route.protocol != "openai"}
            before, sought = self._gate.served, sought or Sought()
            waiting = {
                name: replace(late, route=wanted[name])
                for name, late in {**self._gate.waiting, **sought.waiting}.items()
                if name in wanted and name not in sought.sources
            }
            served = await self._lined_up(policy, wanted, waiting, opened, sought.sources)
            check(served, waiting)
            for item in (part for line in served.values() for part in line.all):
                require_curve(policy.watch, item.subject, item.calibration_row)
                layers_for(policy.watch, item.subject, item.calibration)
            # also those that are served no more, or served again: a calibration may have come in between
            models = {item.route.model for item in (*before.values(), *served.values())}
            watching = await self._prepared(served.values(), models)
            await self._journal.append([record, *self.opened_records(opened, "policy changed")])
            swap(served, waiting)
            self._watch(watching)
            self._retire(_sources(before) - _sources(served))

    async def _lined_up(
        self,
        policy: Policy,
        wanted: Mapping[str, RoutePolicy],
        waiting: Waits,
        opened: dict[str, Served],
        sources: Mapping[str, UpstreamSource],
    ) -> dict[str, Served]:
        """What answers on each route that does not wait; those that are new go into `opened` as well."""
        own = self._installation
        installation = Installation(own.paths, policy, own.clock, own.file_keys)
        served = {}
        for name, route in wanted.items():
            item, source = self._gate.served.get(name), sources.get(name)
            if item is not None and comes_from_elsewhere(item.route, route):
                item = None
            if item is None and name not in waiting:
                item = opened[name] = await asyncio.to_thread(open_route, installation, route, source)
            if item is not None and not same_table(item.route, route):
                item = await asyncio.to_thread(renew_route, installation, route, item)
            if item is not None:
                served[name] = item
        return served

    async def close(self) -> None:
        """Close everything that was ever served."""
        if self._ending:
            await asyncio.wait(self._ending)
        await self._retired.close()
        for source in _sources(self._gate.served):
            await source.close()

    def opened_records(
        self, served: Mapping[str, Served], reason: str, *, known: Set[Source] = frozenset()
    ) -> list[Record]:
        """What the ledger is told of the versions that were opened here, but for those whose source is `known`."""
        items = [item for line in served.values() for item in line.all]
        return [self._opened(item.sealed, reason) for item in items if item.sealed and item.source not in known]

    @asynccontextmanager
    async def _opening(self) -> AsyncIterator[dict[str, Served]]:
        """What is opened for a change, by route; whatever of it is not served in the end is closed."""
        opened: dict[str, Served] = {}
        try:
            yield opened
        except BaseException:
            for source in _sources(opened) - _sources(self._gate.served):
                await source.close()
            self._let_go()
            raise

    async def _swap(self, opened: Mapping[str, Served]) -> None:
        """Serve routes of one model in place of what they were; `_changing` is held."""
        before = self._gate.served
        after = {**before, **opened}
        # 1. everything that can fail: a record of what did not happen could not be taken back
        watching = await self._prepared(after.values(), {item.route.model for item in opened.values()})
        # 2. the record
        if records := self.opened_records(opened, "swap live", known=_sources(before)):
            await self._journal.append(records)
        # 3. between two requests
        self._gate.serve(after)
        self._watch(watching)
        self._retire(_sources(before) - _sources(after))
        for item in opened.values():
            self._swapped(item)

    async def _prepared(self, served: Collection[Served], models: Set[str]) -> "_Watching":
        """How models, and their canaries, are to be watched by the calibrations that they have now; changes nothing.

        Raises PalladionError where what was saved of their clients cannot be read.
        """
        wanted = {name: item for model in models for name, item in _watched(served, model).items()}
        gone = [name for name in self.purposes if name.partition("@")[0] in models and name not in wanted]
        changed = {name: item for name, item in wanted.items() if suspicion_purpose(item) != self.purposes.get(name)}
        if changed or gone:
            # what is known under the old calibration counts again if that one comes back
            await self._keep()
        for item in changed.values():
            # what the running watch must not stumble over
            await self._keeper.run(partial(try_suspicion, served=item))
        return _Watching(gone, changed, wanted)

    def _watch(self, watching: "_Watching") -> None:
        """Watch what was prepared, and no more what is gone."""
        watch = self._gate.stages.watch
        # what was observed since it was prepared is kept as well
        names = [name for name in (*watching.gone, *watching.changed) if name in self.purposes]
        self._keeper.put_aside({self.purposes[name]: watch.changes(name) for name in names})
        for name in watching.gone:
            watch.part(name)
            watch.watch_model(name, None, {})
            del self.purposes[name]
        for name, item in watching.changed.items():
            self._watch_by(name, item)
        for name, item in watching.wanted.items():
            # a curve can be measured anew where the calibration stays, and with it what is known of clients
            watch.learn(name, item.curve)

    def _watch_by(self, name: str, item: Served) -> None:
        shelf = self._keeper.shelf(suspicion_purpose(item))
        self._gate.stages.watch.watch_model(name, item.calibration, shelf)
        self._gate.stages.watch.learn(name, item.curve)
        self.purposes[name] = suspicion_purpose(item)
        if name != item.route.model:
            self._gate.stages.watch.join(item.route.model, name)

    def _lose(self, file_id: str) -> None:
        """The key of a file must not be used any more: answer nothing with it from now on."""
        gone = self._withdraw(file_id)
        task = asyncio.get_running_loop().create_task(self._lost(file_id, gone))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _lost(self, file_id: str, gone: Set[Source]) -> None:
        for source in gone:
            await source.close()
        # a change that had begun before may have brought it back
        async with self._changing:
            for source in self._withdraw(file_id):
                await source.close()

    def _withdraw(self, file_id: str) -> set[Source]:
        """Serve all routes without that file, at once; what is not used any more."""
        before = self._gate.served
        after, waiting = without_file(before, file_id)
        self._gate.serve(after, waiting={**self._gate.waiting, **waiting})
        return _sources(before) - _sources(after)

    def _failing(self, on_trial: OnTrial, finding: Finding) -> None:
        """A version on trial fails: end that, while requests go on."""
        task = asyncio.get_running_loop().create_task(self._end(on_trial, finding))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(self, on_trial: OnTrial, finding: Finding) -> None:
        async with self._one_ending:
            try:
                standing = await self._roll_back(on_trial.row, finding)
            except PalladionError as error:
                # the next look will find it again
                log.error("%s cannot be rolled back: %s: %s", on_trial.served.subject, error.message, finding)  # noqa: TRY400
                return
        if standing is not None:
            log.error("%s is rolled back, version %s answers: %s", on_trial.served.subject, standing, finding)

    async def _roll_back(self, canary: Canary, finding: Finding) -> int | None:
        """End a canary, recorded before it takes effect; the version that answers, or None if somebody was faster."""
        current = await self._keeper.run(partial(_current, canary.model))
        if current.version is None or current.canary != canary:
            return None
        number, now = current.version.number, self._installation.clock.now()
        await self._journal.append(
            [ended_record(canary, standing=number, at=now, actor=ACTOR, figures=finding.figures())]
        )
        await self._keeper.run(partial(_end_canary, canary, str(finding)))
        self._gate.stages.meter.rolled_back[canary.model] += 1
        await self.renew(canary.model)
        return number

    def _retire(self, sources: Iterable[Source]) -> None:
        """Close what was replaced, once no request can use it any more."""
        policy = self._installation.policy.gate
        seconds = policy.body_seconds_max + policy.deadline_ms / 1000
        for source in sources:
            self._retired.put(source, seconds)
        asyncio.get_running_loop().call_later(seconds, self._let_go)

    def _let_go(self) -> None:
        """Give up the keys of what is not served any more; not while a change opens what is not served yet."""
        keys = self._installation.file_keys
        if keys is not None and self._changing.locked():
            asyncio.get_running_loop().call_later(LET_GO_SECONDS, self._let_go)
        elif keys is not None:
            lines = [item for line in self._gate.served.values() for item in line.all]
            keys.keep({item.sealed.header.file_id for item in lines if item.sealed is not None})

    def _opened(self, sealed: SealedInfo, reason: str) -> Record:
        return record_opened(sealed, at=self._installation.clock.now(), actor=ACTOR, reason=reason)


@dataclass(frozen=True)
class _Current:
    """What the registry says should be served of a model."""

    version: Version | None
    calibration: CalibrationRow | None
    canary: Canary | None
    canary_calibration: CalibrationRow | None

    def is_served(self, item: Served) -> bool:
        """Whether a route serves it. Behind an upstream there are no canaries."""
        if not item.is_current(self.version, self.calibration):
            return False
        if item.on_trial is None:
            return self.canary is None or isinstance(item.source, UpstreamSource)
        return item.on_trial.is_current(self.canary, self.canary_calibration)


@dataclass(frozen=True)
class _Watching:
    """What the watch is to be told, by the names under which it knows models: which are gone, and which it gets.

    `wanted` are all that it is to know of the models in question, changed or not.
    """

    gone: Sequence[str]
    changed: Mapping[str, Served]
    wanted: Mapping[str, Served]


def _current(model: str, registry: Registry) -> _Current:
    with registry.read() as records:
        version, canary = records.promotions.current(model), records.canaries.current(model)
        newest = records.calibrations.newest
        return _Current(
            version,
            newest(model, version.number) if version else None,
            canary,
            newest(model, canary.number) if canary else None,
        )


def _end_canary(canary: Canary, reason: str, registry: Registry) -> None:
    with registry.write() as records:
        records.canaries.end(canary.model, reason=reason, actor=ACTOR, number=canary.number)


def _watched(served: Iterable[Served], model: str) -> dict[str, Served]:
    """What the watch has to know of a model, by the names under which it does; the model's own comes first."""
    items = [item for line in served if line.route.model == model for item in line.all]
    return {item.watched: item for item in sorted(items, key=lambda item: item.is_canary)}


def _sources(served: Mapping[str, Served]) -> set[Source]:
    return {item.source for line in served.values() for item in line.all}


def _upstream_of(item: Served) -> UpstreamSource | None:
    """What goes on answering while a route is opened anew: an upstream, which holds connections."""
    return item.source if isinstance(item.source, UpstreamSource) else None
