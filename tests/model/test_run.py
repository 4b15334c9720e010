import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palladion.errors import FormatError
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.model.run import Port, open_session, unservable
from palladion.model.safetensors import serialise
from palladion.model.tensors import DTYPES, Tensor
from tests.model import factories, wire
from tests.model.conftest import Fitted
from tests.model.factories import helper, onnx, value


def read(model: Any) -> Model:
    return read_memory({"m.onnx": model if isinstance(model, bytes) else model.SerializeToString()})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear", "forest", "boosting", "network"])
def test_a_real_model_answers_as_scikit_learn_does(name: str, fitted: dict[str, Fitted]) -> None:
    case = fitted[name]
    session = open_session(read(case.onnx))

    answers = session.run({session.inputs[0].name: case.rows})

    assert [port.name for port in session.outputs] == list(answers)
    np.testing.assert_allclose(answers["probabilities"], case.probabilities, atol=1e-5)
    assert (answers["label"] == case.estimator.predict(case.rows)).all()


def test_a_session_tells_its_inputs_and_outputs() -> None:
    session = open_session(read(factories.perceptron()), threads=2)

    assert session.inputs == (Port("x", "float32", ("N", 4)),)
    assert session.outputs[0] == Port("y", "float32", ("N", 3))


def test_a_network_computes_what_its_tensors_say() -> None:
    model = read(factories.perceptron())
    weights = {name: tensor.data for name, tensor in model.tensors.items()}
    x = np.random.default_rng(0).standard_normal((6, 4), dtype=np.float32)

    y = open_session(model).run({"x": x})["y"]

    hidden = np.maximum(0, 0.5 * x @ weights["w1"].T + weights["b1"])
    np.testing.assert_allclose(y, hidden @ weights["w2"], rtol=1e-5, atol=1e-6)


def test_branches_loops_and_functions_run() -> None:
    choice = open_session(read(factories.branches()))
    x = np.array([[1, 2]], np.float32)
    function = open_session(read(factories.with_function()))

    # three rounds of a 2×2 matrix of threes, or one of ones
    assert choice.run({"x": x, "c": np.array(True)})["y"].tolist() == [[324, 324]]
    assert choice.run({"x": x, "c": np.array(False)})["y"].tolist() == [[3, 3]]
    assert function.run({"x": np.ones((3, 2), np.float32)})["y"].tolist() == [[2, 2, 2], [4, 4, 4]]


def test_strings_go_in_and_out() -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["s"], ["t"])],
        "g",
        [value("s", [2], onnx.TensorProto.STRING)],
        [value("t", [2], onnx.TensorProto.STRING)],
    )
    session = open_session(read(factories.make_model(graph)))

    assert session.inputs[0].dtype == "string"
    assert session.run({"s": np.array(["a", "ß"])})["t"].tolist() == ["a", "ß"]


def test_external_data_is_taken_from_memory_and_never_from_the_current_folder() -> None:
    model = factories.perceptron()
    data, held = factories.externalise(model, "w.bin")
    x = np.ones((1, 4), np.float32)
    expected = open_session(read(model)).run({"x": x})["y"]
    folder, before = tempfile.mkdtemp(), Path.cwd()
    try:
        os.chdir(folder)
        Path("w.bin").write_bytes(bytes(len(held)))
        session = open_session(read_memory({"m.onnx": data, "w.bin": held}))
    finally:
        os.chdir(before)

    assert (session.run({"x": x})["y"] == expected).all()


def test_external_data_in_a_branch_is_not_looked_for_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = factories.branches()
    inner = model.graph.node[0].attribute[0].g.initializer[0]
    held = inner.raw_data
    inner.ClearField("raw_data")
    inner.data_location = onnx.TensorProto.EXTERNAL
    inner.external_data.add(key="location", value="w.bin")
    (tmp_path / "w.bin").write_bytes(held)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(FormatError, match=r"m\.onnx does not load") as caught:
        open_session(read_memory({"m.onnx": model.SerializeToString(), "w.bin": held}))

    assert "inside the ONNX file" in caught.value.hints[0]


def test_bytes_that_also_look_like_the_runtimes_own_format_run_as_the_onnx_that_was_read() -> None:
    # ONNX Runtime takes "ORTM" at byte 4 for its own format; here it stands in the name of the producer
    producer = wire.blob(2, "..ORTM" + "." * 20)
    data = producer + wire.model(wire.graph() + wire.blob(11, VALUE_X) + wire.blob(12, VALUE_Y))
    assert data[4:8] == b"ORTM"

    session = open_session(read(data))

    assert session.run({"x": np.ones(1, np.float32)})["y"].tolist() == [1]


VALUE_X = value("x", [1]).SerializeToString()
VALUE_Y = value("y", [1]).SerializeToString()


def test_weights_without_a_graph_do_not_run() -> None:
    weights = serialise([Tensor("w", DTYPES["float32"], (3,), np.ones(3, np.float32))], {})

    with pytest.raises(FormatError, match="without a graph"):
        open_session(read(weights))


