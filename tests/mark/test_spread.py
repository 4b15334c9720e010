"""Chips in the weights of a tensor: all of them everywhere, and gathered again from what a thief leaves."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palladion.mark.carriers import derive, signs, signs_of
from palladion.mark.spread import BLOCK_NUMBERS, PERIOD, Gathering, carrier_bits, chips_of, gather

from .suspects import KEY, OTHER_KEY, PAYLOAD, Numbers

CHIPS = chips_of(PAYLOAD)


def _carrier(count: int, key: bytes = KEY) -> Numbers:
    return signs_of(carrier_bits(key, CHIPS, count), count)


def _gathered(rows: int, columns: int, left: slice | tuple[slice, slice]) -> Numbers:
    """What is gathered of each chip, with its sign, where only some weights are left."""
    carrier = _carrier(rows * columns).reshape(rows, columns)
    kept = np.zeros_like(carrier)
    kept[left] = carrier[left]
    return np.asarray(gather(KEY, kept) * CHIPS, np.float32)


@given(st.integers(1, 3 * BLOCK_NUMBERS))
@settings(max_examples=25)
def test_every_weight_counts_for_one_chip_with_its_sign(count: int) -> None:
    gathered = gather(KEY, _carrier(count)) * CHIPS
    assert gathered.sum() == count
    assert gathered.min() >= count // PERIOD
    assert gathered.max() <= -(-count // PERIOD)


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=8), st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_a_residual_may_come_in_pieces_of_any_size(sizes: list[int], seed: int) -> None:
    residual = np.random.default_rng(seed).standard_normal(sum(sizes)).astype(np.float32)
    gathering = Gathering(KEY, residual.size)
    for piece in np.split(residual, np.cumsum(sizes)[:-1]):
        gathering.add(piece)
    assert np.allclose(gathering.chips, gather(KEY, residual), atol=1e-4)


def test_without_a_payload_the_carrier_is_that_of_the_key_alone() -> None:
    # so that versions that were marked before stay provable
    bits = carrier_bits(KEY, chips_of(None), 12_345)
    assert np.array_equal(signs_of(bits, 12_345), signs(KEY, 12_345))


def test_products_of_chips_add_up_to_the_correlation_with_the_carrier() -> None:
    residual = np.random.default_rng(1).standard_normal((123, 457)).astype(np.float32)
    correlation = float(np.vdot(residual, _carrier(residual.size).reshape(residual.shape)))
    assert float(gather(KEY, residual) @ CHIPS) == pytest.approx(correlation, abs=0.01)


def test_the_carrier_is_as_random_as_its_key() -> None:
    count = 200_000
    for other in (signs(OTHER_KEY, count), _carrier(count, OTHER_KEY), _carrier(count, derive(KEY, "a"))):
        assert abs(float(np.vdot(_carrier(count), other))) < 5 * math.sqrt(count)
    assert abs(float(_carrier(count).sum())) < 5 * math.sqrt(count)


@pytest.mark.parametrize("columns", [384, 768, 1024, 1536, 4096])
@pytest.mark.parametrize("left", ["half the rows", "half the columns", "each second column", "a tenth of the columns"])
def test_whoever_leaves_some_rows_or_columns_takes_a_part_of_every_chip(columns: int, left: str) -> None:
    rows = 384
    where: dict[str, tuple[slice | tuple[slice, slice], float]] = {
        "half the rows": (slice(rows // 2), 0.5),
        "half the columns": ((slice(None), slice(columns // 2)), 0.5),
        "each second column": ((slice(None), slice(0, None, 2)), 0.5),
        "a tenth of the columns": ((slice(None), slice(columns // 10)), 0.1),
    }
    kept, share = where[left]
    expected = share * rows * columns / PERIOD
    gathered = _gathered(rows, columns, kept)
    assert 0.1 * expected < gathered.min() <= gathered.max() < 2 * expected


def test_the_same_place_in_two_tensors_carries_different_chips() -> None:
    first, second = (gather(derive(KEY, name), np.ones((1, 40), np.float32)) != 0 for name in "ab")
    assert 0 < np.count_nonzero(first & second) < 20
