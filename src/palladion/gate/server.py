"""`palladion serve`: opens the routes, the API and the admin socket, keeps state, and closes in good order.

One process, one event loop. Holds the ledger from start to end; commands go through the admin socket meanwhile.
"""

import asyncio
import gc
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import uvloop

from palladion.errors import PalladionError
from palladion.gate.admin import AdminServer
from palladion.gate.administration.opening import open_administration
from palladion.gate.alerting import open_alerting
from palladion.gate.announcements import calibrated_on, nobodys_said, routes_said
from palladion.gate.app import App
from palladion.gate.chat.models import LanguageModels
from palladion.gate.checks import check_routes
from palladion.gate.directory import Directory
from palladion.gate.encrypted.routes import EncryptedRoutes
from palladion.gate.end_users import EndUsers
from palladion.gate.gate import Gate
from palladion.gate.grpc.listener import GrpcListener
from palladion.gate.intelligence.feeds import open_feeds
from palladion.gate.intelligence.weights import PURPOSE as WEIGHTS
from palladion.gate.issuers import Issuers
from palladion.gate.keeper import LIMITS, Keeper, encode_limits, load_limits
from palladion.gate.lineup import ACTOR, Lines, Lineup, Waits
from palladion.gate.listener import Address, Api, api_config, listen_address, listening, url_of
from palladion.gate.operations.access import Access, open_access
from palladion.gate.operations.clock_watch import open_clock_watch
from palladion.gate.operations.operations import Operations
from palladion.gate.operations.policies import Policies
from palladion.gate.recorder import Recorder
from palladion.gate.repeating import every
from palladion.gate.reports import Reports
from palladion.gate.retention import open_retention
from palladion.gate.rolls import RollReader
from palladion.gate.served import Served
from palladion.gate.stages import Stages
from palladion.gate.status import clients_shown, routes_shown
from palladion.gate.upstream.discovery import Discoveries
from palladion.gate.upstream.opening import limits_within
from palladion.gate.upstream.pool import Upstream
from palladion.gate.upstream.source import UpstreamSource
from palladion.gate.witnessing import open_witnessing
from palladion.keys import Root
from palladion.ledger.record import Record
from palladion.lifecycle.installation import Installation
from palladion.policy import Policy
from palladion.registry import Registry
from palladion.watch.drift_store import DriftStore
from palladion.watch.watch import Watch

# New objects before cycles are looked for. Requests leave hardly any, and by Python's own figures looking costs 3 %.
GARBAGE_THRESHOLDS = (10_000, 20, 20)
KEEP_SECONDS = 1.0  # a crash forgets at most so much suspicion; standings and records are never behind
ABSENT_AT_ONCE = 256  # states that are read, changed and saved again without having been asked for: some 20 ms
CHANGED_MAX = 10_000  # standings that the watch changed and the directory holds: then it is read anew, as by a command
SCRATCH = "watch-scratch.sqlite"
REFUSALS_SECONDS = 10.0  # refused requests are counted and recorded together: a flood of them must not fill the ledger

log = logging.getLogger("palladion.gate")


