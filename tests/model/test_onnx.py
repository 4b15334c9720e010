import time
import tracemalloc
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palladion.errors import FormatError
from palladion.model import onnx as onnx_format
from palladion.model import onnx_tensors
from palladion.model.graph import SparseRef, StringTensor, Subgraph, TensorRef
from palladion.model.onnx import DEPTH_MAX, OnnxContent
from palladion.model.onnx_tensors import PADDING_BYTES_MAX
from palladion.seal.manifest import FILES_MAX
from tests.model import factories, wire
from tests.model.factories import TYPED, helper, onnx, value, weights


def no_files(location: str) -> memoryview:
    raise AssertionError(f"{location} was asked for")


def parse(data: bytes | Any, files: dict[str, bytes] | None = None) -> OnnxContent:
    content = data if isinstance(data, bytes) else data.SerializeToString()

    def open_file(location: str) -> memoryview:
        return memoryview((files or {})[location])

    return onnx_format.parse(memoryview(content), no_files if files is None else open_file, what="m.onnx")


def expected_bytes(tensor: Any) -> bytes:
    """What the reference package reads, packed again where a type is narrower than a byte."""
    raw = onnx.TensorProto()
    raw.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor)))
    return bytes(raw.raw_data)


def typed_tensor(type_name: str, count: int, *, raw: bool) -> Any:
    code = onnx.TensorProto.DataType.Value(type_name)
    dtype = helper.tensor_dtype_to_np_dtype(code)
    rng = np.random.default_rng(11)
    numbers = rng.integers(0, 2, count) if type_name in {"BOOL", "UINT2", "INT2"} else rng.integers(0, 7, count)
    array = numbers.astype(dtype)
    if raw:
        return onnx.numpy_helper.from_array(array, "t")
    return helper.make_tensor("t", code, [count], array)


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize("type_name", TYPED)
def test_every_type_is_read_as_the_reference_reads_it(type_name: str, raw: bool) -> None:
    tensor = typed_tensor(type_name, 7, raw=raw)
    assert tensor.HasField("raw_data") == raw

    read = parse(factories.with_constants(tensor)).tensors["t"]

    assert (read.shape, read.data.tobytes()) == ((7,), expected_bytes(tensor))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1, 2, 3)])
def test_shapes_are_read_as_the_reference_reads_them(shape: tuple[int, ...]) -> None:
    array = np.ones(shape, np.float32)

    for raw in (True, False):
        read = parse(factories.with_constants(weights("t", array, raw=raw))).tensors["t"]
        assert (read.shape, read.data.tolist()) == (shape, array.tolist())


def test_negative_integers_are_read_from_typed_data() -> None:
    tensors = [
        helper.make_tensor("a", onnx.TensorProto.INT8, [2], [-128, 127]),
        helper.make_tensor("b", onnx.TensorProto.INT32, [2], [-(2**31), 5]),
        helper.make_tensor("c", onnx.TensorProto.INT64, [2], [-(2**63), 2**63 - 1]),
        helper.make_tensor("d", onnx.TensorProto.UINT64, [1], [2**64 - 1]),
    ]

    read = parse(factories.with_constants(*tensors)).tensors

    assert [read[name].data.tolist() for name in "abcd"] == [
        [-128, 127],
        [-(2**31), 5],
        [-(2**63), 2**63 - 1],
        [2**64 - 1],
    ]


def test_weights_are_views_into_the_file() -> None:
    data = factories.perceptron().SerializeToString()

    tensors = parse(data).tensors

    assert all(np.shares_memory(tensor.data, np.frombuffer(data, np.uint8)) for tensor in tensors.values())


def test_the_graph_tells_a_scanner_what_the_model_takes_gives_and_uses() -> None:
    model = factories.perceptron()
    model.metadata_props.add(key="author", value="me")

    content = parse(model)
    graph = content.graph

    assert [(item.name, item.type.element, item.type.shape) for item in graph.inputs if item.type] == [
        ("x", "float32", ("N", 4))
    ]
    assert [item.name for item in graph.outputs] == ["y", "z"]
    assert graph.operators == {("", "Gemm"), ("", "Relu"), ("", "MatMul"), ("", "Transpose")}
    assert graph.opset_imports == {"": factories.OPSET}
    assert content.metadata == {"author": "me"}
    assert graph.external_locations == ()


