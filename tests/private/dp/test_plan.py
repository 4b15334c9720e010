"""Plans: more ε is more accuracy, and a label under noise is right as often as the exponential mechanism says."""

import math

import numpy as np
import pytest

from palladion.private.dp.plan import accuracies, chance_of_top


def test_a_label_is_right_as_often_as_the_exponential_mechanism_says() -> None:
    assert chance_of_top(0.0, 10, 1.0, 1.0) == pytest.approx(0.1)
    assert chance_of_top(1.0, 2, 2.0, 1.0) == pytest.approx(math.e / (1 + math.e))
    assert chance_of_top(0.5, 10, 1.0, 0.1) > chance_of_top(0.5, 10, 1.0, 1.0)


@pytest.mark.slow
def test_more_epsilon_is_more_accuracy_and_no_noise_the_most() -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 4, 400)
    rows = np.eye(4)[labels] + 0.4 * generator.standard_normal((400, 4))
    found = accuracies(rows, labels, classes=4, epsilons=(0.05, 2.0), delta=1e-4)
    assert [item.epsilon for item in found] == [0.05, 2.0, None]
    assert found[0].accuracy + 0.1 < found[1].accuracy <= found[2].accuracy + 0.03
    assert found == accuracies(rows, labels, classes=4, epsilons=(0.05, 2.0), delta=1e-4)
