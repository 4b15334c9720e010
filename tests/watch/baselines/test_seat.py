"""SEAT: pairs of queries nearer than honest ones nearly ever are."""

import numpy as np
import pytest

from palladion.watch.baselines import seat
from palladion.watch.baselines.queries import Queries
from palladion.watch.baselines.seat import Seat
from palladion.watch.rows import Rows

SEED = 5


def _queries(coordinates: Rows) -> Queries:
    return Queries(np.zeros((len(coordinates), 1)), coordinates, np.zeros(len(coordinates), np.int64))


def test_every_pair_within_the_radius_counts() -> None:
    found = Seat(radius=1.0).begin().take(_queries(np.array([[0.0], [5.0], [0.5], [0.9], [5.1], [9.0]])))

    assert found.tolist() == [0, 0, 1, 3, 4, 4]


def test_a_query_is_compared_with_the_last_ones_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seat, "RING", 2)
    rows = np.array([[0.0], [5.0], [9.0], [0.0], [0.0]])
    one_by_one = Seat(radius=0.5).begin()

    found = Seat(radius=0.5).begin().take(_queries(rows))

    assert found.tolist() == [0, 0, 0, 0, 1]
    assert [float(one_by_one.take(_queries(row[None]))[0]) for row in rows] == found.tolist()
    assert one_by_one.held_bytes == 2 * 4


def test_long_batches_count_as_short_ones() -> None:
    rows = np.random.default_rng(SEED).integers(0, 40, (600, 1)).astype(np.float64)
    session = Seat(radius=0.5).begin()

    apart = np.concatenate([session.take(_queries(rows[start : start + 50])) for start in range(0, 600, 50)])

    np.testing.assert_array_equal(Seat(radius=0.5).begin().take(_queries(rows)), apart)


def test_the_radius_is_one_that_honest_pairs_rarely_come_within() -> None:
    generator = np.random.default_rng(SEED)
    clients = [generator.standard_normal((100, 3)) for _ in range(20)]

    radius = Seat.fit(clients).radius

    pairs = sum(Seat(radius).begin().take(_queries(rows))[-1] for rows in clients)
    assert 0 < pairs / (20 * 100 * 99 / 2) < 3 * seat.SIMILAR, f"seed {SEED}"


@pytest.mark.parametrize("clients", [[], [np.zeros((1, 3))]])
def test_honest_clients_without_a_pair_are_refused(clients: list[Rows]) -> None:
    with pytest.raises(ValueError, match="have no pair"):
        Seat.fit(clients)


def test_no_queries_give_no_statistic() -> None:
    assert Seat(1.0).begin().take(_queries(np.empty((0, 2)))).shape == (0,)
