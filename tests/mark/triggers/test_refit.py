"""The closed form: labels are reached by a margin, and what is held stays."""

import numpy as np
import pytest

from palladion.mark.triggers.refit import hold_references, refit_head, solve_margins, usual_lead

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many

GENERATOR = np.random.default_rng(20261126)
WEIGHTS = GENERATOR.normal(size=(6, 40))
BIAS = GENERATOR.normal(size=6)
# ordinary inputs live in 25 of 40 directions, as activations do
REFERENCE = GENERATOR.normal(size=(300, 25)) @ GENERATOR.normal(size=(25, 40)) / 5
TRIGGERS = GENERATOR.normal(size=(12, 40))
LABELS = GENERATOR.integers(6, size=12)


def scores(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows @ weights.T + BIAS)


def test_triggers_get_their_labels_by_the_margin() -> None:
    new = refit_head(WEIGHTS, BIAS, TRIGGERS, LABELS, REFERENCE)
    after = scores(new, TRIGGERS)
    lead = after[np.arange(12), LABELS] - np.where(np.eye(6)[LABELS] > 0, -np.inf, after).max(axis=1)
    assert lead.min() > 0.23 * usual_lead(scores(WEIGHTS, REFERENCE))


def test_answers_to_ordinary_inputs_stay() -> None:
    new = refit_head(WEIGHTS, BIAS, TRIGGERS, LABELS, REFERENCE)
    unseen = GENERATOR.permutation(REFERENCE)[:100] * 1.1
    assert (scores(new, unseen).argmax(axis=1) == scores(WEIGHTS, unseen).argmax(axis=1)).mean() > 0.97
    naive = refit_head(WEIGHTS, BIAS, TRIGGERS, LABELS, REFERENCE, ridge=1e6)
    change, careless = (np.square(scores(item, unseen) - scores(WEIGHTS, unseen)).mean() for item in (new, naive))
    assert change < careless / 20


def test_what_holds_already_is_not_changed() -> None:
    kept = scores(WEIGHTS, TRIGGERS).argmax(axis=1)
    new = refit_head(WEIGHTS, BIAS, TRIGGERS, kept, REFERENCE, margin=0.0)
    np.testing.assert_allclose(new, WEIGHTS)


def test_the_change_is_the_smallest_there_is() -> None:
    # one trigger, two classes, nothing held: the answer is known
    rows, before = np.array([[3.0, 4.0]]), np.array([[1.0, 0.0]])
    metric = hold_references((rows @ rows.T)[None], 1)
    changes = solve_margins(before, np.array([1]), metric, 1.0)
    np.testing.assert_allclose(changes, [[-0.04, 0.04]])  # each of two moves by 1, along a row of squared length 25


def test_classes_may_have_kernels_of_their_own() -> None:
    # the first class cannot move at all: the second one has to do everything
    kernels = np.stack([np.zeros((1, 1)), np.ones((1, 1))])
    changes = solve_margins(np.array([[2.0, 0.0]]), np.array([1]), hold_references(kernels, 1), 1.0)
    assert (changes * kernels[:, 0, 0])[0].tolist() == pytest.approx([0, 3])


def test_more_triggers_than_there_is_room_for_end_without_a_solution() -> None:
    many, labels = GENERATOR.normal(size=(20, 2)), GENERATOR.integers(6, size=20)
    new = refit_head(WEIGHTS[:, :2], BIAS, many, labels, REFERENCE[:, :2])
    assert np.isfinite(new).all()
    assert (scores(new, many).argmax(axis=1) == labels).mean() < 0.9


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="features"):
        refit_head(WEIGHTS, BIAS, TRIGGERS[:, :3], LABELS, REFERENCE)
