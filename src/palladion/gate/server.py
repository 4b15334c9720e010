"""`palladion serve`: opens the routes, the API and the admin socket, keeps state, and closes in good order.

One process, one event loop. Holds the ledger from start to end; commands go through the admin socket meanwhile.
"""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any

import uvloop

from palladion.errors import PalladionError, PolicyError
from palladion.gate.admin import AdminServer
from palladion.gate.app import HEALTH_PATHS, App
from palladion.gate.directory import Directory, Roll, read_roll
from palladion.gate.gate import Gate
from palladion.gate.keeper import LIMITS, Keeper, encode_limits, load_limits, load_suspicion, suspicion_purpose
from palladion.gate.listener import Api, api_config, listen, listen_address
from palladion.gate.marks import Retainer
from palladion.gate.recorder import Recorder
from palladion.gate.served import Served, open_route
from palladion.gate.sources.source import Source
from palladion.gate.stages import Stages
from palladion.incident.cases import opened_record
from palladion.keys import Root
from palladion.ledger.bodies import FOLDER, BodyWriter
from palladion.ledger.record import Record
from palladion.ledger.writer import BATCH_MAX
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import record_opened
from palladion.registry import CalibrationRow, Registry, Version
from palladion.seal.structure import SealedInfo
from palladion.watch.response import rank
from palladion.watch.watch import Asker, Explanation, Watch

KEEP_SECONDS = 1.0  # a crash forgets at most so much suspicion; standings and records are never behind
REFUSALS_SECONDS = 10.0  # refused requests are counted and recorded together: a flood of them must not fill the ledger
ROUTES_MAX = 100  # all of them stand in one record, which has at most 64 KiB
STATUS_CLIENTS_MAX = 1000  # the most suspicious ones; an operator's screen holds fewer
STATUS_CLIENTS_AT_ONCE = 100  # explaining one takes 50 µs: then requests have their turn
GROUP_SHOWN_MAX = 100  # members of a campaign, in the status of each of them
ACTOR = "gate"

log = logging.getLogger("palladion.gate")


