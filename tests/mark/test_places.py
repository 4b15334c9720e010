"""Which tensors carry marks, and how far their weights may move."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper

from palladion.mark import places as places_module
from palladion.mark.carriers import derive, signs
from palladion.mark.fingerprints import stamp_place
from palladion.mark.places import ELEMENTS_MIN, MOVED_MAX, TIED_MAX, Survey, _real, place_of, places
from palladion.mark.weights import AMPLITUDE, mark_place, mark_rows
from palladion.model import blocks
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.model.rewrite import locate, rewrite
from palladion.model.stored import StoredTensor
from palladion.model.tensors import Tensor
from tests.mark.quantised.test_codings import q8_0
from tests.mark.quantised.test_words import gptq
from tests.model import test_gguf as gguf

from .suspects import KEY, OTHER_KEY, OWNERSHIP, Array, matrix, network, saved, tensor

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


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_what_is_stored_in_16_bits_is_never_whole_in_32(monkeypatch: pytest.MonkeyPatch, dtype: Any) -> None:
    monkeypatch.setattr(places_module, "BLOCK_NUMBERS", 640)
    place = _place(matrix().astype(dtype))
    expected = mark_place(place, OWNERSHIP).astype(dtype)
    converted = []

    def real(numbers: Array) -> Array:
        converted.append(numbers.size)
        return _real(numbers)

    monkeypatch.setattr(places_module, "_real", real)
    stored = place.stored(mark_rows(place, OWNERSHIP), KEY)
    assert stored.dtype == dtype
    assert np.array_equal(stored, expected)
    assert max(converted) == 640


def test_rows_of_zeros_stay_zero_and_do_not_count() -> None:
    weights = matrix(64, 64)
    weights[::4] = 0
    place = _place(weights)
    assert place.size == 48 * 64
    for changed in (mark_place(place, OWNERSHIP), stamp_place(place, OWNERSHIP, OTHER_KEY)):
        assert not changed[::4].any()
        assert (changed[1] != weights[1]).all()


@pytest.mark.slow
@given(st.integers(0, 1000), st.lists(st.floats(-12, 12), min_size=8, max_size=8))
@settings(max_examples=50)
def test_no_weight_moves_further_than_its_row_allows(seed: int, loudness: list[float]) -> None:
    assume(min(loudness) < 4)  # large numbers are whole ones in float32, and a tensor of whole numbers is left alone
    numbers = np.random.default_rng(seed).standard_t(2, (8, 32)) * 10.0 ** np.array(loudness)[:, None]
    place = _place(numbers.astype(np.float32))
    scale = np.sqrt(np.square(numbers).mean(axis=1, keepdims=True))
    assert np.allclose(place.scale, scale, rtol=1e-4, atol=0)
    moved = np.abs(mark_place(place, OWNERSHIP) - numbers)
    # the second term is what float32 can tell of the weight itself
    assert (moved <= AMPLITUDE * scale * 1.001 + np.abs(numbers) * 2e-7).all()


def test_a_mark_moves_every_weight_by_its_amplitude_and_nothing_else() -> None:
    place = _place(matrix().astype(np.float64))
    moved = (mark_place(place, OWNERSHIP, amplitude=0.02) - place.weights) / place.scale
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
    assert [(place.name, place.weights.shape) for place in places(trees)] == [("node:y/target_weights", (300, 1))]
    assert [place.name for place in places(linear)] == ["node:y/coefficients"]


def test_whole_leaf_values_are_places_too() -> None:
    trees = _with_node("TreeEnsembleRegressor", target_weights=[float(number % 7) for number in range(300)])
    assert len(list(places(trees))) == 1


def test_leaves_of_classification_trees_are_places_and_thresholds_and_scalers_are_left_alone() -> None:
    numbers = matrix(1, 300)[0].tolist()
    forest = _with_node("TreeEnsembleClassifier", class_weights=numbers, nodes_values=numbers, base_values=numbers)
    scaler = _with_node("Scaler", offset=numbers, scale=numbers)
    assert [place.name for place in [*places(forest), *places(scaler)]] == ["node:y/class_weights"]


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


# ---- in a model


def _names(model: Model) -> list[str]:
    return [place.name for place in places(model)]


def _marked(model: Model) -> Model:
    """The model with every place marked, as it is protected."""
    survey = Survey(model)

    def change(item: Tensor) -> Array | None:
        place = survey.place_of(item)
        if place is None:
            return None
        weights = mark_place(replace(place, name=place.carrier_name), OWNERSHIP)
        return place.coding.encode(weights, derive(KEY, "rounding", place.carrier_name))

    return read_memory({name: bytes(data) for name, data in rewrite(model, change).items()})


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.mlp.router.weight",
        "blk.0.ffn_gate_inp.weight",
        "model.layers.0.mlp.shared_expert_gate.weight",
        "model.layers.0.mlp.gate.weight",
        "block_sparse_moe.gate.weight",
    ],
)
def test_what_experts_are_chosen_by_is_left_alone(name: str) -> None:
    experts = {"model.layers.0.mlp.experts.0.up_proj.weight": matrix(seed=2)}
    assert _names(saved({name: matrix(), **experts})) == list(experts)


@pytest.mark.parametrize("name", ["gate.weight", "mlp.gate_proj.weight", "xrouter.weight"])
def test_other_gates_are_places(name: str) -> None:
    assert _names(saved({name: matrix()})) == [name]
    if name != "gate.weight":
        assert name in _names(saved({name: matrix(), "experts.0.weight": matrix(seed=2)}))


@pytest.mark.parametrize("name", ["norm1.weight", "h.ln_1.weight", "layer.LayerNorm.gamma", "a.bias", "bn2.weight"])
def test_norms_and_biases_that_were_made_matrices_are_left_alone(name: str) -> None:
    vector = matrix(1, 512)
    assert not _names(saved({name: vector.reshape(512, 1, 1)}))
    assert _names(saved({name: matrix()})) == [name]
    assert _names(saved({"head.weight": vector})) == ["head.weight"]


def _tied() -> Model:
    shared = matrix(96, 64, seed=3)
    return saved({"embedding": shared, "other": matrix(96, 64, seed=4), "head": shared})


def test_tied_weights_are_marked_alike_and_tested_once() -> None:
    model = _tied()
    survey = Survey(model)
    found = {name: survey.place_of(item) for name, item in model.tensors.items()}

    assert {name: place.carrier_name for name, place in found.items() if place is not None} == {
        "embedding": "embedding",
        "other": "other",
        "head": "embedding",
    }
    assert _names(model) == ["embedding", "other"]


def test_tied_weights_stay_equal() -> None:
    copy = _marked(_tied()).tensors
    assert copy["head"].data.tobytes() == copy["embedding"].data.tobytes()
    assert copy["head"].data.tobytes() != _tied().tensors["head"].data.tobytes()
    low = saved({name: item.data.astype(ml_dtypes.float8_e4m3fn) for name, item in _tied().tensors.items()})
    copy = _marked(low).tensors
    assert copy["head"].data.tobytes() == copy["embedding"].data.tobytes()
    assert copy["head"].data.tobytes() != low.tensors["head"].data.tobytes()


def test_many_tensors_of_one_shape_are_layers_and_not_compared() -> None:
    same = {f"layer{number:02}": matrix() for number in range(TIED_MAX + 1)}
    assert len(_names(saved(same))) == TIED_MAX + 1
    del same["layer00"]
    assert len(_names(saved(same))) == 1


def _stored(model: Model) -> tuple[Model, list[str]]:
    """The model with tensors that are read when they are asked for, and the names of those that were."""
    read: list[str] = []

    def stored(item: Tensor, where: tuple[str, int]) -> StoredTensor:
        def numbers() -> Array:
            read.append(item.name)
            return item.data.copy()

        return StoredTensor(item.name, item.dtype, item.shape, numbers, where)

    where = locate(model)
    tensors = {name: stored(item, where[name]) for name, item in model.tensors.items()}
    return replace(model, tensors=MappingProxyType(tensors)), read


def test_tensors_of_one_shape_are_read_once_where_they_are_not_tied() -> None:
    layers = {f"layer{number}": matrix(seed=number) for number in range(TIED_MAX)}
    model, read = _stored(saved(layers | {"low": matrix(seed=50).astype(np.float16)}))
    assert len(list(places(model))) == len(read) == TIED_MAX + 1


def test_tied_weights_are_told_in_any_order_and_though_others_have_the_same_ends() -> None:
    shared = matrix(96, 64, seed=3)
    padded = matrix(96, 64, seed=4)
    padded[[0, -1]] = shared[[0, -1]]
    model, _ = _stored(saved({"embedding": shared, "padded": padded, "head": shared, "repeated": padded}))
    survey = Survey(model)
    found = {item.name: survey.place_of(item) for item in reversed(list(model.tensors.values()))}
    assert {name: place.tied_to for name, place in found.items() if place is not None} == {
        "embedding": None,
        "padded": None,
        "head": "embedding",
        "repeated": "padded",
    }


def test_scales_of_quantised_weights_are_no_places() -> None:
    scales = np.linspace(0.01, 0.02, 512, dtype=np.float32).reshape(512, 1)
    weights = (matrix(512, 64) * 1000).astype(ml_dtypes.float8_e4m3fn)
    assert _names(saved({"w": weights, "w_scale": scales})) == ["w"]
    assert _names(saved({"w": matrix(512, 64), "w_scale": scales})) == ["w", "w_scale"]
    words = {name: item.data for name, item in gptq()[0].items()}
    assert _names(saved(words)) == ["a.qweight"]


def test_quantised_places_have_the_numbers_of_their_weights() -> None:
    model = saved({"w": matrix().astype(ml_dtypes.float8_e4m3fn)})
    (place,) = places(model)
    assert place.shape == place.weights.shape == (96, 64)
    assert place.weights.dtype == np.float32
    assert place.tied_to is None
    assert np.array_equal(place.weights, model.tensors["w"].data.astype(np.float32))
    assert place.size == 96 * 64


KINDS: dict[str, tuple[dict[str, Any], float]] = {
    "8-bit integers": ({"w": np.rint(matrix(256, 64) * 300).clip(-127, 127).astype(np.int8)}, 1.0),
    "8-bit floats": ({"w": (matrix(256, 64) * 50).astype(ml_dtypes.float8_e4m3fn)}, 0.6),
    "8-bit floats of 2 bits of fraction": ({"w": (matrix(256, 64) * 50).astype(ml_dtypes.float8_e5m2)}, 0.3),
    "4-bit words": ({name: item.data for name, item in gptq()[0].items()}, 0.2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_coarser_the_grid_the_weaker_the_mark(kind: str) -> None:
    stored, most = KINDS[kind]
    model = saved(stored)
    (place,) = places(model)
    loudness = np.sqrt(np.square(place.weights).mean(axis=1, keepdims=True))
    part = place.scale / loudness
    assert np.ptp(part) < 1e-6
    assert 0.01 < part.mean() <= most

    (copy,) = places(_marked(model))

    moved = np.sqrt(np.square(copy.weights - place.weights).mean() / np.square(place.weights).mean())
    assert 0.3 * MOVED_MAX < moved < 1.6 * MOVED_MAX
    changes = (copy.weights - place.weights) / place.scale
    assert 0.5 < np.square(changes).mean() / (AMPLITUDE * place.grain) < 2


def test_floating_point_of_16_bits_and_more_has_the_whole_mark() -> None:
    place = _place(matrix().astype(np.float16))
    assert place.grain == 0
    assert np.allclose(place.scale[:, 0], np.sqrt(np.square(place.weights).mean(axis=1)))
    assert places_module._AMPLITUDE == AMPLITUDE


@pytest.mark.parametrize("defect", ["nan", "small", "zero", "vector"])
def test_quantised_tensors_that_cannot_carry_a_mark_are_left_alone(defect: str) -> None:
    numbers = {
        "nan": np.where(np.eye(64) > 0, np.nan, 0.5),
        "small": matrix(15, 17),
        "zero": np.zeros((64, 64)),
        "vector": matrix(1, 512)[0],
    }[defect]
    assert not _names(saved({"w": numbers.astype(ml_dtypes.float8_e5m2)}))


def test_a_quantised_copy_of_a_model_carries_its_mark_in_its_codes_alone() -> None:
    words = {name: item.data for name, item in gptq()[0].items()}
    model = saved({**words, "f": matrix().astype(ml_dtypes.float8_e4m3fn)})
    before, after = (
        {name: item.data.tobytes() for name, item in held.tensors.items()} for held in (model, _marked(model))
    )
    assert {name for name in before if after[name] != before[name]} == {"a.qweight", "f"}


def test_tensors_in_blocks_are_marked_in_place() -> None:
    items = [q8_0(matrix(seed=seed)) for seed in (1, 2)]
    model = read_memory({"m.gguf": file_of(*items)})
    copy = _marked(model)

    assert _names(model) == ["w0", "w1"]
    for name in ("w0", "w1"):
        before, after = (blocks.decode("q8_0", item.tensors[name].data, (96, 64)) for item in (model, copy))
        moved = (after - before) / np.sqrt(np.square(before).mean(axis=1, keepdims=True))
        assert 0.5 < np.abs(moved).mean() / AMPLITUDE < 1.5
    assert len(copy.files[0].data) == len(model.files[0].data)


def file_of(*items: Tensor) -> bytes:
    """A GGUF file of tensors w0, w1, … of type q8_0."""
    infos = [gguf.info(f"w{at}", [64, 96], gguf.Q8_0, at * items[0].byte_count) for at in range(len(items))]
    return gguf.file_of(*infos, payload=b"".join(item.data.tobytes() for item in items))
