"""Groups by their members' shares of atypical queries."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.watch.atypical import BEYOND, RATE, Atypical
from palladion.watch.rows import Rows
from palladion.watch.scores import STEPS
from palladion.watch.shares import CLIP, Shares
from palladion.watch.suspicion import CORRELATION

SEED = 20261126
QUERIES = 100


def client(share: float, generator: np.random.Generator, queries: int = QUERIES) -> Rows:
    """Atypical scores of a client of whose queries that share is atypical."""
    within = float(Atypical(np.zeros(1), np.eye(1), np.inf).score(np.zeros((1, 1)))[0])
    return np.where(generator.random(queries) < share, BEYOND, within)


def honest(count: int, generator: np.random.Generator) -> list[Rows]:
    return [client(share, generator) for share in generator.gamma(2, RATE / 2, count)]


GENERATOR = np.random.default_rng(SEED)
SHARES = Shares.fit(honest(2000, GENERATOR))


def statistic(members: list[Rows]) -> float:
    parts = SHARES.parts(np.array([float(own.sum()) for own in members]), np.array([len(own) for own in members]))
    return float(SHARES.statistic(parts.sum(axis=0)[None])[0])


@pytest.mark.slow
def test_honest_groups_are_about_standard_normal_or_closer_together() -> None:
    # these have nothing in common, and the statistic allows for what members of an organisation do
    found = [statistic(honest(10, GENERATOR)) for _ in range(500)]

    assert abs(np.mean(found)) < 0.5, f"seed {SEED}"
    assert np.std(found) < 1
    assert np.quantile(found, 0.99) < 3


def test_a_ring_that_shares_a_harvest_out_stands_out() -> None:
    assert statistic([client(0.12, GENERATOR) for _ in range(10)]) > 3


def test_one_member_with_nothing_but_atypical_queries_decides_nothing() -> None:
    group = honest(10, GENERATOR)
    without = statistic(group)

    odd = statistic([client(1.0, GENERATOR), *group[1:]])

    largest = 2 * CLIP / np.sqrt(10 + CORRELATION * 90) * np.sqrt(10)  # all that one of ten can move
    assert odd - without < largest / 2
    assert odd < 3


@given(st.integers(0, 5000), st.integers(0, 2**20), st.floats(0.001, 1))
def test_the_part_of_one_member_is_that_of_many_to_the_last_bit(count: int, step: int, share: float) -> None:
    total = round(count * share) * step / STEPS  # scores come in steps

    assert list(SHARES.part(total, count)) == SHARES.parts(np.array([total]), np.array([count]))[0].tolist()


def test_a_member_who_hardly_asked_hardly_counts() -> None:
    few, many = (SHARES.parts(np.array([queries * BEYOND]), np.array([queries]))[0] for queries in (1, 1000))

    assert few[0] < 0.6 * many[0]
    assert few[1] < 0.3 * many[1]


def test_a_member_who_did_not_ask_adds_nothing() -> None:
    assert not SHARES.parts(np.array([0.0]), np.array([0])).any()
    assert SHARES.statistic(np.zeros((1, 3), np.int64))[0] == 0


def test_parts_are_whole_numbers_so_that_their_sums_are_exact() -> None:
    assert SHARES.parts(np.array([0.1, 7.0]), np.array([3, 9])).dtype == np.int64


def test_fewer_than_two_clients_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        Shares.fit([client(RATE, GENERATOR), np.zeros(1)])


def test_clients_who_are_all_alike_leave_some_room_for_others() -> None:
    alike = Shares.fit([client(0.0, GENERATOR) for _ in range(30)])

    assert alike.between > 0
    assert np.isfinite(alike.statistic(alike.parts(np.array([BEYOND]), np.array([1])))).all()
