"""Finds out what a model at an upstream takes and gives: at the start, and again when its answers stop fitting.

Open Inference Protocol v2 alone: its metadata says so. Waits longer after each time that it looked in vain.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from palladion.errors import FormatError, PalladionError
from palladion.gate.contract import make_contract
from palladion.gate.protocols.open_inference import OpenInferenceErrors, model_paths
from palladion.gate.protocols.open_inference_upstream import (
    Described,
    OpenInferenceUpstream,
    describe_target,
    read_metadata,
    takes_binary,
)
from palladion.gate.readiness import Waiting
from palladion.gate.upstream.errors import UpstreamError
from palladion.gate.upstream.limits import UpstreamLimits
from palladion.gate.upstream.opening import open_upstream
from palladion.gate.upstream.pool import Upstream
from palladion.gate.upstream.source import UpstreamSource
from palladion.gate.upstream.sources import comes_from_elsewhere
from palladion.policy import RoutePolicy

FIRST_SECONDS = 1.0  # until it is looked for again; then twice as long each time
LAST_SECONDS = 60.0
LOOK_SECONDS = 5.0  # for one look: metadata is a page that servers have at hand

log = logging.getLogger("palladion.gate")

Found = Callable[[RoutePolicy, UpstreamSource], Awaitable[None]]
Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True)
class Look:
    """What was seen: the model's own description, and whether its server takes binary tensors."""

    described: Described
    binary: bool


@dataclass
class Sought:
    """Upstreams that describe themselves and were not asked before, under a policy that may come into force.

    Those whose model was seen are `sources`, by route; the others are looked for once that policy is in force.
    """

    policy: Mapping[str, RoutePolicy] = field(default_factory=dict)
    found: Mapping[str, "Discovery"] = field(default_factory=dict)
    sources: Mapping[str, UpstreamSource] = field(default_factory=dict)

    @property
    def waiting(self) -> Mapping[str, Waiting]:
        """What the others are until their upstreams are reached, by route."""
        return {name: _wait(item.route) for name, item in self.found.items() if name not in self.sources}


class Discoveries:
    """The routes of a policy whose model is described by its upstream. Used in one event loop."""

    def __init__(
        self, routes: Iterable[RoutePolicy], home: Path, found: Found, *, limits: UpstreamLimits | None = None
    ) -> None:
        """File names in the policy are relative to `home`. Raises PolicyError for an upstream that cannot be asked."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._home, self._found = home, found
        self._all = {name: self._discovery(route, limits) for name, route in _described(routes).items()}

    @property
    def waiting(self) -> Mapping[str, Waiting]:
        """What these routes are until their upstreams are reached, by route."""
        return {name: _wait(item.route) for name, item in self._all.items()}

    async def start(self) -> None:
        """Look once at each, all at the same time, and go on in the background. Raises PolicyError, as `found` does."""
        looks = await asyncio.gather(*(item.look() for item in self._all.values()), return_exceptions=True)
        for look in looks:
            # an upstream that is broken keeps no other route from being served; a policy that does not fit is told
            if isinstance(look, BaseException) and not isinstance(look, FormatError):
                raise look
        self._tasks = {name: asyncio.create_task(item.run()) for name, item in self._all.items()}

    @asynccontextmanager
    async def seeking(
        self, routes: Iterable[RoutePolicy], limits: UpstreamLimits | None = None
    ) -> AsyncIterator[Sought]:
        """Look once at each upstream that another policy names and this one does not; who raises closes what was found.

        Raises PolicyError, and UpstreamError or FormatError for one whose route has answers from another one now.
        """
        policy = _described(routes)
        fresh = {
            name: self._discovery(route, limits)
            for name, route in policy.items()
            if name not in self._all or comes_from_elsewhere(self._all[name].route, route)
        }
        looks = await asyncio.gather(*(item.first() for item in fresh.values()), return_exceptions=True)
        seen = dict(zip(fresh, looks, strict=True))
        sources = {name: look for name, look in seen.items() if isinstance(look, UpstreamSource)}
        try:
            for name, look in seen.items():
                # who was never reached waits, as at the start; one that answers is not given up for one that may not
                answers = name in self._all and self._all[name].reached
                if isinstance(look, BaseException) and (answers or not isinstance(look, UpstreamError)):
                    raise look
            yield Sought(policy, fresh, sources)
        except BaseException:
            for name, source in sources.items():
                if self._all.get(name) is not fresh[name]:
                    await source.close()
            raise

    def put(self, sought: Sought) -> None:
        """Look after the upstreams of that policy from now on, and after no others."""
        for name in self._all.keys() - (sought.policy.keys() - sought.found.keys()):
            self._tasks.pop(name).cancel()
            del self._all[name]
        for name, item in sought.found.items():
            self._all[name] = item
            self._tasks[name] = asyncio.create_task(item.run())

    async def close(self) -> None:
        """Look no more. The sources that were found are closed by those who got them."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _discovery(self, route: RoutePolicy, limits: UpstreamLimits | None) -> "Discovery":
        open_upstream(route, self._home)  # what is wrong with it is told now, and not when it is reached
        return Discovery(route, partial(open_upstream, route, self._home, limits=limits), self._found)