def test_trees_and_linear_models_yield_their_numbers_by_output_and_attribute() -> None:
    node = helper.make_node(
        "LinearRegressor", ["x"], ["y"], domain="ai.onnx.ml", coefficients=[0.5, 1.5], intercepts=[0.25], targets=1
    )
    encoder = helper.make_node(
        "LabelEncoder", ["y"], ["label"], domain="ai.onnx.ml", keys_int64s=[3, 4], values_floats=[1.0, 2.0]
    )
    graph = helper.make_graph([node, encoder], "linear", [value("x", [1, 2])], [value("y", [1, 1])])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]

    content = parse(factories.make_model(graph, opset_imports=imports))

    assert {name: tensor.data.tolist() for name, tensor in content.tensors.items()} == {
        "node:y/coefficients": [0.5, 1.5],
        "node:y/intercepts": [0.25],
        "node:label/keys_int64s": [3, 4],
        "node:label/values_floats": [1.0, 2.0],
    }


def test_integer_lists_of_other_operators_belong_to_the_graph() -> None:
    content = parse(factories.perceptron())

    (transpose,) = [node for node in content.graph.main.nodes if node.op_type == "Transpose"]
    assert content.tensors.keys() == {"w1", "b1", "w2"}
    assert isinstance(transpose.attributes[0].value, np.ndarray)
    assert transpose.attributes[0].value.tolist() == [1, 0]


def test_a_node_is_named_after_its_first_named_output() -> None:
    node = helper.make_node("LSTM", ["x", "w", "r"], ["", "last"], hidden_size=1, activation_alpha=[0.5])
    graph = helper.make_graph([node], "g", [value("x", [1, 1, 1])], [value("last", None)])

    assert "node:last/activation_alpha" in parse(factories.make_model(graph)).tensors


def test_branches_and_loop_bodies_are_named_by_their_path() -> None:
    content = parse(factories.branches())

    assert content.tensors.keys() == {
        "unused",
        "node:y/then_branch/node:three/value",
        "node:y/then_branch/node:then_out/body/inner",
        "node:y/else_branch/w",
    }
    assert {operator for _, operator in content.graph.operators} == {"If", "Loop", "Constant", "Identity", "MatMul"}


def test_functions_are_read_with_their_constants_and_references() -> None:
    content = parse(factories.with_function())

    (function,) = content.graph.functions
    assert (function.domain, function.name, function.attributes) == ("mine", "Scale", ("order",))
    assert function.nodes[2].attributes[0].reference == "order"
    assert content.tensors["function:mine:Scale/node:factor/value"].data.tolist() == [2, 4]


def test_string_tensors_belong_to_the_graph() -> None:
    content = parse(factories.with_constants(helper.make_tensor("s", onnx.TensorProto.STRING, [2], [b"a", b"\xff"])))

    strings = content.graph.main.constants["s"]
    assert isinstance(strings, StringTensor)
    assert list(strings.strings) == [b"a", b"\xff"]
    assert content.tensors == {}


def test_sparse_initializers_are_two_tensors() -> None:
    model = factories.with_constants()
    values = weights("s", np.array([1.0, 2.0], np.float32))
    indices = onnx.numpy_helper.from_array(np.array([3, 5], np.int64), "anything")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [10]))

    content = parse(model)

    assert content.graph.main.constants["s"] == SparseRef("s", "s/indices", (10,))
    assert content.tensors["s/indices"].data.tolist() == [3, 5]


