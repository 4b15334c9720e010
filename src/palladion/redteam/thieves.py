"""Simulated thieves: one account, or a ring that deals one harvest out to many (docs/traffic.md).

Deterministic per generator, as the honest clients of `traffic` are.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from palladion.redteam import hours
from palladion.redteam.harvests import HARVESTS, harvest
from palladion.redteam.people import NO_CLASS, ask, stranger
from palladion.redteam.pool import Pool
from palladion.redteam.styles import apply_style
from palladion.redteam.traffic import SimulatedClient

FAMILIES: Mapping[str, str] = MappingProxyType({name: family.sentence for name, family in HARVESTS.items()})
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
    name: str | None = None,
    organisation: str | None = None,
) -> SimulatedClient:
    """One account with `queries` queries, of which the share `mix` (rounded, at least one) is its harvest.

    The others look honest, in the account's own style. `styled` passes the harvest through that style too: without it a
    detector may recognise no more than that the rows were not resampled. `foreign` (m, *input_shape) is what the family
    `foreign` asks, else a synthetic pool. Raises ValueError for an unknown family and for parts that do not fit.
    """
    own = name if name is not None else f"{family}-thief"
    names = [(own, organisation if organisation is not None else own)]
    return _accounts(family, pool, names, queries, generator, foreign=foreign, mix=mix, styled=styled)[0]


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
    name: str | None = None,
) -> list[SimulatedClient]:
    """One harvest dealt out to `members` accounts in turn, each account its own organisation with its own cover.

    The accounts are `name`-0, `name`-1 and so on. Arguments, errors and cost are those of as many thieves.
    """
    pool.check_demand(members, queries_each)
    own = name if name is not None else f"{family}-ring"
    names = [(f"{own}-{index}", f"{own}-{index}") for index in range(members)]
    return _accounts(family, pool, names, queries_each, generator, foreign=foreign, mix=mix, styled=styled)


def _accounts(
    family: str,
    pool: Pool,
    names: list[tuple[str, str]],
    queries: int,
    generator: np.random.Generator,
    *,
    foreign: NDArray[np.float32] | None,
    mix: float,
    styled: bool,
) -> list[SimulatedClient]:
    """One account per (name, organisation); account k of n asks rows k, k + n, k + 2n … of the harvest, in order."""
    pool.check_demand(len(names), queries)
    if not 0 < mix <= 1:
        raise ValueError(f"the mix is a share of attack queries above 0 and up to 1, got {mix}")
    attacks = max(1, round(mix * queries))
    common, *own = generator.spawn(1 + len(names))
    rows = harvest(family, pool, attacks * len(names), foreign, common)
    return [
        _account(family, pool, rows[index :: len(names)], queries, own[index], who=who, styled=styled)
        for index, who in enumerate(names)
    ]


def _account(
    family: str,
    pool: Pool,
    share: NDArray[np.float32],
    queries: int,
    generator: np.random.Generator,
    *,
    who: tuple[str, str],
    styled: bool,
) -> SimulatedClient:
    person = stranger(pool, generator)
    attack = np.zeros(queries, np.bool_)
    attack[generator.permutation(queries)[: len(share)]] = True
    rows = np.empty((queries, pool.flat.shape[1]), np.float32)
    rows[attack] = apply_style(pool, share, person.style, generator) if styled else share
    labels = np.full(queries, NO_CLASS, np.int64)
    if len(share) < queries:
        cover = ask(pool, person, queries - len(share), generator)
        rows[~attack], labels[~attack] = cover.rows, cover.labels
    return SimulatedClient(
        name=who[0],
        organisation=who[1],
        family=family,
        rows=pool.shaped(rows),
        # cover and harvest come from one program: their times do not tell them apart
        at=hours.relentless(queries, person.pace, generator),
        attack=attack,
        labels=labels,
    )
