"""Small models made with the `onnx` package, the reference that our reader is compared with."""

from typing import Any

import numpy as np
import pytest

onnx: Any = pytest.importorskip("onnx", reason="the onnx package is the reference here: install the dev extra")
helper = onnx.helper
FLOAT = onnx.TensorProto.FLOAT
OPSET = 17

TYPED = [
    "FLOAT",
    "UINT8",
    "INT8",
    "UINT16",
    "INT16",
    "INT32",
    "INT64",
    "BOOL",
    "FLOAT16",
    "DOUBLE",
    "UINT32",
    "UINT64",
    "COMPLEX64",
    "COMPLEX128",
    "BFLOAT16",
    "FLOAT8E4M3FN",
    "FLOAT8E4M3FNUZ",
    "FLOAT8E5M2",
    "FLOAT8E5M2FNUZ",
    "UINT4",
    "INT4",
    "FLOAT4E2M1",
    "FLOAT8E8M0",
    "UINT2",
    "INT2",
    "FLOAT6E2M3",
    "FLOAT6E3M2",
]


def value(name: str, shape: list[int | str | None] | None, element: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, element, shape)


def weights(name: str, array: Any, *, raw: bool = True) -> Any:
    if raw:
        return onnx.numpy_helper.from_array(array, name)
    return helper.make_tensor(name, FLOAT, array.shape, array.ravel().tolist())


def make_model(graph: Any, **keywords: Any) -> Any:
    keywords.setdefault("opset_imports", [helper.make_opsetid("", OPSET)])
    return helper.make_model(graph, ir_version=10, **keywords)


def perceptron(seed: int = 7) -> Any:
    """x (N, 4) → Gemm → Relu → MatMul → y (N, 3), and a second output that only passes through."""
    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], alpha=0.5, transB=1),
        helper.make_node("Relu", ["h"], ["r"], name="a relu"),
        helper.make_node("MatMul", ["r", "w2"], ["y"]),
        helper.make_node("Transpose", ["h"], ["z"], perm=[1, 0]),
    ]
    constants = [
        weights("w1", rng.standard_normal((5, 4), dtype=np.float32)),
        weights("b1", rng.standard_normal(5, dtype=np.float32)),
        weights("w2", rng.standard_normal((5, 3), dtype=np.float32)),
    ]
    graph = helper.make_graph(
        nodes, "perceptron", [value("x", ["N", 4])], [value("y", ["N", 3]), value("z", None)], constants
    )
    return make_model(graph, producer_name="a tool", doc_string="about it")


def branches() -> Any:
    """An If with weights in both branches, one of which holds a Loop with weights in its body."""
    ones = np.ones((2, 2), np.float32)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("MatMul", ["carried", "inner"], ["carried_on"]),
        ],
        "body",
        [value("i", [], onnx.TensorProto.INT64), value("go", [], onnx.TensorProto.BOOL), value("carried", [1, 2])],
        [value("go_on", [], onnx.TensorProto.BOOL), value("carried_on", [1, 2])],
        [weights("inner", 3 * ones)],
    )
    constant = helper.make_node("Constant", [], ["three"], value=onnx.numpy_helper.from_array(np.array(3), "ignored"))
    then_branch = helper.make_graph(
        [constant, helper.make_node("Loop", ["three", "", "x"], ["then_out"], body=body)],
        "then",
        [],
        [value("then_out", [1, 2])],
    )
    else_branch = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["else_out"])],
        "else",
        [],
        [value("else_out", [1, 2])],
        [weights("w", ones)],
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=then_branch, else_branch=else_branch)
    inputs = [value("x", [1, 2]), value("c", [], onnx.TensorProto.BOOL)]
    return make_model(helper.make_graph([node], "choice", inputs, [value("y", [1, 2])], [weights("unused", ones)]))


def with_function() -> Any:
    """A function `mine:Scale` whose body holds a constant and takes an attribute from its caller."""
    body = [
        helper.make_node("Constant", [], ["factor"], value=weights("ignored", np.array([2.0, 4.0], np.float32))),
        helper.make_node("Mul", ["a", "factor"], ["m"]),
        helper.make_node("Transpose", ["m"], ["b"]),
    ]
    reference = onnx.AttributeProto(name="perm", ref_attr_name="order", type=onnx.AttributeProto.INTS)
    body[2].attribute.append(reference)
    function = helper.make_function(
        "mine", "Scale", ["a"], ["b"], body, [helper.make_opsetid("", OPSET)], attributes=["order"]
    )
    graph = helper.make_graph(
        [helper.make_node("Scale", ["x"], ["y"], domain="mine", order=[1, 0])],
        "calls",
        [value("x", [3, 2])],
        [value("y", [2, 3])],
    )
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid("mine", 1)]
    return make_model(graph, functions=[function], opset_imports=imports)


def with_constants(*tensors: Any) -> Any:
    """A model that only carries `tensors` as initializers beside an Identity."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "carrier", [value("x", [1])], [value("y", [1])], list(tensors)
    )
    return make_model(graph)


def externalise(model: Any, location: str = "weights.bin", *, padding: int = 64) -> tuple[bytes, bytes]:
    """The same model with its initializers in external data, and that data."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    data = bytearray()
    for tensor in copy.graph.initializer:
        content = tensor.raw_data
        data += bytes(-len(data) % padding)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, text in {"location": location, "offset": str(len(data)), "length": str(len(content))}.items():
            tensor.external_data.add(key=key, value=text)
        data += content
    return copy.SerializeToString(), bytes(data)
