"""Secret carriers: the same from the same key, noise to everybody else, and distributed as the p-values assume."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from palladion.mark.carriers import KEY_BYTES, LEVELS, derive, normals, signs
from palladion.mark.stats import log10_p_signs, log10_p_subgaussian

KEY = bytes(range(KEY_BYTES))
LONG = 200_000
BOUNDED = pytest.mark.parametrize(("carrier", "p_of"), [(signs, log10_p_signs), (normals, log10_p_subgaussian)])

Carrier = Callable[[bytes, int], NDArray[np.float32]]
PValue = Callable[[float], float]

TABLE = np.unique(normals(KEY, LONG)).astype(np.float64)

CARRIERS = pytest.mark.parametrize("carrier", [signs, normals])


def test_a_known_key_gives_known_numbers() -> None:
    # openssl enc -aes-256-ctr of zeros, with this key and a zero counter, begins with f2 90 00 b6
    assert signs(KEY, 12).tolist() == [1, 1, 1, 1, -1, -1, 1, -1, 1, -1, -1, 1]
    assert normals(KEY, 4).tolist() == pytest.approx([1.61898911, 0.16227001, -2.96910167, 0.56185228], abs=1e-7)
    expected = "3c498f219240d0c2e9997fcb4d532fd486e38360b697884175b4508e47b7fbb7"
    assert derive(KEY, "ownership", "digest").hex() == expected


@CARRIERS
@given(st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES), st.integers(0, 300), st.integers(0, 300))
@settings(max_examples=50)
def test_a_shorter_carrier_is_the_beginning_of_a_longer_one(
    carrier: Carrier, key: bytes, first: int, second: int
) -> None:
    short, long = sorted([first, second])
    assert np.array_equal(carrier(key, short), carrier(key, long)[:short])
    assert carrier(key, long).shape == (long,)
    assert carrier(key, long).dtype == np.float32


@CARRIERS
def test_carriers_of_different_keys_are_unrelated(carrier: Carrier) -> None:
    ours = carrier(KEY, LONG)
    one_bit = bytes([KEY[0] ^ 1]) + KEY[1:]
    for other in (one_bit, derive(KEY, "tensor", "a"), derive(KEY, "tensor", "b")):
        assert abs(np.vdot(ours, carrier(other, LONG))) < 5 * math.sqrt(LONG)


@given(st.lists(st.text(max_size=8), max_size=4), st.lists(st.text(max_size=8), max_size=4))
@settings(max_examples=50)
def test_different_contexts_have_different_keys(first: list[str], second: list[str]) -> None:
    assert (derive(KEY, *first) == derive(KEY, *second)) == (first == second)


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_key_of_another_length_is_refused(size: int) -> None:
    for use in (lambda key: signs(key, 1), lambda key: normals(key, 1), lambda key: derive(key, "a")):
        with pytest.raises(ValueError, match=f"a key has 32 bytes, got {size}"):
            use(bytes(size))


def test_signs_are_fair() -> None:
    values = signs(KEY, LONG)
    assert set(values.tolist()) == {-1.0, 1.0}
    assert abs(float(values.sum())) < 5 * math.sqrt(LONG)


def test_nearly_normal_numbers_have_mean_zero_and_a_variance_just_below_one() -> None:
    assert len(TABLE) == LEVELS
    assert TABLE.sum() == 0
    assert np.square(TABLE).mean() == pytest.approx(0.99925679, abs=1e-8)
    # no byte is more likely than another: a chi-square statistic of 255 degrees of freedom
    counts = np.unique(normals(KEY, LONG), return_counts=True)[1]
    assert np.square(counts - LONG / LEVELS).sum() / (LONG / LEVELS) < 255 + 5 * math.sqrt(2 * 255)


@given(st.floats(-40, 40))
def test_nearly_normal_numbers_are_sub_gaussian(slope: float) -> None:
    moment = np.log(np.exp(slope * TABLE - abs(slope) * TABLE[-1]).mean()) + abs(slope) * TABLE[-1]
    assert moment <= slope**2 / 2 + 1e-9


VECTORS = {
    "equal": np.ones(64),
    "two": np.array([1.0, 1.0] + [0.0] * 62),
    "one": np.eye(64)[0],
    "falling": 0.8 ** np.arange(64),
    "normal": np.random.default_rng(3).standard_normal(64),
    "outliers": np.random.default_rng(4).standard_t(1.5, 64),
}


@pytest.mark.parametrize("level", [1e-2, 1e-3])
@pytest.mark.parametrize("vector", VECTORS)
@BOUNDED
def test_p_values_are_at_most_as_often_small_as_they_say(
    carrier: Carrier, p_of: PValue, vector: str, level: float
) -> None:
    # H0: a fixed vector, independent of the key; 40,000 carriers from one stream, seed KEY
    keys, direction = 40_000, VECTORS[vector] / np.linalg.norm(VECTORS[vector])
    statistics = carrier(KEY, keys * 64).reshape(keys, 64) @ direction
    found = sum(p_of(float(t)) <= math.log10(level) for t in statistics if t > 1)
    assert found <= keys * level + 4 * math.sqrt(keys * level)


@BOUNDED
def test_p_values_are_not_so_large_that_they_find_nothing(carrier: Carrier, p_of: PValue) -> None:
    # a bound of 1 would pass the test above: this one is within a factor of twenty of the truth at 1e-2
    statistics = carrier(KEY, 40_000 * 64).reshape(-1, 64) @ (np.ones(64) / 8)
    found = sum(p_of(float(t)) <= -2 for t in statistics if t > 1)
    assert found >= 40_000 * 1e-2 / 20
