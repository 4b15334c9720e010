"""Gates for tests: an installation that is made once, and over it as many gates as wanted, asked without a transport.

Nothing here waits for a clock: time is a `ManualClock`, the journal is a list, and the watch says what it is told.
"""

import asyncio
import math
import shutil
from collections.abc import Awaitable, Callable, Iterable, KeysView, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from palladion import files
from palladion.clock import ManualClock
from palladion.errors import PalladionError
from palladion.gate import deadlines
from palladion.gate.directory import Directory
from palladion.gate.gate import Gate
from palladion.gate.requests import Request, Response
from palladion.gate.served import Served, open_route
from palladion.gate.sources.embedded import Embedded
from palladion.gate.stages import Stages
from palladion.keys import Root
from palladion.ledger import merkle
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt, encode_batch
from palladion.lifecycle.clients import add_client
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.protect import protect
from palladion.model.run import Session
from palladion.policy import Policy, RoutePolicy, WatchPolicy
from palladion.registry import CalibrationRow, StandingChange
from palladion.registry.rows import Standing
from palladion.watch.calibration import About, Calibration, calibrate
from palladion.watch.calibration_file import encode_calibration
from palladion.watch.instruments import Episode
from palladion.watch.response import Evidence, Verdict
from palladion.watch.watch import AnyAsked, Asker, Observation, Watch
from tests.gate.rolls import Roll, read_roll
from tests.lifecycle.installations import ACTOR, NOW, make
from tests.models import onnx_bytes, write

MODEL, OTHER_MODEL = "fraud", "spam"
PATH = f"/v1/models/{MODEL}/predict"
ROW = [0.5, -1.0, 2.0, 0.25]
TRUSTED = Verdict("trusted", None, "nothing unusual")
JOURNAL_ORIGIN = "ledger.example/gate"


@dataclass(frozen=True, eq=False)
class House:
    """An installation with versions 1 (promoted) and 2 of a model, another model, and clients by name.

    acme and globex may ask everything and are in organisations of their own, initech may ask the other model alone,
    brief's key expires an hour after `NOW`.
    """

    installation: Installation
    root: Root
    ids: Mapping[str, str]
    keys: Mapping[str, str]

    def copy(self, folder: Path) -> "House":
        """The same in a folder of its own, for tests that write to it."""
        home = folder / "home"
        shutil.copytree(self.installation.paths.home, home)
        return replace(self, installation=Installation.find(home, ManualClock(NOW), exact=True))

    def with_policy(self, *routes: RoutePolicy, **sections: Mapping[str, Any]) -> Installation:
        """Its installation under another policy: `routes`, and for each section the settings that differ."""
        policy: Policy = self.installation.policy
        changed = {name: msgspec.structs.replace(getattr(policy, name), **new) for name, new in sections.items()}
        policy = msgspec.structs.replace(policy, route=routes or (RoutePolicy(model=MODEL),), **changed)
        return Installation(self.installation.paths, policy, ManualClock(NOW))


def make_house(folder: Path) -> House:
    """Takes a second: make it once for many tests."""
    made = make(folder)
    for seed, model in ((1, MODEL), (2, MODEL), (3, OTHER_MODEL)):
        path = write(folder / f"{seed}.onnx", onnx_bytes(seed))
        protect(made.installation, made.owner, path, model, actor=ACTOR)
    ids, keys = {}, {}
    hour = NOW + timedelta(hours=1)
    for name, models, expires in (
        ("acme", [], None),
        ("globex", [], None),
        ("initech", [OTHER_MODEL], None),
        ("brief", [], hour),
    ):
        client, key, _ = add_client(
            made.installation, name, name, models=models, environment="test", expires=expires, actor=ACTOR
        )
        ids[name], keys[name] = client.id, key.text
    return House(made.installation, made.installation.open_gate_root(), ids, keys)


