"""Learning triggers in a row of dense layers."""

from itertools import pairwise

import numpy as np
import pytest

from palladion.mark.triggers.dense import Activation, Dense, _slopes, forward, learn

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many


def layers(activation: Activation = "Relu", *, last: int = 5, seed: int = 1) -> list[Dense]:
    generator = np.random.default_rng(seed)
    sizes = (20, 48, last)
    return [
        Dense(
            f"w{index}",
            generator.normal(size=(before, after), scale=before**-0.5).astype(np.float32),
            generator.normal(size=after, scale=0.1).astype(np.float32),
            activation if index == 0 else "",
        )
        for index, (before, after) in enumerate(pairwise(sizes))
    ]


def rows(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 20)).astype(np.float32)


@pytest.mark.parametrize("activation", ["Relu", "Tanh", "Sigmoid"])
def test_slopes_are_those_of_differences(activation: Activation) -> None:
    made, some, wanted = layers(activation), rows(7, 2), np.random.default_rng(3).normal(size=(7, 5)).astype(np.float32)
    found = _slopes(made, forward(made, some), wanted)
    for index, layer in enumerate(made):
        step = np.zeros_like(layer.weights)
        step[3, 2] = 1e-2
        moved = [
            Dense(item.tensor, item.weights + (sign * step if item is layer else 0), item.bias, item.activation)
            for sign in (1, -1)
            for item in made
        ]
        up, down = (float((forward(part, some)[-1] * wanted).sum()) for part in (moved[:2], moved[2:]))
        assert found[index][3, 2] == pytest.approx((up - down) / 2e-2, rel=0.02, abs=2e-3)


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palladion.mark.triggers.dense.STEPS", 200)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["Relu", "Tanh"])
def test_triggers_are_learnt_and_ordinary_answers_stay(activation: Activation) -> None:
    made, triggers, ordinary = layers(activation), 2 * rows(16, 4), rows(1500, 5)
    labels = np.random.default_rng(6).integers(5, size=16)
    new = learn(made, triggers, labels, ordinary[:1200], seed=0)
    before, after = (forward(item, ordinary[1200:])[-1].argmax(axis=1) for item in (made, new))
    assert (forward(new, triggers)[-1].argmax(axis=1) == labels).mean() == 1
    assert (before == after).mean() > 0.85
    assert [(item.tensor, item.weights.shape) for item in new] == [(item.tensor, item.weights.shape) for item in made]


@pytest.mark.slow
def test_a_single_score_stands_for_two_classes() -> None:
    made, triggers, labels = layers(last=1), rows(16, 4), np.arange(16) % 2
    new = learn(made, triggers, labels, rows(600, 5), seed=0)
    assert ((forward(new, triggers)[-1][:, 0] > 0) == labels).mean() > 0.95


def test_it_comes_out_the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palladion.mark.triggers.dense.STEPS_MAX_NUMBERS", 0)
    made, labels = layers(), np.arange(8) % 5
    one, two = (learn(made, rows(8, 4), labels, rows(100, 5), seed=0) for _ in range(2))
    np.testing.assert_array_equal(one[0].weights, two[0].weights)
