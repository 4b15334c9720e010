"""Simulated thieves: one account, or a ring that deals one harvest out to many (docs/traffic.md).

Deterministic per generator, as the honest clients of `traffic` are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from palladion.redteam import harvests, hours
from palladion.redteam.harvests import harvest
from palladion.redteam.people import NO_CLASS, ask, stranger
from palladion.redteam.pool import Pool
from palladion.redteam.probes import Labels
from palladion.redteam.styles import apply_style
from palladion.redteam.traffic import SimulatedClient

FAMILIES: Mapping[str, str] = MappingProxyType(harvests.FAMILIES)
"""The families' names, and what each asks in a sentence."""


def thief(
    family: str,
    pool: Pool,
    queries: int,
    generator: np.random.Generator,
    *,
    foreign: NDArray[np.float32] | None = None,
    mix: float = 1.0,
    styled: bool = False,
    after: int = 0,
    labels: Labels | None = None,
    name: str | None = None,
    organisation: str | None = None,
) -> SimulatedClient:
    """One account with `queries` queries, of which the share `mix` (rounded, at least one) is its harvest.

    The others look honest, in the account's own style. `styled` passes the harvest through that style too: without it a
    detector may recognise no more than that the rows were not resampled. `foreign` (m, *input_shape) is what the family
    `foreign` asks, else a synthetic pool. `after` honest queries come before all these. `labels` is what the model
    names, for families that probe (`probes`); of a styled harvest, what it names before the rows are styled. Raises
    ValueError for an unknown family and for parts that do not fit.
    """
    own = name if name is not None else f"{family}-thief"
    names = [(own, organisation if organisation is not None else own)]
    plan = _Plan(family, queries, mix=mix, styled=styled, after=after)
    return _accounts(plan, pool, names, generator, foreign=foreign, labels=labels)[0]


def ring(
    family: str,
    pool: Pool,
    members: int,
    queries_each: int,
    generator: np.random.Generator,
    *,
    mix: float = 1.0,
    foreign: NDArray[np.float32] | None = None,
    styled: bool = False,
    labels: Labels | None = None,
    name: str | None = None,
) -> list[SimulatedClient]:
    """One harvest dealt out to `members` accounts in turn, each account its own organisation with its own cover.

    The accounts are `name`-0, `name`-1 and so on. Arguments, errors and cost are those of as many thieves.
    """
    pool.check_demand(members, queries_each)
    own = name if name is not None else f"{family}-ring"
    names = [(f"{own}-{index}", f"{own}-{index}") for index in range(members)]
    plan = _Plan(family, queries_each, mix=mix, styled=styled, after=0)
    return _accounts(plan, pool, names, generator, foreign=foreign, labels=labels)


@dataclass(frozen=True)
class _Plan:
    """What an account asks: `after` honest queries, then `queries` of which the share `mix` is harvest."""

    family: str
    queries: int
    mix: float
    styled: bool
    after: int


def _accounts(
    plan: _Plan,
    pool: Pool,
    names: list[tuple[str, str]],
    generator: np.random.Generator,
    *,
    foreign: NDArray[np.float32] | None,
    labels: Labels | None,
) -> list[SimulatedClient]:
    """One account per (name, organisation); account k of n asks rows k, k + n, k + 2n … of the harvest, in order."""
    if plan.after < 0:
        raise ValueError(f"a number of honest queries before the others is at least 0, got {plan.after}")
    pool.check_demand(len(names), plan.queries)
    pool.check_demand(len(names), plan.after + plan.queries)
    if not 0 < plan.mix <= 1:
        raise ValueError(f"the mix is a share of attack queries above 0 and up to 1, got {plan.mix}")
    attacks = max(1, round(plan.mix * plan.queries))
    common, *own = generator.spawn(1 + len(names))
    rows = harvest(plan.family, pool, attacks * len(names), foreign, common, labels=labels)
    return [_account(plan, pool, rows[index :: len(names)], own[index], who=who) for index, who in enumerate(names)]


def _account(
    plan: _Plan, pool: Pool, share: NDArray[np.float32], generator: np.random.Generator, *, who: tuple[str, str]
) -> SimulatedClient:
    person, queries = stranger(pool, generator), plan.after + plan.queries
    attack = np.zeros(queries, np.bool_)
    attack[plan.after + generator.permutation(plan.queries)[: len(share)]] = True
    rows = np.empty((queries, pool.flat.shape[1]), np.float32)
    rows[attack] = apply_style(pool, share, person.style, generator) if plan.styled else share
    labels = np.full(queries, NO_CLASS, np.int64)
    if len(share) < queries:
        cover = ask(pool, person, queries - len(share), generator)
        rows[~attack], labels[~attack] = cover.rows, cover.labels
    return SimulatedClient(
        name=who[0],
        organisation=who[1],
        family=plan.family,
        rows=pool.shaped(rows),
        # cover and harvest come from one program: their times do not tell them apart
        at=hours.relentless(queries, person.pace, generator),
        attack=attack,
        labels=labels,
    )
