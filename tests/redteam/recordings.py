"""Recorded traffic for tests: honest clients and thieves of a small calibrated model, and the gate that they ask."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np

from palladion.clock import ManualClock
from palladion.gate.callers import WATCH, Caller
from palladion.gate.directory import Directory
from palladion.gate.gate import Gate
from palladion.gate.requests import Request
from palladion.gate.served import open_route
from palladion.gate.stages import Stages
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import find_version, open_version
from palladion.model.run import open_session
from palladion.policy import RoutePolicy
from palladion.redteam.answering import Answering, Subject, open_subject, routes_of
from palladion.redteam.replay import Replay, read_roster, replay_all
from palladion.registry import StandingChange
from palladion.watch.calibration import About, calibrate
from palladion.watch.instruments import Episode
from palladion.watch.recorded import Recorded
from palladion.watch.replay import Outcome
from palladion.watch.watch import Watch
from tests.gate.gates import MODEL, House, MemoryJournal, add_calibration
from tests.gate.rolls import Roll
from tests.lifecycle.installations import NOW

SEED = 11
# A calibration on 99 simulated clients supports no rate below one in 100.
WATCHING: Mapping[str, Any] = {
    "alpha_watched": 0.05,
    "alpha_suspected": 0.02,
    "alpha_campaign": 0.04,  # of 60 organisations and two tests, 2 / 61 is the smallest there is
    "degrade_after": 2,
    "suspend_after": 4,
    "simulated_may_enforce": True,
}
ENFORCE = RoutePolicy(model=MODEL, mode="enforce")


def calibrate_house(house: House) -> None:
    """Give version 1 a small calibration, of what it says itself to honest rows."""
    version = find_version(house.installation, MODEL)
    with open_version(house.installation, MODEL) as opened:
        session = open_session(opened.model)
    generator = np.random.default_rng(SEED)

    def episode(common: float = 0.0) -> Episode:
        inputs = (common + generator.standard_normal(4)) * 0.3 + generator.standard_normal((20, 4))
        inputs = inputs.astype(np.float32)
        return Episode(inputs.astype(np.float64), session.run({"x": inputs})["probabilities"].astype(np.float64))

    def organisation() -> list[Episode]:
        common = 0.5 * generator.standard_normal()
        return [episode(common) for _ in range(3)]

    about = About(
        MODEL, 1, version.content_digest, simulated=True, horizon=20, group_horizon=12, seed=SEED, created=NOW
    )
    made = calibrate(
        about,
        [episode() for _ in range(40)],
        [episode() for _ in range(99)],
        [organisation() for _ in range(60)],
        generator,
    )
    add_calibration(house.installation, made)


@dataclass(frozen=True, eq=False)
class Line:
    """One request of a test, `seconds` after `NOW`."""

    seconds: float
    client: str
    inputs: list[list[float]]
    address: str | None = None

    @property
    def at(self) -> float:
        return (NOW + timedelta(seconds=self.seconds)).timestamp()

    def recorded(self, number: int, **more: Any) -> Recorded:
        return Recorded(
            number, self.at, f"{self.client}/{self.client}", np.array(self.inputs), address=self.address, **more
        )

    def text(self) -> bytes:
        line = {"time": self.at, "client": f"{self.client}/{self.client}", "inputs": self.inputs}
        return msgspec.json.encode(line | ({"address": self.address} if self.address else {}))


def traffic(*, requests: int = 60, thief: str = "globex", honest: str = "acme", burst: bool = False) -> list[Line]:
    """An honest client and a thief in turn, now and then with several rows; `burst` asks faster than is allowed."""
    generator = np.random.default_rng(SEED)
    lines = []
    for number in range(requests):
        stolen = number % 2 == 1
        rows = generator.standard_normal((1 + number % 3, 4))
        rows = 9 * np.sign(rows) if stolen else rows
        rows += 0.01 * generator.standard_normal(rows.shape)
        lines.append(Line(number * (0.001 if burst else 60.0), thief if stolen else honest, rows.tolist()))
    return lines


def replayed(
    installation: Installation, requests: Iterable[Recorded], *, enforce: bool = False, model: str = MODEL
) -> Outcome:
    """What a replay under an installation's policy comes to."""
    return replayed_by(installation, open_subject(installation, model), requests, enforce=enforce)


def replayed_by(
    installation: Installation, subject: Subject, requests: Iterable[Recorded], *, enforce: bool = False
) -> Outcome:
    root = installation.open_gate_root()
    run = Replay(installation, root, subject, read_roster(installation, root), installation.policy, enforce=enforce)
    replay_all(requests, Answering(subject, routes_of(installation.policy, MODEL)[0]), [run])
    return run.outcome()


@dataclass(frozen=True)
class Asked:
    """What a gate made of some traffic: its changes of standing in order, and how each request ended."""

    turns: Sequence[tuple[str, str, datetime, str]]  # client, standing, when, why
    ended: Sequence[str]  # the kind of the problem; empty for an answer


def asked(house: House, installation: Installation, lines: Sequence[Line]) -> Asked:
    """The same traffic through a gate in this process, with a watch that is none of a test's."""
    clock = installation.clock
    assert isinstance(clock, ManualClock)
    policy = installation.policy
    directory = Directory(house.root.derive("client-key-pepper"))
    with installation.open_registry() as registry, registry.read() as records:
        clients = [client for client in records.clients.all() if client.revoked_at is None]
        keys = dict(records.clients.credentials())
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    callers = {client.id: Caller(client, "trusted", epoch, WATCH) for client in clients}
    directory.load(Roll(keys, callers))
    watch, journal = Watch(policy.watch), MemoryJournal()
    kept: list[StandingChange] = []

    async def keep(changes: Iterable[StandingChange]) -> None:
        kept.extend(changes)

    stages = Stages(installation, house.root, directory=directory, watch=watch, journal=journal, keep=keep)
    gate = Gate(stages)
    served = {route.route: open_route(installation, route) for route in policy.route}
    gate.serve(served)
    for item in served.values():
        watch.watch_model(item.route.model, item.calibration, {})
    names = {stages.name(client.id): f"{client.organisation}/{client.name}" for client in clients}

    async def ask_all() -> list[str]:
        ended = []
        for line in lines:
            clock.advance(timedelta(seconds=line.at - clock.now().timestamp()))
            body = msgspec.json.encode({"inputs": line.inputs})

            async def read(body: bytes = body) -> bytes:
                return body

            headers = {b"authorization": b"Bearer " + house.keys[line.client].encode()}
            path = next(iter(served.values())).route.route
            ended.append((await gate.handle(Request("POST", path, headers, read, line.address))).problem)
        return ended

    ended = asyncio.run(ask_all())
    turns = [
        (names[record.subject], str(record.details["to"]), record.time, str(record.details["reason"]))
        for record in journal.records
        if record.kind in {"standing.changed", "standing.proposed"}
    ]
    return Asked(turns, ended)
