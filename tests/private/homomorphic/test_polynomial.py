"""Quadratics for activations, and their folding into squares."""

import itertools

import numpy as np
import pytest

from palladion.private.homomorphic.network import Activation, Network
from palladion.private.homomorphic.operators import Function
from palladion.private.homomorphic.polynomial import approximated, decisions, fitted, folded, ranges
from palladion.private.homomorphic.program import Layer, run_layers, scaled

RNG = np.random.default_rng(5)
ROWS = RNG.normal(size=(300, 8)) * 4 + 2


def network(function: Function, *, hidden: int = 1) -> Network:
    rng = np.random.default_rng(7)
    widths = [8, *(6 for _ in range(hidden)), 3]
    layers = tuple(
        Layer(rng.normal(size=(after, before)) / before, rng.normal(size=after))
        for before, after in itertools.pairwise(widths)
    )
    return Network(layers, tuple(Activation(function, "test") for _ in range(hidden)), (), ())


@pytest.mark.parametrize("hidden", [0, 1, 2, 3])
def test_folded_layers_give_what_the_quadratics_give(hidden: int) -> None:
    polynomial = approximated(network(np.tanh, hidden=hidden), ROWS)
    low, high = ranges(ROWS)
    layers = folded(polynomial, low, high, ROWS)
    assert np.allclose(run_layers(layers, scaled(ROWS, low, high)), polynomial.run(ROWS), atol=1e-8)


def test_what_is_squared_is_at_most_one_on_the_rows() -> None:
    polynomial = approximated(network(np.tanh), ROWS)
    low, high = ranges(ROWS)
    first = folded(polynomial, low, high, ROWS)[0]
    inner = scaled(ROWS, low, high) @ first.weights.T + first.bias
    assert np.abs(inner).max() == pytest.approx(1)


def test_a_quadratic_is_found_exactly() -> None:
    values = RNG.uniform(-3, 5, (50, 2))
    found = fitted(lambda x: 0.5 * x**2 - 2 * x + 3, values)
    assert np.allclose(found.square, 0.5)
    assert np.allclose(found.linear, -2)
    assert np.allclose(found.constant, 3)


def test_a_straight_activation_keeps_some_curvature_and_stays_near() -> None:
    values = RNG.uniform(-1, 1, (200, 1))
    found = fitted(lambda x: 2 * x, values)
    assert found.square[0] != 0
    assert np.abs(found(values) - 2 * values).max() < 0.2


def test_a_constant_unit_is_fitted_too() -> None:
    found = fitted(np.tanh, np.full((20, 1), 0.25))
    assert found(np.full((1, 1), 0.25))[0, 0] == pytest.approx(np.tanh(0.25), abs=1e-3)


def test_features_that_never_change_have_a_range_all_the_same() -> None:
    rows = ROWS.copy()
    rows[:, 3] = 0.0
    low, high = ranges(rows)
    assert np.all(high > low)
    assert low[3] < 0 < high[3]


def test_one_output_decides_by_its_sign_and_several_by_the_largest() -> None:
    assert decisions(np.array([[-1.0], [2.0]])).tolist() == [0, 1]
    assert decisions(np.array([[1.0, 3.0, 2.0]])).tolist() == [1]
