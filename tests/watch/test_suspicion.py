"""The random-effects statistic, against the matrices that it stands for, and on clients that differ."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palladion.watch.rows import Rows
from palladion.watch.suspicion import CLIENTS_MIN, CORRELATION, RandomEffects

SEED = 41
SCORES = 5
_SPREAD = np.array([0.6, 0.3, 0.0, 0.2, 0.1])


def client(generator: np.random.Generator, queries: int = 50, shift: Rows | float = 0.0) -> Rows:
    """Scores of a client: an own mean, and queries around it that correlate."""
    mean = _SPREAD * generator.standard_normal(SCORES) + shift
    noise = generator.standard_normal((queries, SCORES))
    noise[:, 1] = 0.8 * noise[:, 0] + 0.6 * noise[:, 1]
    return np.asarray(mean + noise)


_GENERATOR = np.random.default_rng(SEED)
EFFECTS = RandomEffects.fit([client(_GENERATOR) for _ in range(400)])


def path(scores: Rows, effects: RandomEffects = EFFECTS) -> Rows:
    """The statistic of one client after each of its queries."""
    return effects.statistic(np.cumsum(scores, axis=0), np.arange(1, len(scores) + 1))


def by_matrices(effects: RandomEffects, mean: Rows, count: int, share: float) -> float:
    """d'(share · B + W / n)⁻¹ d, from the two covariances themselves."""
    inverse = np.linalg.inv(effects.basis)
    within, between = inverse.T @ inverse, inverse.T @ np.diag(effects.between) @ inverse
    difference = mean - effects.mean
    raw = difference @ np.linalg.inv(share * between + within / count) @ difference
    place = min(count, len(effects.centre)) - 1
    return float((raw - effects.centre[place]) / effects.width[place])


@settings(max_examples=30, deadline=None)
@given(
    sums=st.lists(st.floats(-100, 100), min_size=SCORES, max_size=SCORES),
    count=st.integers(1, 90),
    concentration=st.floats(0.01, 1),
)
def test_the_statistic_is_the_distance_of_the_mean_in_between_and_within_covariance(
    sums: list[float], count: int, concentration: float
) -> None:
    share = CORRELATION + (1 - CORRELATION) * concentration

    found = EFFECTS.statistic(np.array([sums]), np.array([count]), np.array([concentration]))

    assert found[0] == pytest.approx(by_matrices(EFFECTS, np.array(sums) / count, count, share), rel=1e-6, abs=1e-6)


def test_the_covariances_that_were_put_in_are_found() -> None:
    inverse = np.linalg.inv(EFFECTS.basis)
    within = inverse.T @ inverse
    between = inverse.T @ np.diag(EFFECTS.between) @ inverse

    expected = np.eye(SCORES)
    expected[0, 1] = expected[1, 0] = 0.8
    np.testing.assert_allclose(within, expected + 0.1 * np.eye(SCORES), atol=0.05, err_msg=f"seed {SEED}")
    np.testing.assert_allclose(np.diag(between), np.square(_SPREAD), atol=0.06, err_msg=f"seed {SEED}")
    assert between[2, 2] < 0.01, "means of finite clients spread by their own sampling error as well"


def test_unseen_honest_clients_have_mean_0_and_deviation_1_after_every_number_of_queries() -> None:
    generator = np.random.default_rng(SEED + 1)
    paths = np.stack([path(client(generator)) for _ in range(600)])

    np.testing.assert_allclose(paths.mean(axis=0), 0, atol=0.3, err_msg=f"seed {SEED}")
    np.testing.assert_allclose(paths.std(axis=0), 1, atol=0.35, err_msg=f"seed {SEED}")


