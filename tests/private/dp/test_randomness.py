"""Noise for training: normal, unforeseeable, and as often a row is drawn as was asked."""

import math

import numpy as np
import pytest

from palladion.private.dp.randomness import Cryptographic, Randomness, Seeded, randomness_of

DRAWN = 200_000


@pytest.mark.parametrize("randomness", [Cryptographic(), Seeded(np.random.default_rng(1))], ids=["system", "seeded"])
def test_noise_is_standard_normal(randomness: Randomness) -> None:
    drawn = np.sort(randomness.gaussian((DRAWN,)))
    expected = np.array([(1 + math.erf(value / math.sqrt(2))) / 2 for value in drawn[::20]])
    distance = np.abs(expected - np.arange(0, DRAWN, 20) / DRAWN).max()
    assert distance < 2.2 / math.sqrt(DRAWN)  # Kolmogorov and Smirnov, p = 1e-4
    assert randomness.gaussian((3, 2, 5)).shape == (3, 2, 5)


def test_no_two_trainings_have_the_same_noise() -> None:
    assert not np.array_equal(Cryptographic().gaussian((4,)), Cryptographic().gaussian((4,)))
    assert randomness_of(None).kind == "cryptographic"
    assert randomness_of(np.random.default_rng(1)).kind == "seeded"


def test_each_row_is_drawn_by_itself() -> None:
    randomness, rows, rate = Cryptographic(), 1000, 0.1
    drawn = [randomness.sample(rows, rate) for _ in range(200)]
    counts = np.array([len(item) for item in drawn])
    # a binomial number each time, never a fixed one
    assert abs(counts.mean() - rows * rate) < 5 * math.sqrt(rows * rate / 200)
    assert counts.std() == pytest.approx(math.sqrt(rows * rate * (1 - rate)), rel=0.3)
    assert len(np.unique(drawn[0])) == len(drawn[0])
    assert len(randomness.sample(rows, 1.0)) == rows