def test_lists_of_tensors_and_graphs_are_numbered() -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["o"])],
        "b",
        [],
        [value("o", None)],
        [weights("k", np.ones(1, np.float32))],
    )
    node = helper.make_node(
        "Custom", ["x"], ["y"], domain="mine", several=[weights("p", np.zeros(1, np.float32))] * 2, bodies=[body]
    )
    graph = helper.make_graph([node], "g", [value("x", [1])], [value("y", [1])])

    content = parse(factories.make_model(graph))

    assert content.tensors.keys() == {"node:y/several[0]", "node:y/several[1]", "node:y/bodies[0]/k"}
    attributes = {item.name: item.value for item in content.graph.main.nodes[0].attributes}
    assert attributes["several"] == (TensorRef("node:y/several[0]"), TensorRef("node:y/several[1]"))
    assert isinstance(attributes["bodies"], tuple)
    assert isinstance(attributes["bodies"][0], Subgraph)


def test_nested_types_are_read() -> None:
    model = factories.with_constants()
    inner = helper.make_map_type_proto(onnx.TensorProto.INT64, helper.make_tensor_type_proto(1, ["n", None, 3]))
    model.graph.input.append(helper.make_value_info("maps", helper.make_sequence_type_proto(inner)))
    model.graph.input.append(helper.make_value_info("maybe", helper.make_optional_type_proto(inner)))

    maps = parse(model).graph.inputs[1].type

    assert maps is not None
    assert (maps.kind, maps.items[0].kind, maps.items[0].element) == ("sequence", "map", "int64")
    assert maps.items[0].items[0].shape == ("n", None, 3)


def test_training_information_is_read() -> None:
    model = factories.with_constants()
    algorithm = helper.make_graph(
        [helper.make_node("Identity", ["rate"], ["o"])],
        "a",
        [],
        [value("o", [1])],
        [weights("rate", np.ones(1, np.float32))],
    )
    info = helper.make_training_info(algorithm, [("y", "o")], None, None)
    model.training_info.append(info)

    content = parse(model)

    assert content.tensors.keys() == {"training:0/algorithm/rate"}
    assert content.graph.training[0].update_bindings == (("y", "o"),)


def test_external_data_is_read_from_the_file_it_names() -> None:
    model = factories.perceptron()
    data, held = factories.externalise(model, "sub/w.bin")

    content = parse(data, {"sub/w.bin": held})

    inside = parse(model)
    assert content.graph.external_locations == ("sub/w.bin",)
    assert {name: tensor.data.tobytes() for name, tensor in content.tensors.items()} == {
        name: tensor.data.tobytes() for name, tensor in inside.tensors.items()
    }
    assert all(np.shares_memory(tensor.data, np.frombuffer(held, np.uint8)) for tensor in content.tensors.values())


def external(**entries: str) -> bytes:
    pairs = b"".join(wire.blob(13, wire.blob(1, key) + wire.blob(2, text)) for key, text in entries.items())
    head = wire.integer(1, 4) + wire.integer(2, 1) + wire.blob(8, "t")
    return wire.model(wire.graph(head + pairs + wire.integer(14, 1)))


