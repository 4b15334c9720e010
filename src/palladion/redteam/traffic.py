"""Simulated honest traffic: clients that differ, alone or in organisations (docs/traffic.md).

Deterministic per generator: each call spawns one of its own from it, so that what else is drawn or called before the
last client is taken changes nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palladion.redteam.people import Organisation, Person, ask, stranger
from palladion.redteam.pool import Pool

__all__ = ["HONEST", "Pool", "SimulatedClient", "honest_clients", "honest_organisations"]

HONEST = "honest"


@dataclass(frozen=True, eq=False)
class SimulatedClient:
    """What one client asks, and when."""

    name: str
    organisation: str
    family: str  # HONEST, or a family of thieves
    rows: NDArray[np.float32]  # (t, *input_shape), in order of asking
    at: NDArray[np.float64]  # (t,) seconds since the start of the simulation, a Monday 00:00; ascending
    attack: NDArray[np.bool_]  # (t,) which rows belong to the harvest; all False for honest clients
    labels: NDArray[np.int64]  # (t,) true class of honest rows; NO_CLASS for junk and for the harvest


def honest_clients(pool: Pool, count: int, queries: int, generator: np.random.Generator) -> Iterator[SimulatedClient]:
    """Clients with `queries` queries each, every one alone in an organisation of its name.

    They are independent and identically distributed: the exchangeable case. Raises ValueError for a count below 1.
    """
    pool.check_demand(1, queries)
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    (own,) = generator.spawn(1)
    return _clients(pool, count, queries, own)


def honest_organisations(
    pool: Pool, count: int, members: int, queries: int, generator: np.random.Generator, *, correlation: float
) -> Iterator[list[SimulatedClient]]:
    """Organisations of `members` clients whose styles, class mixes and habits share `correlation` of their variance.

    Raises ValueError for a count below 1 or a correlation outside 0 to 1.
    """
    pool.check_demand(members, queries)
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if not 0 <= correlation <= 1:
        raise ValueError(f"the correlation lies between 0 and 1, got {correlation}")
    (own,) = generator.spawn(1)
    return _organisations(pool, count, members, queries, own, correlation=correlation)


def _clients(pool: Pool, count: int, queries: int, generator: np.random.Generator) -> Iterator[SimulatedClient]:
    for index in range(count):
        name = f"honest-{index}"
        yield _client(pool, stranger(pool, generator), queries, generator, name=name, organisation=name)


def _organisations(
    pool: Pool, count: int, members: int, queries: int, generator: np.random.Generator, *, correlation: float
) -> Iterator[list[SimulatedClient]]:
    for index in range(count):
        name = f"organisation-{index}"
        organisation = Organisation(pool, correlation, generator)
        yield [
            _client(pool, organisation.member(), queries, generator, name=f"{name}-member-{member}", organisation=name)
            for member in range(members)
        ]


def _client(
    pool: Pool, person: Person, queries: int, generator: np.random.Generator, *, name: str, organisation: str
) -> SimulatedClient:
    asked = ask(pool, person, queries, generator)
    return SimulatedClient(
        name=name,
        organisation=organisation,
        family=HONEST,
        rows=pool.shaped(asked.rows),
        at=person.times(queries, generator),
        attack=np.zeros(queries, np.bool_),
        labels=asked.labels,
    )
