"""Marked models to attack: a network in ONNX, a transformer, and a forest; everything is seeded."""

from functools import cache
from typing import Any

import numpy as np
import onnx

from palladion.mark.interface import embed
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.redteam.removal.trial import Trial
from tests.mark.align.networks import exported, mlp, mlp_nodes
from tests.mark.align.transformers_made import made
from tests.mark.suspects import OWNERSHIP, saved

INPUTS, LEAVES, TREES = 64, 8, 64


def held(model: Model) -> Model:
    """The same model with its bytes in memory."""
    return read_memory({file.name: b"".join(file.pieces()) for file in model.files})


@cache
def network() -> Trial:
    """An MLP of ReLU in ONNX, of 6,464 weights."""
    tensors = mlp((INPUTS, 64, 32, 10))
    return _trial(exported(tensors, mlp_nodes(tensors), (INPUTS,)))


@cache
def transformer() -> Trial:
    """A BERT of two layers, without a configuration."""
    return _trial(saved(made("bert")))


@cache
def forest() -> Trial:
    """A regression of 64 trees with a split each, three levels deep: 512 leaves."""
    return _trial(read_memory({"model.onnx": _ensemble()}))


def _trial(original: Model) -> Trial:
    return Trial(original, held(embed(original, OWNERSHIP)), OWNERSHIP)


def _ensemble() -> bytes:
    generator = np.random.default_rng(3)
    nodes: dict[str, Any] = {
        name: [] for name in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")
    }
    inner = LEAVES - 1
    for tree in range(TREES):
        for node in range(2 * LEAVES - 1):
            leaf = node >= inner
            nodes["treeids"].append(tree)
            nodes["nodeids"].append(node)
            nodes["featureids"].append(0 if leaf else int(generator.integers(0, 4)))
            nodes["values"].append(0.0 if leaf else float(generator.standard_normal()))
            nodes["modes"].append("LEAF" if leaf else "BRANCH_LEQ")
            nodes["truenodeids"].append(0 if leaf else 2 * node + 1)
            nodes["falsenodeids"].append(0 if leaf else 2 * node + 2)
    targets = [(tree, inner + leaf) for tree in range(TREES) for leaf in range(LEAVES)]
    node = onnx.helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", name="trees", n_targets=1,
        target_treeids=[tree for tree, _ in targets], target_nodeids=[leaf for _, leaf in targets],
        target_ids=[0] * len(targets), target_weights=generator.standard_normal(len(targets)).tolist(),
        **{f"nodes_{name}": values for name, values in nodes.items()},
    )  # fmt: skip
    graph = onnx.helper.make_graph(
        [node],
        "forest",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 4])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, 1])],
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