class MemoryJournal:
    """A journal that is a list. `error` makes it fail; `before` is awaited before each append."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.sizes: list[int] = []
        self.error: Exception | None = None
        self.before: Callable[[], Awaitable[object]] | None = None

    async def append(self, records: Sequence[Record]) -> list[Receipt]:
        if self.before is not None:
            await self.before()
        if self.error is not None:
            raise self.error
        entries = encode_batch(records)
        first = len(self.records)
        self.records += records
        self.sizes.append(len(records))
        return [Receipt(JOURNAL_ORIGIN, first + i, merkle.leaf_hash(entry)) for i, entry in enumerate(entries)]


class ScriptedWatch(Watch):
    """A watch that says what it is told, and remembers what it was asked."""

    def __init__(self, policy: WatchPolicy) -> None:
        super().__init__(policy)
        self.verdict = TRUSTED
        self.p_value: float | None = None
        self.quiet_hours = float("inf")
        self.linked: frozenset[str] = frozenset()
        self.asked: list[tuple[Asker, str, int]] = []
        self.forgiven: list[str] = []

    def observe_all(self, model: str, asked: Sequence[AnyAsked], *, now: float) -> list[Observation]:
        self.asked += [(item.asker, model, len(item)) for item in asked]
        evidence = Evidence(p_value=1.0 if self.p_value is None else self.p_value)
        calibrated = self.p_value is not None
        return [Observation(evidence, self.verdict, len(item), 0, self.quiet_hours, calibrated) for item in asked]

    def members(self, client: str, model: str) -> KeysView[str]:
        return dict.fromkeys([*self.linked, client]).keys()

    def forgive(self, client: str) -> None:
        self.forgiven.append(client)


@dataclass(eq=False)
class Bench:
    """A gate and everything that a test wants to look at or turn."""

    house: House
    gate: Gate
    clock: ManualClock
    journal: MemoryJournal
    watch: ScriptedWatch
    kept: list[StandingChange] = field(default_factory=list)

    def request(
        self,
        rows: object = (ROW,),
        *,
        client: str = "acme",
        method: str = "POST",
        path: str = PATH,
        headers: Mapping[bytes, bytes] | None = None,
        body: bytes | Callable[[], Awaitable[bytes]] | None = None,
        address: str | None = None,
    ) -> Request:
        """A request that is right unless a test changes something; `headers` replace all."""
        if headers is None:
            headers = {b"authorization": b"Bearer " + self.house.keys[client].encode()}
        data = msgspec.json.encode({"inputs": rows}) if body is None else body

        async def read() -> bytes:
            return data if isinstance(data, bytes) else await data()

        return Request(method, path, headers, read, address)

    def ask(self, rows: object = (ROW,), **changes: Any) -> Response:
        """The answer to one request."""
        return asyncio.run(self.gate.handle(self.request(rows, **changes)))

    def ask_all(self, requests: Iterable[Request]) -> list[Response]:
        """The answers to requests that come at once."""

        async def together() -> list[Response]:
            return list(await asyncio.gather(*map(self.gate.handle, requests)))

        return asyncio.run(together())

    def put(self, standing: Standing, *, client: str = "acme", actor: str = "user:test") -> None:
        """Let a client stand so from now on."""
        change = StandingChange(self.house.ids[client], standing, "for the test", actor, self.clock.now())
        self.gate.stages.directory.change(change)

    def standing(self, client: str = "acme") -> Standing:
        """How a client stands."""
        return self.gate.stages.directory.callers[self.house.ids[client]].standing

    def change_served(self, **changes: Any) -> Served:
        """Serve the route with something else in it."""
        (path,) = self.gate.served
        changed = replace(self.gate.served[path], **changes)
        self.gate.serve({path: changed})
        return changed

    @property
    def kinds(self) -> list[str]:
        """The kinds of the records so far."""
        return [record.kind for record in self.journal.records]


def open_gate(house: House, *routes: RoutePolicy, **sections: Mapping[str, Any]) -> Bench:
    """A gate over a house: one enforcing route unless others are given."""
    installation = house.with_policy(*(routes or (RoutePolicy(model=MODEL, mode="enforce"),)), **sections)
    directory = Directory(house.root.derive("client-key-pepper"))
    directory.load(_roll(house))
    watch, journal, kept = ScriptedWatch(installation.policy.watch), MemoryJournal(), list[StandingChange]()

    async def keep(changes: Iterable[StandingChange]) -> None:
        kept.extend(changes)

    stages = Stages(installation, house.root, directory=directory, watch=watch, journal=journal, keep=keep)
    gate = Gate(stages)
    gate.serve({route.route: _served(house, route) for route in installation.policy.route})
    clock = installation.clock
    assert isinstance(clock, ManualClock)
    return Bench(house, gate, clock, journal, watch, kept)


@cache
def _served(house: House, route: RoutePolicy) -> Served:
    return open_route(house.installation, route)


@cache
def _roll(house: House) -> Roll:
    with house.installation.open_registry() as registry, registry.read() as records:
        return read_roll(records)


class Deadlines:
    """Every deadline and `asyncio.timeout` from now on ends when the test says so, and never by itself."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds: list[float | None] = []
        self._timeouts: list[asyncio.Timeout] = []
        self._deadlines: list[deadlines.Deadline] = []
        self._timeout, within = asyncio.timeout, deadlines.Deadlines.within

        def begin(real: deadlines.Deadlines, seconds: float) -> deadlines.Deadline:
            self.seconds.append(seconds)
            self._deadlines.append(within(real, math.inf))
            return self._deadlines[-1]

        monkeypatch.setattr(asyncio, "timeout", self._begin)
        monkeypatch.setattr(deadlines.Deadlines, "within", begin)

    def _begin(self, seconds: float | None) -> asyncio.Timeout:
        self.seconds.append(seconds)
        self._timeouts.append(self._timeout(None))
        return self._timeouts[-1]

    def pass_by(self) -> None:
        """All that have begun are over."""
        for timeout in self._timeouts:
            timeout.reschedule(asyncio.get_running_loop().time())
        for deadline in self._deadlines:
            deadline.expire()
        self._timeouts.clear()
        self._deadlines.clear()


