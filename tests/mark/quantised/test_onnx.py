"""Quantised weights of ONNX graphs: found by the operators that use them, marked, and the model still runs."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from palladion.mark.carriers import derive
from palladion.mark.places import Survey
from palladion.mark.quantised.codings import nibbles
from palladion.mark.quantised.onnx import onnx_integers
from palladion.mark.weights import mark_place
from palladion.model.blocks import decode
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.model.rewrite import rewrite
from palladion.model.tensors import Tensor
from tests.mark.suspects import KEY, OWNERSHIP, Array, matrix, one_matrix

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many

CODES = np.clip(np.rint(matrix(32, 24) * 300), -127, 127).astype(np.int8)  # (inputs, outputs)


def model(nodes: list[Any], *made: Any, graph_in: Any = None, **constants: Array) -> Model:
    initializers = [*made, *(numpy_helper.from_array(values, name) for name, values in constants.items())]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [graph_in or value("x", TensorProto.FLOAT, [None, 32])],
        [value("y", TensorProto.FLOAT, None)],
        initializers,
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return read_memory({"m.onnx": helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()})


def node(kind: str, *inputs: str, **attributes: Any) -> Any:
    return helper.make_node(kind, list(inputs), ["y"], **attributes)


def read(found: Model, name: str = "w") -> Array:
    return onnx_integers(found)[name].read()


MICROSOFT = {"domain": "com.microsoft"}
SCALES = np.linspace(0.01, 0.02, 24).astype(np.float32)
ZEROS = np.arange(24).astype(np.int8)
BY_COLUMNS = (CODES.astype(np.float32) - ZEROS) * SCALES
BOTH = {"s": SCALES, "z": ZEROS}
ONE = np.array(0.5, np.float32)


def test_dequantised_constants_are_weights_with_their_scales() -> None:
    found = model([node("DequantizeLinear", "w", "s", "z", axis=1)], w=CODES, s=SCALES, z=ZEROS)
    assert np.allclose(read(found), BY_COLUMNS)
    assert onnx_integers(found)["w"].beside == ("s", "z")
    rows = model([node("DequantizeLinear", "w", "s", axis=0)], w=CODES, s=np.arange(32, dtype=np.float32))
    assert np.allclose(read(rows), CODES * np.arange(32)[:, None])
    whole = model([node("DequantizeLinear", "w", "s")], w=CODES.astype(np.uint8), s=ONE)
    assert np.allclose(read(whole), CODES.astype(np.uint8) * 0.5)


def test_scales_of_blocks_reach_as_far_as_their_blocks() -> None:
    scales = np.arange(3 * 24, dtype=np.float32).reshape(3, 24)
    found = model([node("DequantizeLinear", "w", "s", axis=0, block_size=12)], w=CODES, s=scales)
    assert np.allclose(read(found), CODES * np.repeat(scales, 12, axis=0)[:32])


def test_four_bits_are_read_and_written_as_they_are_packed() -> None:
    codes = np.clip(CODES // 8, -8, 7)
    packed = helper.make_tensor("w", TensorProto.INT4, codes.shape, nibbles(codes.ravel()).tobytes(), raw=True)
    found = model([node("DequantizeLinear", "w", "s", axis=1)], packed, s=SCALES)
    kind = onnx_integers(found)["w"]
    assert np.allclose(kind.read(), codes * SCALES)

    stored = kind.encode(kind.read() + 0.5 * SCALES, KEY)

    moved = decode("int4", stored, codes.shape) - codes
    assert set(np.unique(moved)) == {0, 1}
    assert 0.4 < moved[codes < codes.max()].mean() < 0.6


@pytest.mark.parametrize(
    ("used", "constants", "expected"),
    [
        (node("MatMulInteger", "x", "w", "", "z"), {"z": ZEROS}, CODES.astype(np.float32) - ZEROS),
        (node("MatMulInteger", "x", "w"), {}, CODES),
        (node("QLinearMatMul", "x", "a", "b", "w", "s", "z", "a", "b"), BOTH, BY_COLUMNS),
        (node("DynamicQuantizeMatMul", "x", "w", "s", "z", **MICROSOFT), BOTH, BY_COLUMNS),
        (node("MatMulIntegerToFloat", "x", "w", "a", "s", "b", "z", **MICROSOFT), BOTH, BY_COLUMNS),
        (node("QGemm", "x", "a", "b", "w", "s", "z", **MICROSOFT), BOTH, BY_COLUMNS),
        (
            node("QGemm", "x", "a", "b", "w", "s", **MICROSOFT, transB=1),
            {"s": np.arange(32, dtype=np.float32)},
            CODES * np.arange(32)[:, None],
        ),
        (node("MatMulInteger", "x", "w", "", "z"), {"z": np.array(3, np.int8)}, CODES.astype(np.float32) - 3),
        (node("DequantizeLinear", "w", "s"), {"s": np.ones(7, np.float32)}, CODES),  # a scale that does not fit
        (node("DequantizeLinear", "w", "s", axis=9), {"s": SCALES}, CODES),
    ],
)
def test_what_operators_multiply_with_is_weights(used: Any, constants: dict[str, Array], expected: Array) -> None:
    found = model([used], w=CODES, a=ONE, b=np.array(0, np.int8), **constants)
    assert set(onnx_integers(found)) == {"w"}
    assert np.allclose(read(found), expected)


def test_filters_have_a_scale_for_each_output() -> None:
    filters = np.tile(CODES[:, :9].reshape(32, 1, 3, 3), (1, 2, 1, 1))
    scales = np.arange(32, dtype=np.float32)
    used = node("QLinearConv", "x", "a", "b", "w", "s", "b", "a", "b")
    found = model([used], w=filters, s=scales, a=ONE, b=np.array(0, np.int8))
    assert np.allclose(read(found), filters * scales[:, None, None, None])
    plain = model([node("ConvInteger", "x", "w")], w=filters)
    assert np.allclose(read(plain), filters)


def test_an_embedding_that_is_looked_up_and_then_dequantised_is_weights() -> None:
    nodes = [
        helper.make_node("Gather", ["w", "x"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["turned"]),
        node("DequantizeLinear", "turned", "s", "z"),
    ]
    found = model(nodes, graph_in=helper.make_tensor_value_info("x", TensorProto.INT64, [None]), w=CODES, s=ONE)
    assert np.allclose(read(found), CODES * 0.5)


def test_weights_inside_a_branch_are_found() -> None:
    inner = helper.make_graph(
        [node("DequantizeLinear", "w", "s")], "then", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    )
    used = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    value = helper.make_tensor_value_info("x", TensorProto.BOOL, [])
    assert set(onnx_integers(model([used], graph_in=value, w=CODES, s=ONE))) == {"w"}


def test_other_integers_are_left_alone() -> None:
    nodes = [
        helper.make_node("Cast", ["w"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("QuantizeLinear", ["x", "s"], ["small"]),
        helper.make_node("DequantizeLinear", ["small", "s"], ["back"]),
        helper.make_node("MatMulInteger", ["w", "small"], ["left"]),
        helper.make_node("Add", ["floats", "back"], ["y"]),
    ]
    assert not onnx_integers(model(nodes, w=CODES, s=ONE))
    assert not onnx_integers(model([node("MatMulInteger", "x", "w")], w=CODES.astype(np.int32)))


def test_a_circle_of_nodes_ends() -> None:
    nodes = [
        helper.make_node("Identity", ["b"], ["a"]),
        helper.make_node("Identity", ["a"], ["b"]),
        node("DequantizeLinear", "a", "s"),
    ]
    assert not onnx_integers(model(nodes, s=ONE))


def test_a_dynamically_quantised_model_is_marked_and_runs() -> None:
    runtime: Any = pytest.importorskip("onnxruntime", reason="ONNX Runtime runs what was marked")
    weights = {"a": matrix(32, 64, seed=1), "b": matrix(64, 32, seed=2)}
    nodes = []
    for name, source, target in (("a", "x", "h"), ("b", "h", "y")):
        nodes += [
            helper.make_node("DynamicQuantizeLinear", [source], [f"{name}q", f"{name}s", f"{name}z"]),
            helper.make_node("MatMulInteger", [f"{name}q", name, f"{name}z"], [f"{name}i"]),
            helper.make_node("Cast", [f"{name}i"], [f"{name}f"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}f", f"{name}s"], [f"{name}m"]),
            helper.make_node("Mul", [f"{name}m", "step"], [target]),
        ]
    codes = {name: np.rint(values / np.abs(values).max() * 127).astype(np.int8) for name, values in weights.items()}
    original = model(nodes, step=np.array(1 / 500, np.float32), **codes)
    survey = Survey(original)

    def change(tensor: Tensor) -> Array | None:
        place = survey.place_of(tensor)
        if place is None:
            return None
        return place.coding.encode(mark_place(place, OWNERSHIP), derive(KEY, "rounding", place.carrier_name))

    files = rewrite(original, change)

    def answers(data: bytes) -> Array:
        session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
        inputs = np.random.default_rng(3).standard_normal((200, 32)).astype(np.float32)
        return np.asarray(session.run(None, {"x": inputs})[0])

    before, after = answers(bytes(original.files[0].data)), answers(bytes(files["m.onnx"]))
    assert not np.array_equal(before, after)
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.995
    moved = read_memory({"m.onnx": bytes(files["m.onnx"])}).tensors["a"].data.astype(int) - codes["a"]
    assert set(np.unique(moved)) == {-1, 0, 1}


def test_a_model_without_a_graph_has_none() -> None:
    assert not onnx_integers(one_matrix())