@pytest.mark.parametrize(
    "location",
    [
        "../weights.bin",
        "a/../../weights.bin",
        "/etc/passwd",
        "",
        ".",
        "./w.bin",
        "a//b",
        "a/",
        "C:w.bin",
        "C:\\w.bin",
        "..\\w.bin",
        "a\\b",
        "\\\\server\\share",
        "w\x00.bin",
        "w\n.bin",
        "*/_ORT_MEM_ADDR_/*",
        "a" * 1025,
        "a" * 256,
        "a/" * 32 + "a",
        "w\u200b.bin",
        "w\u202e.bin",
        "w\x9b.bin",
    ],
)
def test_a_location_outside_the_folder_is_refused_and_never_opened(location: str) -> None:
    with pytest.raises(FormatError, match=r"initializer t keeps its data in .* not a plain path"):
        parse(external(location=location))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "w", "offset": "1"}, "ends at byte 17 of 'w', which has 16"),
        ({"location": "w", "offset": str(2**62)}, "truncated"),
        ({"location": "w", "length": "15"}, "claims 15 bytes of external data, expected 16"),
        ({"location": "w", "offset": "-1"}, "offset '-1', expected a whole number"),
        ({"location": "w", "offset": "0x1"}, "expected a whole number"),
        ({"location": "w", "offset": "9" * 5000}, "expected a whole number"),
        ({"location": "w", "offset": "٣"}, "expected a whole number"),
        ({"location": "w", "prepacked_0": "x"}, "key 'prepacked_0'"),
        ({"offset": "0"}, "without a location"),
    ],
)
def test_external_data_that_lies_is_refused(entries: dict[str, str], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        parse(external(**entries), {"w": bytes(16)})


def at(*offsets: int, elements: int = 4) -> bytes:
    """A model with tensors `t0`, `t1`, … of four float32 each at these offsets of the file `w`."""

    def item(name: str, offset: int) -> bytes:
        pairs = {"location": "w", "offset": str(offset)}.items()
        entries = b"".join(wire.blob(13, wire.blob(1, key) + wire.blob(2, text)) for key, text in pairs)
        return wire.integer(1, elements) + wire.integer(2, 1) + wire.blob(8, name) + entries + wire.integer(14, 1)

    return wire.model(wire.graph(*(item(f"t{place}", offset) for place, offset in enumerate(offsets))))


def test_external_tensors_that_share_bytes_are_refused() -> None:
    with pytest.raises(FormatError, match="initializer t0 and initializer t1 overlap in 'w'"):
        parse(at(0, 12), {"w": bytes(28)})


PAGE = PADDING_BYTES_MAX


@pytest.mark.parametrize(
    ("offsets", "size"),
    [((0, 16), 32), ((16, 0), 32), ((0, PAGE + 16), PAGE + 32), ((PAGE,), PAGE + 16), ((0,), PAGE + 16)],
)
def test_zeros_that_align_external_tensors_are_accepted(offsets: tuple[int, ...], size: int) -> None:
    assert len(parse(at(*offsets), {"w": bytes(size)}).tensors) == len(offsets)


@pytest.mark.parametrize(
    ("offsets", "size", "message"),
    [
        (
            (0, PAGE + 17),
            PAGE + 33,
            f"'w' has {PAGE + 1} bytes between initializer t0 and initializer t1 that",
        ),
        ((PAGE + 1,), PAGE + 17, f"'w' has {PAGE + 1} bytes between its beginning and initializer t0"),
        ((0,), PAGE + 17, f"'w' has {PAGE + 1} bytes between initializer t0 and its end"),
    ],
)
def test_more_zeros_than_align_are_refused(offsets: tuple[int, ...], size: int, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        parse(at(*offsets), {"w": bytes(size)})


@pytest.mark.parametrize(("place", "between"), [(3, "its beginning and"), (40, "t0 and .* t1"), (95, "t1 and its end")])
def test_a_byte_that_no_external_tensor_uses_is_refused(place: int, between: str) -> None:
    data = bytearray(96)
    assert len(parse(at(16, 64), {"w": bytes(data)}).tensors) == 2
    data[place] = 1
    with pytest.raises(FormatError, match=f"bytes between .*{between}.* that no tensor uses"):
        parse(at(16, 64), {"w": bytes(data)})


def test_a_file_of_nothing_but_empty_tensors_hides_nothing() -> None:
    assert parse(at(0, elements=0), {"w": b""}).tensors["t0"].byte_count == 0
    with pytest.raises(FormatError, match="no tensor uses"):
        parse(at(0, elements=0), {"w": b"x"})


def test_more_external_files_than_a_sealed_file_can_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert onnx_tensors.EXTERNAL_FILES_MAX + 1 == FILES_MAX
    monkeypatch.setattr(onnx_tensors, "EXTERNAL_FILES_MAX", 2)
    model = factories.perceptron()
    for tensor in model.graph.initializer:
        location = f"{tensor.name}.bin"
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
    held = {"w1.bin": bytes(80), "b1.bin": bytes(20), "w2.bin": bytes(60)}
    with pytest.raises(FormatError, match="initializer w2 is in one more than the 2 external-data files allowed"):
        parse(model.SerializeToString(), held)


T, INTEGER, BLOB = wire.tensor, wire.integer, wire.blob


def node(*parts: bytes) -> bytes:
    return BLOB(1, BLOB(2, "n") + BLOB(4, "Op") + b"".join(BLOB(5, part) for part in parts))


def attribute(code: int, *parts: bytes) -> bytes:
    return BLOB(1, "a") + b"".join(parts) + INTEGER(20, code)


FOUR = bytes(16)
HEAD = INTEGER(1, 4) + INTEGER(2, 1) + BLOB(8, "t")
BROKEN: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "m.onnx has no graph"),
    "no graph": (INTEGER(1, 8), "no graph"),
    "no operator sets": (INTEGER(1, 8) + BLOB(7, wire.graph()), "which operator sets"),
    "an operator set in two versions": (
        wire.model(wire.graph(), BLOB(8, BLOB(1, "ai.onnx") + INTEGER(2, 18))),
        "operator set '' in versions 17 and 18",
    ),
    "two graphs": (wire.model(wire.graph(), BLOB(7, wire.graph())), "graph is given twice"),
    "unknown field": (wire.model(wire.graph(), INTEGER(60, 1)), "unknown field 60"),
    "metadata twice": (wire.model(wire.graph(), BLOB(14, BLOB(1, "k")) * 2), "metadata_props twice"),
    "too few bytes": (wire.model(wire.graph(T("t", [5], FOUR))), "initializer t holds 16 bytes, expected 20"),
    "too many bytes": (wire.model(wire.graph(T("t", [3], FOUR))), "initializer t holds 16 bytes, expected 12"),
    "size of 2^63": (wire.model(wire.graph(T("t", [2**63], FOUR))), "initializer t has a negative dimension"),
    "size of 2^62": (wire.model(wire.graph(T("t", [2**62], FOUR))), "no memory can hold"),
    "sizes that overflow to 4": (wire.model(wire.graph(T("t", [2**32, 2**32 + 1, 4], FOUR))), "no memory can hold"),
    "negative size": (wire.model(wire.graph(T("t", [-1], FOUR))), "initializer t has a negative dimension"),
    "65 dimensions": (wire.model(wire.graph(T("t", [1] * 65, FOUR))), "65 dimensions"),
    "a million dimensions": (
        wire.model(wire.graph(BLOB(1, b"\x01" * 10**6) + BLOB(8, "t") + INTEGER(2, 1))),
        "1000000 dim",
    ),
    "type 0": (wire.model(wire.graph(T("t", [4], FOUR, data_type=0))), "initializer t has the unknown data type 0"),
    "type 99": (wire.model(wire.graph(T("t", [4], FOUR, data_type=99))), "unknown data type 99"),
    "no name": (wire.model(wire.graph(T("", [4], FOUR))), "has no name"),
    "one name twice": (wire.model(wire.graph(T("t", [4], FOUR), T("t", [4], FOUR))), "name 't'"),
    "segment": (wire.model(wire.graph(HEAD + BLOB(3, b""))), "segment"),
    "data in two places": (wire.model(wire.graph(HEAD + BLOB(9, FOUR) + BLOB(4, FOUR))), "more than one place"),
    "data in the wrong field": (
        wire.model(wire.graph(HEAD + INTEGER(7, 1))),
        "data in int64_data, expected float_data",
    ),
    "no data": (wire.model(wire.graph(HEAD)), "initializer t holds 0 numbers, expected 4"),
    "too few numbers": (wire.model(wire.graph(HEAD + BLOB(4, FOUR[:12]))), "holds 3 numbers, expected 4"),
    "external and inside": (wire.model(wire.graph(HEAD + BLOB(9, FOUR) + INTEGER(14, 1))), "more than one place"),
    "external or not": (wire.model(wire.graph(HEAD + BLOB(13, b""))), "does not say clearly"),
    "a third location": (wire.model(wire.graph(HEAD + INTEGER(14, 2))), "does not say clearly"),
    "int8 of 128": (
        wire.model(wire.graph(INTEGER(1, 1) + INTEGER(2, 3) + BLOB(8, "t") + INTEGER(5, 128))),
        "int32_data holds a value that is not in -128 to 127",
    ),
    "6-bit number of 64": (
        wire.model(wire.graph(INTEGER(1, 1) + INTEGER(2, 27) + BLOB(8, "t") + INTEGER(5, 64))),
        "more than 6 bits",
    ),
    "2^60 strings": (
        wire.model(wire.graph(INTEGER(1, 2**60) + INTEGER(2, 8) + BLOB(8, "t") + BLOB(6, "a"))),
        "initializer t holds 1 strings",
    ),
    "strings as raw data": (wire.model(wire.graph(INTEGER(2, 8) + BLOB(8, "t") + BLOB(9, "a"))), "holds 0 strings"),
    "name that is not UTF-8": (wire.model(wire.graph(BLOB(8, b"\xff"))), "name is not UTF-8"),
    "node without an output": (wire.model(BLOB(1, BLOB(4, "Op"))), "no named output"),
    "node without an operator": (wire.model(BLOB(1, BLOB(2, "y"))), "has no op_type"),
    "value made twice": (wire.model(node() + node()), "value n is made twice"),
    "value made over an initializer": (wire.model(node() + BLOB(5, T("n", [4], FOUR))), "value n is made twice"),
    "input twice": (wire.model(BLOB(11, BLOB(1, "x")) * 2), "input twice"),
    "input without a name": (wire.model(BLOB(11, b"")), "without a name"),
    "value of two types": (
        wire.model(BLOB(11, BLOB(1, "x") + BLOB(2, BLOB(1, b"") + BLOB(4, b"")))),
        "type of 'x' is more than one type",
    ),
    "value of type 99": (wire.model(BLOB(11, BLOB(1, "x") + BLOB(2, BLOB(1, INTEGER(1, 99))))), "element type 99"),
    "dimension with a size and a name": (
        wire.model(BLOB(11, BLOB(1, "x") + BLOB(2, BLOB(1, BLOB(2, BLOB(1, INTEGER(1, 1) + BLOB(2, "n"))))))),
        "both a size and a name",
    ),
    "attribute without a type": (
        wire.model(node(BLOB(1, "a") + INTEGER(3, 1))),
        "node:n/a has the unknown attribute type 0",
    ),
    "attribute of another type": (
        wire.model(node(attribute(1, INTEGER(3, 1)))),
        "node:n/a is of type float and has a value in i",
    ),
    "attribute of no value": (wire.model(node(attribute(4))), "node:n/a is of type tensor and has no value"),
    "attribute with value and reference": (
        wire.model(node(attribute(2, INTEGER(3, 1), BLOB(21, "r")))),
        "both a value and a reference",
    ),
    "attribute twice": (wire.model(node(attribute(2), attribute(2))), "node:n has an attribute twice"),
    "attribute and initializer of one name": (
        wire.model(node(attribute(6, BLOB(7, FOUR))) + BLOB(5, T("node:n/a", [4], FOUR))),
        "two tensors have the name 'node:n/a'",
    ),
    "function twice": (
        wire.model(wire.graph(), BLOB(25, BLOB(1, "f") + BLOB(9, INTEGER(2, 1))) * 2),
        "defines a function twice",
    ),
    "function without operator sets": (wire.model(wire.graph(), BLOB(25, BLOB(1, "f"))), "which operator sets"),
    "sparse tensor without a name": (wire.model(BLOB(15, b"")), "has no name"),
    "sparse tensor of strings": (
        wire.model(
            BLOB(15, BLOB(1, BLOB(8, "s") + INTEGER(2, 8) + BLOB(6, "a")) + BLOB(2, INTEGER(2, 7) + INTEGER(7, 1)))
        ),
        "made of strings",
    ),
}


