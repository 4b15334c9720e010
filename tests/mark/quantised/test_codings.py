"""Quantised weights: read, marked by rounding that a key leaves to chance, and found again."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palladion.mark.quantised.codings import (
    Blocks,
    Floats8,
    Integers,
    Ladder,
    Quantised,
    dither,
    nibbles,
    quantised_of,
    unscaled,
)
from palladion.model.tensors import DTYPES, Tensor
from tests.mark.suspects import KEY, OTHER_KEY, Array, matrix, tensor

FLOAT8 = ["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"]


def q8_0(weights: Array) -> Tensor:
    """A tensor of type q8_0 whose numbers are `weights` to half a step."""
    rows = weights.reshape(-1, 32)
    step = (np.abs(rows).max(axis=1, keepdims=True) / 127).astype("<f2")
    codes = np.rint(rows / step.astype(np.float32)).astype(np.int8)
    data = np.concatenate([step.view(np.uint8), codes.view(np.uint8)], axis=1)
    return Tensor("w", DTYPES["q8_0"], weights.shape, data.reshape(-1))


def int8(weights: Array, dtype: str = "int8") -> Integers:
    """8-bit integers with a scale for each row."""
    scale = (np.abs(weights).max(axis=1, keepdims=True) / 127).astype(np.float32)
    zero = np.full((1, 1), 128 if dtype == "uint8" else 0, np.float32)
    codes = np.rint(weights / scale) + zero
    return Integers(tensor("w", codes.astype(dtype)), lambda: scale, lambda: zero)


def int4(weights: Array) -> Integers:
    """4-bit integers, two in a byte."""
    scale = (np.abs(weights).max(axis=1, keepdims=True) / 7).astype(np.float32)
    codes = np.rint(weights / scale).astype(np.int8)
    packed = Tensor("w", DTYPES["int4"], weights.shape, nibbles(codes.reshape(-1)))
    return Integers(packed, lambda: scale, lambda: np.zeros((1, 1), np.float32))


def float8(weights: Array, name: str, scale: float | None = None) -> Floats8:
    stored = (weights / (scale or 1)).astype(getattr(ml_dtypes, name))
    return Floats8(tensor("w", stored), None if scale is None else lambda: np.full((1, 1), scale, np.float32))


def every_kind() -> dict[str, Quantised]:
    weights = matrix()
    return {
        "q8_0": Blocks(q8_0(weights)),
        "int8": int8(weights),
        "uint8": int8(weights, "uint8"),
        "int4": int4(weights),
        **{name: float8(weights, name) for name in FLOAT8},
        "float8 with a scale": float8(weights, "float8_e4m3fn", 0.001),
    }


KINDS = every_kind()


def again(kind: Quantised, data: Array) -> Array:
    """The weights that other data stand for."""
    held: Any = kind
    fields = {name: getattr(held, name) for name in held.__dataclass_fields__}
    changed = Tensor("w", held.tensor.dtype, held.tensor.shape, data)
    return np.asarray(type(held)(**{**fields, "tensor": changed}).read())


@pytest.mark.parametrize("name", KINDS)
def test_what_is_read_is_near_what_was_stored(name: str) -> None:
    found = KINDS[name].read()
    assert found.shape == KINDS[name].shape == (96, 64)
    assert found.dtype == np.float32
    assert not KINDS[name].beside
    assert np.corrcoef(found.ravel(), matrix().ravel())[0, 1] > 0.99


@pytest.mark.parametrize("name", KINDS)
def test_the_gap_is_what_a_small_change_costs_in_squares(name: str) -> None:
    kind = KINDS[name]
    weights = kind.read()
    tiny = np.float32(2e-3 * weights.std())
    steps = [again(kind, kind.encode(weights + tiny, bytes([key]) * 32)) - weights for key in range(40)]
    assert 0.75 < np.square(steps).mean() / (tiny * kind.gap()) < 1.25


@pytest.mark.parametrize("name", KINDS)
def test_weights_that_did_not_change_are_stored_as_they_were(name: str) -> None:
    kind: Any = KINDS[name]
    for key in (KEY, OTHER_KEY):
        assert np.array_equal(again(kind, kind.encode(kind.read().reshape(32, -1), key)), kind.read())


@pytest.mark.parametrize("name", KINDS)
def test_a_small_change_is_there_in_the_mean_and_follows_the_key(name: str) -> None:
    kind = KINDS[name]
    weights = kind.read()
    change = np.float32(0.02 * weights.std()) * np.where(np.random.default_rng(5).random(weights.shape) < 0.5, -1, 1)

    moved = [again(kind, kind.encode(weights + change, bytes([number]) * 32)) - weights for number in range(8)]

    slope = float(np.vdot(np.mean(moved, axis=0), change)) / float(np.vdot(change, change))
    assert 0.85 < slope < 1.1  # weights at the end of the grid do not move outwards
    assert not np.array_equal(moved[0], moved[1])
    assert np.array_equal(moved[0], again(kind, kind.encode(weights + change, bytes(32))) - weights)


def test_integers_stay_within_the_range_that_they_had() -> None:
    # seven bits, because products of eight overflow in 16 on older processors
    codes = np.clip(np.random.default_rng(6).normal(0, 30, (64, 64)), -64, 63).astype(np.int8)
    one = np.ones((1, 1), np.float32)
    kind = Integers(tensor("w", codes), lambda: one, lambda: 0 * one)

    stored = kind.encode(kind.read() + np.float32(5), KEY)

    assert (stored.max(), stored.min()) == (63, codes.min() + 5)


def test_numbers_without_a_scale_stay_what_they_are() -> None:
    scale = np.array([[0.0], [2.0]], np.float32)
    kind = Integers(tensor("w", np.ones((2, 4), np.int8)), lambda: scale, lambda: np.zeros((1, 1), np.float32))
    assert np.array_equal(kind.encode(np.zeros((2, 4), np.float32), KEY)[0], np.ones(4))
    assert unscaled(np.ones((2, 1), np.float32), scale).tolist() == [[0.0], [0.5]]


def test_a_float8_beyond_the_largest_becomes_the_largest() -> None:
    kind = float8(matrix(), "float8_e4m3fn")
    stored = again(kind, kind.encode(np.full((96, 64), 1e6, np.float32), KEY))
    assert set(stored.ravel().tolist()) == {448.0}


@pytest.mark.slow
@given(
    st.lists(st.floats(-500, 500, width=32), min_size=1, max_size=20),
    st.integers(0, 65_535),
    st.sampled_from([0, 1, 2]),
)
@settings(max_examples=40)
def test_a_number_becomes_one_of_the_two_levels_that_enclose_it(wanted: list[float], chance: int, which: int) -> None:
    rising = (
        np.array([-1, -0.697, -0.525, -0.395, -0.284, -0.184, -0.091, 0, 0.08, 0.161, 0.338, 0.723, 1], np.float32),
        np.unique(np.arange(-448, 449, 3.7).astype(np.float32)),
        np.array([-2, 5], np.float32),
    )[which]
    numbers = np.array(wanted, np.float32)

    found = rising[Ladder.of(rising).either(numbers, np.full(len(numbers), chance, np.uint16))]

    inside = np.clip(numbers, rising[0], rising[-1])
    lower = np.clip(np.searchsorted(rising, inside, side="right") - 1, 0, len(rising) - 2)
    share = (inside - rising[lower]) / (rising[lower + 1] - rising[lower])
    expected = np.where((chance + 0.5) / 65_536 < share, rising[lower + 1], rising[lower])
    near = np.abs((chance + 0.5) / 65_536 - share) < 1e-6
    assert (near | (found == expected)).all()


@pytest.mark.parametrize(("share", "chance", "up"), [(0.001, 32_768, 0), (0.001, 0, 1), (0.999, 32_768, 1)])
def test_numbers_just_beside_a_level_are_between_it_and_the_next(share: float, chance: int, up: int) -> None:
    codes = np.arange(-448, 449, dtype=np.float32).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    rising = np.unique(np.concatenate([codes, np.linspace(-0.7, 0.7, 12, dtype=np.float32)]))
    numbers = rising[:-1] + np.float32(share) * np.diff(rising)

    found = Ladder.of(rising).either(numbers, np.full(len(numbers), chance, np.uint16))

    assert np.array_equal(found, np.arange(len(numbers)) + up)


def test_types_that_say_what_they_are() -> None:
    assert isinstance(quantised_of(q8_0(matrix())), Blocks)
    assert isinstance(quantised_of(tensor("w", matrix().astype(ml_dtypes.float8_e5m2))), Floats8)
    others = [tensor("w", matrix()), tensor("w", np.ones((64, 64), np.int8))]
    opaque = Tensor("w", DTYPES["iq2_xs"], (256,), np.zeros(74, np.uint8))
    assert [quantised_of(item) for item in [*others, opaque]] == [None, None, None]


def test_chances_are_uniform_and_a_secret_of_the_key() -> None:
    drawn = dither(KEY, 100_000)
    assert abs(drawn.mean() / 65_536 - 0.5) < 0.005
    assert abs((drawn < 6554).mean() - 0.1) < 0.005
    assert not np.array_equal(drawn, dither(OTHER_KEY, 100_000))
    assert np.array_equal(drawn[:7], dither(KEY, 7))
