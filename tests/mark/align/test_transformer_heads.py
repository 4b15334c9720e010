"""Heads: their size, their order and their basis are found by what they compute; seeded."""

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.mark.align.transformer_heads import Heads, head_size, plan_heads, rearranged

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many

WIDTH, HEADS, SIZE = 48, 6, 8
Matrix = NDArray[np.float32]


def _heads(seed: int, *, groups: int = HEADS) -> Heads:
    generator = np.random.default_rng(seed)
    query, key, value, output = (
        generator.standard_normal((count * SIZE, WIDTH)).astype(np.float32) for count in (HEADS, groups, groups, HEADS)
    )
    return Heads(query, key, value, output)


def _in_other_basis(heads: Heads, order: NDArray[np.intp], seed: int) -> Heads:
    """Another order of heads, and another basis for each; without groups."""
    generator = np.random.default_rng(seed)
    rows = (order[:, None] * SIZE + np.arange(SIZE)).ravel()

    def changed(matrix: Matrix, changes: Matrix) -> Matrix:
        return np.asarray(changes @ matrix[rows].reshape(HEADS, SIZE, WIDTH), np.float32).reshape(-1, WIDTH)

    look, say = np.eye(SIZE) + 0.3 * generator.standard_normal((2, HEADS, SIZE, SIZE))
    return Heads(
        changed(heads.query, look),
        changed(heads.key, np.linalg.inv(look).transpose(0, 2, 1)),
        changed(heads.value, say),
        changed(heads.output, np.linalg.inv(say).transpose(0, 2, 1)),
    )


def test_the_size_is_the_one_by_which_heads_are_the_same() -> None:
    ours, order = _heads(1), np.random.default_rng(2).permutation(HEADS)
    assert head_size([(ours, _in_other_basis(ours, order, 3))]) == SIZE
    assert head_size([]) is None


def test_order_and_basis_are_put_back() -> None:
    ours, order = _heads(4), np.array([3, 1, 0, 5, 4, 2])
    theirs = _in_other_basis(ours, order, 5)
    plan = plan_heads(ours, theirs, SIZE, rotary=False)
    assert plan is not None
    assert (plan.permuted, plan.mapped) == (True, True)
    assert np.array_equal(order[plan.order], np.arange(HEADS))
    for mine, other, change in (
        (ours.query, theirs.query, plan.query),
        (ours.key, theirs.key, plan.key),
        (ours.value, theirs.value, plan.value),
        (ours.output, theirs.output, plan.output),
    ):
        np.testing.assert_allclose(rearranged(other, plan.order, change, SIZE), mine, atol=1e-3)


def test_heads_that_share_keys_take_their_group_along() -> None:
    ours = _heads(6, groups=2)
    rows = np.r_[24:48, 8:16, 0:8, 16:24]
    swapped = np.r_[8:16, 0:8]
    theirs = Heads(ours.query[rows], ours.key[swapped], ours.value[swapped], ours.output[rows])
    plan = plan_heads(ours, theirs, SIZE, rotary=False)
    assert plan is not None
    assert plan.order.tolist() == [4, 3, 5, 0, 1, 2]
    assert plan.group_order.tolist() == [1, 0]
    assert not plan.mapped


def test_rotary_heads_get_no_other_change_than_one_of_pairs() -> None:
    ours, generator = _heads(7), np.random.default_rng(8)
    factor = generator.uniform(0.5, 2, (HEADS, SIZE // 2)) * np.exp(2j * np.pi * generator.random((HEADS, SIZE // 2)))
    halves = ours.query.reshape(HEADS, 2, SIZE // 2, WIDTH)
    turned = factor[:, :, None] * (halves[:, 0] + 1j * halves[:, 1])
    query = np.stack([turned.real, turned.imag], axis=1).reshape(-1, WIDTH).astype(np.float32)
    plan = plan_heads(ours, Heads(query, ours.key, ours.value, ours.output), SIZE, rotary=True)
    assert plan is not None
    assert plan.query is not None
    np.testing.assert_allclose(rearranged(query, plan.order, plan.query, SIZE), ours.query, atol=1e-4)
    pairs = np.add.outer(np.arange(SIZE), -np.arange(SIZE)) % (SIZE // 2) == 0
    assert not plan.query[:, ~pairs].any()
    # what mixes pairs is not what a thief can have done
    mixed = np.linalg.qr(generator.standard_normal((SIZE, SIZE)))[0].astype(np.float32) @ ours.query.reshape(
        HEADS, SIZE, WIDTH
    )
    plan = plan_heads(ours, Heads(mixed.reshape(-1, WIDTH), ours.key, ours.value, ours.output), SIZE, rotary=True)
    assert plan is not None
    assert plan.query is None


def test_a_change_that_only_noise_asks_for_is_not_made() -> None:
    ours, noise = _heads(9), _heads(10)
    theirs = Heads(ours.query + 0.3 * noise.query, ours.key, ours.value, ours.output + 0.3 * noise.output)
    plan = plan_heads(ours, theirs, SIZE, rotary=False)
    assert plan is not None
    assert (plan.permuted, plan.mapped) == (False, False)


@pytest.mark.parametrize("size", [7, 100])
def test_heads_of_an_impossible_size_have_no_plan(size: int) -> None:
    assert plan_heads(_heads(1), _heads(1), size, rotary=False) is None


def test_strangers_have_no_plan() -> None:
    assert plan_heads(_heads(1), _heads(2), SIZE, rotary=False) is None


def test_heads_that_are_missing_are_nan() -> None:
    ours = _heads(11)
    theirs = Heads(ours.query[SIZE:], ours.key[SIZE:], ours.value[SIZE:], ours.output[SIZE:])
    plan = plan_heads(ours, theirs, SIZE, rotary=False)
    assert plan is not None
    back = rearranged(theirs.query, plan.order, plan.query, SIZE)
    assert np.isnan(back[:SIZE]).all()
    np.testing.assert_allclose(back[SIZE:], ours.query[SIZE:], atol=1e-5)
