"""The assignment is the best one, whatever the shape of the table and whatever stands in it; the oracle is SciPy's."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from palladion.mark.align.assignment import assign
from palladion.mark.places import Weights


def total(similarity: Weights, columns: np.ndarray[tuple[int], np.dtype[np.intp]]) -> float:
    paired = np.flatnonzero(columns >= 0)
    return float(similarity[paired, columns[paired]].sum())


def best_total(similarity: Weights) -> float:
    return float(similarity[linear_sum_assignment(similarity, maximize=True)].sum())


def is_one_to_one(columns: np.ndarray[tuple[int], np.dtype[np.intp]], shape: tuple[int, int]) -> bool:
    given = columns[columns >= 0]
    return len(given) == len(set(given.tolist())) == min(shape) and len(columns) == shape[0]


@pytest.mark.parametrize("seed", range(60))
def test_the_sum_is_as_large_as_scipys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 30)), int(rng.integers(1, 30)))
    # few different numbers: many assignments are equally good
    similarity = rng.integers(-3, 4, shape).astype(float) if seed % 2 else rng.normal(size=shape)

    columns = assign(similarity)

    assert is_one_to_one(columns, shape)
    assert total(similarity, columns) == pytest.approx(best_total(similarity))


def test_mutual_favourites_give_way_where_the_sum_gains() -> None:
    assert assign(np.array([[10.0, 9.0], [9.0, 0.0]])).tolist() == [1, 0]


def test_a_hidden_permutation_of_thousands_is_found() -> None:
    rng = np.random.default_rng(1)
    order = rng.permutation(2000)
    similarity = rng.normal(scale=0.05, size=(2000, 2000)).astype(np.float32)
    similarity[np.arange(2000), order] += 0.3

    assert np.array_equal(assign(similarity), order)


def test_numbers_that_are_not_finite_count_for_less_than_every_other() -> None:
    similarity = np.array([[np.nan, -5.0, np.inf], [-9.0, -np.inf, np.nan], [3.0, 1e300, 1.0]])

    columns = assign(similarity)

    assert columns.tolist() == [1, 0, 2]


def test_a_row_without_a_finite_number_still_gets_what_is_left() -> None:
    similarity = np.full((3, 3), np.nan)
    similarity[0, 2] = similarity[2, 0] = 1

    assert assign(similarity).tolist() == [2, 1, 0]


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_an_empty_table_pairs_nothing(shape: tuple[int, int]) -> None:
    assert assign(np.zeros(shape)).tolist() == [-1] * shape[0]


def test_a_table_that_would_take_too_long_is_still_paired() -> None:
    # every row prefers the last columns: a search for each row, and each as long as the rows before it
    war = np.outer(np.arange(300.0), np.arange(300.0))

    columns = assign(war, work_max=2_000_000)

    assert is_one_to_one(columns, war.shape)
    assert total(war, columns) > 0.5 * best_total(war)


def test_a_table_without_two_dimensions_is_refused() -> None:
    with pytest.raises(ValueError, match="two dimensions"):
        assign(np.zeros(3))
