"""Committees: each member learns from its own part of the answers, along true gradients."""

from typing import Any

import numpy as np
import pytest

from palladion.redteam import committees
from palladion.redteam.committees import Committee, fit_committee
from palladion.redteam.learners import Goal

ROWS = np.random.default_rng(3).standard_normal((240, 4))


def _same(rows: Any) -> Any:
    return rows


def _fitted(targets: Any, goal: Goal, *, steps: int = 200, parts: Any = None, seed: int = 1) -> Committee:
    given = np.arange(len(targets)) % 3 if parts is None else parts
    generator = np.random.default_rng(seed)
    rows = ROWS[: len(targets)]
    return fit_committee(rows, targets, goal, generator, parts=given, widths=(16, 8), scaled=_same, steps=steps)


def test_they_learn_classes_and_numbers_together() -> None:
    labels = np.eye(2)[(ROWS[:, 0] * ROWS[:, 1] > 0).astype(int)]
    told = _fitted(labels[:160], "probabilities").answers(ROWS[160:])
    assert (told.argmax(axis=1) == labels[160:].argmax(axis=1)).mean() > 0.8
    numbers = 500 + 20 * ROWS[:, :1]
    wrong = np.square(_fitted(numbers[:160], "numbers").answers(ROWS[160:]) - numbers[160:]).mean()
    assert wrong < 0.5 * numbers.var()


def test_no_member_is_shown_its_own_part() -> None:
    targets = np.eye(2)[(ROWS[:, 0] > 0).astype(int)]
    parts = np.arange(240) % 3
    turned = targets.copy()
    turned[parts == 1] = 1 - turned[parts == 1]
    one, other = _fitted(targets, "probabilities", steps=60), _fitted(turned, "probabilities", steps=60)
    assert np.array_equal(one.without(1, ROWS), other.without(1, ROWS))
    assert not np.array_equal(one.without(0, ROWS), other.without(0, ROWS))


def test_the_committee_says_the_mean_of_its_members() -> None:
    found = _fitted(np.eye(3)[np.arange(90) % 3], "probabilities", steps=5)
    members = [found.without(part, ROWS) for part in range(3)]
    assert np.allclose(found.answers(ROWS), np.mean(members, axis=0), atol=1e-5)


@pytest.mark.parametrize("goal", ["probabilities", "numbers"])
def test_gradients_are_those_of_finite_differences(goal: Goal) -> None:
    generator = np.random.default_rng(2)
    layers = tuple(layer.astype(np.float64) for layer in committees._begin((4, 6, 5, 3), 2, generator))
    inputs = generator.standard_normal((2, 7, 4))
    targets = generator.random((2, 7, 3))
    targets /= targets.sum(axis=2, keepdims=True)

    def loss(changed: Any) -> float:
        said = committees._forward(changed, inputs)[-1]  # type: ignore[arg-type]
        if goal == "numbers":
            return float(np.square(said - targets).sum() / 2 / 7)
        shifted = said - said.max(axis=2, keepdims=True)
        return float(-(targets * (shifted - np.log(np.exp(shifted).sum(axis=2, keepdims=True)))).sum() / 7)

    gradients = committees._gradients(layers, inputs, targets, goal)  # type: ignore[arg-type]
    for index, gradient in enumerate(gradients):
        for place in list(np.ndindex(gradient.shape))[::7]:
            moved = [[layer.copy() for layer in layers] for _ in range(2)]
            moved[0][index][place] += 1e-6
            moved[1][index][place] -= 1e-6
            assert gradient[place] == pytest.approx((loss(moved[0]) - loss(moved[1])) / 2e-6, abs=1e-4)


def test_the_same_seed_makes_the_same_committee() -> None:
    targets = np.eye(3)[np.arange(90) % 3]
    one, other, third = (_fitted(targets, "probabilities", steps=3, seed=seed).answers(ROWS) for seed in (1, 1, 2))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, third)
