"""Networks in ONNX whose function can be run before and after an attack; tensors have PyTorch's names. Seeded."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import onnxruntime

from bench.permute_networks import Give, Read, Space, mlp_spaces, resnet_spaces
from palladion.model.model import Model
from palladion.model.read import read_memory
from tests.mark.suspects import Array

Tensors = dict[str, Array]
Node = tuple[str, tuple[str, ...], str, dict[str, Any]]


def mlp(sizes: tuple[int, ...] = (64, 64, 32, 10), *, seed: int = 0, turned: bool = False) -> Tensors:
    """A multi-layer perceptron; weights are (outputs, inputs), or `turned`."""
    generator = np.random.default_rng(seed)
    tensors: Tensors = {}
    for index, (inputs, outputs) in enumerate(pairwise(sizes)):
        weight = ((2 / inputs) ** 0.5 * generator.standard_normal((outputs, inputs))).astype(np.float32)
        tensors[f"net.{2 * index}.weight"] = np.ascontiguousarray(weight.T) if turned else weight
        tensors[f"net.{2 * index}.bias"] = (0.1 * generator.standard_normal(outputs)).astype(np.float32)
    return tensors


def mlp_parts(tensors: Tensors, *, turned: bool = False, signed: bool = False) -> list[Space]:
    """Its hidden layers."""
    weights = [name for name in tensors if name.endswith("weight")]
    layers = [(name, name.replace("weight", "bias")) for name in weights]
    return mlp_spaces(layers, axis=int(turned), signed=signed)


def mlp_nodes(tensors: Tensors, *, activation: str = "Relu", turned: bool = False) -> list[Node]:
    """What it computes."""
    nodes: list[Node] = []
    before = "input"
    weights = [name for name in tensors if name.endswith("weight")]
    for index, name in enumerate(weights):
        bias = name.replace("weight", "bias")
        if turned:
            nodes += [("MatMul", (before, name), f"m{index}", {}), ("Add", (f"m{index}", bias), f"a{index}", {})]
        else:
            nodes.append(("Gemm", (before, name, bias), f"a{index}", {"transB": 1}))
        before = f"a{index}"
        if name != weights[-1]:
            nodes.append((activation, (before,), f"r{index}", {}))
            before = f"r{index}"
    return [*nodes, ("Softmax", (before,), "output", {})]


def cnn(seed: int = 0) -> Tensors:
    """Two convolutions with biases, a depthwise one between them, and two dense layers: for images of 8 x 8."""
    generator = np.random.default_rng(seed)
    shapes = {"c1": (16, 3, 3, 3), "dw": (16, 1, 3, 3), "c2": (32, 16, 3, 3), "f1": (48, 32 * 16), "f2": (10, 48)}
    tensors: Tensors = {}
    for name, shape in shapes.items():
        scale = (2 / np.prod(shape[1:])) ** 0.5
        tensors[f"{name}.weight"] = (scale * generator.standard_normal(shape)).astype(np.float32)
        tensors[f"{name}.bias"] = (0.1 * generator.standard_normal(shape[0])).astype(np.float32)
    return tensors


def cnn_parts() -> list[Space]:
    """Its hidden layers; the depthwise convolution goes along with the first one."""
    first = (Give("c1.weight", bias="c1.bias"), Give("dw.weight", bias="dw.bias", depthwise=True))
    return [
        Space(first, (Read("c2.weight"),)),
        Space((Give("c2.weight", bias="c2.bias"),), (Read("f1.weight"),)),
        Space((Give("f1.weight", bias="f1.bias"),), (Read("f2.weight"),)),
    ]


def cnn_nodes(tensors: Tensors) -> list[Node]:
    """What it computes."""
    pads = {"pads": [1, 1, 1, 1]}
    return [
        ("Conv", ("input", "c1.weight", "c1.bias"), "x1", pads),
        ("Relu", ("x1",), "x2", {}),
        ("Conv", ("x2", "dw.weight", "dw.bias"), "x3", {**pads, "group": len(tensors["dw.weight"])}),
        ("Relu", ("x3",), "x4", {}),
        ("Conv", ("x4", "c2.weight", "c2.bias"), "x5", pads),
        ("Relu", ("x5",), "x6", {}),
        ("MaxPool", ("x6",), "x7", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Flatten", ("x7",), "x8", {}),
        ("Gemm", ("x8", "f1.weight", "f1.bias"), "x9", {"transB": 1}),
        ("Relu", ("x9",), "x10", {}),
        ("Gemm", ("x10", "f2.weight", "f2.bias"), "output", {"transB": 1}),
    ]


def resnet_nodes(tensors: Mapping[str, Array]) -> list[Node]:
    """What a network of `bench.permute_networks.resnet` computes."""
    nodes: list[Node] = []

    def layer(before: str, name: str, norm: str, stride: int) -> str:
        size = tensors[f"{name}.weight"].shape[-1]
        attributes = {"pads": [size // 2] * 4, "strides": [stride] * 2}
        nodes.append(("Conv", (before, f"{name}.weight"), f"{name}/y", attributes))
        norms = tuple(f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var"))
        nodes.append(("BatchNormalization", (f"{name}/y", *norms), f"{norm}/y", {}))
        return f"{norm}/y"

    def relu(before: str) -> str:
        nodes.append(("Relu", (before,), f"{before}/r", {}))
        return f"{before}/r"

    at = relu(layer("input", "conv1", "bn1", 1))
    for block in sorted({".".join(name.split(".")[:2]) for name in tensors if name.startswith("layer")}):
        wider = f"{block}.downsample.0.weight" in tensors
        inner = relu(layer(at, f"{block}.conv1", f"{block}.bn1", 2 if wider else 1))
        outer = layer(inner, f"{block}.conv2", f"{block}.bn2", 1)
        short = layer(at, f"{block}.downsample.0", f"{block}.downsample.1", 2) if wider else at
        nodes.append(("Add", (outer, short), f"{block}/sum", {}))
        at = relu(f"{block}/sum")
    nodes += [("GlobalAveragePool", (at,), "pooled", {}), ("Flatten", ("pooled",), "flat", {})]
    return [*nodes, ("Gemm", ("flat", "fc.weight", "fc.bias"), "output", {"transB": 1})]


def resnet_parts(tensors: Tensors) -> list[Space]:
    """Its channels."""
    return resnet_spaces(tensors)


def exported(tensors: Mapping[str, Array], nodes: list[Node], shape: tuple[int, ...]) -> Model:
    """The network as an ONNX model; `shape` is that of one input."""
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(kind, list(inputs), [output], **more) for kind, inputs, output, more in nodes],
        "network",
        [onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["n", *shape])],
        [onnx.helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(numbers, name) for name, numbers in tensors.items()],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    return read_memory(
        {"model.onnx": onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()}
    )


def answers(model: Model, shape: tuple[int, ...], *, seed: int = 5) -> Array:
    """What the model answers to 16 random inputs."""
    inputs = np.random.default_rng(seed).standard_normal((16, *shape)).astype(np.float32)
    session = onnxruntime.InferenceSession(bytes(model.files[0].data), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input": inputs})[0])
