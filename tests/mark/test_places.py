"""Which tensors carry marks, and how far their weights may move."""

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from palladion.mark.carriers import signs
from palladion.mark.fingerprints import stamp_place
from palladion.mark.places import ELEMENTS_MIN, place_of, places
from palladion.mark.weights import AMPLITUDE, mark_place
from palladion.model.read import read_memory

from .suspects import KEY, OTHER_KEY, Array, matrix, network, tensor

TYPES = ["float16", "float32", "float64", ml_dtypes.bfloat16]


def _place(numbers: Array, name: str = "w") -> Any:
    found = place_of(tensor(name, numbers))
    assert found is not None
    return found


@pytest.mark.parametrize("dtype", TYPES)
def test_large_matrices_of_real_numbers_are_places(dtype: Any) -> None:
    place = _place(matrix().astype(dtype))
    assert (place.name, place.shape, place.weights.shape, place.scale.shape) == ("w", (96, 64), (96, 64), (96, 1))
    assert place.weights.dtype == (np.float64 if dtype == "float64" else np.float32)
    assert place.size == 96 * 64


@pytest.mark.parametrize(
    ("defect", "numbers"),
    [
        ("a bias", np.linspace(-1, 1, 4096, dtype=np.float32)),
        ("a norm", np.full(4096, 0.5, np.float32)),
        ("a number", np.full((), 0.5, np.float32)),
        ("empty", np.empty((0, 512), np.float32)),
        ("small", matrix(15, 17)),
        ("zero", np.zeros((64, 64), np.float32)),
        ("integers", np.arange(4096, dtype=np.int64).reshape(64, 64)),
        ("8-bit floats", matrix().astype(ml_dtypes.float8_e4m3fn)),
        ("complex", matrix().astype(np.complex64)),
        ("not a number", np.where(np.eye(64, dtype=np.float32) > 0, np.float32(np.nan), np.float32(0.5))),
        ("infinite", np.where(np.tri(64, dtype=bool), np.float32(0.5), np.float32(-np.inf))),
        ("a mask of zeros and ones", np.tri(64, dtype=np.float32)),
        ("a mask of large numbers", np.where(np.tri(64, dtype=bool), np.float32(0), np.finfo(np.float32).min)),
        ("a table of positions", np.arange(4096, dtype=np.float32).reshape(64, 64)),
        ("too large to be marked", np.where(np.eye(64) > 0, 65504, 0.5).astype(np.float16)),
        ("too large to be squared", np.where(np.eye(64) > 0, 3e38, 0.5).astype(np.float32)),
        ("beyond float32", np.where(np.eye(64) > 0, 1e300, 0.5)),
    ],
)
def test_what_is_no_weight_is_left_alone(defect: str, numbers: Array) -> None:
    assert place_of(tensor("w", numbers)) is None, defect


def test_the_smallest_place_has_as_many_numbers_as_the_limit_says() -> None:
    assert place_of(tensor("w", matrix(1, ELEMENTS_MIN - 1))) is None
    assert _place(matrix(1, ELEMENTS_MIN)).size == ELEMENTS_MIN


@pytest.mark.parametrize(
    ("shape", "rows"),
    [
        ((64, 32), 64),
        ((1024, 1), 1),  # one output, stored as a column
        ((256, 7), 1),
        ((32, 16, 3, 3), 32),  # a convolution: its outputs
        ((64, 1, 3, 3), 64),  # a depthwise one
        ((64, 32, 1, 1), 64),
        ((16, 8, 5), 16),
        ((4, 64, 32), 256),  # experts, or gates of a recurrent layer
    ],
)
def test_a_row_makes_one_output(shape: tuple[int, ...], rows: int) -> None:
    assert len(_place(matrix(1, int(np.prod(shape))).reshape(shape)).weights) == rows


def test_rows_of_zeros_stay_zero_and_do_not_count() -> None:
    weights = matrix(64, 64)
    weights[::4] = 0
    place = _place(weights)
    assert place.size == 48 * 64
    for changed in (mark_place(place, KEY), stamp_place(place, KEY, OTHER_KEY)):
        assert not changed[::4].any()
        assert (changed[1] != weights[1]).all()


