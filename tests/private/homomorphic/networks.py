"""Small ONNX networks for tests, written node by node."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from palladion.model.model import Model
from palladion.model.read import read_memory

FEATURES = 8
RNG = np.random.default_rng(2)
ROWS = RNG.normal(size=(120, FEATURES)).astype(np.float32)


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], domain: str = "", **attributes: Any) -> Any:
    """A node."""
    return helper.make_node(kind, list(inputs), list(outputs), domain=domain, **attributes)


def model(
    nodes: Sequence[Any],
    constants: Mapping[str, Any],
    outputs: Sequence[str] = ("out",),
    *,
    shape: Sequence[int | None] = (None, FEATURES),
) -> Model:
    """A model with one input, `x`."""
    return read_memory({"model.onnx": data(nodes, constants, outputs, shape=shape)})


def data(
    nodes: Sequence[Any],
    constants: Mapping[str, Any],
    outputs: Sequence[str] = ("out",),
    *,
    shape: Sequence[int | None] = (None, FEATURES),
) -> bytes:
    """The file of such a model."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(helper.make_model(graph, opset_imports=imports, ir_version=9).SerializeToString())


def weights(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Numbers of a layer."""
    found: NDArray[np.float32] = (np.random.default_rng(seed).normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)
    return found


def dense(*between: Any, last: Sequence[Any] = ()) -> bytes:
    """A network of 8-6-3 with nodes `between` its layers, from `a` to `b`, and others after `logits`."""
    nodes = [
        node("MatMul", ["x", "w1"], ["m"]),
        node("Add", ["m", "b1"], ["a"]),
        *between,
        node("Gemm", ["b", "w2", "b2"], ["logits" if last else "out"], transB=1),
        *last,
    ]
    return data(
        nodes,
        {
            "w1": weights(FEATURES, 6),
            "b1": weights(6, seed=1),
            "w2": weights(3, 6, seed=2),
            "b2": weights(3, seed=3),
            "half": np.float32(0.5),
            "two": np.float32(2),
            "root": np.float32(np.sqrt(2)),
            "one": np.float32(1),
            "scale": weights(6, seed=4) + 2,
        },
    )
