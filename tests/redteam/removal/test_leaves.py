"""Leaf values that are written again keep what says whose they are."""

import numpy as np
import pytest

from palladion.model.model import Model
from palladion.redteam.removal.leaves import holds_leaves, reordered, shorter
from tests.mark.align.trees_made import version_5
from tests.mark.classifiers import trees


def _leaves(model: Model) -> set[tuple[float, ...]]:
    lists = [np.asarray(model.tensors[f"node:label/class_{kind}"].data) for kind in ("treeids", "nodeids", "ids")]
    weights = np.asarray(model.tensors["node:label/class_weights"].data)
    return set(zip(*(item.tolist() for item in (*lists, weights)), strict=True))


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_reordered_leaf_values_belong_to_whom_they_belonged(share: float) -> None:
    model = trees()
    after = reordered(model, share, 1)
    assert _leaves(after) == _leaves(model)
    moved = np.asarray(after.tensors["node:label/class_ids"].data) != model.tensors["node:label/class_ids"].data
    assert 0.5 * share < moved.mean() <= share


def test_nodes_follow_leaves_that_are_named_by_their_places() -> None:
    model = version_5(3, 2)
    after = reordered(model, 1.0, 1)
    before, now = (
        np.asarray(item.tensors["node:y/leaf_weights"].data)[
            np.asarray(item.tensors["node:y/nodes_truenodeids"].data)[1:3]
        ]
        for item in (model, after)
    )
    assert np.array_equal(before, now)
    assert not np.array_equal(after.tensors["node:y/leaf_weights"].data, model.tensors["node:y/leaf_weights"].data)


def test_what_is_left_of_fewer_leaf_values_is_an_ensemble() -> None:
    model = trees()
    after = shorter(model, 0.25)
    assert _leaves(after) < _leaves(model)
    assert len(_leaves(after)) == 0.75 * len(_leaves(model))


def test_thresholds_and_matrices_hold_no_leaves() -> None:
    assert holds_leaves("node:y/target_weights")
    assert not holds_leaves("node:y/nodes_values")
    assert not holds_leaves("node:y/coefficients")
    assert not holds_leaves("target_weights")