@given(st.integers(0, 1000), st.lists(st.floats(-12, 12), min_size=8, max_size=8))
@settings(max_examples=50)
def test_no_weight_moves_further_than_its_row_allows(seed: int, loudness: list[float]) -> None:
    numbers = np.random.default_rng(seed).standard_t(2, (8, 32)) * 10.0 ** np.array(loudness)[:, None]
    place = _place(numbers.astype(np.float32))
    scale = np.sqrt(np.square(numbers).mean(axis=1, keepdims=True))
    assert np.allclose(place.scale, scale, rtol=1e-4, atol=0)
    moved = np.abs(mark_place(place, KEY) - numbers)
    # the second term is what float32 can tell of the weight itself
    assert (moved <= AMPLITUDE * scale * 1.001 + np.abs(numbers) * 2e-7).all()


def test_a_mark_moves_every_weight_by_its_amplitude_and_nothing_else() -> None:
    place = _place(matrix().astype(np.float64))
    moved = (mark_place(place, KEY, amplitude=0.02) - place.weights) / place.scale
    assert np.allclose(np.abs(moved), 0.02)
    assert len(np.unique(np.sign(moved))) == 2
    assert not np.array_equal(np.sign(moved).ravel(), signs(KEY, moved.size))  # a key of its own for the tensor


def test_the_places_of_a_model_come_in_its_order() -> None:
    model = network()
    assert [place.name for place in places(model)] == [name for name in model.tensors if name not in {"bias", "norm"}]


def _with_node(op_type: str, **attributes: Any) -> Any:
    """A model of one ai.onnx.ml node, which is not valid, but read."""
    node = helper.make_node(op_type, ["x"], ["y"], domain="ai.onnx.ml", **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, 1])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return read_memory({"m.onnx": helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()})


def test_leaf_values_of_regression_trees_and_linear_coefficients_are_places() -> None:
    numbers = matrix(1, 300)[0].tolist()
    ids = list(range(300))
    trees = _with_node("TreeEnsembleRegressor", target_weights=numbers, target_ids=ids, nodes_values=numbers)
    linear = _with_node("LinearClassifier", coefficients=numbers, intercepts=numbers)
    assert [(place.name, place.weights.shape) for place in places(trees)] == [("node:y/target_weights", (1, 300))]
    assert [place.name for place in places(linear)] == ["node:y/coefficients"]


def test_whole_leaf_values_are_places_too() -> None:
    trees = _with_node("TreeEnsembleRegressor", target_weights=[float(number) for number in range(300)])
    assert len(list(places(trees))) == 1


def test_votes_of_classification_trees_and_thresholds_are_left_alone() -> None:
    numbers = matrix(1, 300)[0].tolist()
    forest = _with_node("TreeEnsembleClassifier", class_weights=numbers, nodes_values=numbers, base_values=numbers)
    scaler = _with_node("Scaler", offset=numbers, scale=numbers)
    assert not [*places(forest), *places(scaler)]


def test_an_initializer_that_is_called_like_an_attribute_is_an_initializer() -> None:
    assert place_of(tensor("layer/coefficients", matrix(1, 300)[0])) is None


@pytest.mark.parametrize("data_type", ["FLOAT16", "BFLOAT16"])
def test_numbers_that_do_not_lie_in_the_file_are_left_alone(data_type: str) -> None:
    values = matrix(32, 32).ravel().tolist()
    kind = getattr(onnx.TensorProto, data_type)
    graph = helper.make_graph(
        [helper.make_node("Cast", ["w"], ["y"], to=onnx.TensorProto.FLOAT)],
        "g",
        [],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [32, 32])],
        [helper.make_tensor("w", kind, [32, 32], values)],  # in int32_data, as varints
    )
    model = read_memory({"m.onnx": helper.make_model(graph, ir_version=8).SerializeToString()})
    assert model.tensors["w"].shape == (32, 32)
    assert not list(places(model))
