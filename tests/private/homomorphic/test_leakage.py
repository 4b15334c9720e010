"""How many slots recover a program: and that they do."""

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.private.homomorphic.leakage import leakage, slots_carried
from tests.private.homomorphic.programs import program, rows


def test_a_linear_model_is_recovered_by_one_row_more_than_it_has_features() -> None:
    made = program((6, 3))
    found = leakage((6, 3))
    assert (found.unknowns, found.linear) == (7, True)
    asked = rows(made, found.unknowns)
    matrix = np.hstack([asked, np.ones((len(asked), 1))])
    recovered, *_ = np.linalg.lstsq(matrix, made.run(asked), rcond=None)
    assert np.allclose(recovered[:-1].T, made.layers[0].weights)
    assert "no budget" in found.sentences()[0]


@pytest.mark.parametrize(("short", "known"), [(0, True), (1, False)])
def test_a_network_of_squares_is_recovered_by_as_many_rows_as_it_has_monomials(short: int, known: bool) -> None:
    made = program((5, 4, 2))
    found = leakage((5, 4, 2))
    assert found.monomials == 21
    asked, fresh = rows(made, found.monomials - short), rows(made, 50, seed=9)
    recovered, *_ = np.linalg.lstsq(_monomials(asked), made.run(asked), rcond=None)
    assert np.allclose(_monomials(fresh) @ recovered, made.run(fresh), atol=1e-6) == known


def test_what_is_reckoned_with_is_the_smaller_number() -> None:
    found = leakage((64, 32, 10))
    assert (found.monomials, found.weights_rows, found.unknowns) == (2145, 241, 241)


@pytest.mark.parametrize("widths", [(6, 3), (6, 4, 3), (64, 32, 10)])
def test_no_budget_is_said_to_protect_a_network_and_a_ciphertext_costs_all_that_it_carries(
    widths: tuple[int, ...],
) -> None:
    bundle, found = program(widths).bundle, leakage(widths)
    degree = bundle.parameters.degree
    assert slots_carried(bundle, 3, by_columns=False) == 3 * -(-2 * degree // widths[-1])
    assert slots_carried(bundle, widths[0], by_columns=True) == degree * (2 if len(widths) == 2 else 3)
    # more than rows can be in it, and more than the model has unknowns
    assert slots_carried(bundle, 1, by_columns=False) > max(bundle.layout.rows, found.unknowns)
    assert "no budget of queries protects it" in found.sentences()[0]


def _monomials(asked: NDArray[np.float64]) -> NDArray[np.float64]:
    full = np.hstack([np.ones((len(asked), 1)), asked])
    places = np.triu_indices(full.shape[1])
    return full[:, places[0]] * full[:, places[1]]
