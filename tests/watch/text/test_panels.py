"""The two statistics of a client: what each sees, what it does not, and on how much."""

import numpy as np
import pytest

from palladion.watch.rows import Rows
from palladion.watch.suspicion import CLIENTS_MIN, CORRELATION
from palladion.watch.text.features import COHESION
from palladion.watch.text.instruments import SCORES
from palladion.watch.text.panels import SETTLED, STATISTICS, Leaning, Panels

QUERIES = 40


def honest(count: int, seed: int, queries: int = QUERIES) -> list[Rows]:
    generator = np.random.default_rng(seed)
    return [
        generator.standard_normal((queries, SCORES)) + 0.3 * generator.standard_normal(SCORES) for _ in range(count)
    ]


@pytest.fixture(scope="module")
def panels() -> Panels:
    return Panels.fit(honest(60, 1))


def last(panels: Panels, scores: Rows) -> Rows:
    return np.asarray(panels.statistics(scores.sum(axis=0)[None], np.array([len(scores)]))[0])


def shifted(score: int, by: float) -> Rows:
    scores = np.zeros((QUERIES, SCORES))
    scores[:, score] = by
    return scores


def test_too_little_in_common_moves_the_second_statistic_alone(panels: Panels) -> None:
    plain, apart = last(panels, shifted(COHESION, 0.0)), last(panels, shifted(COHESION, -3.0))

    assert apart[0] == plain[0]
    assert apart[1] > plain[1] + 5


def test_too_much_in_common_is_not_unusual(panels: Panels) -> None:
    assert last(panels, shifted(COHESION, 3.0))[1] < last(panels, shifted(COHESION, 0.0))[1]


@pytest.mark.parametrize("score", [0, COHESION - 1, SCORES - 1])
def test_any_other_score_moves_the_first_statistic_alone(panels: Panels, score: int) -> None:
    plain, odd = last(panels, shifted(score, 0.0)), last(panels, shifted(score, 3.0))

    assert odd[0] > plain[0] + 1
    assert odd[1] == plain[1]


def test_cohesion_says_nothing_before_enough_was_asked(panels: Panels) -> None:
    scores = shifted(COHESION, -3.0)
    found = panels.statistics(np.cumsum(scores, axis=0), np.arange(1, len(scores) + 1))

    assert found.shape == (QUERIES, STATISTICS)
    assert len(set(found[: SETTLED - 1, 1].tolist())) == 1
    assert found[SETTLED - 1, 1] > found[SETTLED - 2, 1]


def test_a_statistic_is_of_sums_and_counts_whoever_stands_beside_it(panels: Panels) -> None:
    sums = np.stack([scores.sum(axis=0) for scores in honest(6, 2)])
    counts = np.full(6, QUERIES)
    together = panels.statistics(sums, counts)

    for row in range(6):
        np.testing.assert_array_equal(together[row], panels.statistics(sums[row : row + 1], counts[:1])[0])


def test_longer_than_was_fitted_counts_as_the_longest(panels: Panels) -> None:
    mean = np.full(1, -0.5)
    leaning = panels.leaning

    found = [leaning.statistic(mean * count, np.array([count]))[0] for count in (QUERIES, 10 * QUERIES)]
    assert found[0] == pytest.approx(found[1])


def test_what_members_do_not_have_in_common_averages_out(panels: Panels) -> None:
    sums, counts = shifted(COHESION, -1.0).sum(axis=0)[None], np.array([QUERIES])
    alone, group = panels.statistics(sums, counts), panels.statistics(sums, counts, np.array([0.1]))

    assert group[0, 1] == pytest.approx(alone[0, 1] / np.sqrt(CORRELATION + 0.1 * (1 - CORRELATION)))


def test_deviations_have_the_sign_of_the_score(panels: Panels) -> None:
    low, high = (panels.deviations(shifted(COHESION, by).sum(axis=0), QUERIES) for by in (-2.0, 2.0))

    assert low.shape == (SCORES,)
    assert low[COHESION] < -1 < 1 < high[COHESION]
    assert panels.deviations(shifted(COHESION, -2.0)[0], 1)[COHESION] == 0


def test_a_client_can_ask_more_than_the_others(panels: Panels) -> None:
    fitted = Panels.fit([*honest(30, 3), *honest(1, 4, queries=90)])

    assert len(fitted.leaning.centre) == QUERIES


def test_too_few_clients_are_refused() -> None:
    few = honest(CLIENTS_MIN - 1, 5)
    with pytest.raises(ValueError, match=f"{CLIENTS_MIN - 1} clients"):
        Panels.fit([*few, *honest(9, 6, queries=SETTLED - 1)])
    with pytest.raises(ValueError, match=f"at least {CLIENTS_MIN}"):
        Leaning.fit([scores[:, 0] for scores in few])