class Discovery:
    """Looks after one route's model. Made, used and closed in one event loop."""

    def __init__(
        self, route: RoutePolicy, open_upstream: Callable[[], Upstream], found: Found, *, sleep: Sleep = asyncio.sleep
    ) -> None:
        """`found` gets a source when the model is first seen, and another one when it became different.

        It raises PalladionError where the model cannot be served so. A source that it got is its own to close.
        """
        self.route = route
        self._open_upstream = open_upstream
        self._found = found
        self._sleep = sleep
        self._doubted = asyncio.Event()
        self._doubted.set()
        self._seen: Look | None = None
        self._source: UpstreamSource | None = None
        self._complaint = ""

    @property
    def reached(self) -> bool:
        """Whether the model was seen so far."""
        return self._source is not None

    async def look(self) -> bool:
        """Look once; whether the model is served as it is. Raises PalladionError where it cannot be served so."""
        try:
            await self._look(self._found)
        except UpstreamError as error:
            if self._source is None:  # else it was told already, by who asked in vain
                self._complain(error)
            return False
        self._complaint = ""
        self._doubted.clear()
        return True

    async def first(self) -> UpstreamSource:
        """What it sees at the first look, which is the caller's. Raises UpstreamError, and as `look` does."""
        await self._look(_nobody)
        if self._source is None:
            raise ValueError("it was looked at before")
        self._doubted.clear()
        return self._source

    async def run(self) -> None:
        """Look whenever there is a doubt; for ever."""
        seconds = FIRST_SECONDS
        while True:
            await self._doubted.wait()
            try:
                await self.look()
            except PalladionError as error:
                # another one may be started there any time
                self._complain(error)
            # a server whose answers never fit is not asked for its metadata all the time, either
            await self._sleep(seconds)
            seconds = min(2 * seconds, LAST_SECONDS) if self._doubted.is_set() else FIRST_SECONDS

    async def _look(self, found: Found) -> None:
        known = self._source
        upstream = self._open_upstream() if known is None else known.upstream
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                look = await self._see(upstream)
        except BaseException as error:
            if known is None:
                await upstream.close()
            if isinstance(error, TimeoutError):
                raise UpstreamError(
                    f"{upstream.address} did not say within {LOOK_SECONDS:g} s what {self._model} takes",
                    kind="timeout",
                    sent=True,
                ) from None
            raise
        if known is not None and look == self._seen:
            known.believe()
            return
        if known is not None:
            upstream = self._open_upstream()  # the old one is closed with the old source
        try:
            source = self._make(upstream, look)
            await found(self.route, source)
        except BaseException:
            await upstream.close()
            raise
        self._seen, self._source = look, source

    async def _see(self, upstream: Upstream) -> Look:
        described = await self._get(upstream, describe_target(self._model))
        if self.route.upstream_tensors == "auto":
            binary = takes_binary(await self._get(upstream, b"/v2"))
        else:
            binary = self.route.upstream_tensors == "binary"
        try:
            return Look(read_metadata(described), binary)
        except FormatError as error:
            hints = error.hints
            raise FormatError(f"{upstream.address}: {self._model}: {error.message}", *hints) from None

    async def _get(self, upstream: Upstream, target: bytes) -> bytes:
        answer = await upstream.ask(b"GET", target, [], b"")
        if answer.status != 200:
            raise UpstreamError(
                f"{upstream.address} answers {target.decode()} with the status {answer.status}",
                "is the model loaded there, and is upstream_model its name?",
                kind="broken",
                sent=True,
            )
        return answer.body

    def _make(self, upstream: Upstream, look: Look) -> UpstreamSource:
        described = look.described
        contract = make_contract(self.route, described.outputs)
        outputs = tuple(port for port in described.outputs if port.name in contract.names)
        try:
            codec = OpenInferenceUpstream(
                self._model, described, wanted=[port.name for port in outputs], binary=look.binary
            )
        except ValueError as error:
            raise FormatError(f"{upstream.address}: {self._model}: {error}") from None
        return UpstreamSource(
            self.route.route,
            upstream,
            codec,
            inputs=described.inputs,
            outputs=outputs,
            doubted=self._doubted.set,
        )

    @property
    def _model(self) -> str:
        return self.route.upstream_model or self.route.model

    def _complain(self, error: PalladionError) -> None:
        """Say it once, until it is something else."""
        if error.message != self._complaint:
            self._complaint = error.message
            log.error("%s: %s", self.route.route, error.message)


async def _nobody(_route: RoutePolicy, _source: UpstreamSource) -> None:
    """Whoever looks for it gets it otherwise."""


def _described(routes: Iterable[RoutePolicy]) -> dict[str, RoutePolicy]:
    return {route.route: route for route in routes if route.upstream and route.protocol == "open-inference"}


def _wait(route: RoutePolicy) -> Waiting:
    return Waiting(route, model_paths(route.path.rstrip("/"), route.model, ""), OpenInferenceErrors())
