"""Which queries are unlike nearly all honest ones, in all scores together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.watch.atypical import BEYOND, RATE, Atypical
from palladion.watch.scores import STEPS

SEED = 20261126
GENERATOR = np.random.default_rng(SEED)
MIXING = GENERATOR.standard_normal((6, 6))
HONEST = GENERATOR.standard_normal((20_000, 6)) @ MIXING
ATYPICAL = Atypical.fit(HONEST)


def test_one_honest_row_in_fifty_is_atypical_and_scores_are_of_mean_0_and_variance_1() -> None:
    scores = ATYPICAL.score(np.random.default_rng(SEED + 1).standard_normal((50_000, 6)) @ MIXING)

    assert (scores == BEYOND).mean() == pytest.approx(RATE, abs=0.003), f"seed {SEED}"
    assert scores.mean() == pytest.approx(0, abs=0.02)
    assert scores.var() == pytest.approx(1, abs=0.15)


def test_a_row_is_atypical_by_all_its_scores_together_though_each_of_them_is_ordinary() -> None:
    # against the way in which honest scores go together, by no more than they vary
    covariance = np.cov(HONEST, rowvar=False)
    values, vectors = np.linalg.eigh(covariance)
    odd = 12 * np.sqrt(values[0] + 0.05) * vectors[:, 0]
    assert (np.abs(odd) < 3 * np.sqrt(np.diag(covariance))).all()

    assert ATYPICAL.score(odd[None])[0] == BEYOND
    assert ATYPICAL.score(HONEST.mean(axis=0)[None])[0] < 0


@given(cut=st.integers(1, 39))
def test_a_row_scores_the_same_whatever_stands_beside_it(cut: int) -> None:
    rows = HONEST[:40]

    together = ATYPICAL.distance(rows)

    np.testing.assert_array_equal(
        np.concatenate([ATYPICAL.distance(rows[:cut]), ATYPICAL.distance(rows[cut:])]), together
    )


def test_scores_are_whole_steps_so_that_their_sums_are_exact() -> None:
    scores = ATYPICAL.score(HONEST) * STEPS

    np.testing.assert_array_equal(scores, np.rint(scores))


def test_scores_that_always_agree_do_not_make_a_small_difference_atypical() -> None:
    column = np.random.default_rng(SEED).standard_normal(5000)
    fitted = Atypical.fit(np.column_stack([column, column]))

    assert fitted.score(np.array([[0.5, 0.6]]))[0] < 0


def test_without_a_score_it_is_what_it_would_be_had_that_never_been_looked_at() -> None:
    rows, others = HONEST[:200], np.delete(HONEST, 2, axis=1)

    np.testing.assert_allclose(
        ATYPICAL.without(2).distance(others[:200]), Atypical.fit(others).distance(others[:200]), rtol=1e-9
    )
    assert (ATYPICAL.without(2).distance(others[:200]) < ATYPICAL.distance(rows) + 1e-9).all()