@pytest.mark.parametrize("defect", BROKEN)
def test_a_broken_file_is_refused_with_its_defect_named(defect: str) -> None:
    data, message = BROKEN[defect]

    with pytest.raises(FormatError, match=message):
        parse(data)


def nested_graphs(depth: int) -> bytes:
    graph = node()
    for _ in range(depth):
        graph = node(attribute(5, BLOB(6, graph)))
    return wire.model(graph)


def test_graphs_can_be_nested_only_so_deep() -> None:
    assert parse(nested_graphs(DEPTH_MAX)).graph.operators == {("", "Op")}
    for depth in (DEPTH_MAX + 1, 3000):
        with pytest.raises(FormatError, match="nested deeper"):
            parse(nested_graphs(depth))


def test_types_can_be_nested_only_so_deep() -> None:
    held = BLOB(1, INTEGER(1, 1))
    for _ in range(2000):
        held = BLOB(4, BLOB(1, held))

    with pytest.raises(FormatError, match="nested deeper"):
        parse(wire.model(BLOB(11, BLOB(1, "x") + BLOB(2, held))))


@pytest.mark.parametrize(
    "data",
    [
        wire.model(wire.graph(T("t", [2**40], FOUR))),
        wire.model(wire.graph(INTEGER(1, 2**40) + INTEGER(2, 1) + BLOB(8, "t"))),
        wire.model(wire.graph(INTEGER(1, 2**40) + INTEGER(2, 7) + BLOB(8, "t") + BLOB(7, b"\x01" * 100))),
        wire.model(wire.graph(INTEGER(1, 2**40) + INTEGER(2, 8) + BLOB(8, "t") + BLOB(6, b"") * 100)),
        wire.model(wire.graph(BLOB(8, "t") + wire.tag(9, 2) + wire.varint(2**40))),
    ],
)
def test_a_lying_file_makes_us_allocate_nothing_for_what_it_claims(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            parse(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 100_000


def test_a_gigabyte_of_weights_is_read_in_no_time() -> None:
    size = 2**30
    head = INTEGER(1, size) + INTEGER(2, 2) + BLOB(8, "t") + wire.tag(9, 2) + wire.varint(size)
    graph = wire.tag(5, 2) + wire.varint(len(head) + size) + head
    start = INTEGER(1, 8) + BLOB(8, INTEGER(2, 17)) + wire.tag(7, 2) + wire.varint(len(graph) + size) + graph
    data = np.zeros(len(start) + size, np.uint8)  # pages of zeros that nobody touches take no memory
    data[: len(start)] = np.frombuffer(start, np.uint8)

    started = time.process_time()
    tensors = onnx_format.parse(data.data, no_files, what="big").tensors
    taken = time.process_time() - started

    assert tensors["t"].byte_count == size
    assert taken < 0.1


REAL = [
    factories.perceptron().SerializeToString(),
    factories.branches().SerializeToString(),
    factories.with_function().SerializeToString(),
    factories.with_constants(*(typed_tensor(name, 5, raw=False) for name in ["INT8"])).SerializeToString(),
]


@pytest.mark.slow
@settings(max_examples=400)
@given(st.sampled_from(REAL), st.data())
def test_a_changed_byte_is_read_or_refused_and_nothing_else(good: bytes, data: st.DataObject) -> None:
    changed = bytearray(good)
    position = data.draw(st.integers(0, len(good) - 1))
    changed[position] = data.draw(st.integers(0, 255))
    with suppress(FormatError):
        parse(bytes(changed))


@pytest.mark.parametrize("index", range(len(REAL)))
def test_a_file_cut_off_anywhere_is_refused(index: int) -> None:
    good = REAL[index]
    ends = [end for end in range(len(good)) if parses(good[:end])]

    # where the cut falls between two fields of the top message, what is left is a whole message
    assert all(onnx.ModelProto.FromString(good[:end]).HasField("graph") for end in ends)
    assert len(ends) <= 8


def parses(data: bytes) -> bool:
    try:
        parse(data)
    except FormatError:
        return False
    return True


@given(st.binary(max_size=100))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(FormatError):
        parse(noise + b"\xff")
