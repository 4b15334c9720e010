"""Discrete Gaussians: the distribution itself, also where every coin is settled with more bits than doubles have."""

from fractions import Fraction

import numpy as np
import pytest

from palladion.private.dp.randomness import Cryptographic, Seeded
from palladion.private.federated import discrete
from palladion.private.federated.discrete import Words, discrete_gaussian, words_of

# what a fair sampler exceeds once in a thousand seeds; the seeds are fixed
RARE = 0.001


def _words(seed: int) -> Words:
    return words_of(Seeded(np.random.default_rng(seed)))


def _p_value(drawn: np.ndarray, deviation: float) -> float:
    """Of a chi-square test against P(x) in proportion to exp(-x²/2σ²), cells of fewer than five put together."""
    from scipy.stats import chisquare

    reach = int(12 * deviation) + 2
    values = np.arange(-reach, reach + 1)
    chances = np.exp(-(values**2) / (2 * deviation**2))
    expected = chances / chances.sum() * len(drawn)
    observed = np.bincount(drawn + reach, minlength=len(values))
    many = expected >= 5
    observed = np.append(observed[many], observed[~many].sum())
    expected = np.append(expected[many], expected[~many].sum())
    return float(chisquare(observed, expected * observed.sum() / expected.sum()).pvalue)


@pytest.mark.parametrize("deviation", [0.4, 1.0, 3.7, 20.0])
def test_numbers_are_distributed_as_discrete_gaussians(deviation: float) -> None:
    assert _p_value(discrete_gaussian(deviation, 100_000, _words(11)), deviation) > RARE


def test_coins_that_doubles_cannot_settle_have_the_same_chances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discrete, "DOUBT", 2.0**54)  # so all of them
    assert _p_value(discrete_gaussian(1.7, 1_000, _words(12)), 1.7) > RARE


@pytest.mark.parametrize(("first", "heads"), [(0, True), (2**64 - 1, False)])
def test_a_coin_at_the_edge_is_decided_by_the_bits_after_it(first: int, heads: bool) -> None:
    edge = 3313563428353947  # the whole part of 2^53 / e
    following = iter([first])
    settled = discrete._settled(edge, Fraction(1), lambda _count: np.array([next(following)], np.uint64))
    assert settled is heads


def test_large_deviations_come_out_as_asked() -> None:
    drawn = discrete_gaussian(2.4e7, 200_000, _words(13)) / 2.4e7
    assert abs(drawn.mean()) < 4 / 200_000**0.5
    assert drawn.std() == pytest.approx(1.0, abs=4 / 400_000**0.5)
    # tails: how many are beyond two and three deviations
    for beyond, chance in ((2, 0.0455), (3, 0.0027)):
        spread = (chance / 200_000) ** 0.5
        assert (np.abs(drawn) > beyond).mean() == pytest.approx(chance, abs=4 * spread)


def test_seeds_repeat_and_the_operating_system_does_not() -> None:
    assert np.array_equal(discrete_gaussian(300.0, 100, _words(1)), discrete_gaussian(300.0, 100, _words(1)))
    one, other = (discrete_gaussian(300.0, 100, words_of(Cryptographic())) for _ in range(2))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("deviation", [0.0, -1.0, float("nan"), 2.0**41])
def test_deviations_that_cannot_be_are_a_mistake(deviation: float) -> None:
    with pytest.raises(ValueError, match="a deviation of"):
        discrete_gaussian(deviation, 1, _words(1))
