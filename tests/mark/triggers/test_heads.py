"""Finding the head of a classifier, and running a model so that what goes into it comes out."""

import numpy as np
import pytest

from palladion.mark.triggers.dense import Dense, forward
from palladion.mark.triggers.heads import Head, Tapped, answered_classes, find_head
from palladion.mark.triggers.trees import Trees
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.model.run import open_session
from tests.mark.classifiers import FEATURES, linear, network, rows, trees
from tests.mark.suspects import one_matrix
from tests.model.factories import helper, make_model, perceptron, value, weights

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many


def head(model: Model) -> Head:
    found = find_head(model)
    assert isinstance(found, Head), found
    return found


def layers(found: Head) -> tuple[Dense, ...]:
    assert not isinstance(found.part, Trees)
    return found.part


@pytest.mark.parametrize("gemm", [True, False])
def test_the_layers_of_a_network_compute_what_the_runtime_does(gemm: bool) -> None:
    model, table = network((32, 16), gemm=gemm), rows(50)
    found = head(model)
    said = Tapped(model, found.tap).run({"x": table})
    scores = forward(layers(found), said[found.tap])[-1]
    share = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(share, said["probabilities"], atol=1e-5)
    assert [layer.activation for layer in layers(found)] == ["Relu", "Relu", ""]
    assert (found.transposed == {"w0", "w1", "w2"}) is gemm


def test_a_linear_model_is_one_layer() -> None:
    model, table = linear(), rows(50)
    found = head(model)
    scores = forward(layers(found), table)[-1]
    assert found.names == ("10", "11", "12", "13", "14")
    np.testing.assert_array_equal(scores.argmax(axis=1) + 10, open_session(model).run({"x": table})["label"])


def test_trees_are_found_with_the_names_of_their_classes() -> None:
    found = head(trees())
    assert isinstance(found.part, Trees)
    assert (found.classes, found.names, found.label, found.scores) == (5, ("0", "1", "2", "3", "4"), "label", "scores")


def test_names_that_are_text_are_answered_as_text() -> None:
    model = linear(names=("a", "b", "c", "d", "e"))
    found = head(model)
    outputs = open_session(model).run({"x": rows(20)})
    assert answered_classes(found, outputs).tolist() == ["abcde".index(name) for name in outputs["label"]]


def test_a_label_that_is_none_of_the_heads_is_no_class() -> None:
    assert answered_classes(head(linear()), {"label": np.array([11, 99])}).tolist() == [1, -1]


def test_a_single_score_answers_one_of_two_classes() -> None:
    found = head(network(classes=1))
    assert found.classes == 2
    assert layers(found)[-1].weights.shape == (64, 1)


def test_layers_whose_result_is_used_elsewhere_too_end_the_row() -> None:
    model = read_memory({"model.onnx": perceptron().SerializeToString()})
    found = head(model)
    # the first product has a second reader, and is scaled besides
    assert [layer.tensor for layer in layers(found)] == ["w2"]
    assert found.tap == "r"


@pytest.mark.parametrize("size", [1, 64, 65])
def test_rows_come_back_in_their_order_whatever_their_number(size: int) -> None:
    model = network((8,))
    tapped = Tapped(model, head(model).tap)
    table = rows(size)
    expected = open_session(model).run({"x": table})["probabilities"]
    np.testing.assert_allclose(tapped.run({"x": table})["probabilities"], expected, atol=1e-6)


def test_a_model_for_one_row_at_a_time_is_asked_so() -> None:
    matrix = np.random.default_rng(1).normal(size=(FEATURES, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["held"]), helper.make_node("MatMul", ["held", "w"], ["y"])],
        "one",
        [value("x", [1, FEATURES])],
        [value("y", [1, 3])],
        [weights("w", matrix)],
    )
    model, table = read_memory({"m.onnx": make_model(graph).SerializeToString()}), rows(5)
    said = Tapped(model, head(model).tap).run({"x": table})
    np.testing.assert_allclose(said["y"], table @ matrix, atol=1e-5)
    np.testing.assert_array_equal(said["held"], table)


def test_what_has_no_head_says_why() -> None:
    assert "without a graph" in str(find_head(one_matrix()))
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "none", [value("x", ["N", 4])], [value("y", ["N", 4])]
    )
    assert "no dense layer" in str(find_head(read_memory({"m.onnx": make_model(graph).SerializeToString()})))
