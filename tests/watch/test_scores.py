"""Normal scores: the rank among honest rows, bounded, and exact to add up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from palladion.watch.rows import Rows
from palladion.watch.scores import CLIP, KNOTS, STEPS, NormalScores

SEED = 11
_HONEST = np.random.default_rng(SEED).standard_normal((4000, 3))
SCORES = NormalScores.fit(_HONEST)


def interpolated(scores: NormalScores, features: Rows) -> Rows:
    """The same by NumPy's own interpolation, feature by feature: slow, and plain to see."""
    from statistics import NormalDist

    found = np.empty_like(features)
    for column, table in enumerate(scores.quantiles):
        values, first, counts = np.unique(table, return_index=True, return_counts=True)
        ranks = (first + (counts - 1) / 2) / (KNOTS - 1)
        deviates = [NormalDist().inv_cdf(rank) for rank in np.clip(ranks, 1e-4, 1 - 1e-4).tolist()]
        found[:, column] = np.interp(features[:, column], values, deviates, left=-CLIP, right=CLIP)
    return np.clip(np.nan_to_num(found, nan=0.0), -CLIP, CLIP)


def test_unseen_honest_rows_score_like_a_standard_normal() -> None:
    scores = SCORES.score(np.random.default_rng(SEED + 1).standard_normal((20_000, 3)))

    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=0.05, err_msg=f"seed {SEED}")
    np.testing.assert_allclose(scores.std(axis=0), 1, atol=0.05, err_msg=f"seed {SEED}")


def test_a_skewed_feature_scores_like_a_standard_normal_too() -> None:
    generator = np.random.default_rng(SEED)
    scores = NormalScores.fit(generator.lognormal(0, 2, (4000, 1))).score(generator.lognormal(0, 2, (20_000, 1)))

    assert abs(scores.mean()) < 0.05, f"seed {SEED}"
    assert abs(scores.std() - 1) < 0.05, f"seed {SEED}"


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(features=arrays(np.float64, (7, 3), elements=st.floats(-6, 6)))
def test_scores_are_what_interpolation_between_the_quantiles_gives(features: Rows) -> None:
    np.testing.assert_allclose(SCORES.score(features), interpolated(SCORES, features), atol=1 / STEPS)


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(features=arrays(np.float64, (4, 3), elements=st.floats(allow_nan=True, allow_infinity=False)))
def test_scores_are_bounded_and_in_whole_steps(features: Rows) -> None:
    scores = SCORES.score(features)

    assert (np.abs(scores) <= CLIP).all()
    np.testing.assert_array_equal(scores * STEPS, np.rint(scores * STEPS))


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.floats(-5, 5), min_size=2, max_size=9))
def test_a_larger_value_never_scores_less(values: list[float]) -> None:
    ascending = np.sort(np.array(values))

    assert (np.diff(SCORES.score(np.repeat(ascending[:, None], 3, axis=1)), axis=0) >= 0).all()


def test_sums_are_the_same_in_whatever_order_they_are_added_up() -> None:
    generator = np.random.default_rng(SEED)
    scores = SCORES.score(generator.standard_normal((5000, 3)))
    forwards = np.zeros(3)
    for row in scores:
        forwards = forwards + row

    for _ in range(5):
        np.testing.assert_array_equal(generator.permutation(scores).sum(axis=0), forwards, err_msg=f"seed {SEED}")


def test_what_is_no_number_says_nothing() -> None:
    assert SCORES.score(np.full((1, 3), np.nan)).tolist() == [[0, 0, 0]]


def test_values_beyond_all_honest_ones_score_the_most_there_is() -> None:
    beyond = np.array([[-100.0, 100.0, 1e300], [_HONEST.min() - 1e-9, _HONEST.max() + 1e-9, -1e300]])

    assert SCORES.score(beyond).tolist() == [[-CLIP, CLIP, CLIP], [-CLIP, CLIP, -CLIP]]


def test_the_value_that_all_honest_rows_share_says_nothing_and_every_other_one_all() -> None:
    constant = NormalScores.fit(np.full((50, 1), 2.5))

    assert constant.score(np.array([[2.5], [2.4999], [2.5001]])).tolist() == [[0], [-CLIP], [CLIP]]


def test_a_value_that_most_honest_rows_share_scores_the_middle_of_their_ranks() -> None:
    scores = NormalScores.fit(np.concatenate([np.zeros((80, 1)), np.arange(1.0, 21)[:, None]]))

    assert scores.score(np.array([[0.0]]))[0, 0] == pytest.approx(-0.25, abs=0.02)  # the deviate of 0.4


def test_honest_rows_that_are_no_numbers_are_left_out_of_the_fit() -> None:
    with_gaps = np.concatenate([_HONEST, np.full((1000, 3), np.nan)])

    np.testing.assert_array_equal(NormalScores.fit(with_gaps).quantiles, SCORES.quantiles)


def test_a_feature_is_scored_by_its_own_quantiles_alone() -> None:
    apart = NormalScores.fit(_HONEST * [1, 100, 1e-6] + [0, 5000, -7])

    for column, value in enumerate([0.3, 5030.0, -7 + 0.3e-6]):
        features = np.array([[-1e9, -1e9, -1e9], [1e9, 1e9, 1e9]])
        features[:, column] = value
        found = apart.score(features)

        assert (np.delete(found, column, axis=1) == [[-CLIP], [CLIP]]).all()
        np.testing.assert_allclose(found[:, column], SCORES.score(np.full((1, 3), 0.3))[0, column], atol=1e-4)


def test_scores_are_the_same_to_the_last_bit_whatever_rows_stand_beside() -> None:
    features = np.random.default_rng(SEED).standard_normal((40, 3))

    singly = np.concatenate([SCORES.score(row[None]) for row in features])

    np.testing.assert_array_equal(SCORES.score(features), singly)


def test_values_that_lie_as_near_as_numbers_can_are_told_apart() -> None:
    steps = np.arange(KNOTS, dtype=np.float64)
    apart = interpolated(NormalScores(steps[None]), steps[:, None])
    near = steps * float(np.nextafter(0, 1))

    found = NormalScores(near[None]).score(near[:, None])

    np.testing.assert_allclose(found, apart, atol=1 / STEPS)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_one_query_scores_what_it_scores_among_others(data: st.DataObject, seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows = np.stack([generator.standard_normal(60), generator.integers(0, 2, 60), np.full(60, 3.0)], axis=1)
    scores = NormalScores.fit(rows)
    known = [float(value) for value in rows.ravel()]
    value = st.floats(-1e300, 1e300) | st.just(float("nan")) | st.sampled_from(known)
    query = data.draw(st.lists(value, min_size=3, max_size=3))

    assert scores.score_one(query) == scores.score(np.array([query]))[0].tolist()
