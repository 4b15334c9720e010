"""Where the gate's time goes: each stage of a marked request to a model at an upstream, called on its own, in here.

Stages that requests pass together are measured with `TOGETHER` of them, as many as a busy gate's event loop finds in
one turn; the sum of all is held against what a request cost in a gate under load, in the same run.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import uvloop
from uvicorn.server import ServerState

from bench.gate_house import House, as_text
from bench.report import Report
from palladion.gate.app import App, Arrived
from palladion.gate.connections import Connection
from palladion.gate.decode import numbers
from palladion.gate.directory import Directory
from palladion.gate.disclosure import disclose_to
from palladion.gate.gate import Gate
from palladion.gate.listener import api_config
from palladion.gate.marks import Retainer
from palladion.gate.questions import about
from palladion.gate.recorder import Recorder
from palladion.gate.requests import JSON, Request, Response
from palladion.gate.rolls import read_looked_up
from palladion.gate.served import Served, open_route
from palladion.gate.stages import Stages
from palladion.gate.upstream.discovery import Discoveries
from palladion.gate.upstream.source import UpstreamSource
from palladion.ledger.bodies import FOLDER, BodyWriter
from palladion.ledger.record import Record
from palladion.ledger.salts import Seed
from palladion.lifecycle.installation import Installation
from palladion.policy import RoutePolicy
from palladion.registry import StandingChange
from palladion.registry.lookup import Lookup
from palladion.watch.watch import Asked, Asker, Watch

TOGETHER = 32  # requests that come in one moment, or are recorded at once
REPEATS = 7
SENT = b"x" * 300  # an answer of ten scores, as long as the gate writes it
_DETAILS = {
    "request": "0123456789abcdef",
    "route": "/v2/models/pixels",
    "queries": 1,
    "standing": "trusted",
    "disclosed": "contract",
    "mode": "enforce",
    "p_value": "0.123",
    "request_digest": "0" * 64,
    "answer_digest": "0" * 64,
}
_CLIENT = "client:0123456789abcdef0123"


def add_stages(report: Report, house: House, *, requests: Sequence[bytes], total_us: float) -> None:
    """A row for each stage of `requests` to the house's first route, and one for their sum beside `total_us`."""
    found = uvloop.run(_measure(house, requests, calls=20 if report.quick else 300))
    for stage, us in found.items():
        report.add(f"stage: {stage}", us, "us CPU")
    # what a stage costs alone is told beside what it costs together, not on top of it
    summed = sum(us for stage, us in found.items() if not stage.endswith(", alone"))
    share = f"{100 * summed / total_us:.0f} % of the {total_us:,.0f} us of the marked row"
    report.add("sum of the stages, as requests pass them together", summed, "us CPU", reference=share)


async def _measure(house: House, requests: Sequence[bytes], *, calls: int) -> dict[str, float]:
    installation = Installation.find(house.home, house.installation.clock, exact=True)
    root, route = installation.open_gate_root(), installation.policy.route[0]
    source = await _found(installation, route)
    served = open_route(installation, route, source)
    directory = Directory(root.derive("client-key-pepper"))
    with installation.open_registry() as registry:
        lookup = Lookup(registry.path)
        directory.load(read_looked_up(registry, lookup=lookup))
    watch = Watch(installation.policy.watch)
    watch.watch_model(served.watched, served.calibration, {})
    recorder = Recorder(installation.lock_ledger(root))
    bodies = BodyWriter(installation.paths.directory / FOLDER, root.derive("body-cipher"), queries_max=5000)
    retainer = Retainer(bodies)
    try:
        stages = Stages(
            installation, root, directory=directory, watch=watch, journal=recorder, keep=_keep, retainer=retainer
        )
        parts = _Parts(stages, served, source, watch, requests)
        await parts.ask_once()
        found = {"HTTP: read, parsed, answered and written": await parts.http(calls)}
        found |= parts.in_memory(calls)
        found[f"upstream: written, waited for and parsed, {TOGETHER} together"] = await parts.exchange(calls)
        record = Record("answer.given", installation.clock.now(), _CLIENT, served.subject, _DETAILS)
        recorded = await _of_process(partial(recorder.append, [record]), calls)
        found[f"record, and wait for it, {TOGETHER} together"] = recorded
        kept = await _of_process(parts.keeping(retainer), calls)
        found[f"keep the marked query, {TOGETHER} together"] = kept
        return found
    finally:
        await source.close()
        await retainer.close()
        await recorder.close()
        lookup.close()


