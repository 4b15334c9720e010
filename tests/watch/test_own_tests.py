"""The tests of a client on its own: what each sees, that the largest counts, and that the promised rate holds of it."""

import numpy as np
import pytest

from palladion.watch.calibration import client_supremum
from palladion.watch.client import ClientState, statistics
from palladion.watch.conformal import Conformal
from palladion.watch.features import REPEATS
from palladion.watch.instruments import Episode
from palladion.watch.own_evidence import OwnEvidence
from palladion.watch.own_tests import LATELY, NEAR, NEAR_LATELY, TESTS, WHOLE, WORDS, OwnTests
from palladion.watch.recent import NEAR_SCORE, run_of
from palladion.watch.rows import Rows
from palladion.watch.scores import STEPS
from palladion.watch.suspicion import BETWEEN_SHARE, QUERIES_MIN, RandomEffects

from . import factories
from .factories import HORIZON

SEED = 83
SIZE = 18
CALIBRATION = factories.calibration()
INSTRUMENTS = CALIBRATION.instruments


def probing(generator: np.random.Generator, queries: int, before: int = 0) -> Episode:
    """Who asks honestly for a while, and then honest queries in turn with small steps away from them."""
    rows = factories.honest_rows(generator, queries)
    for place in range(before + 1, queries, 2):
        rows[place] = rows[place - 1] + 0.02 * generator.standard_normal(rows.shape[1])
    return factories.asked(rows)


def later(generator: np.random.Generator, before: int, after: int) -> Episode:
    """Who asks honest rows, and then foreign ones."""
    rows = factories.honest_rows(generator, before), factories.foreign(generator, after).inputs
    return factories.asked(np.concatenate(rows))


def each(episode: Episode) -> Rows:
    """The values (queries, TESTS) after each query from the `QUERIES_MIN`-th on."""
    assert INSTRUMENTS.own is not None
    scores = INSTRUMENTS.score([episode])[0]
    return INSTRUMENTS.own.each(INSTRUMENTS.effects, run_of(scores))[QUERIES_MIN - 1 :]


def test_the_largest_of_all_tests_counts() -> None:
    episode = probing(np.random.default_rng(SEED), 30)
    scores = INSTRUMENTS.score([episode])[0]

    np.testing.assert_array_equal(INSTRUMENTS.path(scores)[QUERIES_MIN - 1 :], each(episode).max(axis=1))
    assert client_supremum(INSTRUMENTS, scores, HORIZON) == each(episode).max()


