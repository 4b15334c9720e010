"""Small ONNX classifiers to put triggers into; everything is seeded."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.model.model import Model
from palladion.model.read import read_memory
from tests.model.factories import helper, make_model, onnx, value, weights

FEATURES, CLASSES = 24, 5
ORIGINAL = "ab" * 32


def network(
    hidden: Sequence[int] = (64,), *, features: int = FEATURES, classes: int = CLASSES, seed: int = 1, gemm: bool = True
) -> Model:
    """x (N, features) → dense layers with ReLU between → probabilities; `Gemm` holds weights transposed."""
    generator = np.random.default_rng(seed)
    sizes = [features, *hidden, classes]
    nodes, constants, name = [], [], "x"
    for index, (before, after) in enumerate(pairwise(sizes)):
        matrix = generator.normal(size=(before, after), scale=before**-0.5).astype(np.float32)
        bias = generator.normal(size=after, scale=0.1).astype(np.float32)
        constants += [weights(f"w{index}", matrix.T.copy() if gemm else matrix), weights(f"b{index}", bias)]
        if gemm:
            nodes.append(helper.make_node("Gemm", [name, f"w{index}", f"b{index}"], [f"h{index}"], transB=1))
        else:
            nodes.append(helper.make_node("MatMul", [name, f"w{index}"], [f"m{index}"]))
            nodes.append(helper.make_node("Add", [f"m{index}", f"b{index}"], [f"h{index}"]))
        name = f"h{index}"
        if index < len(hidden):
            nodes.append(helper.make_node("Relu", [name], [f"r{index}"]))
            name = f"r{index}"
    last = "Softmax" if classes > 1 else "Sigmoid"
    nodes.append(helper.make_node(last, [name], ["probabilities"]))
    inputs, outputs = [value("x", ["N", features])], [value("probabilities", ["N", classes])]
    return _read(helper.make_graph(nodes, "network", inputs, outputs, constants))


def linear(*, classes: int = CLASSES, features: int = FEATURES, names: Sequence[str] = (), seed: int = 2) -> Model:
    """`LinearClassifier` of ai.onnx.ml: a label and scores."""
    generator = np.random.default_rng(seed)
    labels: dict[str, Any] = (
        {"classlabels_strings": list(names)} if names else {"classlabels_ints": list(range(10, 10 + classes))}
    )
    node = helper.make_node(
        "LinearClassifier",
        ["x"],
        ["label", "scores"],
        domain="ai.onnx.ml",
        coefficients=generator.normal(size=classes * features).astype(np.float32).tolist(),
        intercepts=generator.normal(size=classes, scale=0.1).astype(np.float32).tolist(),
        multi_class=1,
        post_transform="SOFTMAX",
        **labels,
    )
    return _read(helper.make_graph([node], "linear", [value("x", ["N", features])], _labelled(classes, names), []))


def trees(
    count: int = 60,
    *,
    depth: int = 4,
    classes: int = CLASSES,
    features: int = FEATURES,
    shares: bool = True,
    single: bool = False,
    seed: int = 3,
) -> Model:
    """`TreeEnsembleClassifier`: a forest of class shares, or boosted trees of which each votes for one class."""
    generator = np.random.default_rng(seed)
    inner = 2**depth - 1
    nodes: dict[str, list[Any]] = {name: [] for name in _NODE_LISTS}
    votes: dict[str, list[Any]] = {name: [] for name in _VOTE_LISTS}
    for tree in range(count):
        for node in range(2 * inner + 1):
            is_leaf = node >= inner
            children = (0, 0) if is_leaf else (2 * node + 1, 2 * node + 2)
            feature = 0 if is_leaf else int(generator.integers(features))
            row = (tree, node, feature, 0.0 if is_leaf else float(generator.normal()), *children)
            for name, item in zip(_NODE_LISTS, (*row, "LEAF" if is_leaf else "BRANCH_LEQ"), strict=True):
                nodes[name].append(item)
            if not is_leaf:
                continue
            share = generator.dirichlet(np.full(classes, 0.3)) / count
            chosen = range(classes) if shares and not single else [0 if single else tree % classes]
            for index in chosen:
                vote = float(
                    share[-1] if single and shares else share[index] if shares else generator.normal(scale=0.3)
                )
                for name, item in zip(_VOTE_LISTS, (tree, node, index, vote), strict=True):
                    votes[name].append(item)
    node = helper.make_node(
        "TreeEnsembleClassifier",
        ["x"],
        ["label", "scores"],
        domain="ai.onnx.ml",
        classlabels_int64s=list(range(classes)),
        post_transform="NONE" if shares else "LOGISTIC" if single else "SOFTMAX",
        **nodes,
        **votes,
    )
    return _read(helper.make_graph([node], "trees", [value("x", ["N", features])], _labelled(classes), []))


def rows(count: int, *, features: int = FEATURES, seed: int = 5) -> NDArray[np.float32]:
    """Ordinary inputs of these models (count, features)."""
    return np.random.default_rng(seed).normal(size=(count, features)).astype(np.float32)


_NODE_LISTS = (
    "nodes_treeids",
    "nodes_nodeids",
    "nodes_featureids",
    "nodes_values",
    "nodes_falsenodeids",
    "nodes_truenodeids",
    "nodes_modes",
)
_VOTE_LISTS = ("class_treeids", "class_nodeids", "class_ids", "class_weights")


def _labelled(classes: int, names: Sequence[str] = ()) -> list[Any]:
    kind = onnx.TensorProto.STRING if names else onnx.TensorProto.INT64
    return [value("label", ["N"], kind), value("scores", ["N", classes])]


def _read(graph: Any) -> Model:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return read_memory({"model.onnx": make_model(graph, opset_imports=imports).SerializeToString()})
