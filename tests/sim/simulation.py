"""Simulated clients before a real gate with its real watch, in simulated time: no process, no network, no waiting.

Everything follows from the seed; a test that fails names it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from palladion.access.identity import hash_api_key, new_api_key
from palladion.gate.callers import Caller
from palladion.gate.requests import Request, Response
from palladion.gate.served import Served
from palladion.policy import RoutePolicy
from palladion.redteam.pool import Pool
from palladion.redteam.traffic import SimulatedClient, honest_clients, honest_organisations
from palladion.registry import Client, ClientKey
from palladion.registry.rows import Standing
from palladion.watch.calibration import MEMBER_SIZES, About, Calibration, calibrate
from palladion.watch.instruments import Episode
from palladion.watch.watch import Watch
from tests.gate.gates import MODEL, PATH, House, open_gate, session_of
from tests.gate.rolls import Roll
from tests.lifecycle.installations import NOW

HORIZON = 48
ROWS_AT_ONCE = 4
# Rates that so few clients support. Nothing here measures detection: docs/watch.md does, on real data.
WATCH_POLICY = {
    "alpha_watched": 0.04,
    "alpha_suspected": 0.02,
    "alpha_campaign": 0.05,
    "degrade_after": 4,
    "suspend_after": 8,
    "simulated_may_enforce": True,
    "recover_hours": 24,
}


@dataclass
class Outcome:
    """What became of one client: the standing after each of its requests, and what it was answered."""

    statuses: list[int] = field(default_factory=list)
    standings: list[Standing] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)


class Simulation:
    """A gate over the house's model, calibrated, and the clients that will ask it; `generator` is for these."""

    def __init__(self, house: House, seed: int, *, route: RoutePolicy | None = None, **watch: Any) -> None:
        self.seed = seed
        self.generator = np.random.default_rng(seed)
        self.bench = open_gate(
            house,
            route or RoutePolicy(model=MODEL, mode="enforce"),
            watch={**WATCH_POLICY, **watch},
            limits={"queries_per_second": 1e6, "burst": 1_000_000},
        )
        served = self.bench.gate.served[PATH]
        self.pool = _pool(served)
        self._keys: dict[str, str] = {}
        calibration = _calibrate(served)
        self.bench.change_served(calibration=calibration)
        self.bench.gate.stages.watch = Watch(self.bench.gate.stages.policy.watch)
        self.bench.gate.stages.watch.watch_model(MODEL, calibration, {})

    def run(self, clients: Sequence[SimulatedClient], *, address: str | None = None) -> dict[str, Outcome]:
        """Let all clients ask, each at its own times, a few rows at once; all from `address` if there is one."""
        self._register(clients)
        return asyncio.run(self._run(clients, address))

    def standing(self, name: str) -> Standing:
        """How a client stands now."""
        return self.bench.gate.stages.directory.callers[name].standing

    def changes(self, name: str) -> list[Standing]:
        """Every standing that a client was put into, in order, as the registry would have it."""
        return [change.standing for change in self.bench.kept if change.client == name]

    async def _run(self, clients: Sequence[SimulatedClient], address: str | None) -> dict[str, Outcome]:
        outcomes = {client.name: Outcome() for client in clients}
        turns = sorted(
            (float(client.at[start]), number, start)
            for number, client in enumerate(clients)
            for start in range(0, len(client.rows), ROWS_AT_ONCE)
        )
        for seconds, number, start in turns:
            client = clients[number]
            self.bench.clock.advance(NOW + timedelta(seconds=seconds) - self.bench.clock.now())
            response = await self._ask(client.name, client.rows[start : start + ROWS_AT_ONCE], address)
            outcome = outcomes[client.name]
            outcome.statuses.append(response.status)
            outcome.standings.append(self.standing(client.name))
            outcome.bodies.append(response.body)
        return outcomes

    async def _ask(self, client: str, rows: NDArray[np.float32], address: str | None) -> Response:
        body = msgspec.json.encode({"inputs": rows.tolist()})

        async def read() -> bytes:
            return body

        headers = {b"x-api-key": self._keys[client].encode()}
        return await self.bench.gate.handle(Request("POST", PATH, headers, read, address))

    def _register(self, clients: Sequence[SimulatedClient]) -> None:
        """Let them in, without a registry: each by its name as id."""
        directory, pepper = self.bench.gate.stages.directory, self.bench.house.root.derive("client-key-pepper")
        callers, keys = dict(directory.callers), dict(directory._keys)
        for client in clients:
            if client.name in callers:
                continue
            key = new_api_key("test")
            self._keys[client.name] = key.text
            row = Client(client.name, client.organisation, client.name, (), "trusted", NOW, None)
            callers[client.name] = Caller(row, "trusted", NOW, "user:test")
            keys[hash_api_key(pepper, key)] = ClientKey(key.text[:16], client.name, NOW, None, None)
        directory.load(Roll(keys, callers))


@cache
def _pool(served: Served) -> Pool:
    """Rows of four correlated measurements, labelled as the model labels them; the same for every seed."""
    generator = np.random.default_rng(7)
    rows = (generator.standard_normal((600, 4)) @ generator.standard_normal((4, 4))).astype(np.float32)
    labels = session_of(served).run({"x": rows})["probabilities"].argmax(axis=1).astype(np.int64)
    return Pool(rows, labels)


@cache
def _calibrate(served: Served) -> Calibration:
    """A calibration on honest clients over that pool; made once, because it takes a second."""
    pool, generator = _pool(served), np.random.default_rng(11)

    def episode(client: SimulatedClient) -> Episode:
        outputs = session_of(served).run({"x": client.rows})
        scores = served.contract.class_scores(outputs, len(client.rows))
        return Episode(client.rows.astype(np.float64), scores)

    clients = [episode(client) for client in honest_clients(pool, 140, HORIZON, generator)]
    groups = honest_organisations(pool, 30, max(MEMBER_SIZES), 16, generator, correlation=0.2)
    organisations = [[episode(client) for client in members] for members in groups]
    about = About(MODEL, 1, "0" * 64, simulated=True, horizon=HORIZON, group_horizon=16, seed=11, created=NOW)
    return calibrate(about, clients[:40], clients[40:], organisations, generator)
