"""What is done to the numbers of one tensor."""

from typing import Any

import numpy as np
import pytest

from palladion.redteam.removal import numbers

WEIGHTS = np.random.default_rng(1).standard_normal((16, 64)).astype(np.float32)


def _chance() -> np.random.Generator:
    return np.random.default_rng(2)


def _size(weights: numbers.Array) -> numbers.Array:
    return np.asarray(np.sqrt(np.square(weights).mean(axis=-1, keepdims=True)))


@pytest.mark.parametrize(("bits", "levels"), [(8, 255), (4, 15), (3, 7), (2, 3)])
def test_rounding_leaves_so_many_levels_in_each_group(bits: int, levels: int) -> None:
    back = numbers.rounded(WEIGHTS, bits, 32)
    assert max(len(np.unique(group)) for group in back.reshape(-1, 32)) <= levels
    step = np.abs(WEIGHTS.reshape(-1, 32)).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
    assert (np.abs(back - WEIGHTS).reshape(-1, 32) <= step / 2 + 1e-6).all()


def test_a_group_that_does_not_divide_a_row_is_the_row() -> None:
    odd = WEIGHTS[:, :33]
    assert np.array_equal(numbers.rounded(odd, 4, 32), numbers.rounded(odd, 4, 33))
    assert len(np.unique(numbers.rounded(odd, 4, None))) <= 15
    assert not numbers.rounded(np.zeros((2, 4), np.float32), 4, None).any()


def test_normal_floats_have_16_values_and_bf16_eight_bits() -> None:
    assert max(len(np.unique(group)) for group in numbers.nf4(WEIGHTS).reshape(-1, 64)) <= 16
    back = numbers.bf16(WEIGHTS)
    assert not (back.view(np.uint32) & 0xFFFF).any()
    assert np.abs(back / WEIGHTS - 1).max() <= 2**-8


def test_digits_are_decimal() -> None:
    shown = numbers.digits(np.array([[0.12345, -98.765, 0.0, 1e-9]]), 2)
    assert shown == pytest.approx(np.array([[0.12, -99.0, 0.0, 1e-9]]))


def test_pruning_takes_the_smallest() -> None:
    left = numbers.pruned(WEIGHTS, 0.5)
    assert np.count_nonzero(left) == WEIGHTS.size / 2
    assert np.abs(left[left != 0]).min() >= np.abs(WEIGHTS[left == 0]).max()


def test_clipping_bounds_each_row_by_its_own_size() -> None:
    loud = WEIGHTS * np.arange(1, 17)[:, None]
    left = numbers.clipped(loud, 2.0)
    assert (np.abs(left) <= 2 * _size(loud) + 1e-5).all()
    assert np.array_equal(left[np.abs(loud) < 2 * _size(loud)], loud[np.abs(loud) < 2 * _size(loud)])


@pytest.mark.parametrize("change", [numbers.noisy, numbers.signed])
def test_noise_is_in_units_of_each_row(change: Any) -> None:
    loud = np.tile(WEIGHTS, (1, 64)) * np.arange(1, 17)[:, None]
    moved = change(loud, 0.2, _chance()) - loud
    assert _size(moved) / _size(loud) == pytest.approx(np.full((16, 1), 0.2), rel=0.1)
    assert np.array_equal(change(loud, 0.2, _chance()), moved + loud)


def test_an_adapter_is_a_change_of_low_rank() -> None:
    moved = numbers.low_rank(WEIGHTS, 0.1, 4, _chance()) - WEIGHTS
    assert np.linalg.matrix_rank(moved, tol=1e-4) == 4
    assert np.linalg.norm(moved) == pytest.approx(0.1 * np.linalg.norm(WEIGHTS), rel=1e-4)


def test_a_lower_rank_is_the_best_of_its_rank() -> None:
    back = numbers.of_rank(WEIGHTS, 0.5)
    assert np.linalg.matrix_rank(back, tol=1e-4) == 8
    sizes = np.linalg.svd(WEIGHTS, compute_uv=False)
    assert np.linalg.norm(back - WEIGHTS) == pytest.approx(np.linalg.norm(sizes[8:]), rel=1e-4)
    assert np.linalg.matrix_rank(numbers.of_rank(WEIGHTS, 0.0), tol=1e-4) == 1


def test_convolutions_keep_their_shape() -> None:
    kernel = WEIGHTS.reshape(16, 16, 2, 2)
    for change in (
        lambda item: numbers.rounded(item, 4, 32),
        numbers.nf4,
        lambda item: numbers.noisy(item, 0.1, _chance()),
        lambda item: numbers.low_rank(item, 0.1, 2, _chance()),
        lambda item: numbers.of_rank(item, 0.5),
        lambda item: numbers.clipped(item, 1.0),
    ):
        assert change(kernel).shape == kernel.shape
