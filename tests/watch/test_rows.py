"""Row arithmetic: what a row gives does not depend on the rows beside it, not even in the last bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palladion.watch.rows import constant, preceding, product

SEED = 5


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (3, 2), (17, 17), (32, 14), (64, 32), (784, 32)])
def test_products_are_those_of_matrices(inputs: int, outputs: int) -> None:
    generator = np.random.default_rng(SEED)
    rows, matrix = generator.standard_normal((9, inputs)), generator.standard_normal((inputs, outputs))

    np.testing.assert_allclose(product(rows, matrix), rows @ matrix, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(product(rows, matrix.T.copy().T), rows @ matrix, rtol=1e-9, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), inputs=st.integers(1, 70), outputs=st.integers(1, 33), cut=st.integers(1, 29))
def test_a_row_gives_the_same_product_whatever_stands_beside_it(seed: int, inputs: int, outputs: int, cut: int) -> None:
    generator = np.random.default_rng(seed)
    rows, matrix = generator.standard_normal((30, inputs)), generator.standard_normal((inputs, outputs))

    together = product(rows, matrix)

    np.testing.assert_array_equal(together, np.concatenate([product(rows[:cut], matrix), product(rows[cut:], matrix)]))
    np.testing.assert_array_equal(together[cut], product(rows[cut : cut + 1], matrix)[0])


def test_no_rows_give_no_products() -> None:
    assert product(np.zeros((0, 3)), np.ones((3, 2))).shape == (0, 2)


def test_preceding_rows_are_those_just_before() -> None:
    history = np.arange(14.0).reshape(7, 2)

    before = preceding(history, 3)

    np.testing.assert_array_equal(before, np.stack([history[start : start + 3] for start in range(4)]))


def test_preceding_values_of_a_flat_history_are_those_just_before() -> None:
    np.testing.assert_array_equal(preceding(np.array([1, 2, 3, 4], np.uint64), 2), [[1, 2], [2, 3]])


def test_a_history_of_nothing_more_than_its_beginning_precedes_nothing() -> None:
    assert preceding(np.zeros((3, 2)), 3).shape == (0, 3, 2)


def test_several_histories_at_once_are_each_taken_for_itself() -> None:
    histories = np.arange(42.0).reshape(3, 7, 2)

    before = preceding(histories, 3, axis=1)

    np.testing.assert_array_equal(before, np.stack([preceding(history.copy(), 3) for history in histories]))


def test_a_constant_is_the_number_itself() -> None:
    assert (np.array([2.0, 3.0]) - constant(0.1)).tolist() == [2.0 - 0.1, 3.0 - 0.1]
