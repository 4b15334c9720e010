"""Whole stories in simulated time: who is disturbed, who falls, in which steps, and who gets up again."""

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import numpy as np
import pytest

from palladion.policy import RoutePolicy
from palladion.redteam.thieves import ring, thief
from palladion.redteam.traffic import SimulatedClient, honest_clients
from palladion.watch.response import rank
from tests.gate.gates import MODEL, House

from .simulation import HORIZON, ROWS_AT_ONCE, Simulation

SEED = 2


def _honest(simulation: Simulation, count: int) -> list[SimulatedClient]:
    return list(honest_clients(simulation.pool, count, HORIZON, simulation.generator))


def _thief(simulation: Simulation) -> SimulatedClient:
    return thief("noise", simulation.pool, HORIZON, simulation.generator)


@pytest.mark.slow
def test_a_thief_among_honest_clients_falls_and_nobody_else_is_disturbed(house: House) -> None:
    simulation = Simulation(house, SEED)
    honest, stolen = _honest(simulation, 12), _thief(simulation)
    outcomes = simulation.run([*honest, stolen])
    for client in honest:
        assert set(outcomes[client.name].statuses) == {200}, (client.name, simulation.seed)
        assert rank(simulation.standing(client.name)) <= rank("watched"), (client.name, simulation.seed)
    standings = outcomes[stolen.name].standings
    assert standings[-1] == "suspended", simulation.seed
    assert [rank(standing) for standing in standings] == sorted(rank(standing) for standing in standings)
    # from then on nothing: each request is refused, and costs the model nothing
    fell = standings.index("suspended")
    assert set(outcomes[stolen.name].statuses[:fell]) == {200}
    assert set(outcomes[stolen.name].statuses[fell:]) == {403}


@pytest.mark.slow
def test_every_step_down_is_recorded_once_before_it_is_written(house: House) -> None:
    simulation = Simulation(house, SEED)
    stolen = _thief(simulation)
    simulation.run([stolen])
    name = simulation.bench.gate.stages.name(stolen.name)
    recorded = [
        (record.details["from"], record.details["to"])
        for record in simulation.bench.journal.records
        if record.kind == "standing.changed" and record.subject == name
    ]
    steps = simulation.changes(stolen.name)
    assert steps[-1] == "suspended"
    assert recorded == list(zip(["trusted", *steps[:-1]], steps, strict=True))


@pytest.mark.slow
def test_a_route_that_observes_withholds_nothing_and_says_what_it_would_have_done(house: House) -> None:
    simulation = Simulation(house, SEED, route=RoutePolicy(model=MODEL, mode="observe"))
    stolen = _thief(simulation)
    outcome = simulation.run([stolen])[stolen.name]
    assert set(outcome.statuses) == {200}
    assert simulation.standing(stolen.name) == "trusted"
    proposed = [item.details["to"] for item in simulation.bench.journal.records if item.kind == "standing.proposed"]
    assert proposed[-1] == "suspended"
    assert [rank(standing) for standing in proposed] == sorted({rank(standing) for standing in proposed})
    assert simulation.bench.kept == []


@pytest.mark.slow
def test_both_kinds_of_route_see_the_same_evidence(house: House) -> None:
    def p_values(mode: str) -> list[str]:
        route = RoutePolicy(model=MODEL, mode="observe" if mode == "observe" else "enforce")
        simulation = Simulation(house, SEED, route=route)
        simulation.run([*_honest(simulation, 3), _thief(simulation)])
        records = simulation.bench.journal.records
        return [record.details["p_value"] for record in records if record.kind == "answer.given"]

    observed, enforced = p_values("observe"), p_values("enforce")
    # the suspended ask in vain, so there are fewer of them; what there is, is the same in the same order
    iterator = iter(observed)
    assert all(value in iterator for value in enforced)
    assert len(enforced) < len(observed)


def test_a_simulated_calibration_alone_stops_at_watched(house: House) -> None:
    simulation = Simulation(house, SEED, simulated_may_enforce=False)
    stolen = _thief(simulation)
    outcome = simulation.run([stolen])[stolen.name]
    assert set(outcome.statuses) == {200}
    assert simulation.changes(stolen.name) == ["watched"]


def test_accounts_of_one_address_fall_together_though_each_asks_little(house: House) -> None:
    simulation = Simulation(house, SEED)
    accounts = ring("noise", simulation.pool, 6, 16, simulation.generator)
    simulation.run(accounts, address="127.0.0.9")
    standings = {account.name: simulation.standing(account.name) for account in accounts}
    assert all(rank(standing) >= rank("degraded") for standing in standings.values()), (standings, simulation.seed)


def _at(client: SimulatedClient, hours: float, name: str) -> SimulatedClient:
    """A client's queries, all in the minute after a moment, asked by `name`."""
    count = len(client.rows)
    return replace(client, name=name, organisation=name, at=3600 * hours + np.linspace(0, 60, count))


def test_who_behaves_again_is_raised_step_by_step_each_after_a_day(house: House) -> None:
    simulation = Simulation(house, SEED, suspend_after=1_000_000)
    odd = _thief(simulation)
    simulation.run([_at(odd, 0, "acme")])
    assert simulation.standing("acme") == "degraded"
    for day in range(8):
        # the pool as it is: nobody is more honest
        rows = simulation.pool.rows[day * HORIZON : (day + 1) * HORIZON]
        simulation.run([_at(replace(odd, rows=rows), 2 + 25 * day, "acme")])
    assert simulation.standing("acme") == "trusted", simulation.seed
    raised = [change for change in simulation.bench.kept if change.reason.startswith("nothing suspicious")]
    assert [change.standing for change in raised] == ["throttled", "watched", "trusted"]
    assert min(later.at - earlier.at for earlier, later in pairwise(raised)) >= timedelta(hours=24)


def test_the_same_seed_tells_the_same_story(house: House) -> None:
    def story() -> list[tuple[str, str, str]]:
        simulation = Simulation(house, SEED)
        simulation.run([*_honest(simulation, 3), _thief(simulation)])
        return [(item.kind, item.subject, str(item.time)) for item in simulation.bench.journal.records]

    assert story() == story()


@pytest.mark.parametrize("hours", [-5, -0.1])
def test_a_clock_that_is_set_back_locks_nobody_out_and_forgives_nobody(house: House, hours: float) -> None:
    simulation = Simulation(house, SEED, suspend_after=1_000_000)
    simulation.run([_at(_thief(simulation), 10, "acme")])
    before = simulation.standing("acme")
    simulation.bench.clock.advance(timedelta(hours=hours))
    outcome = simulation.run([_at(_honest(simulation, 1)[0], 10 + hours, "acme")])["acme"]
    assert outcome.statuses == [200] * (HORIZON // ROWS_AT_ONCE)
    assert simulation.standing("acme") == before == "degraded"
