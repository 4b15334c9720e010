"""Calibrations for texts: of two statistics the more unusual one counts, and the promise is kept with both."""

import numpy as np
import pytest

from palladion.redteam.distillers import distiller
from palladion.watch.client import QUERIES_MIN
from palladion.watch.rows import Rows
from palladion.watch.text.calibration import (
    TextThresholds,
    calibrate_texts,
    client_statistics,
    client_suprema,
    group_suprema,
)
from palladion.watch.text.panels import STATISTICS
from tests.watch.text import talk

SEED = 8
UNUSUAL, USUAL = 99.0, -99.0


def thresholds(count: int = 199, seed: int = SEED) -> TextThresholds:
    return TextThresholds.fit(np.random.default_rng(seed).standard_normal((count, STATISTICS)))


@pytest.mark.parametrize("suprema", [(UNUSUAL, USUAL), (USUAL, UNUSUAL), (UNUSUAL, UNUSUAL)])
def test_either_statistic_alone_can_be_the_unusual_one(suprema: tuple[float, float]) -> None:
    assert thresholds().p_value(suprema) == 2 / 200 == thresholds().rate_min


def test_what_is_usual_in_both_has_a_p_value_of_one() -> None:
    assert thresholds().p_value((USUAL, USUAL)) == 1.0


def test_what_cannot_be_weighed_is_as_unusual_as_can_be() -> None:
    assert thresholds().p_value((float("nan"), USUAL)) == thresholds().rate_min


def test_one_client_supports_no_rate_below_one() -> None:
    assert thresholds(1).rate_min == 1.0


def test_p_values_of_many_are_those_of_each() -> None:
    known, rows = thresholds(), np.random.default_rng(1).standard_normal((50, STATISTICS)) * 2
    expected = [known.p_value(row.tolist()) for row in rows]

    np.testing.assert_array_equal(known.p_values(rows), expected)


@pytest.mark.parametrize("together", [0.0, 1.0])
def test_honest_clients_are_taken_for_others_no_more_often_than_was_promised(together: float) -> None:
    generator, alpha = np.random.default_rng(SEED), 0.05
    common = generator.standard_normal((20_000, 1))
    drawn = together * common + (1 - together) * generator.standard_normal((20_000, STATISTICS))

    rate = float((TextThresholds.fit(drawn[:10_000]).p_values(drawn[10_000:]) <= alpha).mean())
    assert rate <= alpha + 0.01, f"seed {SEED}: {rate} of 10,000 at {alpha}"


def test_thresholds_are_from_whole_clients_and_counted() -> None:
    made = talk.calibration()

    assert (made.about.fitted, made.about.organisations) == (talk.FITTED, 5)
    assert made.clients.count == made.about.clients == 35
    assert set(made.groups) == {2, 3}
    assert all(known.count == 5 for known in made.groups.values())


def test_the_promise_is_the_clients_own_rank() -> None:
    made = talk.calibration()
    (again,) = made.instruments.score(talk.conversations(1, talk.QUERIES, 77))
    suprema = client_suprema(made.instruments.effects, again, talk.QUERIES)

    assert made.p_value(suprema.tolist()) == made.clients.p_value(suprema.tolist())
    assert made.clients.rate_min <= made.p_value(suprema.tolist()) <= 1
    running = np.maximum.accumulate(client_statistics(made.instruments.effects, again)[QUERIES_MIN - 1 :], axis=0)
    assert made.p_values(running)[-1] == made.p_value(suprema.tolist())


def test_a_supremum_is_of_one_epoch_and_not_of_the_first_queries() -> None:
    effects = talk.calibration().instruments.effects
    (scores,) = talk.calibration().instruments.score(talk.conversations(1, talk.QUERIES, 78))
    found = client_statistics(effects, scores)

    np.testing.assert_array_equal(client_suprema(effects, scores, 10), found[QUERIES_MIN - 1 : 10].max(axis=0))


def test_strange_texts_leave_a_larger_statistic_than_honest_ones() -> None:
    instruments = talk.calibration().instruments
    prompts, generator = talk.prompts(), np.random.default_rng(9)
    thief = distiller("self-instruct", prompts, talk.QUERIES, generator, cover=prompts).conversation
    (honest,) = talk.conversations(1, talk.QUERIES, 9)

    ours, theirs = (
        client_statistics(instruments.effects, scores)[-1, 0] for scores in instruments.score([honest, thief])
    )
    assert theirs > ours


def organisation(seed: int, members: int = 3) -> list[Rows]:
    return talk.calibration().instruments.score(talk.conversations(members, talk.MEMBER_QUERIES, seed))


def test_an_organisation_counts_for_every_size_that_it_can_form() -> None:
    effects, members = talk.calibration().instruments.effects, organisation(5)
    found = group_suprema(effects, members)

    assert set(found) == {2, 3}
    np.testing.assert_array_equal(found[2], group_suprema(effects, members[:2])[2])


def test_a_groups_p_value_is_that_of_its_size() -> None:
    made = talk.calibration()
    sums = np.concatenate(organisation(6)).sum(axis=0)[None]
    counts = np.array([36])

    (three,) = made.group_p_values(sums, counts, np.array([3 * 12**2]))
    statistics = made.statistics(sums, counts, np.array([1 / 3]))
    assert three == made.groups[3].p_values(statistics)[0]


def test_who_is_alone_or_asked_too_little_is_no_group() -> None:
    made = talk.calibration()
    sums = np.full((2, len(organisation(7)[0][0])), 50.0)

    np.testing.assert_array_equal(made.group_p_values(sums, np.array([20, 4]), np.array([400, 8])), [1.0, 1.0])


def test_a_group_larger_than_any_that_was_calibrated_is_not_weighed() -> None:
    made = talk.calibration()
    sums = np.full((2, len(organisation(7)[0][0])), 3.0 * 40)

    p_values = made.group_p_values(sums, np.array([40, 36]), np.array([40, 3 * 12**2]))
    assert p_values.tolist() == [1.0, made.groups[3].rate_min]


@pytest.mark.slow
def test_clients_who_asked_too_little_give_no_threshold() -> None:
    talkers = talk.conversations(talk.FITTED, talk.QUERIES, 3)
    short = talk.conversations(3, 6, 4)
    made = calibrate_texts(talk.about(), talkers, [*short, talkers[0]], [], np.random.default_rng(0))

    assert made.about.clients == 1
    with pytest.raises(ValueError, match="at least one client"):
        calibrate_texts(talk.about(), talkers, short, [], np.random.default_rng(0))
