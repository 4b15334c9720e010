"""Many queries written at once are written as each by itself."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray

from palladion.intel.sketch import row_element
from palladion.intel.writing import row_elements

GENERATOR = np.random.default_rng(7)
TENS = 10.0 ** np.arange(-90, 90)


@pytest.mark.parametrize(
    "values",
    [
        GENERATOR.standard_normal(2000),
        GENERATOR.uniform(-1, 1, 2000).round(4),  # of these, one in ten is half a digit between two
        GENERATOR.integers(-40_000, 40_000, 2000) / 2,
        TENS,
        TENS * 9.995,
        TENS * 0.9995,
        -TENS * 1.0005,
        np.array([0.0, -0.0, 1.0, 100.0, 999.5, 999.4999, 0.125, 1.235, 2.5e-99, 9.996e-1]),
        np.array([1e100, -1e-100, 5e-324, 1.7e308, 1e-308, 0.0]),
    ],
)
def test_what_is_written_at_once_is_what_is_written_by_itself(values: NDArray[np.float64]) -> None:
    for rows in (values.reshape(-1, 1), values.reshape(1, -1), values.reshape(-1, 2)):
        assert row_elements(rows) == [row_element(row) for row in rows]


@given(st_numpy.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=st.floats(-1e9, 1e9)))
def test_any_rows_are_written_so(rows: NDArray[np.float64]) -> None:
    assert row_elements(rows) == [row_element(row) for row in rows]


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8, np.bool_])
def test_all_kinds_of_numbers_are_taken(dtype: type) -> None:
    rows: NDArray[Any] = np.array([[0, 1, 1], [1, 0, 1]], dtype)
    assert row_elements(rows) == [row_element(row) for row in rows]


@pytest.mark.parametrize("rows", [np.array([[np.nan, 1.0]]), np.array([[np.inf]]), np.zeros((3, 0)), np.zeros(3)])
def test_what_is_no_row_of_numbers_is_refused(rows: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match=r"not finite|rows of numbers"):
        row_elements(rows)
