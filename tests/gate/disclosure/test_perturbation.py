"""Perturbation: within the budget, with the label, and as it was published."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from palladion.gate.contract import SEARCHED_CLASSES_MAX
from palladion.gate.disclosure.perturbation import _BETA, _GAMMA, _LOGARITHM_OF, _MARGIN, perturb

METHODS = ["reverse-sigmoid", "modelguard-w"]


def _drawn(seed: int, rows: int = 4, classes: int = 5, spread: float = 0.4) -> NDArray[np.float64]:
    return np.random.default_rng(seed).dirichlet(np.full(classes, spread), rows)


def _moved(before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(np.abs(after - before).sum(axis=1) / 2)


@pytest.mark.parametrize("method", METHODS)
@given(st.integers(0, 10_000), st.integers(2, 12), st.floats(0.01, 1), st.sampled_from([0.05, 0.4, 5.0]))
def test_labels_stay_and_no_more_is_moved_than_the_budget(
    method: Any, seed: int, classes: int, budget: float, spread: float
) -> None:
    before = _drawn(seed, classes=classes, spread=spread)
    after = perturb(before, method, budget)
    assert after.argmax(axis=1).tolist() == before.argmax(axis=1).tolist()
    assert (_moved(before, after) <= budget + 1e-9).all()
    assert after.min() >= -1e-12
    assert np.allclose(after.sum(axis=1), 1)


@pytest.mark.parametrize("method", METHODS)
def test_something_is_changed(method: Any) -> None:
    before = _drawn(1)
    assert (_moved(before, perturb(before, method, 0.2)) > 0.01).any()


@pytest.mark.parametrize("method", METHODS)
def test_the_same_answer_is_changed_alike_each_time(method: Any) -> None:
    before = _drawn(2)
    assert perturb(before, method, 0.2).tolist() == perturb(before, method, 0.2).tolist()
    assert np.allclose(perturb(before[:1], method, 0.2), perturb(before, method, 0.2)[:1])


def test_reverse_sigmoid_is_the_published_formula_where_the_budget_allows_it() -> None:
    y = np.array([[0.7, 0.2, 0.1]])
    logit = np.log(y / (1 - y))
    published = y - _BETA * (1 / (1 + np.exp(-_GAMMA * logit)) - 0.5)
    published /= published.sum()
    assert np.allclose(perturb(y, "reverse-sigmoid", 1.0), published)


@pytest.mark.slow
@pytest.mark.parametrize("budget", [0.02, 0.1, 0.3, 0.8])
def test_modelguard_solves_its_linear_programme(budget: float) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    for y in _drawn(11, rows=12, classes=6, spread=0.6):
        found = perturb(y[None], "modelguard-w", budget)[0]
        count, label, weights = len(y), int(y.argmax()), np.log(y + _LOGARITHM_OF)
        # y', and z at least as large as each change
        close = np.block([[np.eye(count), -np.eye(count)], [-np.eye(count), -np.eye(count)]])
        total = np.concatenate([np.zeros(count), np.ones(count)])
        ahead = np.zeros((count, 2 * count))
        ahead[np.arange(count), np.arange(count)] = 1
        ahead[:, label] -= 1
        ahead = np.delete(ahead, label, axis=0)
        solved = optimize.linprog(
            np.concatenate([weights, np.zeros(count)]),
            A_ub=np.vstack([close, total, ahead]),
            b_ub=np.concatenate([y, -y, [2 * budget], np.full(count - 1, -_MARGIN)]),
            A_eq=[np.concatenate([np.ones(count), np.zeros(count)])],
            b_eq=[1.0],
            bounds=[(0, 1)] * count + [(0, None)] * count,
        )
        # rows whose label leads by less than the margin have no solution
        if solved.status == 0:
            assert weights @ found == pytest.approx(solved.fun, abs=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_logits_come_back_as_logits(method: Any) -> None:
    logits = np.array([[4.0, -2.0, 1.0], [-9.0, -5.0, -7.0]])
    after = perturb(logits, method, 0.3)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.allclose(
        np.exp(after) / np.exp(after).sum(axis=1, keepdims=True), perturb(probabilities, method, 0.3), atol=1e-6
    )
    assert np.allclose(np.exp(after).sum(axis=1), np.exp(logits).sum(axis=1), rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_rows_that_are_no_numbers_stay_and_harm_no_other(method: Any) -> None:
    rows = np.array([[np.nan, 0.5, 0.5], [0.7, 0.2, 0.1], [np.inf, 0.0, 1.0]])
    after = perturb(rows, method, 0.2)
    assert np.array_equal(after[[0, 2]], rows[[0, 2]], equal_nan=True)
    assert np.allclose(after[1], perturb(rows[1:2], method, 0.2)[0])


def test_too_many_classes_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="at most"):
        perturb(_drawn(0, classes=SEARCHED_CLASSES_MAX + 1), "modelguard-w", 0.2)


def test_where_the_formula_would_turn_the_label_it_is_followed_until_then() -> None:
    y = np.array([[0.1114, *[0.1111] * 8, 0.0001]])
    y /= y.sum()
    logit = np.log(y / (1 - y))
    assert (y - _BETA * (1 / (1 + np.exp(-_GAMMA * logit)) - 0.5)).argmax() == 9
    after = perturb(y, "reverse-sigmoid", 1.0)
    assert after.argmax() == 0
    assert _moved(y, after)[0] > 0.01


@pytest.mark.parametrize("method", METHODS)
@given(st.integers(0, 10_000), st.integers(-20, 4), st.integers(2, 7))
def test_labels_of_logits_stay_however_near_or_far_they_are(method: Any, seed: int, power: int, classes: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(3, classes)) * 10.0**power
    assert perturb(logits, method, 0.3).argmax(axis=1).tolist() == logits.argmax(axis=1).tolist()


@pytest.mark.parametrize("method", METHODS)
def test_logits_that_softmax_makes_equal_keep_their_label(method: Any) -> None:
    logits = np.array([[7.8e-21, 1.7e-20], [3.0, 3.0 + 4e-16], [-1e308, 1e308], [1.7e308, 1.7e308]])
    after = perturb(logits, method, 0.3)
    assert np.isfinite(after).all()
    assert after.argmax(axis=1).tolist() == logits.argmax(axis=1).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@given(st.integers(0, 10_000), st.floats(0, 1), st.floats(0.01, 1), st.booleans())
def test_no_decision_turns(method: Any, seed: int, threshold: float, budget: float, logits: bool) -> None:
    before = _drawn(seed, spread=1.0)
    if logits:
        before, threshold = np.log(before) + 2, float(np.log(threshold + 1e-3) + 2)
    after = perturb(before, method, budget, threshold=threshold)
    assert ((after >= threshold) == (before >= threshold)).all()
    assert after.argmax(axis=1).tolist() == before.argmax(axis=1).tolist()


@pytest.mark.parametrize("method", METHODS)
def test_a_threshold_stops_a_change_and_does_not_prevent_it(method: Any) -> None:
    before = np.array([[0.75, 0.25]])
    after = perturb(before, method, 0.2, threshold=0.74)
    assert 0.74 <= after[0, 0] < 0.7401
    assert after.sum() == pytest.approx(1)