def test_clients_whose_means_no_honest_client_has_are_told_apart() -> None:
    generator = np.random.default_rng(SEED + 2)
    shift = np.array([0, 0, 1.0, 0, 0])  # honest clients do not differ in this one

    honest = [path(client(generator))[-1] for _ in range(200)]
    shifted = [path(client(generator, shift=shift))[-1] for _ in range(200)]

    assert np.quantile(shifted, 0.01) > np.quantile(honest, 0.99), f"seed {SEED}"


def test_a_mean_that_honest_clients_have_is_no_more_suspicious_after_more_queries() -> None:
    mean = np.tile(EFFECTS.mean + np.array([0.6, 0, 0, 0, 0]), (4000, 1))

    assert path(mean)[-1] < 2


def test_the_spread_of_a_group_is_smaller_so_that_the_same_mean_is_more_unusual() -> None:
    sums, counts = np.tile(50 * (EFFECTS.mean + 0.5), (3, 1)), np.array([50, 50, 50])

    alone, five, ten = EFFECTS.statistic(sums, counts, np.array([1, 1 / 5, 1 / 10]))

    assert alone < five < ten
    assert alone == EFFECTS.statistic(sums[:1], counts[:1])[0]


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(1, 49), seed=st.integers(0, 999))
def test_a_statistic_is_the_same_whatever_others_are_computed_with_it(cut: int, seed: int) -> None:
    sums, counts = np.cumsum(client(np.random.default_rng(seed)), axis=0), np.arange(1, 51)

    together = EFFECTS.statistic(sums, counts)

    np.testing.assert_array_equal(EFFECTS.statistic(sums[cut:], counts[cut:]), together[cut:])
    assert EFFECTS.statistic(sums[cut : cut + 1], counts[cut : cut + 1])[0] == together[cut]


def test_after_more_queries_than_any_client_of_the_fit_the_last_scale_counts() -> None:
    sums = np.tile(EFFECTS.mean, (2, 1)) * np.array([[50], [5000]])

    at_the_end, long_after = EFFECTS.statistic(sums, np.array([50, 5000]))

    assert at_the_end == pytest.approx(long_after, abs=1e-6) == pytest.approx(-EFFECTS.centre[-1] / EFFECTS.width[-1])


def test_the_scale_ends_where_too_few_clients_asked_so_much() -> None:
    generator = np.random.default_rng(SEED)
    clients = [client(generator, 10) for _ in range(60)] + [client(generator, 30) for _ in range(CLIENTS_MIN - 1)]

    assert len(RandomEffects.fit(clients).centre) == 10


def test_scores_that_always_agree_can_be_fitted() -> None:
    generator = np.random.default_rng(SEED)
    twice = [np.repeat(client(generator)[:, :1], 3, axis=1) for _ in range(60)]

    effects = RandomEffects.fit(twice)

    assert np.isfinite(path(twice[0], effects)).all()
    # one query in which they do not agree is odd, and no proof of anything
    assert path(np.array([[1.0, -1.0, 0.0]]), effects)[0] < 15


def test_scores_that_are_always_0_can_be_fitted() -> None:
    generator = np.random.default_rng(SEED)
    silent = [np.concatenate([client(generator), np.zeros((50, 2))], axis=1) for _ in range(60)]

    assert np.isfinite(path(silent[0], RandomEffects.fit(silent))).all()


def test_clients_who_asked_once_say_nothing_of_how_queries_vary() -> None:
    generator = np.random.default_rng(SEED)
    once = [client(generator, 1) for _ in range(100)]

    with pytest.raises(ValueError, match="19 clients with two queries or more, at least 20"):
        RandomEffects.fit(once + [client(generator) for _ in range(CLIENTS_MIN - 1)])


def test_deviations_say_which_score_is_off_and_which_way() -> None:
    off = EFFECTS.mean.copy()
    off[3] -= 2

    deviations = EFFECTS.deviations(100 * off, 100)

    assert np.argmax(np.abs(deviations)) == 3
    assert deviations[3] < -3
    np.testing.assert_allclose(np.delete(deviations, 3), 0, atol=1e-9)
