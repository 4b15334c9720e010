"""Rows of several requests in one run: allowed only where each row gets what it would get alone."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.gate.sources.batch import ROWS_TRIED, alike, joined, parted, rows_stand_alone
from palladion.model.run import Port

Arrays = Mapping[str, NDArray[Any]]
X = Port("x", "float32", ("rows", 4))
Y = Port("y", "float32", ("rows", 4))


def _only(change: Callable[[NDArray[Any]], Any]) -> Callable[[Arrays], dict[str, NDArray[Any]]]:
    return lambda feeds: {"y": np.asarray(change(feeds["x"]))}


def test_rows_that_do_not_look_at_each_other_stand_alone() -> None:
    assert rows_stand_alone(_only(lambda x: np.tanh(x) * 3), [X], [Y])


def test_the_rounding_of_a_matrix_product_is_allowed() -> None:
    assert rows_stand_alone(_only(lambda x: x * (1 + 1e-7 * len(x))), [X], [Y])


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("normalised over the rows", lambda x: x - x.mean(axis=0)),
        ("compared with the others", lambda x: x @ x.T),
        ("a little of the first row in all", lambda x: x + 1e-3 * x[:1]),
        ("in another order", lambda x: x[::-1]),
        ("one answer for all", lambda x: x.sum(keepdims=True)),
        ("no rows", lambda x: x.sum()),
        ("the label of the whole", lambda x: np.full(len(x), int(x.sum() > 0) + len(x))),
        ("another shape", lambda x: np.ones((len(x), len(x)), np.float32)),
        ("numbers beyond all measure", lambda x: x + np.inf * x[:1]),
        ("no numbers when together", lambda x: x if len(x) == 1 else x * np.nan),
    ],
)
def test_rows_that_depend_on_others_do_not(what: str, change: Callable[[NDArray[Any]], Any]) -> None:
    assert not rows_stand_alone(_only(change), [X], [Y]), what


@pytest.mark.parametrize("port", [Port("x", "float32", (1, 4)), Port("x", "float32", ())])
def test_a_model_with_a_fixed_number_of_rows_is_not_tried(port: Port) -> None:
    def run(feeds: Arrays) -> dict[str, NDArray[Any]]:
        raise AssertionError

    assert not rows_stand_alone(run, [port], [Y])
    assert not rows_stand_alone(run, [X], [port])


@pytest.mark.parametrize("error", [FormatError("it fails"), ValueError("it fails")])
def test_a_model_that_does_not_take_noise_is_left_alone(error: Exception) -> None:
    def run(feeds: Arrays) -> dict[str, NDArray[Any]]:
        raise error

    assert not rows_stand_alone(run, [X], [Y])


def test_what_is_tried_is_of_the_types_and_sizes_of_the_inputs() -> None:
    ports = [X, Port("word", "string", (None, 1)), Port("id", "int64", ("n", "length")), Port("new", "bool", ("n",))]
    seen: list[Arrays] = []

    def run(feeds: Arrays) -> dict[str, NDArray[Any]]:
        seen.append(feeds)
        return {"y": feeds["id"] * 2}

    assert rows_stand_alone(run, ports, [Port("y", "int64", ("n", "length"))])
    assert [seen[0][port.name].dtype.kind for port in ports] == ["f", "O", "i", "b"]
    assert {len(array) for array in seen[0].values()} == {ROWS_TRIED}


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_what_is_joined_comes_apart_as_it_was(rows: list[int]) -> None:
    generator = np.random.default_rng(sum(rows))
    asked = [{"x": generator.standard_normal((count, 2)), "id": generator.integers(0, 9, (count,))} for count in rows]
    found = parted(joined(asked), rows)
    assert all(np.array_equal(one[name], other[name]) for one, other in zip(asked, found, strict=True) for name in one)


def test_outputs_that_are_not_one_for_each_row_are_not_parted() -> None:
    for outputs in ({"y": np.zeros((3, 1))}, {"y": np.zeros(())}, {"y": np.zeros((4, 1)), "z": np.zeros(5)}):
        with pytest.raises(FormatError, match="the 4 rows"):
            parted(outputs, [1, 3])


def test_only_rows_of_the_same_shapes_are_alike() -> None:
    one = {"x": np.zeros((1, 4)), "y": np.zeros((1, 2, 3))}
    assert alike(one, {"x": np.zeros((9, 4)), "y": np.zeros((9, 2, 3))})
    assert not alike(one, {"x": np.zeros((1, 4)), "y": np.zeros((1, 3, 3))})
