"""MMD: the unbiased statistic of its definition, over a window that moves."""

import numpy as np
import pytest

from palladion.watch.baselines.mmd import Mmd
from palladion.watch.baselines.queries import Queries
from palladion.watch.rows import Rows

SEED = 3


def _queries(coordinates: Rows) -> Queries:
    return Queries(np.zeros((len(coordinates), 1)), coordinates, np.zeros(len(coordinates), np.int64))


def _rows(count: int, shift: float = 0.0) -> Rows:
    return (shift + np.random.default_rng((SEED, count)).standard_normal((count, 3))).astype(np.float32).astype(float)


def _by_definition(window: Rows, reference: Rows, width: float) -> float:
    def mean(rows: Rows, others: Rows) -> float:
        pairs = [
            np.exp(-np.square(one - other).sum() / (2 * width**2))
            for place, one in enumerate(rows)
            for against, other in enumerate(others)
            if rows is not others or place != against
        ]
        return float(np.mean(pairs))

    return mean(window, window) + mean(reference, reference) - 2 * mean(window, reference)


def test_the_statistic_is_that_of_the_definition_on_every_window() -> None:
    reference, rows = _rows(15), _rows(12, 0.5)

    found = Mmd(reference, 1.3, window=5, first=3).begin().take(_queries(rows))

    assert np.isneginf(found[:2]).all()
    wanted = [_by_definition(rows[max(0, end - 5) : end], reference, 1.3) for end in range(3, 13)]
    np.testing.assert_allclose(found[2:], wanted, rtol=1e-9)


def test_how_queries_are_cut_makes_no_difference_but_for_rounding() -> None:
    method, rows = Mmd(_rows(30), 1.0, window=20, first=2), _rows(300)
    session = method.begin()

    apart = np.concatenate([session.take(_queries(rows[start : start + 7])) for start in range(0, 300, 7)])

    np.testing.assert_allclose(method.begin().take(_queries(rows)), apart, atol=1e-10)
    assert session.held_bytes == 20 * (3 * 4 + 8)


def test_rows_of_another_kind_are_further_away_than_honest_ones() -> None:
    method = Mmd.fit([_rows(400)], np.random.default_rng(SEED), window=50, first=50)

    honest, thief = (method.begin().take(_queries(rows))[-1] for rows in (_rows(50), _rows(50, 1.0)))

    assert abs(honest) < 0.05 < 0.1 < thief, f"seed {SEED}"


def test_the_kernel_is_as_wide_as_the_median_distance() -> None:
    rows = np.array([[0.0], [1.0], [3.0]])

    assert Mmd.fit([rows], np.random.default_rng(SEED)).width == pytest.approx(2.0)


def test_too_few_honest_rows_and_windows_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="1 honest rows"):
        Mmd.fit([np.zeros((1, 2))], np.random.default_rng(SEED))
    for first in (1, 6):
        with pytest.raises(ValueError, match=f"from query {first} on"):
            Mmd(_rows(5), 1.0, window=5, first=first)
