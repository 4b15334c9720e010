"""The chain from requests to scores: bounded, exact in any order, and silent about what nobody said."""

import numpy as np
import pytest

from palladion.watch.scores import CLIP, STEPS
from palladion.watch.text.features import COHESION, PACE, TEXT_FEATURES
from palladion.watch.text.instruments import SCORES, TextInstruments, measure
from palladion.watch.text.query import Conversation, Query
from tests.watch.text import talk


def instruments() -> TextInstruments:
    return talk.calibration().instruments


def test_scores_are_bounded_and_come_in_steps() -> None:
    (scores,) = instruments().score(talk.conversations(1, 100, 6))

    assert scores.shape[1] == SCORES == len(TEXT_FEATURES) + 1
    assert np.abs(scores[:, :-1]).max() <= CLIP
    np.testing.assert_array_equal(scores * STEPS, np.rint(scores * STEPS))


def test_scores_of_requests_do_not_depend_on_who_stands_beside_them() -> None:
    features = measure(instruments().features, talk.conversations(1, 60, 6))[0]
    one_by_one = np.concatenate([instruments().score_features(row[None]) for row in features])

    np.testing.assert_array_equal(instruments().score_features(features), one_by_one)


def test_cohesion_scores_in_a_straight_line_and_beyond_honest_clients() -> None:
    lowest = min(
        np.nanmin(found[:, COHESION]) for found in measure(instruments().features, talk.conversations(20, 40, 6))
    )
    rows = np.full((4, len(TEXT_FEATURES)), np.nan)
    rows[:, COHESION] = lowest - np.array([0.0, 0.1, 0.2, 0.3])
    scores = instruments().score_features(rows)[:, COHESION]

    np.testing.assert_allclose(np.diff(scores), np.diff(scores)[0], rtol=1e-3)
    assert -CLIP < scores[-1] < scores[0] < 0


@pytest.mark.slow
def test_what_nobody_said_counts_for_nothing_whoever_says_it_later() -> None:
    told = [Conversation([Query(query.text) for query in client.queries]) for client in talk.conversations(40, 24, 7)]
    fitted = TextInstruments.fit(told, np.random.default_rng(0))
    features = measure(fitted.features, talk.conversations(1, 24, 8))[0]

    assert np.isfinite(features[2:, PACE]).all()
    assert not fitted.score_features(features)[:, PACE].any()


def test_what_a_request_does_not_say_counts_for_nothing() -> None:
    rows = np.full((1, len(TEXT_FEATURES)), np.nan)

    assert (instruments().score_features(rows)[0, :-1] == 0).all()


def test_the_last_score_says_whether_a_request_is_atypical() -> None:
    odd = Conversation([Query("ZXQ;;\n\n" * 90 + str(place)) for place in range(9)])
    (strange,), (usual,) = instruments().score([odd]), instruments().score(talk.conversations(1, 24, 6))

    assert strange[:, -1].mean() > usual[:, -1].mean() + 3


@pytest.mark.slow
def test_a_generator_decides_everything() -> None:
    clients = talk.conversations(30, 20, 2)
    one, same = (TextInstruments.fit(clients, np.random.default_rng(4)) for _ in range(2))

    np.testing.assert_array_equal(one.scores.quantiles, same.scores.quantiles)
    np.testing.assert_array_equal(one.coverage.planes, same.coverage.planes)


@pytest.mark.slow
def test_too_few_clients_are_refused() -> None:
    with pytest.raises(ValueError, match="at least"):
        TextInstruments.fit(talk.conversations(4, 24, 2), np.random.default_rng(4))
