"""A statistic beside that of honest clients who have asked as much."""

import numpy as np
import pytest

from palladion.watch.baselines.pace import CLIENTS_MIN, WIDTH_MIN, Pace
from palladion.watch.rows import Rows

SEED = 9


def _counts(clients: int = 200, queries: int = 30) -> list[Rows]:
    """What only grows, as the number of similar pairs does."""
    return list(np.random.default_rng(SEED).poisson(1.0, (clients, queries)).cumsum(axis=1).astype(np.float64))


def test_honest_clients_have_mean_nothing_and_deviation_one_after_any_number_of_queries() -> None:
    curves = _counts()
    pace = Pace.fit(curves)

    table = np.stack([pace.statistic(curve) for curve in curves])

    wide = pace.width > WIDTH_MIN * np.median(pace.width)
    np.testing.assert_allclose(table.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(table[:, wide].std(axis=0), 1, rtol=1e-12)
    assert wide.sum() > 25


def test_where_honest_clients_are_all_alike_one_step_is_not_infinitely_much() -> None:
    curves = _counts()
    for curve in curves:
        curve[:3] = 0
    pace = Pace.fit(curves)

    widest = np.median(np.stack(curves).std(axis=0))
    assert pace.statistic(np.ones(1))[0] == pytest.approx(1 / (WIDTH_MIN * widest))


def test_nothing_is_said_before_there_is_a_statistic() -> None:
    curves = _counts()
    for curve in curves:
        curve[:5] = -np.inf

    found = Pace.fit(curves).statistic(curves[0])

    assert np.isneginf(found[:5]).all()
    assert np.isfinite(found[5:]).all()


def test_later_queries_count_as_the_last_that_enough_clients_have_asked() -> None:
    curves = [*_counts(CLIENTS_MIN, 10), *_counts(CLIENTS_MIN - 1, 20)]
    pace = Pace.fit(curves)

    found = pace.statistic(np.full(20, 12.0))

    assert len(pace.centre) == 10
    np.testing.assert_array_equal(found[10:], np.full(10, found[9]))


def test_too_few_clients_are_refused() -> None:
    with pytest.raises(ValueError, match=f"{CLIENTS_MIN - 1} honest clients"):
        Pace.fit(_counts(CLIENTS_MIN - 1))
    with pytest.raises(ValueError, match="0 honest clients"):
        Pace.fit([])
