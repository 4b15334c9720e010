"""The structure of ensembles is read whatever a file says, and what is broken is no ensemble."""

import numpy as np
import pytest

from palladion.mark.align.forest import LEAF, read_forest
from palladion.mark.align.trees import realign_trees
from palladion.model.model import Model
from tests.mark.classifiers import network, trees

from .trees_made import changed, list_of, regressor, rewritten, version_5


def test_tests_have_one_direction_however_they_are_written() -> None:
    model = trees(20)
    # nodes and leaves stay in their places, so that turned tests are all that differs
    turned = ["nodes_truenodeids", "nodes_falsenodeids"]
    lists = dict(zip(turned, reversed([list_of(model, name) for name in turned]), strict=True))
    modes = [b"BRANCH_GT" if mode == b"BRANCH_LEQ" else mode for mode in list_of(model, "nodes_modes")]
    one, other = read_forest(model), read_forest(changed(model, lists | {"nodes_modes": modes}))
    assert one is not None
    assert other is not None
    assert one.same_as(other)
    swapped = read_forest(changed(model, lists))
    assert swapped is not None
    assert not one.same_as(swapped)


def test_both_operators_are_read_as_the_same_trees() -> None:
    for model in (regressor(3, 2), version_5(3, 2)):
        forest = read_forest(model)
        assert forest is not None
        assert len(forest.roots) == 3
        sizes = [len(nodes) for nodes, _, _ in forest.levels()]
        assert sizes == [3, 6, 12]
        assert (forest.kind[forest.leaf] == LEAF).all()
        assert forest.counts == (12,)


def test_a_way_is_another_for_each_node_and_the_same_in_each_tree() -> None:
    forest = read_forest(regressor(2, 3))
    assert forest is not None
    nodes, of, paths = list(forest.levels())[3]
    assert len(nodes) == 16
    assert sorted(paths[of == 0]) == sorted(paths[of == 1])
    assert len(np.unique(paths)) == 8


def test_models_without_trees_have_none() -> None:
    assert read_forest(network()) is None


BROKEN: dict[str, dict[str, object]] = {
    "a child that is not there": {"nodes_truenodeids": [99] * 45},
    "a list that is short": {"nodes_featureids": [0] * 44 * 2},
    "a list that is empty": {"nodes_nodeids": []},
    "a test that is not known": {"nodes_modes": [b"BRANCH_MAYBE"] * 45},
    "numbers below zero": {"nodes_treeids": [-1] * 45},
    "numbers beyond 31 bits": {"class_treeids": [2**40] * 24},
    "leaves that are not there": {"class_nodeids": [77] * 24},
    "targets beyond 31 bits": {"class_ids": [2**62] * 24},
    "no leaf values": {"class_weights": []},
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("defect", BROKEN)
def test_what_is_broken_is_no_ensemble(defect: str) -> None:
    model = trees(3, depth=3, shares=False)
    broken = changed(model, BROKEN[defect])
    assert read_forest(broken) is None
    assert realign_trees(model, broken).model is broken


HOSTILE: dict[str, dict[str, object]] = {
    "thresholds that are no numbers": {"nodes_values": [float("nan")] * 1860},
    "infinite thresholds": {"nodes_values": [float("inf")] * 1860},
    "wild thresholds": {"nodes_values": [3e38, -3e38] * 930},
    "tiny thresholds": {"nodes_values": [1e-44] * 1860},
    "features beyond all": {"nodes_featureids": [2**62] * 1860},
    "features below zero": {"nodes_featureids": [-(2**62)] * 1860},
    "values that are no numbers": {"class_weights": [float("nan")] * 960},
    "a node that is its own child": {"nodes_truenodeids": [0] * 1860},
    "two parents": {"nodes_falsenodeids": [1] * 1860},
    "nothing but circles": {"nodes_truenodeids": [0] * 1860, "nodes_modes": [b"BRANCH_LEQ"] * 1860},
    "one tree": {"nodes_treeids": [0] * 1860, "class_treeids": [0] * 960},
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("defect", HOSTILE)
def test_wild_numbers_are_no_error_on_either_side(defect: str) -> None:
    model = trees(shares=False)
    hostile = changed(model, HOSTILE[defect])
    for ours, theirs in ((model, hostile), (hostile, model), (hostile, hostile), (hostile, rewritten(model))):
        assert isinstance(realign_trees(ours, theirs).model, Model)


def test_values_that_no_list_explains_belong_to_no_leaf() -> None:
    model = trees(shares=False)
    cut = changed(model, {"class_ids": list_of(model, "class_ids")[:900]})
    forest = read_forest(cut)
    assert forest is not None
    assert np.count_nonzero(forest.leaf >= 0) == 900
    assert len(forest.leaf) == 960


def test_several_tests_may_lead_to_one_node() -> None:
    # x in {0, 1}, as converters write it: two tests for equality, both of which lead to the same leaf
    model = regressor(1, 2)
    lists = {
        "nodes_modes": [b"BRANCH_EQ", b"LEAF", b"BRANCH_EQ", b"LEAF", b"LEAF", b"LEAF", b"LEAF"],
        "nodes_truenodeids": [1, 0, 1, 0, 0, 0, 0],
        "nodes_falsenodeids": [2, 0, 6, 0, 0, 0, 0],
    }
    forest = read_forest(changed(model, lists))
    assert forest is not None
    reached = [nodes.tolist() for nodes, trees, _ in forest.levels() if not len(trees) or 0 in trees]
    assert [sorted(set(nodes) & {0, 1, 2, 6}) for nodes in reached] == [[0], [1, 2], [6]]
