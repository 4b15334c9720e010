"""The order or the basis of a residual stream is found by embeddings, or by what layers do; seeded."""

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.mark.align.transformer_residual import Basis, basis_of_embeddings, basis_of_products

ROWS, WIDTH = 600, 24
Matrix = NDArray[np.float32]
ORDER = np.random.default_rng(1).permutation(WIDTH)


def _matrix(seed: int, rows: int = ROWS, columns: int = WIDTH) -> Matrix:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def _found(basis: Basis | None) -> Basis:
    assert basis is not None
    return basis


OURS = _matrix(2)
TURN = np.linalg.qr(_matrix(3, WIDTH))[0].astype(np.float32)


def test_an_order_is_found_whatever_the_loudness_of_rows() -> None:
    # one token that drowns all the others would say nothing of the order
    loud = np.exp(3 * _matrix(4, columns=1))
    loud[7] = 1e6
    theirs = (OURS + 0.3 * _matrix(5))[:, ORDER] * loud
    basis = _found(basis_of_embeddings(OURS, theirs, rotations=False))
    assert basis.kind == "permuted"
    np.testing.assert_array_equal(basis.columns(theirs), (OURS + 0.3 * _matrix(5)) * loud)
    np.testing.assert_array_equal(basis.rows(theirs.T), basis.columns(theirs).T)


def test_a_rotation_is_found_where_one_is_possible() -> None:
    basis = _found(basis_of_embeddings(OURS, OURS @ TURN, rotations=True))
    assert basis.kind == "rotated"
    np.testing.assert_allclose(basis.columns(OURS @ TURN), OURS, atol=1e-4)
    np.testing.assert_allclose(basis.rows(TURN.T @ OURS.T), OURS.T, atol=1e-4)


def test_noise_does_not_make_a_rotation_of_an_order() -> None:
    theirs = np.where(np.abs(OURS) > 1, OURS, 0)
    assert _found(basis_of_embeddings(OURS, theirs, rotations=True)).kind == "same"
    assert _found(basis_of_embeddings(OURS, theirs[:, ORDER], rotations=True)).kind == "permuted"


@pytest.mark.parametrize("rows", [ROWS, 2 * WIDTH])
def test_strangers_have_no_basis(rows: int) -> None:
    # with few rows, a rotation makes anything alike
    assert basis_of_embeddings(OURS[:rows], _matrix(6, rows), rotations=True) is None


def test_an_order_is_found_by_what_layers_do() -> None:
    products = [_matrix(seed, WIDTH) for seed in (7, 8, 9)]
    pairs = [(item, (item + 0.2 * _matrix(10, WIDTH))[ORDER][:, ORDER]) for item in products]
    gain = _matrix(11, 1)[0]
    basis = _found(basis_of_products(pairs, [(gain, gain[ORDER])]))
    np.testing.assert_array_equal(basis.rows(gain[ORDER]), gain)
    strangers = [(item, _matrix(seed, WIDTH)) for seed, (item, _) in enumerate(pairs, start=20)]
    assert basis_of_products(strangers, []) is None
    assert basis_of_products([], []) is None
    assert basis_of_products([(products[0], _matrix(12, WIDTH - 1, WIDTH - 1))], []) is None
