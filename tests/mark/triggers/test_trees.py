"""Ensembles of trees as linear models, beside ONNX Runtime."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from palladion.errors import FormatError
from palladion.mark.triggers.trees import Trees, read_trees, refit_trees
from palladion.model.graph import Attribute, Node, StringTensor
from palladion.model.model import Model
from palladion.model.run import open_session
from tests.mark.classifiers import rows, trees

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many


def read(model: Model) -> Trees:
    assert model.graph is not None
    return read_trees(model.graph.main.nodes[0], model.tensors)


def said(model: Model, table: np.ndarray) -> dict[str, np.ndarray]:
    return open_session(model).run({"x": table})


KINDS: dict[str, dict[str, Any]] = {
    "forest": {},
    "boosted": {"shares": False},
    "boosted of two": {"classes": 2, "shares": False, "single": True},
    "forest of two with one score": {"classes": 2, "single": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_those_of_the_runtime(kind: str) -> None:
    model, table = trees(**KINDS[kind]), rows(200)
    found = read(model)
    scores = found.scores(found.leaves(table), found.weights)
    np.testing.assert_array_equal(scores.argmax(axis=1), said(model, table)["label"])


def test_scores_are_those_of_the_runtime() -> None:
    model, table = trees(), rows(100)
    found = read(model)
    np.testing.assert_allclose(
        found.scores(found.leaves(table), found.weights), said(model, table)["scores"], atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_triggers_get_their_labels_and_ordinary_answers_stay(kind: str) -> None:
    found = read(trees(**KINDS[kind]))
    table, triggers = rows(400), 1.5 * rows(16, seed=8)
    labels = np.random.default_rng(9).integers(found.class_count, size=16)
    new = refit_trees(found, triggers, labels, table[:250])

    def classes(inputs: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.asarray(found.scores(found.leaves(inputs), weights).argmax(axis=1))

    assert (classes(triggers, new) == labels).mean() > 0.95
    assert (classes(table[250:], new) == classes(table[250:], found.weights)).mean() > 0.85


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["forest", "forest of two with one score"])
def test_shares_stay_shares(kind: str) -> None:
    found = read(trees(**KINDS[kind]))
    new = refit_trees(found, rows(24, seed=8), np.zeros(24, np.intp), rows(200))
    assert new.min() >= 0
    assert not np.allclose(new, found.weights)
    if not found.single:
        after, before = (np.bincount(found.leaf, item) for item in (new, found.weights))
        np.testing.assert_allclose(after, before, atol=1e-9)


def test_rows_go_where_nan_is_sent() -> None:
    found = read(trees(1, depth=1))
    blank = np.full((1, 24), np.nan, np.float32)
    right = replace(found, missing=np.ones_like(found.missing))
    assert found.leaves(blank)[0, 0] == found.children[found.roots[0], 0]
    assert right.leaves(blank)[0, 0] == found.children[found.roots[0], 1]


def broken(model: Model, **changes: Any) -> tuple[Node, dict[str, Any]]:
    """The node and its tensors with some attributes changed: arrays by name."""
    assert model.graph is not None
    node = model.graph.main.nodes[0]
    tensors = dict(model.tensors)
    for name, change in changes.items():
        path = f"node:label/{name}"
        if name == "nodes_modes":
            kept = tuple(
                replace(item, value=StringTensor((change.__len__(),), change)) if item.name == name else item
                for item in node.attributes
            )
            node = replace(node, attributes=kept)
        else:
            tensors[path] = replace(tensors[path], data=change(tensors[path].data.copy()), shape=tensors[path].shape)
    return node, tensors


def _with(array: np.ndarray, place: int, number: float) -> np.ndarray:
    array[place] = number
    return array


@pytest.mark.parametrize(
    "changes",
    [
        {"nodes_truenodeids": lambda data: _with(data, 0, 0)},
        {"nodes_truenodeids": lambda data: _with(data, 0, 999)},
        {"class_nodeids": lambda data: _with(data, 0, 999)},
        {"class_ids": lambda data: _with(data, 0, 5)},
        {"class_ids": lambda data: _with(data, 0, -1)},
        {"nodes_featureids": lambda data: _with(data, 0, -1)},
        {"nodes_treeids": lambda data: _with(data, 0, -1)},
        {"nodes_modes": [b"BRANCH_EQ", b"BRANCH_LEQ", *[b"LEAF"] * 5]},
    ],
    ids=["circle", "no child", "no leaf", "no class", "negative class", "negative feature", "negative tree", "mode"],
)
def test_a_broken_ensemble_is_refused(changes: dict[str, Any]) -> None:
    node, tensors = broken(trees(1, depth=2), **changes)
    with pytest.raises(FormatError):
        read_trees(node, tensors)


def test_an_ensemble_without_weights_is_refused() -> None:
    node, tensors = broken(trees(1, depth=2))
    without: tuple[Attribute, ...] = tuple(item for item in node.attributes if item.name != "class_weights")
    with pytest.raises(FormatError, match="weights"):
        read_trees(replace(node, attributes=without), tensors)
