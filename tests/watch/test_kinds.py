"""Both kinds of calibration, to the watch, are one: what it relies on holds for either."""

import numpy as np
import pytest

from palladion.watch.client import ClientState
from palladion.watch.kinds import AnyCalibration
from tests.watch import factories, talkers

KINDS: dict[str, AnyCalibration] = {"numbers": factories.calibration(), "texts": talkers.calibration()}
SEED = 41


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> AnyCalibration:
    return KINDS[request.param]


def sums_of(kind: AnyCalibration, rows: int = 30) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    return np.cumsum(np.random.default_rng(SEED).standard_normal((rows, len(kind.words))), axis=0)


def test_a_new_state_sums_up_as_many_scores_as_have_words_and_fits(kind: AnyCalibration) -> None:
    state = kind.new_state()

    assert len(state.sums) == len(state.pooled_sums) == len(kind.words)
    assert kind.fits(state)
    assert kind.fits(ClientState.from_bytes(state.to_bytes()))


def test_a_p_value_is_at_most_a_rate_where_the_statistic_is_beyond_its_threshold(kind: AnyCalibration) -> None:
    counts = np.arange(1, 31)

    for value in [float("-inf"), *kind.statistic(sums_of(kind), counts).tolist()]:
        for alpha in (0.01, 0.05, 0.3):
            assert (kind.p_value(value) <= alpha) == (value > kind.threshold(alpha))


def test_a_statistic_is_the_same_alone_and_among_others(kind: AnyCalibration) -> None:
    sums, counts = sums_of(kind), np.arange(1, 31)

    together = kind.statistic(sums, counts)

    assert [
        float(kind.statistic(sums[row : row + 1], counts[row : row + 1])[0]) for row in range(30)
    ] == together.tolist()


def test_groups_of_one_are_no_groups_and_all_have_p_values(kind: AnyCalibration) -> None:
    counts = np.arange(1, 31)
    nobody = np.zeros((30, 3), np.int64)

    assert (kind.group_p_values(sums_of(kind), counts, counts**2, nobody) == 1).all()
    found = kind.group_p_values(10 * sums_of(kind), counts, np.maximum(1, counts**2 // 2), nobody)
    assert ((found > 0) & (found <= 1)).all()


def test_every_score_is_explained(kind: AnyCalibration) -> None:
    assert kind.deviations(sums_of(kind)[-1], 30).shape == (len(kind.words),)
    assert all(kind.words.values())


def test_sums_of_a_new_epoch_are_those_of_its_queries_alone(kind: AnyCalibration) -> None:
    state = kind.new_state()

    state.advance(np.ones((5, len(kind.words))), 5, horizon=2)
    state.forgive()
    assert (state.sums.tolist(), state.count) == ([0.0] * len(kind.words), 0)
    state.advance(np.ones((5, len(kind.words))), 5, horizon=2)

    assert (state.sums.tolist(), state.count) == ([1.0] * len(kind.words), 1)
