"""A block reads the weights between two spaces out of a tensor of any layout, and puts them back where they were."""

import numpy as np
import pytest

from palladion.mark.align.wiring import Block, Side

LAYOUTS = {
    "dense": (Block("w", Side(0, 1, 0, 6), Side(1, 2, 0, 4)), (6, 4)),
    "dense, turned": (Block("w", Side(1, 1, 0, 6), Side(0, 2, 0, 4)), (4, 6)),
    "after Flatten": (Block("w", Side(0, 1, 0, 6), Side(1, 2, 0, 4, 3)), (6, 12)),
    "convolution": (Block("w", Side(0, 1, 0, 6), Side(1, 2, 0, 4)), (6, 4, 3, 2)),
    "grouped convolution": (Block("w", Side(0, 1, 0, 6), Side(1, 2, 0, 4), groups=2), (6, 2, 3)),
    "outputs that are read several times": (Block("w", Side(0, 1, 0, 3, 2), Side(1, 2, 0, 4, 3)), (6, 12, 5)),
    "depthwise": (Block("w", Side(0, 1, 0, 3, 2), Side(1, 0, 0, 1)), (6, 1, 3, 3)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_read_is_written_back(layout: str) -> None:
    block, shape = LAYOUTS[layout]
    numbers = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    target = np.zeros_like(numbers)

    weights = block.read(numbers)
    block.write(weights, target)

    assert block.fits(shape)
    assert weights.shape[:2] == (block.out.units, block.into.units)
    assert np.array_equal(target, numbers)


def test_weights_of_one_pair_of_units_lie_together() -> None:
    numbers = np.arange(24.0).reshape(2, 12)  # two outputs, four channels of three positions

    weights = Block("w", Side(0, 1, 0, 2), Side(1, 2, 0, 4, 3)).read(numbers)

    assert weights[1, 2].tolist() == [18, 19, 20]


def test_a_grouped_convolution_reads_nothing_of_other_groups() -> None:
    numbers = np.ones((6, 2, 3), np.float32)

    weights = Block("w", Side(0, 1, 0, 6), Side(1, 2, 0, 4), groups=2).read(numbers)

    assert not weights[:3, 2:].any()
    assert not weights[3:, :2].any()
    assert weights[:3, :2].all()
    assert weights[3:, 2:].all()


def test_a_part_of_a_joined_axis_is_read_alone() -> None:
    numbers = np.arange(12.0).reshape(2, 6)

    weights = Block("w", Side(0, 1, 0, 2), Side(1, 3, 4, 2)).read(numbers)

    assert weights[:, :, 0].tolist() == [[4, 5], [10, 11]]


def test_a_block_fits_itself_to_a_tensor_with_more_units() -> None:
    block = Block("w", Side(0, 1, 0, 6), Side(1, 2, 0, 4, 3))

    fitted = block.fitted((8, 15))

    assert fitted is not None
    assert (fitted.out.units, fitted.into.units) == (8, 5)


@pytest.mark.parametrize("shape", [(), (6,), (0, 4), (6, 0), (5, 4), (6, 3), (6, 4, 1, 1, 1, 1)])
def test_a_tensor_of_another_shape_does_not_fit(shape: tuple[int, ...]) -> None:
    assert not Block("w", Side(0, 1, 0, 6), Side(1, 2, 0, 4)).fits(shape)


def test_a_tensor_that_would_take_too_much_memory_does_not_fit() -> None:
    assert not Block("w", Side(0, 1, 0, 2**15), Side(1, 2, 0, 2**15), groups=2**10).fits((2**15, 2**5, 3, 3))