def test_each_test_is_what_the_page_says() -> None:
    scores = INSTRUMENTS.score([probing(np.random.default_rng(SEED), 40)])[0]
    own, effects, found = INSTRUMENTS.own, INSTRUMENTS.effects, each(probing(np.random.default_rng(SEED), 40))
    assert own is not None
    for count in (QUERIES_MIN, 16, 33, 40):
        last = scores[max(0, 16 * ((count - 1) // 16 - 1)) : count]
        values = []
        for part in (scores[:count], last):
            distance = effects.statistic(part.sum(axis=0)[None], np.array([len(part)]))[0]
            values.append(np.sqrt(distance + 2))
        for part in (scores[:count], last):
            share = (part[:, REPEATS] <= NEAR_SCORE).mean() / np.sqrt(0.005 * 0.995)
            values.append((share - own.near.mean) / np.sqrt(own.near.between + own.near.within / len(part)))
        expected = (np.array(values) - own.scales[:, 0]) / own.scales[:, 1]
        np.testing.assert_allclose(found[count - QUERIES_MIN], expected, rtol=1e-12)


def test_who_comes_back_to_its_own_queries_is_seen_by_how_often() -> None:
    generator = np.random.default_rng(SEED)
    found = np.array([each(probing(generator, HORIZON)).max(axis=0) for _ in range(20)])
    honest = np.array([each(factories.honest(generator)).max(axis=0) for _ in range(20)])

    assert (found[:, NEAR] > CALIBRATION.threshold(0.02)).mean() >= 0.9
    assert (found[:, NEAR] > found[:, WHOLE]).mean() >= 0.9
    assert (honest[:, NEAR] > CALIBRATION.threshold(0.02)).mean() <= 0.1


def test_who_probes_after_much_honest_use_is_seen_by_what_it_did_lately() -> None:
    generator = np.random.default_rng(SEED)
    last = np.array([each(probing(generator, 512, before=480))[-1] for _ in range(20)])

    assert np.median(last[:, NEAR_LATELY]) > 1.5 * np.median(last[:, NEAR])


def test_who_steals_after_much_honest_use_is_seen_by_what_it_did_lately() -> None:
    generator = np.random.default_rng(SEED)
    last = np.array([each(later(generator, 128, 32))[-1] for _ in range(20)])

    assert np.median(last[:, LATELY]) > 2 * np.median(last[:, WHOLE])


def test_who_never_comes_near_itself_is_not_suspected_for_that() -> None:
    scores = INSTRUMENTS.score([factories.honest(np.random.default_rng(SEED), 200)])[0]
    scores[:, REPEATS] = 3.0
    assert INSTRUMENTS.own is not None

    found = INSTRUMENTS.own.each(INSTRUMENTS.effects, run_of(scores))

    assert (found[:, NEAR:] < CALIBRATION.threshold(0.5)).all()


@pytest.mark.parametrize(
    ("episode", "test"),
    [
        (factories.noise(np.random.default_rng(SEED)), WHOLE),
        (probing(np.random.default_rng(SEED), HORIZON), NEAR),
    ],
    ids=["noise", "probing"],
)
@pytest.mark.parametrize("at_once", [1, 7, HORIZON])
def test_people_are_told_which_test_spoke_however_queries_were_cut(episode: Episode, test: int, at_once: int) -> None:
    tests, state = OwnEvidence(CALIBRATION, 0.01), CALIBRATION.new_state()
    scores = INSTRUMENTS.score([episode])[0]
    for start in range(0, len(scores), at_once):
        stretches = tests.advance(state, scores[start : start + at_once], at_once)
        tests.weigh(state, stretches, statistics(CALIBRATION, stretches))

    assert state.spoke == each(episode).max(axis=0).argmax() == test
    assert [reason for reason in tests.reasons(state) if reason in WORDS] == ([WORDS[test]] if test else [])
    assert ClientState.from_bytes(state.to_bytes()).spoke == test


def test_what_comes_after_the_most_unusual_query_does_not_say_which_test_spoke() -> None:
    tests, state = OwnEvidence(CALIBRATION, 0.01), CALIBRATION.new_state()
    scores = INSTRUMENTS.score([factories.noise(np.random.default_rng(SEED), 12)])[0]
    stretches = tests.advance(state, scores[:10], 10)
    tests.weigh(state, stretches, statistics(CALIBRATION, stretches))
    state.spoke = NEAR_LATELY

    tests.weigh(state, tests.advance(state, scores[10:], 2), [-1.0, state.supremum])

    assert state.spoke == NEAR_LATELY


def test_a_new_epoch_is_told_of_by_its_own_queries() -> None:
    tests, state = OwnEvidence(CALIBRATION, 0.01), CALIBRATION.new_state()
    generator = np.random.default_rng(SEED)
    for episode in (probing(generator, HORIZON), factories.honest(generator, 1)):
        scores = INSTRUMENTS.score([episode])[0]
        stretches = tests.advance(state, scores, len(scores))
        tests.weigh(state, stretches, statistics(CALIBRATION, stretches))

    assert (state.epoch, state.count, state.spoke) == (1, 1, WHOLE)


def _clients(generator: np.random.Generator, count: int, queries: int = 48) -> list[Rows]:
    """Scores of clients who differ in their means, and in how often they come near themselves."""
    found = []
    for _ in range(count):
        scores = generator.standard_normal((queries, SIZE)) + 0.3 * generator.standard_t(3, SIZE)
        scores[generator.random(queries) < 0.02 * generator.exponential(), REPEATS] = NEAR_SCORE - 0.1
        found.append(np.rint(np.clip(scores, -3, 3) * STEPS) / STEPS)
    return found


@pytest.mark.slow
def test_an_exchangeable_client_passes_the_threshold_as_often_as_promised() -> None:
    generator, calibrations, alpha = np.random.default_rng(SEED), 60, 0.05
    passed = []
    for _ in range(calibrations):
        fitted = _clients(generator, 40)
        effects = RandomEffects.fit(fitted, between_share=BETWEEN_SHARE)
        own = OwnTests.fit(effects, fitted)
        suprema = [
            own.statistic(effects, run_of(scores))[QUERIES_MIN - 1 :].max() for scores in _clients(generator, 59)
        ]
        known = Conformal.fit(np.array(suprema[:39]))
        passed += [known.p_value(value) <= alpha for value in suprema[39:]]

    # 39 clients support 2.5 % and 5 %, of which the second is exact; a calibration's own rate is Beta(2, 38)
    deviation = (0.05 * 0.95 / 41 / calibrations + 0.05 * 0.95 / len(passed)) ** 0.5
    assert abs(np.mean(passed) - alpha) <= 3 * deviation, f"seed {SEED}"


@pytest.mark.slow
def test_thieves_among_the_clients_fitted_to_hardly_move_the_scales() -> None:
    generator = np.random.default_rng(SEED)
    clean = _clients(generator, 200)
    thieves = [np.full_like(clean[0], 3.0) for _ in range(2)]
    effects = RandomEffects.fit(clean, between_share=BETWEEN_SHARE)

    without, poisoned = OwnTests.fit(effects, clean).scales, OwnTests.fit(effects, clean[2:] + thieves).scales

    np.testing.assert_allclose(poisoned, without, rtol=0.2, atol=0.1)


def test_clients_who_all_did_the_same_make_no_scale_of_nothing() -> None:
    generator = np.random.default_rng(SEED)
    effects = RandomEffects.fit(_clients(generator, 40))
    still = [np.zeros((10, SIZE)) for _ in range(5)]

    own = OwnTests.fit(effects, still)

    assert own.scales.shape == (TESTS, 2)
    assert (own.scales[:, 1] > 0).all()
    assert np.isfinite(own.each(effects, run_of(still[0]))).all()


def test_no_direction_has_less_variance_between_clients_than_the_floor() -> None:
    clients = _clients(np.random.default_rng(SEED), 40)

    free, floored = (RandomEffects.fit(clients, between_share=share) for share in (0.0, 0.9))

    floor = 0.9 * free.between.mean()
    assert free.between.min() < floor < free.between.max()
    np.testing.assert_array_equal(floored.between, np.maximum(free.between, floor))
