"""Networks out of ONNX graphs: they give what ONNX Runtime gives, or are refused with the reason."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from palladion.errors import FormatError
from palladion.model.read import read_memory
from palladion.model.run import open_session
from palladion.private.homomorphic.network import read_network
from tests.private.homomorphic.networks import ROWS, dense, model, node, weights

BETWEEN: dict[str, Sequence[Any]] = {
    "Relu": [node("Relu", ["a"], ["b"])],
    "Tanh": [node("Tanh", ["a"], ["b"])],
    "Sigmoid": [node("Sigmoid", ["a"], ["b"])],
    "LeakyRelu": [node("LeakyRelu", ["a"], ["b"], alpha=0.2)],
    "Elu": [node("Elu", ["a"], ["b"])],
    "Gelu": [node("Gelu", ["a"], ["b"])],
    "Gelu by tanh": [node("Gelu", ["a"], ["b"], approximate="tanh")],
    "a square by Mul": [node("Mul", ["a", "a"], ["b"])],
    "a square by Pow": [node("Pow", ["a", "two"], ["b"])],
    "Gelu in pieces": [
        node("Div", ["a", "root"], ["d"]),
        node("Erf", ["d"], ["e"]),
        node("Add", ["e", "one"], ["f"]),
        node("Mul", ["a", "f"], ["g"]),
        node("Mul", ["g", "half"], ["b"]),
    ],
    "SiLU in pieces": [node("Sigmoid", ["a"], ["s"]), node("Mul", ["a", "s"], ["b"])],
    "a scale after it": [node("Relu", ["a"], ["r"]), node("Mul", ["r", "scale"], ["b"])],
    "an identity": [node("Identity", ["a"], ["i"]), node("Relu", ["i"], ["b"])],
    "a number minus it": [node("Tanh", ["a"], ["t"]), node("Sub", ["one", "t"], ["b"])],
}


@pytest.mark.parametrize("name", BETWEEN)
def test_a_network_gives_what_the_runtime_gives(name: str) -> None:
    made = read_memory({"m.onnx": dense(*BETWEEN[name])})
    (wanted,) = open_session(made).run({"x": ROWS}).values()
    assert np.allclose(read_network(made).run(ROWS.astype(np.float64)), wanted, atol=1e-4)


def test_affine_nodes_are_one_layer() -> None:
    made = model(
        [
            node("Scaler", ["x"], ["s"], "ai.onnx.ml", offset=[0.5] * 8, scale=[2.0] * 8),
            node("BatchNormalization", ["s", "g", "b", "m", "v"], ["n"]),
            node("MatMul", ["n", "w"], ["y"]),
            node("Div", ["y", "d"], ["out"]),
        ],
        {
            "g": weights(8) + 2, "b": weights(8, seed=1), "m": weights(8, seed=2), "v": np.abs(weights(8, seed=3)) + 1,
            "w": weights(8, 3), "d": np.float32(4),
        },
    )  # fmt: skip
    network = read_network(made)
    assert (network.widths, network.activations) == ((8, 3), ())
    (wanted,) = open_session(made).run({"x": ROWS}).values()
    assert np.allclose(network.run(ROWS.astype(np.float64)), wanted, atol=1e-4)


def test_what_follows_the_last_layer_is_left_to_the_client() -> None:
    last = [node("Softmax", ["logits"], ["out"], axis=1)]
    network = read_network(read_memory({"m.onnx": dense(*BETWEEN["Relu"], last=last)}))
    assert network.dropped == ("Softmax",)
    assert network.widths == (8, 6, 3)


def test_a_linear_classifier_has_its_labels_and_its_logits() -> None:
    made = model(
        [
            node(
                "LinearClassifier", ["x"], ["label", "p"], "ai.onnx.ml", coefficients=weights(16).tolist(),
                intercepts=[0.1, -0.1], classlabels_strings=["no", "yes"], post_transform="LOGISTIC",
            ),
            node("Normalizer", ["p"], ["out"], "ai.onnx.ml", norm="L1"),
        ],
        {},
        ["label", "out"],
    )  # fmt: skip
    network = read_network(made)
    assert network.labels == ("no", "yes")
    assert network.dropped == ("ArgMax", "Sigmoid", "Normalizer")
    assert np.allclose(network.layers[0].weights, weights(16).reshape(2, 8))


REFUSED: dict[str, tuple[Sequence[Any], str]] = {
    "a softmax inside": ([node("Softmax", ["a"], ["b"])], "Softmax cannot be computed.*ciphertexts cannot be divided"),
    "a shortcut": ([node("Relu", ["a"], ["r"]), node("Add", ["r", "m"], ["b"])], "two different values"),
    "a layer norm": ([node("LayerNormalization", ["a", "scale"], ["b"])], "LayerNormalization cannot.*divided"),
    "a maximum": ([node("Max", ["a", "half"], ["b"])], "Max cannot be computed"),
    "a number over it": ([node("Exp", ["a"], ["b"])], "Exp cannot be computed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_computed_is_refused_with_the_reason(name: str) -> None:
    between, reason = REFUSED[name]
    with pytest.raises(FormatError, match=reason):
        read_network(read_memory({"m.onnx": dense(*between)}))


def test_trees_and_convolutions_are_refused_with_the_reason() -> None:
    tree = node("TreeEnsembleRegressor", ["x"], ["out"], "ai.onnx.ml", n_targets=1)
    with pytest.raises(FormatError, match="trees compare"):
        read_network(model([tree], {}))
    conv = node("Conv", ["x", "k"], ["out"])
    with pytest.raises(FormatError, match=r"shape|another layout"):
        read_network(model([conv], {"k": weights(1, 1, 3, 3)}, shape=(None, 1, 4, 4)))


def test_a_model_of_nothing_but_a_softmax_is_refused() -> None:
    with pytest.raises(FormatError, match="last layer"):
        read_network(model([node("Softmax", ["x"], ["out"], axis=1)], {}))


def test_rows_of_no_fixed_width_are_refused() -> None:
    with pytest.raises(FormatError, match="fixed number"):
        read_network(model([node("MatMul", ["x", "w"], ["out"])], {"w": weights(8, 3)}, shape=(None, None)))
