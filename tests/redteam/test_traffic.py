"""Honest traffic as a whole: reproducible, of the right form, and of clients that differ."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.redteam import harvests, hours, people, pictures, probes, styles
from palladion.redteam.pool import VALUES_MAX, Pool
from palladion.redteam.thieves import FAMILIES, thief
from palladion.redteam.traffic import SimulatedClient, honest_clients, honest_organisations
from tests.redteam import pools

SEED = 31
PICTURES, TABLE, NORMAL = pools.pictures(), pools.table(), pools.normal_table(columns=40)
# of one class, so that class mixes play no part
ONE_CLASS = Pool(PICTURES.rows[::4], PICTURES.labels[::4], PICTURES.image)
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "traffic.md").read_text(encoding="utf-8")
# What the page leaves out: sizes of arrays and of calendars.
UNSTATED = {"VALUES_AT_ONCE", "PIXELS_AT_ONCE", "PICTURE_LATENTS", "TRAITS", "THIRD_OF_NORMAL"} | {
    "HOUR_S", "DAY_S", "WORKDAYS", "WEEK_DAYS",
}  # fmt: skip
SIMULATED = PAGE.partition("\n## Recorded traffic")[0]  # what follows is of other things
ROUNDS = 199  # permutations: the smallest p-value is 1 in 200


def simulate(pool: Pool, count: int = 6, queries: int = 32, seed: int = SEED) -> list[SimulatedClient]:
    return list(honest_clients(pool, count, queries, np.random.default_rng(seed)))


def spread(groups: NDArray[np.float32]) -> float:
    """How far the means of groups (groups, members, columns) lie apart."""
    return float(groups.mean(axis=1).var(axis=0).sum())


def permutation_p(groups: NDArray[np.float32]) -> float:
    """p-value of the null hypothesis that the groups' members could be dealt out anew."""
    generator = np.random.default_rng(SEED)
    flat = groups.reshape(-1, groups.shape[2])
    dealt = [spread(generator.permutation(flat).reshape(groups.shape)) for _ in range(ROUNDS)]
    return (1 + sum(other >= spread(groups) for other in dealt)) / (ROUNDS + 1)


@pytest.mark.parametrize("pool", [PICTURES, TABLE], ids=["pictures", "table"])
def test_the_seed_decides_everything(pool: Pool) -> None:
    first, again, other = simulate(pool), simulate(pool), simulate(pool, seed=SEED + 1)

    for one, two, different in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one.rows, two.rows)
        np.testing.assert_array_equal(one.at, two.at)
        assert (one.rows != different.rows).any()
        assert (one.at != different.at).any()


def test_what_is_drawn_and_spawned_between_two_clients_changes_nothing() -> None:
    generator = np.random.default_rng(SEED)
    disturbed = []
    for client in honest_clients(PICTURES, 6, 32, generator):
        disturbed.append(client)
        generator.random(17)
        thief("noise", PICTURES, 3, generator)

    for one, two in zip(simulate(PICTURES), disturbed, strict=True):
        np.testing.assert_array_equal(one.rows, two.rows)


@pytest.mark.parametrize(
    "pool", [PICTURES, pools.pictures(side=12, channels=3), TABLE], ids=["grey", "colour", "table"]
)
def test_a_client_has_the_models_form_and_the_pools_range(pool: Pool) -> None:
    for client in simulate(pool, count=20):
        assert client.rows.shape == (32, *pool.rows.shape[1:])
        assert client.rows.dtype == np.float32
        flat = client.rows.reshape(32, -1)
        np.testing.assert_array_equal(pool.admit(flat), flat)
        assert client.at.shape == client.attack.shape == (32,)
        assert (np.diff(client.at) >= 0).all()
        assert client.at[0] >= 0
        assert client.family == "honest"
        assert not client.attack.any()


def test_clients_and_organisations_have_names_of_their_own() -> None:
    alone = simulate(PICTURES)
    groups = list(honest_organisations(PICTURES, 3, 2, 4, np.random.default_rng(SEED), correlation=0.3))

    everyone = [*alone, *(member for group in groups for member in group)]
    assert len({client.name for client in everyone}) == 12
    assert [len({member.organisation for member in group}) for group in groups] == [1, 1, 1]
    assert len({client.organisation for client in everyone}) == 9


