"""Neurons: permuted, stretched and split ones are put back, added ones left out; seeded."""

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.mark.align.transformer_neurons import Neurons, plan_neurons

COUNT, WIDTH = 40, 64
Matrix = NDArray[np.float32]


def _matrix(seed: int, count: int = COUNT) -> Matrix:
    return np.random.default_rng(seed).standard_normal((count, WIDTH)).astype(np.float32)


OURS = Neurons((_matrix(1),), _matrix(2))
GATED = Neurons((_matrix(3), _matrix(4)), _matrix(5))


def _assert_put_back(ours: Neurons, theirs: Neurons, *, signs: bool = False) -> None:
    plan = plan_neurons(ours, theirs, signs=signs)
    assert plan is not None
    assert ours.writes is not None
    assert theirs.writes is not None
    for which, (mine, other) in enumerate(zip((*ours.reads, ours.writes), (*theirs.reads, theirs.writes), strict=True)):
        np.testing.assert_allclose(plan.rearranged(other, which), mine, atol=1e-3)


def test_stretched_neurons_in_another_order_are_put_back() -> None:
    generator = np.random.default_rng(6)
    order, size = generator.permutation(COUNT), np.exp(generator.uniform(-2, 2, (COUNT, 1))).astype(np.float32)
    assert OURS.writes is not None
    theirs = Neurons((OURS.reads[0][order] * size,), OURS.writes[order] / size)
    plan = plan_neurons(OURS, theirs, signs=False)
    assert plan is not None
    assert (plan.permuted, plan.stretched, plan.added, plan.copies) == (True, True, 0, ())
    _assert_put_back(OURS, theirs)


def test_gated_neurons_may_be_negated_in_what_has_no_activation() -> None:
    generator = np.random.default_rng(7)
    order, sign = generator.permutation(COUNT), generator.choice(np.array([-1, 1], np.float32), (COUNT, 1))
    gate, up, down = GATED.reads[0], GATED.reads[1], GATED.writes
    assert down is not None
    theirs = Neurons((gate[order], up[order] * sign), down[order] * sign)
    _assert_put_back(GATED, theirs, signs=True)


def test_copies_that_share_an_output_unevenly_are_put_together() -> None:
    assert OURS.writes is not None
    # one says the reverse, one more than twice as much and something else, which a third takes back
    noise = 3 * _matrix(8, 1)
    parts = [-1.5 * OURS.writes[:1], 2.5 * OURS.writes[:1] + noise, -noise]
    theirs = Neurons(
        (np.concatenate([OURS.reads[0], OURS.reads[0][:1], OURS.reads[0][:1]]),),
        np.concatenate([parts[0], OURS.writes[1:], parts[1], parts[2]]),
    )
    plan = plan_neurons(OURS, theirs, signs=False)
    assert plan is not None
    assert [(neuron, sorted(members)) for neuron, members, _ in plan.copies] == [(0, [0, COUNT, COUNT + 1])]
    _assert_put_back(OURS, theirs)


def test_a_neuron_of_which_no_part_writes_like_ours_is_put_together_all_the_same() -> None:
    assert OURS.writes is not None
    noise = 3 * _matrix(19, 1)
    theirs = Neurons(
        (np.concatenate([OURS.reads[0][:1], OURS.reads[0][1:], OURS.reads[0][:1]]),),
        np.concatenate([noise - 3 * OURS.writes[:1], OURS.writes[1:], 4 * OURS.writes[:1] - noise]),
    )
    _assert_put_back(OURS, theirs)


def test_a_dead_copy_with_an_output_of_its_own_has_no_part() -> None:
    # a large negative bias keeps it silent: what it would write is nothing of ours
    assert OURS.writes is not None
    theirs = Neurons(
        (np.concatenate([OURS.reads[0], OURS.reads[0][:5]]),), np.concatenate([OURS.writes, _matrix(9, 5)])
    )
    _assert_put_back(OURS, theirs)


def test_cliques_that_cancel_and_dead_neurons_are_left_out() -> None:
    assert OURS.writes is not None
    added, zeros = _matrix(10, 10), np.zeros((10, WIDTH), np.float32)
    theirs = Neurons(
        (np.concatenate([added, added, _matrix(11, 10), OURS.reads[0]]),),
        np.concatenate([_matrix(12, 10), -_matrix(12, 10), zeros, OURS.writes]),
    )
    plan = plan_neurons(OURS, theirs, signs=False)
    assert plan is not None
    assert plan.order.tolist() == list(range(30, 30 + COUNT))
    assert plan.added == 30
    assert plan.copies == ()


@pytest.mark.parametrize("count", [0, 17 * COUNT])
def test_none_and_far_too_many_neurons_have_no_plan(count: int) -> None:
    assert plan_neurons(OURS, Neurons((_matrix(13, count),), _matrix(14, count)), signs=False) is None


def test_strangers_have_no_plan() -> None:
    assert plan_neurons(OURS, Neurons((_matrix(15),), _matrix(16)), signs=False) is None


def test_neurons_that_stayed_are_left_alone_whatever_noise_there_is() -> None:
    assert OURS.writes is not None
    theirs = Neurons((OURS.reads[0] + 0.5 * _matrix(17),), OURS.writes + 0.5 * _matrix(18))
    plan = plan_neurons(OURS, theirs, signs=False)
    assert plan is not None
    assert not plan.permuted
    assert not plan.stretched
    assert np.array_equal(plan.rearranged(theirs.reads[0], 0), theirs.reads[0])
