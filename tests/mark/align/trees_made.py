"""Files of tree ensembles as a thief may write them again: the same trees in another order, fewer, or rounded."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from palladion.model.model import Model
from palladion.model.read import read_memory
from tests.model.factories import helper, onnx

Lists = dict[str, list[Any]]


def in_one_file(model: Model) -> Model:
    """The model as it is read from the bytes that it is written as."""
    return read_memory({file.name: b"".join(map(bytes, file.pieces())) for file in model.files})


def rewritten(
    model: Model,
    seed: int = 1,
    *,
    kept: float = 1.0,
    digits: int | None = None,
    turned: bool = False,
    changes: Mapping[str, Any] | None = None,
) -> Model:
    """The same ensemble with trees, nodes and leaf values in another order and under other numbers.

    `kept` is the share of the trees that stays, `digits` those of the thresholds, and where tests are `turned`, every
    other one is "above", with its branches swapped. `changes` are numbers of attributes of the outcome.
    """
    chance = np.random.default_rng(seed)
    proto = _proto(model)
    node = proto.graph.node[0]
    lists = {item.name: _items(item) for item in node.attribute if item.type in _FIELDS}
    what = "class" if "class_ids" in lists else "target"
    nodes, votes = (
        {name: items for name, items in lists.items() if name.startswith(f"{start}_")} for start in ("nodes", what)
    )
    if digits is not None:
        nodes["nodes_values"] = [float(f"{number:.{digits - 1}e}") for number in nodes["nodes_values"]]
    if turned:
        _turn(nodes)
    trees = sorted(set(nodes["nodes_treeids"]))
    _renumber(nodes, votes, what, trees, chance)
    stays = set(range(round(kept * len(trees))))  # of their new numbers, which are left to chance
    for group, of in ((nodes, "nodes_treeids"), (votes, f"{what}_treeids")):
        rows = [row for row in chance.permutation(len(group[of])).tolist() if group[of][row] in stays]
        if group is nodes:
            # runtimes take the first node of a tree for its root
            rows.sort(key=lambda row: (nodes[of][row], nodes["nodes_nodeids"][row] != 0))
        lists |= {name: [items[row] for row in rows] for name, items in group.items()}
    return _with(proto, lists | dict(changes or {}))


def changed(model: Model, changes: Mapping[str, Any]) -> Model:
    """The same file with other numbers in attributes of its first node."""
    return _with(_proto(model), dict(changes))


def list_of(model: Model, name: str) -> list[Any]:
    """An attribute of the first node."""
    return next(_items(item) for item in _proto(model).graph.node[0].attribute if item.name == name)


def halved(model: Model) -> Model:
    """The trees in two ensembles, the sum of which is the same; of each, the leaf values come last tree first."""
    proto = _proto(model)
    node = proto.graph.node[0]
    lists = {item.name: _items(item) for item in node.attribute if item.type in _FIELDS}
    middle = np.median(lists["nodes_treeids"])
    nodes = []
    for index, below in enumerate((True, False)):
        part = onnx.NodeProto()
        part.CopyFrom(node)
        part.output[0] = f"part{index}"
        cut: Lists = {}
        for start in ("nodes", "target"):
            ids = lists[f"{start}_treeids"]
            rows = [row for row in reversed(range(len(ids))) if (ids[row] < middle) == below]
            cut |= {name: [item[row] for row in rows] for name, item in lists.items() if name.startswith(f"{start}_")}
        _put(part, cut)
        nodes.append(part)
    total = helper.make_node("Add", ["part0", "part1"], [node.output[0]])
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes, total])
    return read_memory({"model.onnx": proto.SerializeToString()})


def regressor(count: int = 60, depth: int = 5, *, features: int = 24, seed: int = 3) -> Model:
    """`TreeEnsembleRegressor`: full trees with one target; `x` (N, features) → `y` (N, 1)."""
    return _file(_regressor_node(count, depth, features, seed), features, 3)


def version_5(count: int = 60, depth: int = 5, *, features: int = 24, seed: int = 3, order: int | None = None) -> Model:
    """The same trees as `TreeEnsemble`, in the same order, or in that of the seed `order`."""
    chance = np.random.default_rng(seed)
    inner, leaves = 2**depth - 1, 2**depth
    feature, threshold, weights = _numbers(chance, count, depth, features)
    trees = np.arange(count) if order is None else np.random.default_rng(order).permutation(count)
    ids = np.arange(inner)
    lists: Lists = {name: [] for name in _SIDES}
    for place in range(count):
        for side, step in (("true", 1), ("false", 2)):
            child = 2 * ids + step
            is_leaf = child >= inner
            at = np.where(is_leaf, child - inner + place * leaves, child + place * inner)
            lists[f"nodes_{side}nodeids"] += at.tolist()
            lists[f"nodes_{side}leafs"] += is_leaf.astype(int).tolist()
    kind = onnx.TensorProto
    node = helper.make_node(
        "TreeEnsemble",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function=1,
        tree_roots=(np.arange(count) * inner).tolist(),
        nodes_featureids=feature[trees].reshape(-1).tolist(),
        nodes_splits=helper.make_tensor("s", kind.FLOAT, [count * inner], threshold[trees].reshape(-1)),
        nodes_modes=helper.make_tensor("m", kind.UINT8, [count * inner], [0] * (count * inner)),
        leaf_targetids=[0] * (count * leaves),
        leaf_weights=helper.make_tensor("w", kind.FLOAT, [count * leaves], weights[trees].reshape(-1)),
        **lists,
    )
    return _file(node, features, 5)


_SIDES = [f"nodes_{side}{kind}" for side in ("true", "false") for kind in ("nodeids", "leafs")]
_FIELDS = {
    onnx.AttributeProto.INTS: "ints",
    onnx.AttributeProto.FLOATS: "floats",
    onnx.AttributeProto.STRINGS: "strings",
}


def _numbers(chance: np.random.Generator, count: int, depth: int, features: int) -> tuple[Any, Any, Any]:
    feature = chance.integers(features, size=(count, 2**depth - 1))
    threshold = chance.normal(size=(count, 2**depth - 1)).astype(np.float32)
    return feature, threshold, chance.normal(scale=0.3, size=(count, 2**depth)).astype(np.float32)


def _regressor_node(count: int, depth: int, features: int, seed: int) -> Any:
    inner, every = 2**depth - 1, 2 ** (depth + 1) - 1
    feature, threshold, weights = _numbers(np.random.default_rng(seed), count, depth, features)
    ids = np.arange(every)
    is_leaf = ids >= inner
    padded = ((0, 0), (0, every - inner))
    return helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=np.repeat(np.arange(count), every).tolist(),
        nodes_nodeids=np.tile(ids, count).tolist(),
        nodes_featureids=np.pad(feature, padded).reshape(-1).tolist(),
        nodes_values=np.pad(threshold, padded).reshape(-1).tolist(),
        nodes_modes=["LEAF" if end else "BRANCH_LEQ" for end in is_leaf] * count,
        nodes_truenodeids=np.tile(np.where(is_leaf, 0, 2 * ids + 1), count).tolist(),
        nodes_falsenodeids=np.tile(np.where(is_leaf, 0, 2 * ids + 2), count).tolist(),
        target_treeids=np.repeat(np.arange(count), every - inner).tolist(),
        target_nodeids=np.tile(ids[inner:], count).tolist(),
        target_ids=[0] * (count * (every - inner)),
        target_weights=weights.reshape(-1).tolist(),
    )


def _file(node: Any, features: int, version: int) -> Model:
    kind = onnx.TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("x", kind, ["N", features])]
    outputs = [helper.make_tensor_value_info("y", kind, ["N", 1])]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", version)]
    proto = helper.make_model(helper.make_graph([node], "trees", inputs, outputs), opset_imports=imports, ir_version=9)
    return read_memory({"model.onnx": proto.SerializeToString()})


def _turn(nodes: Lists) -> None:
    true, false = nodes["nodes_truenodeids"], nodes["nodes_falsenodeids"]
    for row, mode in enumerate(nodes["nodes_modes"]):
        if mode != b"LEAF" and row % 2:
            nodes["nodes_modes"][row] = b"BRANCH_GT"
            true[row], false[row] = false[row], true[row]


def _renumber(nodes: Lists, votes: Lists, what: str, trees: Sequence[int], chance: np.random.Generator) -> None:
    tree_of = dict(zip(trees, chance.permutation(len(trees)).tolist(), strict=True))
    count = max(nodes["nodes_nodeids"]) + 1
    node_of = {tree: [0, *(1 + chance.permutation(count - 1)).tolist()] for tree in trees}  # the root is node 0
    for row, tree in enumerate(nodes["nodes_treeids"]):
        for name in ("nodes_nodeids", "nodes_truenodeids", "nodes_falsenodeids"):
            nodes[name][row] = node_of[tree][nodes[name][row]]
        nodes["nodes_treeids"][row] = tree_of[tree]
    for row, tree in enumerate(votes[f"{what}_treeids"]):
        votes[f"{what}_nodeids"][row] = node_of[tree][votes[f"{what}_nodeids"][row]]
        votes[f"{what}_treeids"][row] = tree_of[tree]


def _proto(model: Model) -> Any:
    return onnx.load_from_string(b"".join(map(bytes, model.files[0].pieces())))


def _items(attribute: Any) -> list[Any]:
    return list(getattr(attribute, _FIELDS[attribute.type]))


def _with(proto: Any, lists: Lists) -> Model:
    _put(proto.graph.node[0], lists)
    return read_memory({"model.onnx": proto.SerializeToString()})


def _put(node: Any, lists: Lists) -> None:
    for item in node.attribute:
        if item.name in lists and item.type in _FIELDS:
            field = _FIELDS[item.type]
            item.ClearField(field)
            getattr(item, field).extend(lists[item.name])
