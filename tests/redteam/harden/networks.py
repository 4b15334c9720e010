"""Small classifiers of two layers in ONNX, with rows that they know."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from palladion.model.model import Model
from palladion.model.read import read_memory

INPUTS, HIDDEN, CLASSES = 6, 16, 3


def table(count: int = 600, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Rows of three overlapping clouds, and which."""
    generator = np.random.default_rng(seed)
    centres = 2 * np.random.default_rng(7).standard_normal((CLASSES, INPUTS))
    labels = np.arange(count) % CLASSES
    rows = centres[labels] + generator.standard_normal((count, INPUTS))
    return rows.astype(np.float32), labels.astype(np.int64)


def network(*, seed: int = 0, softmax: bool = True, operator: str = "Relu", bias: str = "Gemm") -> bytes:
    """A classifier of `table` that is right about most: random features, and a last layer by least squares."""
    generator = np.random.default_rng(seed)
    rows, labels = table(seed=1)
    first = (generator.standard_normal((INPUTS, HIDDEN)) / INPUTS**0.5).astype(np.float32)
    shift = generator.standard_normal(HIDDEN).astype(np.float32)
    hidden = np.maximum(rows / 2 @ first + shift, 0)
    solved = np.linalg.lstsq(np.c_[hidden, np.ones(len(rows))], 6 * np.eye(CLASSES)[labels], rcond=None)[0]
    weights = {"half": np.float32(2), "first": first, "shift": shift, "last": solved[:-1], "offset": solved[-1]}
    dense = (
        [helper.make_node("Gemm", ["scaled", "first", "shift"], ["before"])]
        if bias == "Gemm"
        else [
            helper.make_node("MatMul", ["scaled", "first"], ["product"]),
            helper.make_node("Add", ["product", "shift"], ["before"]),
        ]
    )
    nodes = [
        helper.make_node("Div", ["x", "half"], ["scaled"]),
        *dense,
        helper.make_node(operator, ["before"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "last", "offset"], ["logits"]),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
    output = "probabilities" if softmax else "logits"
    return _saved(nodes, output, weights)


def read(data: bytes) -> Model:
    """The model of a file."""
    return read_memory({"model.onnx": data})


def convolutions() -> bytes:
    """A classifier of pictures of 1×6×6, with a convolution, a pool and normalisation, of random weights."""
    generator = np.random.default_rng(3)
    drawn = generator.standard_normal
    weights = {
        "kernel": drawn((4, 1, 3, 3)),
        "scale": np.abs(drawn(4)) + 0.5,
        "shift": drawn(4),
        "mean": drawn(4),
        "variance": np.abs(drawn(4)) + 0.5,
        "last": drawn((CLASSES, 36)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "last"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    return _saved(nodes, "probabilities", weights, shape=(1, 6, 6))


def _saved(nodes: list[Any], output: str, weights: dict[str, Any], shape: tuple[int, ...] = (INPUTS,)) -> bytes:
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, *shape])],
        [helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, [None, CLASSES])],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    saved: bytes = model.SerializeToString()
    return saved