def serve(installation: Installation, *, announce: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. `announce` gets a line when the API answers, and for each thing of note.

    Raises PolicyError where the policy cannot be served, BusyError if another process holds the ledger.
    """
    check_routes(installation)
    address = listen_address(installation.policy.gate, installation.paths.home, installation.policy.proxy)
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    uvloop.run(_Server(installation, announce).run(address))


class _Server:
    """The parts of a running gate."""

    def __init__(self, installation: Installation, announce: Callable[[str], None]) -> None:
        self._installation = installation
        self._announce = announce
        self._policy = installation.policy
        self._subject = installation.paths.home.name
        folder = installation.paths.directory
        self._watch = Watch(self._policy.watch, scratch=folder / SCRATCH, drifts=DriftStore(folder))
        self._failures: set[str] = set()
        self._open_for_requests = False

    async def run(self, address: Address) -> None:
        root = self._installation.open_gate_root()
        self._recorder = Recorder(self._installation.lock_ledger(root))
        try:
            with self._installation.open_registry() as registry:
                self._end_users = EndUsers(root.derive("pseudonyms"), self._policy.resellers)
                self._keeper = Keeper(registry, self._end_users)
                try:
                    self._open(root, registry)
                    await self._serve(address)
                finally:
                    self._keeper.close()
        finally:
            await self._recorder.close()

    def _open(self, root: Root, registry: Registry) -> None:
        paths = self._installation.paths
        self._issuers = Issuers(self._policy.issuer, paths.home)
        access = open_access(self._policy, paths.home)
        self._directory = Directory(
            root.derive("client-key-pepper"),
            tokens=self._issuers.tokens,
            access=access.cedar,
            end_users=self._end_users,
            decided=self._keeper.decided,
        )
        self._retention = open_retention(self._installation, root)
        self._read_roll = RollReader(self._keeper.lookup, root)
        self._directory.load(self._read_roll(registry))
        self._stages = Stages(
            self._installation,
            root,
            directory=self._directory,
            watch=self._watch,
            journal=self._recorder,
            keep=self._keeper.standings,
            retainer=self._retention.retainer,
            retention=self._retention,
        )
        self._keeper.unrecorded = lambda: self._stages.unrecorded
        self._stages.together.wait_for(self._recorder)
        self._feeds = open_feeds(
            self._installation, self._stages.intelligence, registry, self._recorder.append, self._say
        )
        self._reports = Reports(
            self._recorder,
            self._stages,
            self._keeper,
            self._installation.clock,
            actor=ACTOR,
            say=self._say,
            complain=self._complain,
        )
        self._gate = Gate(self._stages, self._keeper.run)
        self._grpc = GrpcListener(self._gate, self._policy.gate, paths.home, self._say)
        self._lineup = Lineup(
            self._installation,
            self._gate,
            keeper=self._keeper,
            journal=self._recorder,
            keep=self._keep,
            swapped=self._announce_swap,
        )
        self._discoveries = Discoveries(
            self._policy.route,
            paths.home,
            self._lineup.found,
            limits=limits_within(self._policy.gate.deadline_ms / 1000),
        )
        self._models = LanguageModels(
            self._policy, paths.home, self._stages, root, budget=self._stages, calibrations=paths.calibrations
        )
        self._encrypted = EncryptedRoutes(self._installation, self._stages)
        self._gate.serve({}, self._encrypted.beside(self._models.endpoints))
        self._lineup.open(registry, self._discoveries.waiting)
        self._models.watch(self._keeper, registry)
        self._stages.limits.restore(load_limits(registry))
        self._policies = Policies(
            self._installation,
            check=self._check_policy,
            apply=self._change_policy,
            marking=self._policy.retention.queries > 0,
            opened=access.digests,
        )
        self._operations = self._open_operations(root)

    def _open_operations(self, root: Root) -> Operations:
        own = (self._installation, root, self._keeper, self._recorder)
        witnessing = open_witnessing(self._installation, self._policy.ledger, self._recorder.checkpoint)
        return Operations(
            self._gate,
            self._recorder,
            self._policy.operations,
            self._installation.paths.home,
            servers=self._servers,
            digest=lambda: self._policies.digest,
            retention=self._retention,
            witnessing=witnessing,
            clock=open_clock_watch(self._installation, ACTOR),
            alerting=open_alerting(*own, witnessing, actor=ACTOR),
            administration=open_administration(*own, self._policies, reload=self._reload_clients, status=self._status),
        )

    async def _serve(self, address: Address) -> None:
        health = self._operations.health
        app = App(self._gate, ready=health.ready, leaving=lambda: health.draining)
        config = api_config(app, self._policy.gate, self._installation.paths.home)
        admin = AdminServer(
            self._installation.paths.admin,
            self._recorder,
            reload=self._reload,
            status=self._status,
            policy=self._policies,
        )
        with listening(address, self._policy.gate.socket_group) as listener:
            await self._issuers.refresh()
            await self._discoveries.start()
            await admin.start()
            tasks: list[asyncio.Task[None]] = []
            try:
                await self._operations.start()
                await self._record_start()
                tasks = [
                    asyncio.create_task(every(KEEP_SECONDS, partial(self._keep, ABSENT_AT_ONCE))),
                    asyncio.create_task(every(REFUSALS_SECONDS, self._reports.refusals)),
                    asyncio.create_task(self._issuers.run()),
                    asyncio.create_task(self._feeds.run()),
                    asyncio.create_task(self._retention.run(self._recorder.append, actor=ACTOR, subject=self._subject)),
                ]
                api = Api(config, lambda: self._announce_routes(listener))
                api.leave, api.hang_up, api.beside = self._operations.leave, self._hang_up, self._grpc.close
                await self._grpc.start()
                await api.serve(sockets=[listener])
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self._grpc.close()
                await self._operations.close()
                await self._discoveries.close()
                await self._stages.close()
                await self._lineup.close()
                await self._models.close()
                await self._encrypted.close()
                await self._keep()
                await self._try("bodies", self._retention.close())
                await self._reports.close()
                await self._feeds.close()
                await admin.stop()
        await self._recorder.append([self._about_gate("gate.stopped", self._answered())])

    def _announce_routes(self, listener: socket.socket) -> None:
        url = url_of(listener, secure=bool(self._policy.gate.tls_certificate))
        for line in (*routes_said(self._gate, self._models, url), *self._encrypted.said(url)):
            self._say(line)
        self._warn_of_nobodys()
        if self._operations.url is not None:
            self._say(f"figures on {self._operations.url}/metrics")
        self._open_for_requests = True
        self._say(f"serving on {url}")

    def _announce_swap(self, item: Served) -> None:
        if self._open_for_requests:
            self._say(f"{item.subject} answers on {item.route.route} now, {calibrated_on(item)}")

    def _say(self, line: str) -> None:
        # whoever listened may be gone, and that is no reason to stop serving, or to fail a command
        with suppress(OSError):
            self._announce(line)

    async def _reload(self) -> None:
        """Take over what a command changed: clients, standings, promoted versions, calibrations.

        A model that cannot be opened goes on as it was, and the command is told. So do decoys that cannot be read.
        """
        await self._reload_clients()
        failures = self._read_roll.failures
        for model in dict.fromkeys(item.route.model for item in self._gate.served.values()):
            try:
                await self._lineup.renew(model)
            except PalladionError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    async def _reload_clients(self) -> None:
        roll = await self._keeper.run(partial(self._read_roll, before=self._directory.mark))
        # the registry thread answers in order, so what it has written since is not in these two any more
        for client in self._directory.load(roll, [*self._stages.unrecorded, *self._keeper.unwritten]):
            self._stages.forgive(client)
        # a command that forgets a client erases what is kept of it after this
        await asyncio.gather(self._retention.settle(), self._stages.seeds.settle())

    def _check_policy(self, policy: Policy) -> None:
        check_routes(Installation(self._installation.paths, policy, self._installation.clock))

    async def _change_policy(self, policy: Policy, record: Record, access: Access) -> None:
        def swap(served: Lines, waiting: Waits) -> None:
            self._installation.policy = self._policy = policy
            self._stages.renew(policy)
            self._directory.renew_access(access.cedar)
            self._end_users.policy = policy.resellers
            self._models.put(models)
            self._encrypted.put(encrypted)
            self._discoveries.put(sought)
            self._gate.serve(served, self._encrypted.beside(self._models.endpoints), waiting)
            self._operations.renew(policy.operations)

        limits = limits_within(policy.gate.deadline_ms / 1000)
        after = Installation(self._installation.paths, policy, self._installation.clock)
        async with (
            self._models.renewing(policy) as models,
            self._encrypted.renewing(after) as encrypted,
            self._discoveries.seeking(policy.route, limits) as sought,
        ):
            others = self._encrypted.beside(self._models.answering(models), encrypted)
            if opened := self._encrypted.opened_records("policy changed", actor=ACTOR):
                await self._recorder.append(opened)
            await self._lineup.change(
                policy, record, swap, lambda line, late: self._gate.check(line, others, late), sought
            )
        self._say(f"the policy is {record.details['after'][:16]} now")
        self._warn_of_nobodys()

    def _warn_of_nobodys(self) -> None:
        for line in nobodys_said(self._policy, self._directory):
            self._say(line)

    async def _hang_up(self) -> None:
        """SIGHUP: as a command would, but for who asked."""
        try:
            await self._policies.take_over("SIGHUP")
        except PalladionError as error:
            log.error("the policy stays as it was: %s", ". ".join([error.message, *error.hints]))  # noqa: TRY400

    def _servers(self) -> dict[str, Upstream]:
        """The upstreams that are asked, by route."""
        found = {name: item.source for name, item in self._gate.served.items()}
        upstreams = {name: source.upstream for name, source in found.items() if isinstance(source, UpstreamSource)}
        return {**upstreams, **self._models.servers}

    async def _keep(self, absent_max: int | None = None) -> None:
        for model, purpose in {**self._lineup.purposes, **self._models.purposes}.items():
            # straight to the keeper: what neither it nor the watch has, a failure loses, and no look-up finds
            self._keeper.put_aside({purpose: self._watch.changes(model, absent_max=absent_max)})
        saved = {
            LIMITS: encode_limits(self._stages.limits.changes()),
            WEIGHTS: self._stages.intelligence.weights.changes(),
        }
        await self._try("registry", self._keeper.states(saved))
        await self._try("bodies", self._retention.retainer.sync())
        await self._reports.cases()
        await self._reports.drifts()
        await self._reports.newcomers()
        await self._try("drift", asyncio.to_thread(self._watch.drifts.write, self._watch.drifts.changes()))
        if self._directory.changed > CHANGED_MAX:
            await self._try("clients", self._reload_clients())

    def _answered(self) -> dict[str, int]:
        """How many queries were answered, and how many of the labels were turned by marks, where routes mark."""
        answered = {"answered": self._stages.answered}
        marking = any(route.flipped > 0 for route in self._policy.route)
        return {**answered, "flipped": self._stages.flipped} if marking else answered

    async def _record_start(self) -> None:
        opened = self._lineup.opened_records(self._gate.served, "serve")
        opened += self._encrypted.opened_records("serve", actor=ACTOR)
        await self._recorder.append(
            [self._about_gate("gate.started", {"policy": self._policies.digest, "routes": self._routes()}), *opened]
        )

    def _about_gate(self, kind: str, details: dict[str, Any]) -> Record:
        return Record(kind, self._installation.clock.now(), ACTOR, self._subject, details)

    async def _try(self, part: str, action: Awaitable[object]) -> None:
        try:
            await action
            self._failures.discard(part)
        except PalladionError as error:
            self._complain(part, error)

    def _complain(self, part: str, error: PalladionError) -> None:
        """Say it once, not every second."""
        if part not in self._failures:
            self._failures.add(part)
            log.error("%s: %s", part, error.message)

    def _routes(self) -> list[dict[str, Any]]:
        return routes_shown(self._gate, [*self._models.policies, *self._encrypted.policies])

    async def _status(self) -> dict[str, Any]:
        return {
            "policy": self._policies.digest,
            "routes": self._routes(),
            "waiting": sorted(self._gate.waiting),
            **self._feeds.shown(await clients_shown(self._gate)),
            **self._answered(),
            "entries": self._recorder.size,
            "ready": self._operations.health.ready(),
            "faults": self._operations.health.faults(),
        }
