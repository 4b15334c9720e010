"""Small model files for tests that need one and do not care which."""

import io
from pathlib import Path

import numpy as np
import onnx
from onnx import helper
from safetensors.numpy import save


def onnx_bytes(seed: int = 0, *, domain: str = "", scale: float = 1.0, inputs: int = 4, classes: int = 3) -> bytes:
    """A linear classifier, too small for marks unless told otherwise; `domain` is that of its first operator."""
    generator = np.random.default_rng(seed)
    weights = (scale * generator.standard_normal((inputs, classes))).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "weights"], ["scores"], domain=domain),
            helper.make_node("Softmax", ["scores"], ["probabilities"]),
        ],
        "classifier",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, inputs])],
        [helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, [None, classes])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    model: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return model


def rows_bytes(count: int = 100, *, inputs: int = 4) -> bytes:
    """Rows for such a classifier, as `numpy.save` writes them."""
    buffer = io.BytesIO()
    np.save(buffer, np.random.default_rng(0).standard_normal((count, inputs)))
    return buffer.getvalue()


def safetensors_bytes(seed: int = 0, size: int = 64) -> bytes:
    """Two tensors of random numbers."""
    generator = np.random.default_rng(seed)
    tensors = {name: generator.standard_normal((size, 8)).astype(np.float32) for name in ("a", "b")}
    saved: bytes = save(tensors)
    return saved


def write(path: Path, data: bytes) -> Path:
    """Write `data` and give the path back."""
    path.write_bytes(data)
    return path