@pytest.mark.parametrize(
    ("operator", "domain"), [("NoSuchOperator", ""), ("Relu", "no.such.domain"), ("EPContext", "com.microsoft")]
)
def test_a_model_that_does_not_load_is_refused_in_one_line(
    operator: str, domain: str, capfd: pytest.CaptureFixture[str]
) -> None:
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"], domain=domain)], "g", [value("x", [1])], [value("y", [1])]
    )
    imports = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = read(factories.make_model(graph, opset_imports=imports))

    with pytest.raises(FormatError, match=r"m\.onnx does not load: ") as caught:
        open_session(model)

    assert "\n" not in caught.value.message
    assert "[ONNXRuntimeError]" not in caught.value.message
    assert capfd.readouterr() == ("", "")


def _zipmap(*, stated: bool = True) -> Model:
    """What scikit-learn's classifiers become by default: an output that is a list of dictionaries."""
    node = helper.make_node("ZipMap", ["x"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    inner = helper.make_map_type_proto(onnx.TensorProto.INT64, helper.make_tensor_type_proto(1, []))
    output = helper.make_value_info("maps", helper.make_sequence_type_proto(inner))
    if not stated:
        output.ClearField("type")
    graph = helper.make_graph([node], "g", [value("x", [1, 2])], [output])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return read(factories.make_model(graph, opset_imports=imports))


@pytest.mark.parametrize("stated", [True, False])
def test_outputs_that_are_no_tensors_are_refused_with_what_to_do(stated: bool) -> None:
    with pytest.raises(FormatError, match=r"m\.onnx: 'maps' is a seq.*export it with options=\{'zipmap': False\}"):
        open_session(_zipmap(stated=stated))


@pytest.mark.parametrize("name", ["linear", "forest", "boosting", "network"])
def test_a_model_that_runs_is_servable(name: str, fitted: dict[str, Fitted]) -> None:
    assert unservable(read(fitted[name].onnx)) is None


def _passing(*types: Any) -> Model:
    """A model that gives back what it takes, one value of each type; None leaves the type open."""
    nodes = [helper.make_node("Identity", [f"in{place}"], [f"out{place}"]) for place in range(len(types))]
    inputs = [helper.make_value_info(f"in{place}", item or onnx.TypeProto()) for place, item in enumerate(types)]
    outputs = [helper.make_value_info(f"out{place}", item or onnx.TypeProto()) for place, item in enumerate(types)]
    return read(factories.make_model(helper.make_graph(nodes, "g", inputs, outputs)))


def test_what_cannot_be_served_is_told_from_the_file_alone() -> None:
    tensor = helper.make_tensor_type_proto
    weights = read(serialise([Tensor("w", DTYPES["float32"], (3,), np.ones(3, np.float32))], {}))

    assert "'maps' is a sequence" in str(unservable(_zipmap()))
    assert "export the model to ONNX" in str(unservable(weights))
    sequence = helper.make_sequence_type_proto(tensor(1, [1]))
    assert "'in1' is a sequence, and only tensors" in str(unservable(_passing(tensor(1, [1]), sequence)))
    assert "zipmap" not in str(unservable(_passing(sequence)))
    bfloat16 = tensor(onnx.TensorProto.BFLOAT16, [1])
    assert "'in0' is a tensor of bfloat16, and only tensors" in str(unservable(_passing(bfloat16)))


def test_what_the_file_leaves_open_is_left_to_the_runtime() -> None:
    tensor = helper.make_tensor_type_proto
    assert unservable(_passing(tensor(onnx.TensorProto.STRING, None), None, tensor(0, [1]))) is None
    assert unservable(_zipmap(stated=False)) is None


def test_a_constant_of_an_old_file_is_no_input_that_has_to_be_fed() -> None:
    graph = helper.make_graph(
        [helper.make_node("Cast", ["w"], ["y"], to=1)],
        "g",
        [value("w", [2], onnx.TensorProto.BFLOAT16)],
        [value("y", [2])],
        [helper.make_tensor("w", onnx.TensorProto.BFLOAT16, [2], [1.0, 2.0])],
    )
    assert unservable(read(factories.make_model(graph))) is None


def test_a_session_keeps_no_copy_of_the_file() -> None:
    model = factories.perceptron().SerializeToString()
    session = open_session(read(model))
    assert model not in vars(session._session).values()


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "input 'x' is missing"),
        ({"x": np.ones((1, 4), np.float32), "z": np.ones(1)}, "no input 'z', only 'x'"),
        ({"x": np.ones((1, 4))}, "input 'x' is float64, expected float32"),
        ({"x": np.ones((1, 5), np.float32)}, r"shape \(1, 5\), expected \('N', 4\)"),
        ({"x": np.ones(4, np.float32)}, r"shape \(4,\)"),
    ],
)
def test_feeds_that_do_not_fit_are_the_callers_mistake(feeds: dict[str, Any], message: str) -> None:
    session = open_session(read(factories.perceptron()))

    with pytest.raises(ValueError, match=message):
        session.run(feeds)


def test_a_model_that_fails_while_it_runs_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "i"], ["y"])],
        "g",
        [value("i", [1], onnx.TensorProto.INT64)],
        [value("y", [1])],
        [factories.weights("table", np.ones(3, np.float32))],
    )
    session = open_session(read(factories.make_model(graph)))

    with pytest.raises(FormatError, match="the model fails on these inputs: ") as caught:
        session.run({"i": np.array([9])})

    assert "\n" not in caught.value.message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("threads", [0, -1, 257])
def test_a_session_has_a_sensible_number_of_threads(threads: int) -> None:
    with pytest.raises(ValueError, match="threads"):
        open_session(read(factories.perceptron()), threads=threads)
