"""What a pool accepts, and what it derives from its rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from palladion.redteam.pool import VALUES_MAX, Pool
from tests.redteam import pools

ROWS = np.arange(24, dtype=np.float32).reshape(2, 12)
LABELS = np.array([0, 1])


def test_pictures_have_one_range_and_tables_one_for_each_column() -> None:
    picture, table = pools.pictures(), pools.table()

    assert (picture.low.tolist(), picture.high.tolist()) == ([0], [16])
    assert table.low.shape == table.high.shape == (7,)
    assert (table.low[[0, 2]].tolist(), table.high[[0, 2]].tolist()) == ([0, 0], [3, 1])


def test_whole_number_columns_are_recognised() -> None:
    assert pools.table().step.tolist() == [1, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("scale", "offset", "step"), [(1, 0, 1), (1 / 255, 0, 1 / 255), (2 / 255, -1, 2 / 255), (0.3, 0, 0)]
)
def test_the_steps_of_stored_pictures_are_recognised(scale: float, offset: float, step: float) -> None:
    stored = np.random.default_rng(0).integers(0, 256, (20, 6, 6)).astype(np.float32)

    pool = Pool(stored * np.float32(scale) + np.float32(offset), np.zeros(20, np.int64), (6, 6))

    assert pool.step[0] == np.float32(step)


def test_a_constant_column_does_not_deviate_by_a_rounding_error() -> None:
    assert pools.table().deviation[6] == 0


def test_every_row_is_in_one_class() -> None:
    pool = pools.table()

    assert sorted(np.concatenate(pool.classes).tolist()) == list(range(len(pool.rows)))
    assert [set(pool.labels[members].tolist()) for members in pool.classes] == [{0}, {1}, {2}, {3}]


@settings(max_examples=40)
@given(arrays.arrays(np.float32, (3, 7), elements=st.floats(-1e4, 1e4, width=32)))
def test_admitted_rows_are_within_range_and_in_steps_and_stay_as_they_are(rows: NDArray[np.float32]) -> None:
    pool = TABLE

    admitted = pool.admit(rows)

    assert ((admitted >= pool.low) & (admitted <= pool.high)).all()
    assert (admitted[:, :3] == np.rint(admitted[:, :3])).all()
    np.testing.assert_array_equal(pool.admit(admitted), admitted)
    inside = (rows >= pool.low) & (rows <= pool.high) & (pool.step == 0)
    np.testing.assert_array_equal(admitted[inside], rows[inside])


@pytest.mark.parametrize("input_shape", [(12,), (3, 4), (1, 3, 4), (3, 4, 1)])
def test_one_channel_may_stand_anywhere(input_shape: tuple[int, ...]) -> None:
    pool = Pool(ROWS.reshape(2, *input_shape), LABELS, (3, 4))

    assert pool.picture == (3, 4, 1)
    assert pool.shaped(pool.flat).shape == (2, *input_shape)


BROKEN: dict[str, tuple[NDArray[np.float32], NDArray[np.int64], tuple[int, ...] | None, str]] = {
    "no rows": (ROWS[:0], LABELS[:0], None, "needs rows"),
    "rows without values": (ROWS[:, :0], LABELS, None, "needs rows"),
    "double precision": (ROWS.astype(np.float64), LABELS, None, "float32"),
    "fewer labels than rows": (ROWS, LABELS[:1], None, "as many integer labels"),
    "labels that are not integers": (ROWS, LABELS.astype(np.float64), None, "integer labels"),
    "not a number": (np.where(ROWS > 3, np.float32(np.nan), ROWS), LABELS, None, "finite"),
    "image of other size": (ROWS, LABELS, (3, 5), "does not fit"),
    "image of one side": (ROWS, LABELS, (12,), "height, width"),
    "image of negative sides": (ROWS, LABELS, (-3, -4), "height, width"),
    "channels first in the rows": (ROWS.reshape(2, 3, 2, 2), LABELS, (2, 2, 3), "channels come last"),
    "channels first in the image": (np.zeros((2, 3, 8, 8), np.float32), LABELS, (3, 8, 8), "8 channels"),
    "pictures of one value": (np.ones((2, 12), np.float32), LABELS, (3, 4), "no range"),
    "a table with depth": (ROWS.reshape(2, 3, 4), LABELS, None, "flat"),
}


@pytest.mark.parametrize("defect", BROKEN)
def test_a_broken_pool_is_refused(defect: str) -> None:
    rows, labels, image, message = BROKEN[defect]

    with pytest.raises(ValueError, match=message):
        Pool(rows, labels, image)


@pytest.mark.parametrize(("clients", "queries"), [(0, 5), (5, 0), (-1, -1), (1, VALUES_MAX // 7 + 1)])
def test_a_demand_of_nothing_or_of_too_much_is_refused(clients: int, queries: int) -> None:
    with pytest.raises(ValueError, match=r"expected|at most"):
        pools.table().check_demand(clients, queries)


def test_a_demand_at_the_limit_is_met() -> None:
    pools.table().check_demand(1, VALUES_MAX // 7)


TABLE = pools.table()
