"""Thieves' accounts: how much of their traffic is harvest, and how a ring deals one harvest out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from palladion.redteam import hours
from palladion.redteam.thieves import FAMILIES, ring, thief
from tests.redteam import pools

SEED = 41
PICTURES, FINE, TABLE = pools.pictures(), pools.pictures(whole=False), pools.table()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_thief_asks_nothing_but_its_harvest_in_the_models_form(family: str) -> None:
    client = thief(family, PICTURES, 60, np.random.default_rng(SEED))

    assert client.rows.shape == (60, 8, 8)
    assert client.rows.dtype == np.float32
    assert client.attack.all()
    assert client.family == family
    assert (np.diff(client.at) > 0).all()


def test_every_family_is_described_in_a_sentence() -> None:
    assert set(FAMILIES) == {
        "foreign", "noise", "smooth", "marginals", "strokes", "blend", "jbda", "augmentation", "active",
        "in-distribution", "boundary", "inversion", "membership",
    }  # fmt: skip
    assert all(sentence.endswith(".") and sentence[0].isupper() for sentence in FAMILIES.values())
    assert "gradient-free" in FAMILIES["jbda"]


def test_the_seed_decides_a_thief_and_a_ring() -> None:
    for mix in (1.0, 0.4):
        one, two = (thief("strokes", PICTURES, 30, np.random.default_rng(SEED), mix=mix) for _ in range(2))
        np.testing.assert_array_equal(one.rows, two.rows)
        np.testing.assert_array_equal(one.attack, two.attack)
    first, second = (ring("noise", PICTURES, 3, 20, np.random.default_rng(SEED), mix=0.5) for _ in range(2))
    for account, again in zip(first, second, strict=True):
        np.testing.assert_array_equal(account.rows, again.rows)
        np.testing.assert_array_equal(account.at, again.at)


@settings(max_examples=40)
@given(mix=st.floats(0.001, 1), queries=st.integers(1, 80))
def test_the_share_of_attack_queries_is_the_mix(mix: float, queries: int) -> None:
    client = thief("noise", TABLE, queries, np.random.default_rng(SEED), mix=mix)

    assert client.attack.sum() == max(1, round(mix * queries))


def test_attack_queries_stand_anywhere_among_the_others() -> None:
    places = [
        np.flatnonzero(thief("noise", TABLE, 20, np.random.default_rng(seed), mix=0.1).attack) for seed in range(60)
    ]

    assert set(np.concatenate(places).tolist()) == set(range(20))


def test_cover_looks_like_the_pool_and_the_harvest_does_not() -> None:
    client = thief("noise", FINE, 100, np.random.default_rng(SEED), mix=0.5)

    dark = client.rows.mean(axis=(1, 2))
    assert dark[client.attack].min() > 0.4
    assert np.median(dark[~client.attack]) < 0.2


def test_a_thief_keeps_one_fast_pace_through_cover_and_harvest() -> None:
    for seed in range(20):
        gaps = np.diff(thief("noise", TABLE, 50, np.random.default_rng(seed), mix=0.3).at)
        assert gaps.max() < gaps.min() * (1 + hours.THIEF_JITTER) / (1 - hours.THIEF_JITTER) + 1e-6
        assert gaps.max() < 60


def test_honest_queries_come_first_and_look_like_cover() -> None:
    client = thief("noise", FINE, 40, np.random.default_rng(SEED), mix=0.5, after=25)

    assert len(client.rows) == len(client.at) == 65
    assert not client.attack[:25].any()
    assert client.attack[25:].sum() == 20
    assert (client.labels[:25] >= 0).sum() > 20
    assert np.median(client.rows[:25].mean(axis=(1, 2))) < 0.2


def test_a_number_of_honest_queries_below_none_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 0, got -1"):
        thief("noise", TABLE, 10, np.random.default_rng(0), after=-1)


def test_a_thief_who_probes_asks_the_model_that_it_is_given() -> None:
    asked: list[int] = []

    def labels(rows: NDArray[np.float32]) -> NDArray[np.int64]:
        asked.append(len(rows))
        return np.zeros(len(rows), np.int64)

    client = thief("membership", TABLE, 80, np.random.default_rng(SEED), mix=0.5, labels=labels)
    members = ring("boundary", TABLE, 3, 20, np.random.default_rng(SEED), labels=labels)

    assert client.attack.sum() == 40
    assert sum(asked) > 60  # of 40 and 60, all but the last rows that came together
    assert len(members) == 3


def test_names_are_the_callers_or_the_familys() -> None:
    default = thief("noise", TABLE, 3, np.random.default_rng(SEED))
    named = thief("noise", TABLE, 3, np.random.default_rng(SEED), name="a", organisation="b")

    assert (default.name, default.organisation) == ("noise-thief", "noise-thief")
    assert (named.name, named.organisation) == ("a", "b")


def test_a_styled_harvest_went_through_the_accounts_own_style() -> None:
    plain, styled = (
        thief("noise", FINE, 60, np.random.default_rng(SEED), styled=styled).rows for styled in (False, True)
    )

    def related(rows: NDArray[np.float32]) -> float:
        return float(np.corrcoef(rows[:, :, :-1].ravel(), rows[:, :, 1:].ravel())[0, 1])

    assert abs(related(plain)) < 0.1
    assert related(styled) > 0.2


def test_the_accounts_of_a_ring_share_no_row_and_leave_none_out() -> None:
    own = np.repeat(np.arange(60) / 60, 64).reshape(60, 8, 8).astype(np.float32)
    accounts = ring("foreign", FINE, 5, 24, np.random.default_rng(SEED), mix=0.5, foreign=own)

    asked = [set(np.rint(60 * account.rows[account.attack][:, 0, 0]).astype(int).tolist()) for account in accounts]

    assert [len(rows) for rows in asked] == [12] * 5
    assert set.union(*asked) == set(range(60))


def test_a_ring_is_one_harvest() -> None:
    # few seeds are in one blend; five blends of their own would have a hundred
    accounts = ring("blend", pools.normal_table(columns=60), 5, 40, np.random.default_rng(SEED))

    together = np.concatenate([account.rows for account in accounts])
    assert np.linalg.matrix_rank(together.astype(np.float64), tol=1e-3) == 20


def test_the_accounts_of_a_ring_have_nothing_else_in_common() -> None:
    accounts = ring("noise", FINE, 6, 40, np.random.default_rng(SEED), mix=0.5, name="hydra")

    assert len({account.name for account in accounts}) == len({account.organisation for account in accounts}) == 6
    assert accounts[0].name == "hydra-0"
    assert len({account.at[0] for account in accounts}) == 6
    covers = {account.rows[~account.attack].tobytes() for account in accounts}
    assert len(covers) == 6


@pytest.mark.parametrize("mix", [0.0, -0.5, 1.5, float("nan")])
def test_a_mix_that_is_no_share_is_refused(mix: float) -> None:
    with pytest.raises(ValueError, match="share of attack queries"):
        thief("noise", TABLE, 10, np.random.default_rng(0), mix=mix)


@pytest.mark.parametrize(("members", "queries"), [(0, 5), (5, 0), (-1, 5), (2**15, 2**15)])
def test_a_ring_of_nobody_nothing_or_too_much_is_refused(members: int, queries: int) -> None:
    with pytest.raises(ValueError, match=r"at least|at most"):
        ring("noise", TABLE, members, queries, np.random.default_rng(0))


def test_an_unknown_family_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"'letters'.*foreign, noise"):
        thief("letters", TABLE, 10, np.random.default_rng(0))
