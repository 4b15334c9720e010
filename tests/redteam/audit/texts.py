"""A small causal language model in ONNX with random weights, of which the width is known."""

import numpy as np
import onnx

from palladion.model.model import Model
from palladion.model.read import read_memory

VOCABULARY = 300


def language_model(hidden: int = 24, vocabulary: int = VOCABULARY, *, seed: int = 1, caches: bool = False) -> Model:
    """Embeddings that are added up, a nonlinear layer, and a head (hidden, vocabulary)."""
    generator = np.random.default_rng((seed, hidden))
    parts = {
        "embed": generator.standard_normal((vocabulary, hidden)),
        "inner": generator.standard_normal((hidden, hidden)) / np.sqrt(hidden),
        "head": generator.standard_normal((hidden, vocabulary)) / np.sqrt(hidden),
    }
    helper, tensor = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Gather", ["embed", "input_ids"], ["embedded"]),
        helper.make_node("CumSum", ["embedded", "axis"], ["summed"]),
        helper.make_node("MatMul", ["summed", "inner"], ["mixed"]),
        helper.make_node("Tanh", ["mixed"], ["state"]),
        helper.make_node("MatMul", ["state", "head"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info("input_ids", tensor.INT64, ["batch", "tokens"])]
    inputs.append(helper.make_tensor_value_info("attention_mask", tensor.INT64, ["batch", "tokens"]))
    inputs.append(helper.make_tensor_value_info("position_ids", tensor.INT64, ["batch", "tokens"]))
    if caches:
        inputs.append(helper.make_tensor_value_info("past.0", tensor.FLOAT, ["batch", 2, "past", 8]))
    numbers = [onnx.numpy_helper.from_array(item.astype(np.float32), name) for name, item in parts.items()]
    numbers.append(onnx.numpy_helper.from_array(np.array(1, np.int64), "axis"))
    graph = helper.make_graph(
        nodes,
        "text",
        inputs,
        [helper.make_tensor_value_info("logits", tensor.FLOAT, ["batch", "tokens", vocabulary])],
        numbers,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return read_memory({"text.onnx": made.SerializeToString()})