class StubSession(Session):
    """A model that does what a test says; inputs and outputs are those of a real one."""

    def __init__(self, like: Session, answer: Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]) -> None:
        super().__init__(None, like.inputs, like.outputs)
        self._answer = answer

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return self._answer(feeds)


def session_of(served: Served) -> Session:
    """The model of a route that runs here."""
    assert isinstance(served.source, Embedded)
    return served.source.session


def stub(bench: Bench, answer: Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]) -> Embedded:
    """The source of a gate's only route, with a model that does what a test says."""
    (served,) = bench.gate.served.values()
    return Embedded(StubSession(session_of(served), answer), threads=2)


def failing(error: PalladionError | ValueError) -> Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]:
    """A model that fails."""

    def fail(_: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        raise error

    return fail


def tiny_calibration(content: str = "0" * 64, *, width: int = 4, seed: int = 1) -> Calibration:
    """A real calibration on normal rows: too small to be of use, large enough to be one."""
    generator = np.random.default_rng(seed)

    def episode() -> Episode:
        inputs = generator.standard_normal((16, width))
        scores = np.exp(inputs @ np.ones((width, 3)))
        return Episode(inputs, scores / scores.sum(axis=1, keepdims=True))

    about = About(MODEL, 1, content, simulated=True, horizon=16, group_horizon=16, seed=seed, created=NOW)
    organisations = [[episode(), episode()] for _ in range(20)]
    return calibrate(about, [episode() for _ in range(20)], [episode() for _ in range(40)], organisations, generator)


def add_calibration(installation: Installation, calibration: Calibration) -> CalibrationRow:
    """Register a calibration of version 1 of a model, and write its file."""
    data = encode_calibration(calibration)
    digest = sha256(data).hexdigest()
    path = f"{calibration.about.model}/{digest[:12]}.safetensors"
    target = installation.paths.directory / "calibrations" / path
    files.make_private_directory(target.parent)
    files.write_atomically(target, data)
    about = calibration.about
    with installation.open_registry() as registry, registry.write() as records:
        return records.calibrations.add(
            about.model, about.version, path=path, digest=digest, simulated=about.simulated, clients=about.clients
        )


def answer(response: Response) -> dict[str, Any]:
    """The body of an answer or a problem."""
    document: dict[str, Any] = msgspec.json.decode(response.body)
    return document


def problem(response: Response) -> str:
    """The kind of a problem."""
    return str(answer(response)["type"]).removeprefix("urn:palladion:problem:")


def header(response: Response, name: bytes) -> bytes | None:
    """One header of a response."""
    return dict(response.headers).get(name)


def at(hours: float) -> datetime:
    """A moment after the beginning of every test."""
    return NOW + timedelta(hours=hours)