def test_a_client_may_ask_once() -> None:
    (client,) = simulate(TABLE, count=1, queries=1)

    assert client.rows.shape == (1, 7)


def test_pictures_are_the_same_flat_or_not() -> None:
    flat, shaped = simulate(pools.pictures(flat=True)), simulate(PICTURES)

    for one, two in zip(flat, shaped, strict=True):
        assert one.rows.shape == (32, 64)
        np.testing.assert_array_equal(one.rows.reshape(two.rows.shape), two.rows)


@pytest.mark.parametrize("pool", [ONE_CLASS, pools.normal_table(classes=1)], ids=["pictures", "table"])
def test_clients_differ_in_style(pool: Pool) -> None:
    groups = np.stack([client.rows.reshape(32, -1) for client in simulate(pool, count=30)])

    p = permutation_p(groups)
    assert p <= 0.005, f"seed {SEED}: p = {p}, 30 clients of 32 queries, null: one style"


def test_clients_differ_in_class_mix() -> None:
    labels = np.stack([client.rows[:, :1] for client in simulate(TABLE, count=30)])

    p = permutation_p((labels == 1).astype(np.float32))
    assert p <= 0.005, f"seed {SEED}: p = {p}, 30 clients of 32 queries, null: one class mix"


@pytest.mark.slow
@pytest.mark.parametrize("pool", [ONE_CLASS, pools.normal_table(columns=5)], ids=["pictures", "table"])
def test_members_of_a_correlated_organisation_are_more_alike_than_strangers(pool: Pool) -> None:
    p = {}
    for correlation in (0.0, 0.3):
        groups = honest_organisations(pool, 60, 3, 16, np.random.default_rng(SEED), correlation=correlation)
        means = [[member.rows.reshape(16, -1).mean(axis=0) for member in group] for group in groups]
        p[correlation] = permutation_p(np.array(means))

    assert p[0.3] <= 0.005, f"seed {SEED}: p = {p}, 60 organisations of 3, null: members are strangers"
    assert p[0.0] > 0.01, f"seed {SEED}: p = {p}"


@pytest.mark.slow
def test_a_few_rows_of_a_few_clients_are_exact_duplicates() -> None:
    repeated = np.array([32 - len(np.unique(client.rows, axis=0)) for client in simulate(NORMAL, count=200)])

    # int(0.4 × 32), and an empty form more for int(0.05 × 32) = 1 junk row cannot repeat
    assert repeated.max() <= 12
    assert (repeated > 0).mean() == pytest.approx(0.25 * (1 - 1 / 12.8), abs=0.12), f"seed {SEED}"


@pytest.mark.parametrize(
    ("count", "members", "queries", "correlation"),
    [(0, 2, 4, 0.3), (3, 0, 4, 0.3), (3, 2, 0, 0.3), (3, 2, 4, -0.1), (3, 2, 4, 1.1), (3, 2, 4, float("nan"))],
)
def test_organisations_that_cannot_be_are_refused_at_the_call(
    count: int, members: int, queries: int, correlation: float
) -> None:
    with pytest.raises(ValueError, match=r"at least|between 0 and 1"):
        honest_organisations(PICTURES, count, members, queries, np.random.default_rng(0), correlation=correlation)


@pytest.mark.parametrize(("count", "queries"), [(0, 4), (-1, 4), (3, 0), (3, -5), (1, VALUES_MAX)])
def test_clients_that_cannot_be_are_refused_at_the_call(count: int, queries: int) -> None:
    with pytest.raises(ValueError, match=r"at least|at most"):
        honest_clients(PICTURES, count, queries, np.random.default_rng(0))


def test_the_page_states_every_parameter_as_it_is() -> None:
    stated = {
        (module, name): ast.literal_eval(value)
        for module, name, value in re.findall(r"^\| `(\w+)\.([A-Z_]+)` \| ([^|]+?) \|", SIMULATED, re.MULTILINE)
    }

    actual = {
        (module.__name__.rpartition(".")[2], name): value
        for module in (harvests, hours, people, pictures, probes, styles)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, int | float | tuple) and name not in UNSTATED
    }
    assert stated == actual


def test_the_page_describes_every_family() -> None:
    thieves = SIMULATED.partition("\n## Thieves\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z-]+)` \|", thieves, re.MULTILINE)) == set(FAMILIES)
