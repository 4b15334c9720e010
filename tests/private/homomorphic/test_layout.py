"""Layouts: diagonals that are rotated and summed give what the matrix gives. In the clear, so without SEAL."""

import numpy as np
import pytest

from palladion.private.homomorphic.layout import diagonals, plan, plan_for, power_of_two


@pytest.mark.parametrize(("number", "expected"), [(1, 1), (2, 2), (3, 4), (64, 64), (65, 128)])
def test_powers_of_two_are_rounded_up(number: int, expected: int) -> None:
    assert power_of_two(number) == expected


@pytest.mark.parametrize(
    ("shapes", "copies"),
    [
        ([(10, 64)], 1),
        ([(10, 64)], 4),
        ([(3, 5)], 1),
        ([(5, 3)], 1),
        ([(8, 16), (3, 8)], 1),
        ([(8, 16), (3, 8)], 2),
        ([(8, 16), (3, 8)], 8),
        ([(20, 5), (3, 20)], 1),
    ],
)
def test_rotations_and_diagonals_give_the_product_for_every_row(shapes: list[tuple[int, int]], copies: int) -> None:
    rng = np.random.default_rng(3)
    layout = plan(shapes, 512, copies=copies)
    assert layout is not None
    rows = rng.normal(size=(layout.rows, shapes[0][1]))
    value, wanted = layout.pack(rows), rows
    for index, shape in enumerate(shapes):
        weights = rng.normal(size=shape)
        layer = layout.layers[index]
        inner = np.zeros((layer.giants, value.size))
        for giant, baby, slots in diagonals(layout, index, weights):
            inner[giant] += slots * np.roll(value, -baby * layout.rows)
        total = inner[-1]
        for giant in reversed(range(layer.giants - 1)):
            total = np.roll(total, -layer.babies * layout.rows) + inner[giant]
        for fold in layer.folds:
            total = total + np.roll(total, -fold * layout.rows)
        value, wanted = total, wanted @ weights.T
    assert np.allclose(layout.unpack(value, layout.rows, shapes[-1][0]), wanted)


def test_copies_are_as_many_as_leave_place_for_the_rows() -> None:
    layout = plan_for([(32, 64), (10, 32)], 4096, rows=32)
    assert layout is not None
    assert (layout.rows, layout.layers[0].copies) == (32, 2)
    most = plan_for([(32, 64), (10, 32)], 4096, rows=4096)
    assert most is not None
    assert most.layers[0].copies == 1


def test_what_is_wider_than_the_slots_has_no_layout() -> None:
    assert plan([(10, 1025)], 1024) is None
    assert plan([(10, 512)], 1024, copies=4) is None


def test_all_steps_of_a_program_need_few_keys() -> None:
    layout = plan([(32, 64), (10, 32)], 4096)
    assert layout is not None
    assert len(layout.rotations) <= 4