def serve(installation: Installation, *, announce: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. `announce` gets a line when the API answers, and for each thing of note.

    Raises PolicyError where the policy cannot be served, BusyError if another process holds the ledger.
    """
    check_routes(installation)
    address = listen_address(installation.policy.gate)
    uvloop.run(_Server(installation, announce).run(address))


def check_routes(installation: Installation) -> None:
    """Raise PolicyError unless there are routes, with paths of their own that nothing else answers on."""
    policy = installation.paths.policy
    paths = [route.route for route in installation.policy.route]
    if not paths:
        raise PolicyError(
            f"{policy} has no [[route]]: nothing would be served",
            'add two lines, for example:  [[route]]  and  model = "fraud"',
        )
    if len(paths) > ROUTES_MAX:
        raise PolicyError(f"{policy} has {len(paths)} routes, at most {ROUTES_MAX} are allowed")
    taken = sorted({path for path in paths if paths.count(path) > 1} | HEALTH_PATHS.intersection(paths))
    if taken:
        raise PolicyError(f"{policy}: the path {taken[0]} is taken twice", "give the route a path of its own")


class _Server:
    """The parts of a running gate."""

    def __init__(self, installation: Installation, announce: Callable[[str], None]) -> None:
        self._installation = installation
        self._announce = announce
        self._policy = installation.policy
        self._watch = Watch(self._policy.watch)
        self._purposes: dict[str, str] = {}  # under which the suspicion of each model that is watched is kept
        self._failures: set[str] = set()
        self._marking = any(route.flipped > 0 for route in self._policy.route)
        self._retainer: Retainer | None = None
        self._retired: dict[Source, asyncio.Task[None]] = {}

    async def run(self, address: tuple[str, int]) -> None:
        root = self._installation.open_gate_root()
        self._recorder = Recorder(self._installation.lock_ledger(root))
        try:
            with self._installation.open_registry() as registry:
                self._keeper = Keeper(registry)
                try:
                    self._open(root, registry)
                    await self._serve(address)
                finally:
                    self._keeper.close()
        finally:
            await self._recorder.close()

    def _open(self, root: Root, registry: Registry) -> None:
        self._directory = Directory(root.derive("client-key-pepper"))
        if self._marking:
            folder, key = self._installation.paths.directory / FOLDER, root.derive("body-cipher")
            self._retainer = Retainer(BodyWriter(folder, key, queries_max=self._policy.retention.queries))
        with registry.read() as records:
            self._directory.load(read_roll(records))
        self._stages = Stages(
            self._installation,
            root,
            directory=self._directory,
            watch=self._watch,
            journal=self._recorder,
            keep=self._keeper.standings,
            retainer=self._retainer,
        )
        self._gate = Gate(self._stages)
        # before any state is taken up, so that organisations are together again as they were
        for caller in self._directory.callers.values():
            self._watch.link(Asker(caller.id, caller.client.organisation))
        self._gate.serve({route.route: open_route(self._installation, route) for route in self._policy.route})
        for item in {item.route.model: item for item in self._gate.served.values()}.values():
            self._watch_by(item, load_suspicion(registry, item))
        self._stages.limits = load_limits(registry)

    def _watch_by(self, item: Served, saved: Mapping[str, bytes]) -> None:
        self._watch.watch_model(item.route.model, item.calibration, saved)
        self._purposes[item.route.model] = suspicion_purpose(item)

    async def _serve(self, address: tuple[str, int]) -> None:
        app = App(self._gate, ready=lambda: self._recorder.sound)
        config = api_config(app, self._policy.gate, self._installation.paths.home)
        admin = AdminServer(self._installation.paths.admin, self._recorder, reload=self._reload, status=self._status)
        with listen(address) as listener:
            await admin.start()
            tasks: list[asyncio.Task[None]] = []
            try:
                await self._record_start()
                tasks = [
                    asyncio.create_task(_every(KEEP_SECONDS, self._keep)),
                    asyncio.create_task(_every(REFUSALS_SECONDS, self._record_refusals)),
                ]
                await Api(config, lambda: self._announce_routes(listener)).serve(sockets=[listener])
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self._stages.close()
                await self._close_sources()
                await self._keep()
                await self._close_bodies()
                await self._record_refusals()
                await admin.stop()
        await self._recorder.append([self._about_gate("gate.stopped", self._answered())])

    def _announce_routes(self, listener: socket.socket) -> None:
        name, port = listener.getsockname()[:2]
        scheme = "https" if self._policy.gate.tls_certificate else "http"
        url = f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}"
        for item in self._gate.served.values():
            self._say(f"{item.route.mode} {url}{item.route.route}: {item.subject}, {_calibrated(item)}")
        self._say(f"serving on {url}")

    def _say(self, line: str) -> None:
        # whoever listened may be gone, and that is no reason to stop serving, or to fail a command
        with suppress(OSError):
            self._announce(line)

    async def _reload(self) -> None:
        """Take over what a command changed: clients, standings, promoted versions, calibrations.

        A model that cannot be opened goes on as it was, and keeps no other from changing; the command is told.
        """
        roll = await self._keeper.run(_read_roll)
        # the registry thread answers in order, so what it has written since is not in these two any more
        for client in self._directory.load(roll, [*self._stages.unrecorded, *self._keeper.unwritten]):
            self._stages.forgive(client)
        failures = []
        for model in dict.fromkeys(item.route.model for item in self._gate.served.values()):
            try:
                await self._renew(model)
            except PalladionError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    async def _renew(self, model: str) -> None:
        """Serve what the registry says should be served: all routes of a model at once."""
        routes = {path: item for path, item in self._gate.served.items() if item.route.model == model}
        version, row = await self._keeper.run(partial(_current, model))
        if version is None or all(item.is_current(version, row) for item in routes.values()):
            return
        # in a thread that nothing else waits for: a large model takes minutes
        opened = {
            path: await asyncio.to_thread(open_route, self._installation, item.route) for path, item in routes.items()
        }
        await self._recorder.append([self._opened(item.sealed, "swap live") for item in opened.values() if item.sealed])
        newest = list(opened.values())[-1]
        if suspicion_purpose(newest) != self._purposes[model]:
            # what is known under the old calibration counts again if that one comes back
            await self._keep()
            self._watch_by(newest, await self._keeper.run(partial(load_suspicion, served=newest)))
        replaced = [self._gate.served[path].source for path in opened]
        self._gate.serve({**self._gate.served, **opened})
        self._retire(replaced)
        for path, item in opened.items():
            self._say(f"{item.subject} answers on {path} now, {_calibrated(item)}")

    async def _keep(self) -> None:
        states: dict[str, dict[str, bytes]] = {}
        for model, purpose in self._purposes.items():
            states[purpose] = self._watch.changes(model)
        limits = self._stages.limits
        states[LIMITS] = encode_limits({client: limits[client] for client in self._stages.changed_limits})
        self._stages.changed_limits.clear()
        try:
            await self._keeper.states(states)
            self._failures.discard("registry")
        except PalladionError as error:
            self._complain("registry", error)
        if self._retainer is not None:
            try:
                await self._retainer.sync()
                self._failures.discard("bodies")
            except PalladionError as error:
                self._complain("bodies", error)
        await self._record_cases()

    def _retire(self, sources: Sequence[Source]) -> None:
        """Close what was replaced, once no request can use it any more."""
        seconds = self._policy.gate.body_seconds_max + self._policy.gate.deadline_ms / 1000
        for source in sources:
            self._retired[source] = asyncio.create_task(_close_after(seconds, source))

    async def _close_sources(self) -> None:
        for task in self._retired.values():
            task.cancel()
        current = {item.source for item in self._gate.served.values()}
        for source in current | self._retired.keys():
            await source.close()

    async def _close_bodies(self) -> None:
        if self._retainer is not None:
            try:
                await self._retainer.close()
            except PalladionError as error:
                self._complain("bodies", error)

    def _answered(self) -> dict[str, int]:
        """How many queries were answered, and how many of the labels were turned by marks, where routes mark."""
        answered = {"answered": self._stages.answered}
        return {**answered, "flipped": self._stages.flipped} if self._marking else answered

    async def _record_cases(self) -> None:
        for case in self._keeper.opened():
            self._say(f"incident {case.id}: {case.title}")
            try:
                await self._recorder.append([opened_record(case)])
            except PalladionError as error:
                self._complain("ledger", error)

    async def _record_refusals(self) -> None:
        refusals, self._stages.refusals = self._stages.refusals, Counter()
        for start in range(0, len(refusals), BATCH_MAX):
            some = sorted(refusals.items())[start : start + BATCH_MAX]
            try:
                await self._recorder.append([self._refusal(*key, count) for key, count in some])
            except PalladionError as error:
                self._stages.refusals.update(dict(some))
                self._complain("ledger", error)

    def _refusal(self, client: str, reason: str, requests: int) -> Record:
        details = {"reason": reason, "requests": requests}
        return Record("answer.refused", self._installation.clock.now(), ACTOR, self._stages.name(client), details)

    async def _record_start(self) -> None:
        opened = [self._opened(item.sealed, "serve") for item in self._gate.served.values() if item.sealed]
        await self._recorder.append([self._about_gate("gate.started", {"routes": self._routes()}), *opened])

    def _about_gate(self, kind: str, details: dict[str, Any]) -> Record:
        return Record(kind, self._installation.clock.now(), ACTOR, self._installation.paths.home.name, details)

    def _opened(self, sealed: SealedInfo, reason: str) -> Record:
        return record_opened(sealed, at=self._installation.clock.now(), actor=ACTOR, reason=reason)

    def _complain(self, part: str, error: PalladionError) -> None:
        """Say it once, not every second."""
        if part not in self._failures:
            self._failures.add(part)
            log.error("%s: %s", part, error.message)

    def _routes(self) -> list[dict[str, Any]]:
        return [
            {
                "path": path,
                "version": item.subject,
                "content": item.version.content_digest if item.version else None,
                "mode": item.route.mode,
                "calibration": item.calibration_row.digest if item.calibration_row else None,
            }
            for path, item in self._gate.served.items()
        ]

    async def _status(self) -> dict[str, Any]:
        callers: list[dict[str, Any]] = []
        for number, caller in enumerate(list(self._directory.callers.values())):
            if number % STATUS_CLIENTS_AT_ONCE == 0:
                await asyncio.sleep(0)
            callers.append(
                {
                    "id": caller.id,
                    "client": f"{caller.client.organisation}/{caller.client.name}",
                    "pseudonym": self._stages.name(caller.id),
                    "standing": caller.standing,
                    "models": [_shown(item) for item in self._watch.explain(caller.id)],
                }
            )
        callers.sort(key=lambda item: (-rank(item["standing"]), _least_p_value(item), item["client"]))
        return {
            "routes": self._routes(),
            "clients": callers[:STATUS_CLIENTS_MAX],
            "clients_total": len(callers),
            **self._answered(),
            "entries": self._recorder.size,
            "ready": self._recorder.sound,
        }


async def _close_after(seconds: float, source: Source) -> None:
    await asyncio.sleep(seconds)
    await source.close()


async def _every(seconds: float, action: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await action()
        except Exception:
            log.exception("a background task failed")


def _read_roll(registry: Registry) -> Roll:
    with registry.read() as records:
        return read_roll(records)


def _current(model: str, registry: Registry) -> tuple[Version | None, CalibrationRow | None]:
    with registry.read() as records:
        version = records.promotions.current(model)
        return version, records.calibrations.newest(version.model, version.number) if version else None


def _calibrated(item: Served) -> str:
    if item.calibration is None:
        return "uncalibrated"
    about = item.calibration.about
    return f"calibrated on {about.clients} {'simulated' if about.simulated else 'real'} clients"


def _shown(item: Explanation) -> dict[str, Any]:
    # of a campaign of thousands, each member would list all the others
    return {**asdict(item), "group": item.group[:GROUP_SHOWN_MAX], "linked": len(item.group) - 1}


def _least_p_value(item: dict[str, Any]) -> float:
    return min((min(model["p_value"], model["campaign_p_value"]) for model in item["models"]), default=1.0)
