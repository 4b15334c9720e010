"""Inner values of a graph as outputs: which ones are chosen, and that the file is otherwise what it was."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.model.digest import model_digest
from palladion.model.inner import CANDIDATES_MAX, NAME_BYTES_MAX, as_output, candidates, spread, with_outputs
from palladion.model.model import Model
from palladion.model.read import read_memory
from tests.mark.classifiers import linear, network, trees
from tests.model.factories import helper, make_model, onnx, value, weights
from tests.models import onnx_bytes, safetensors_bytes


def graph(*nodes: object, outputs: tuple[str, ...] = ("y",)) -> Model:
    """A model of these nodes, with weights "w" (4, 4)."""
    made = helper.make_graph(
        list(nodes),
        "graph",
        [value("x", ["N", 4])],
        [value(name, ["N", 4]) for name in outputs],
        [weights("w", np.eye(4, dtype=np.float32))],
    )
    return read_memory({"model.onnx": memoryview(make_model(made).SerializeToString())})


def test_activations_before_the_last_weights_are_chosen_in_order() -> None:
    assert candidates(network((64, 32))) == ("r0", "r1")
    assert candidates(network((64,), gemm=False)) == ("r0",)


def test_an_activation_behind_the_last_weights_is_an_answer_and_no_layer() -> None:
    model = graph(
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Tanh", ["a"], ["t"]),
        helper.make_node("MatMul", ["t", "w"], ["b"]),
        helper.make_node("Sigmoid", ["b"], ["s"]),
        helper.make_node("Identity", ["s"], ["y"]),
    )

    assert candidates(model) == ("t",)


def test_without_activations_layers_with_weights_and_norms_are_chosen() -> None:
    model = graph(
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("LayerNormalization", ["a", "w"], ["n"]),
        helper.make_node("MatMul", ["n", "w"], ["y"]),
    )

    assert candidates(model) == ("a", "n")


def test_what_is_an_output_already_is_not_chosen() -> None:
    model = graph(
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
        outputs=("y", "r"),
    )

    assert candidates(model) == ("a",)


@pytest.mark.parametrize(
    "model",
    [
        trees(),
        linear(),
        read_memory({"m.onnx": memoryview(onnx_bytes())}),
        read_memory({"m.safetensors": memoryview(safetensors_bytes())}),
    ],
    ids=["trees", "linear classifier", "one layer", "weights without a graph"],
)
def test_models_without_layers_have_none(model: Model) -> None:
    assert candidates(model) == ()


def test_operators_of_other_domains_are_not_taken_for_layers() -> None:
    model = graph(
        helper.make_node("Relu", ["x"], ["r"], domain="evil"),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    )

    assert candidates(model) == ()


def test_of_a_deep_graph_no_more_than_so_many_are_chosen_from_first_to_last() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["r0"])]
    nodes += [helper.make_node("Relu", [f"r{place}"], [f"r{place + 1}"]) for place in range(500)]

    chosen = candidates(graph(*nodes, helper.make_node("MatMul", ["r500", "w"], ["y"])))

    assert len(chosen) == CANDIDATES_MAX
    assert (chosen[0], chosen[-1]) == ("r0", "r500")


@pytest.mark.parametrize("name", ["r" * (NAME_BYTES_MAX + 1), "r\n", "\x00layers", "r\u202e"])
def test_values_with_names_that_nobody_should_print_are_left_out(name: str) -> None:
    model = graph(helper.make_node("Relu", ["x"], [name]), helper.make_node("MatMul", [name, "w"], ["y"]))

    assert candidates(model) == ()


@given(names=st.lists(st.text(), max_size=60, unique=True), count=st.integers(1, 40))
def test_a_spread_keeps_the_order_and_both_ends(names: list[str], count: int) -> None:
    chosen = spread(names, count)

    assert len(chosen) == len(set(chosen)) == min(count, len(names))
    assert sorted(chosen, key=names.index) == list(chosen)
    if names:
        assert chosen[-1] == names[-1]
        assert count == 1 or chosen[0] == names[0]


def test_the_extended_file_has_more_outputs_and_is_otherwise_the_same() -> None:
    model = network((64, 32))
    before = bytes(model.files[0].data)

    extended = with_outputs(model, ("r0", "r1"))

    assert bytes(model.files[0].data) == before  # what was sealed, and its digest, stay
    assert bytes(extended.files[0].data) == before + as_output("r0") + as_output("r1")
    again = onnx.load_model_from_string(bytes(extended.files[0].data)).graph
    assert [item.name for item in again.output] == ["probabilities", "r0", "r1"]
    assert list(again.node) == list(onnx.load_model_from_string(before).graph.node)
    assert extended.graph is model.graph
    assert model_digest(extended) == model_digest(model)


def test_a_long_name_has_a_long_length() -> None:
    name = "n" * 300
    model = graph(helper.make_node("Relu", ["x"], [name]), helper.make_node("MatMul", [name, "w"], ["y"]))

    again = onnx.load_model_from_string(bytes(with_outputs(model, candidates(model)).files[0].data)).graph

    assert [item.name for item in again.output] == ["y", name]


@pytest.mark.parametrize("names", [("nowhere",), ("",), ("probabilities",), ("r0", "r0"), ("x",), ("w0",)])
def test_a_name_that_is_no_inner_value_is_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="is no inner value of the graph"):
        with_outputs(network((64,)), names)


def test_weights_without_a_graph_have_no_inner_values() -> None:
    with pytest.raises(ValueError, match="without a graph"):
        with_outputs(read_memory({"m.safetensors": memoryview(safetensors_bytes())}), ("a",))


@pytest.mark.slow
def test_nothing_that_serves_needs_the_onnx_package() -> None:
    code = "import sys, palladion.gate.sources.layered, palladion.gate.served; sys.exit('onnx' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