async def _found(installation: Installation, route: RoutePolicy) -> UpstreamSource:
    made: list[UpstreamSource] = []

    async def found(_: RoutePolicy, source: UpstreamSource) -> None:
        made.append(source)

    discoveries = Discoveries([route], installation.paths.home, found)
    await discoveries.start()
    await discoveries.close()
    return made[0]


async def _keep(_: Iterable[StandingChange]) -> None:
    """Nobody's standing changes here."""


class _Constant(App):
    """Answers everything at once with the same."""

    async def answer(self, arrived: Arrived) -> Response:
        """The answer."""
        return Response(200, SENT, [(b"content-type", JSON), (b"palladion-request", b"0123456789abcdef")])


@dataclass(eq=False)
class _Parts:
    """What a gate is made of, and requests, for each stage to be called many times over."""

    stages: Stages
    served: Served
    source: UpstreamSource
    watch: Watch
    requests: Sequence[bytes]

    def __post_init__(self) -> None:
        self.number = count()
        self.arrived = [_request(raw) for raw in self.requests]
        self.bodies = [raw.partition(b"\r\n\r\n")[2] for raw in self.requests]
        self.asked = [self.served.decode(body, {}) for body in self.bodies]

    async def ask_once(self) -> None:
        """Have an answer of the upstream, that what follows it can be measured."""
        self.target, self.sent = self.source._codec.encode_request(self.asked[0].feeds, 1)
        self.heard = await self.source.upstream.ask(b"POST", self.target, self.sent.headers, self.sent.body)
        outputs = self.source._codec.decode_answer(self.heard.body, self.heard.headers, 1)
        self.outputs = self.served.contract.verify_outputs(outputs, 1)

    async def http(self, calls: int) -> float:
        """A connection's own work, by requests over real ones."""
        app = _Constant(Gate(self.stages), ready=lambda: True)
        config = api_config(app, self.stages.policy.gate, Path())
        state = ServerState()
        make = partial(Connection, config=config, server_state=state, app_state={})
        server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
        options = {
            "port": server.sockets[0].getsockname()[1],
            "requests": [as_text(raw) for raw in self.requests],
            "seconds": calls / 100,
            "connections": 2 * TOGETHER,
            "enough": 50 * calls,
        }
        asking = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.gate_load", "ask", stdin=-1, stdout=-1
        )
        began = time.thread_time()
        out, _ = await asking.communicate(json.dumps(options).encode())
        spent = time.thread_time() - began
        server.close()
        return 1e6 * spent / int(json.loads(out)["requests"])

    def in_memory(self, calls: int) -> dict[str, float]:
        """The stages without a socket and without a thread."""
        served, stages, codec, contract = self.served, self.stages, self.source._codec, self.served.contract
        marks = served.marks
        callers = [stages.identify(request) for request in self.arrived]
        terms = stages.terms(callers[0], served.route, contract)
        if marks is None or terms is None:
            raise RuntimeError("the route of this bench marks its answers")
        described, seed = about(served), Seed.of(bytes(32))
        shown = disclose_to(terms, self.outputs)
        for _ in range(8):
            self._observe(TOGETHER)
        found: dict[str, tuple[Callable[[int], object], int]] = {
            "identify, twice": (lambda at: (stages.identify(self.arrived[at]), stages.identify(self.arrived[at])), 1),
            "admit, reserve and settle": (lambda at: self._admit(callers[at], self.arrived[at]), 1),
            "decode": (lambda at: served.decode(self.bodies[at], {}), 1),
            "the upstream's request encoded": (lambda at: codec.encode_request(self.asked[at].feeds, 1), 1),
            "its answer decoded": (
                lambda _: contract.verify_outputs(codec.decode_answer(self.heard.body, self.heard.headers, 1), 1),
                1,
            ),
            "inputs and scores for the watch": (
                lambda at: (numbers(self.asked[at].feeds, 1), contract.class_scores(self.outputs, 1)),
                1,
            ),
            "observe, alone": (lambda _: self._observe(1), 1),
            f"observe, {TOGETHER} together": (lambda _: self._observe(TOGETHER), TOGETHER),
            "mark": (
                lambda at: marks.mark(self.outputs, numbers(self.asked[at].feeds, 1), callers[at].id, trusted=True),
                1,
            ),
            "disclose": (lambda _: disclose_to(terms, self.outputs), 1),
            "encode": (lambda at: served.protocol.encode(self.asked[at], shown, described), 1),
            "digests of both bodies": (lambda at: _digests(seed, self.bodies[at]), 1),
        }
        return {name: self._each(call, calls // requests + 1) / requests for name, (call, requests) in found.items()}

    async def exchange(self, calls: int) -> float:
        """The upstream's part, without the codec: this thread's time, several at once."""
        ask = partial(self.source.upstream.ask, b"POST", self.target, self.sent.headers, self.sent.body)

        async def work() -> None:
            for _ in range(calls // 4 + 1):
                await ask()

        await asyncio.gather(*(ask() for _ in range(TOGETHER)))
        times = []
        for _ in range(3):
            began = time.thread_time()
            await asyncio.gather(*(work() for _ in range(TOGETHER)))
            times.append((time.thread_time() - began) / (TOGETHER * (calls // 4 + 1)))
        return 1e6 * min(times)

    def keeping(self, retainer: Retainer) -> Callable[[], Awaitable[object]]:
        """What keeps one of the marked queries."""
        marks = self.served.marks
        if marks is None:
            raise RuntimeError("the route of this bench marks its answers")

        marked = [marks.mark(self.outputs, numbers(item.feeds, 1), "bench", trusted=False) for item in self.asked]
        request = "0123456789abcdef"

        def keep() -> Awaitable[object]:
            at = next(self.number) % len(self.asked)
            bodies = marks.bodies(
                marked[at], self.asked[at].feeds, self.outputs, request=request, disclosed="contract", at=time.time()
            )
            return retainer.keep(_CLIENT, self.served.subject, bodies)

        return keep

    def _admit(self, caller: Any, request: Request) -> None:
        stages, route = self.stages, self.served.route
        places = stages.limits.places
        places.enter(caller.id)
        with stages.reserve(caller, route, information=1, begin=False) as held:
            stages.admit(caller, route, 1, address=request.address)
            held.begin()
            held.settle(information=1)
        places.leave(caller.id)

    def _observe(self, together: int) -> None:
        first = next(self.number) * together
        some = []
        for place in range(first, first + together):
            inputs = numbers(self.asked[place % len(self.asked)].feeds, 1)
            asker = Asker(f"client{place % TOGETHER}", f"org{place % TOGETHER}")
            some.append(Asked(asker, inputs, self.served.contract.class_scores(self.outputs, 1)))
        self.watch.observe_all(self.served.watched, some, now=1.0)

    def _each(self, call: Callable[[int], object], calls: int) -> float:
        """Microseconds of one call, which gets the number of a request."""
        times = []
        for _ in range(REPEATS):
            began = time.thread_time()
            for at in range(calls):
                call(at % len(self.requests))
            times.append((time.thread_time() - began) / calls)
        # the least: what others do on the machine is not the stage's
        return 1e6 * min(times)


async def _of_process(work: Callable[[], Awaitable[object]], calls: int) -> float:
    """CPU time of all threads for one of `TOGETHER` that are begun at once."""
    times = []
    for _ in range(max(20, calls // 4)):
        began = time.process_time()
        await asyncio.gather(*(work() for _ in range(TOGETHER)))
        times.append(time.process_time() - began)
    return 1e6 * min(times) / TOGETHER


def _digests(seed: Seed, body: bytes) -> tuple[str, str]:
    salt = seed.salt("0123456789abcdef")
    return salt.digest(body), salt.digest(SENT)


def _request(raw: bytes) -> Request:
    """A request as the gate has it, whose body is not asked for."""
    head = raw.partition(b"\r\n\r\n")[0].split(b"\r\n")
    fields = [line.partition(b": ") for line in head[1:]]
    path = head[0].split(b" ")[1].decode()

    async def nothing() -> bytes:
        return b""

    return Request("POST", path, {name.lower(): value for name, _, value in fields}, nothing, "127.0.0.1")
