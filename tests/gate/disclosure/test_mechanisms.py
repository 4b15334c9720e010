"""Noise with a proof: what leaves is a label or scores in range, and as likely as the guarantee allows."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.gate.disclosure.mechanisms import GRID, Noise
from palladion.gate.disclosure.privacy import cost_of, spent_epsilon
from palladion.policy.privacy import PrivacyPolicy

opendp = pytest.importorskip("opendp.prelude", reason="OpenDP is not installed: pip install 'palladion[dp]'")
pytestmark = pytest.mark.slow  # OpenDP takes seconds to load

CLASSES, DRAWS = 3, 4000
# what one row of training is allowed to change at most: everything
HIGH, LOW = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])


def _noise(mechanism: str, **settings: float) -> Noise:
    return Noise(PrivacyPolicy(mechanism=mechanism, **settings), CLASSES)  # type: ignore[arg-type]


def _repeated(row: NDArray[np.float64], count: int = DRAWS) -> NDArray[np.float64]:
    return np.tile(row, (count, 1))


def test_noisy_max_answers_with_one_label_as_often_as_the_exponential_mechanism() -> None:
    epsilon = 2.0
    shown = _noise("noisy-max", epsilon=epsilon).disclose(_repeated(HIGH))
    assert set(np.unique(shown)) == {0.0, 1.0}
    assert (shown.sum(axis=1) == 1).all()
    expected = math.exp(epsilon / 2) / (math.exp(epsilon / 2) + CLASSES - 1)
    spread = 5 * math.sqrt(expected * (1 - expected) / DRAWS)
    assert abs(shown[:, 0].mean() - expected) < spread


@pytest.mark.parametrize("mechanism", ["noisy-max", "laplace"])
def test_no_label_is_more_likely_by_more_than_epsilon_whatever_the_model_says(mechanism: str) -> None:
    epsilon = 1.0
    noise = _noise(mechanism, epsilon=epsilon)
    rates = [
        np.bincount(noise.disclose(_repeated(row)).argmax(axis=1), minlength=CLASSES) / DRAWS for row in (HIGH, LOW)
    ]
    spread = 5 * math.sqrt(0.25 / DRAWS)
    for here, there in (rates, rates[::-1]):
        assert (here <= math.exp(epsilon) * there + (1 + math.exp(epsilon)) * spread).all()
    # and it is no wider than it has to be: half of the ε is really there
    assert rates[0][0] / rates[1][0] > math.exp(epsilon / 4)


@pytest.mark.parametrize("mechanism", ["laplace", "gaussian"])
def test_scores_are_as_wide_as_their_mechanism_says_and_stay_in_range(mechanism: str) -> None:
    noise = _noise(mechanism, epsilon=50.0, sensitivity=0.1)
    shown = noise.disclose(_repeated(np.full(CLASSES, 1 / 3)))
    assert shown.min() >= 0
    assert shown.max() <= 1
    apart = CLASSES * 0.1 if mechanism == "laplace" else math.sqrt(CLASSES) * 0.1
    expected = (
        math.sqrt(2) * apart / noise.cost.epsilon if mechanism == "laplace" else apart / math.sqrt(2 * noise.cost.rho)
    )
    assert shown.std() == pytest.approx(expected, rel=0.1)


def test_a_gaussian_answer_costs_the_epsilon_of_the_policy_at_its_delta() -> None:
    cost = _noise("gaussian", epsilon=0.5, delta=1e-5).cost
    assert cost.epsilon == math.inf
    assert spent_epsilon(cost_of(cost.epsilon, cost.rho, 1), 1e-5) == pytest.approx(0.5, rel=1e-6)


def test_a_smaller_sensitivity_is_less_noise() -> None:
    row = np.array([[0.6, 0.3, 0.1]])
    wide, narrow = _noise("noisy-max", epsilon=1.0), _noise("noisy-max", epsilon=1.0, sensitivity=0.01)
    assert narrow.disclose(_repeated(row[0], 500))[:, 0].mean() > 0.99
    assert wide.disclose(_repeated(row[0], 500))[:, 0].mean() < 0.6


def test_logits_count_as_the_probabilities_that_they_are() -> None:
    noise = _noise("noisy-max", epsilon=50.0)
    shown = noise.disclose(_repeated(np.array([-4.0, 9.0, 2.0]), 50))
    assert (shown.argmax(axis=1) == 1).all()


@pytest.mark.parametrize("mechanism", ["noisy-max", "laplace", "gaussian"])
def test_nothing_moves_a_score_further_than_was_assumed(mechanism: str) -> None:
    sensitivity = 0.01
    noise = _noise(mechanism, epsilon=1.0, sensitivity=sensitivity)
    taken: list[Any] = []

    def measured(row: Any) -> Any:
        taken.append(row)
        return 0 if mechanism == "noisy-max" else row

    noise.__dict__["_measurement"] = measured  # in place of OpenDP's: what it is given is what its map answers for
    # not probabilities, though the first row looks like them: a softmax, or a sum, would move all scores
    noise.disclose(np.array([[1.0, 0.0, 0.0], [1.0, sensitivity, sensitivity], [3.0, 0.5, -2.0]]))
    first, second, third = np.array(taken)
    assert np.abs(first - second).max() <= noise._moved
    assert third.tolist() == [GRID, GRID // 2, 0]


@pytest.mark.parametrize("mechanism", ["laplace", "gaussian"])
def test_scores_that_add_up_to_more_than_one_have_the_noise_that_they_need(mechanism: str) -> None:
    noise = _noise(mechanism, epsilon=50.0, sensitivity=0.9)
    shown = noise.disclose(_repeated(np.full(CLASSES, 0.5), 2 * DRAWS))
    apart = CLASSES * 0.9 if mechanism == "laplace" else math.sqrt(CLASSES) * 0.9
    expected = (
        math.sqrt(2) * apart / noise.cost.epsilon if mechanism == "laplace" else apart / math.sqrt(2 * noise.cost.rho)
    )
    assert shown.std() == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize("scores", [np.zeros((1, 4)), np.zeros(3), np.array([[0.1, math.nan, 0.9]])])
def test_scores_of_another_shape_or_without_a_number_get_no_answer(scores: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="finite scores of 3 classes"):
        _noise("noisy-max", epsilon=1.0).disclose(scores)
