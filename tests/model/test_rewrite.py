"""New numbers in the same places: every other byte stays as it was, and what cannot be changed is refused."""

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from palladion.model.digest import graph_digest, tensor_digest
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.model.rewrite import Change, locate, rewrite, rewritten
from palladion.model.safetensors import serialise
from palladion.model.tensors import DTYPES, Tensor
from tests.model import wire
from tests.model.factories import externalise, helper, make_model, onnx, perceptron, value, weights, with_constants

Array = NDArray[Any]
FLOATS = ["float16", "bfloat16", "float32", "float64"]


def _one(name: str, change: Any) -> Change:
    """Change one tensor only."""
    return lambda tensor: change(tensor.data) if tensor.name == name else None


def _safetensors(*tensors: tuple[str, str, Array]) -> Model:
    made = [Tensor(name, DTYPES[dtype], numbers.shape, numbers) for name, dtype, numbers in tensors]
    return read_memory({"model.safetensors": serialise(made, {"note": "kept"})})


def _random(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 1) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def _differing(before: Model, after: dict[str, bytearray]) -> dict[str, Array]:
    """Positions of the bytes that are not what they were, by file."""
    return {
        file.name: np.flatnonzero(np.frombuffer(file.data, np.uint8) != np.frombuffer(after[file.name], np.uint8))
        for file in before.files
    }


def _check(model: Model, name: str) -> Model:
    """Negate one tensor, and compare everything else with what it was."""
    files = rewrite(model, _one(name, lambda data: -data.astype(np.float64)))
    again = read_memory(files)
    assert np.array_equal(again.tensors[name].data, -model.tensors[name].data)
    for other in model.tensors.keys() - {name}:
        assert tensor_digest(again.tensors[other]) == tensor_digest(model.tensors[other])
    assert tensor_digest(again.tensors[name]) != tensor_digest(model.tensors[name])
    assert (again.metadata, again.format) == (model.metadata, model.format)
    if model.graph is not None and again.graph is not None:
        assert graph_digest(again.graph) == graph_digest(model.graph)
    file, offset = locate(model)[name]
    tensor = model.tensors[name]
    strides = zip(tensor.shape, tensor.data.strides, strict=True)
    end = offset + sum((size - 1) * step for size, step in strides) + tensor.data.itemsize
    for found, positions in _differing(model, files).items():
        assert positions.size == 0 or (found == file and offset <= positions[0] and positions[-1] < end)
    return again


@pytest.mark.parametrize("dtype", FLOATS)
def test_only_the_numbers_of_the_changed_tensor_change(dtype: str) -> None:
    kind = DTYPES[dtype].carrier
    model = _safetensors(("a", dtype, _random((5, 7), kind)), ("b", dtype, _random((3, 2, 2), kind, 2)))
    _check(model, "a")
    _check(model, "b")


@given(st.data())
@settings(max_examples=30)
def test_numbers_come_back_as_they_were_written(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    dtype = data.draw(st.sampled_from(FLOATS))
    new = _random(shape, DTYPES[dtype].carrier, data.draw(st.integers(0, 100)))
    model = _safetensors(("a", dtype, np.zeros(shape, DTYPES[dtype].carrier)), ("b", "int64", np.arange(3)))
    again = read_memory(rewrite(model, _one("a", lambda _: new)))
    assert np.array_equal(again.tensors["a"].data, new)
    assert np.array_equal(again.tensors["b"].data, np.arange(3))


def test_a_change_of_nothing_gives_the_same_bytes_in_memory_of_its_own() -> None:
    model = read_memory({"m.onnx": perceptron().SerializeToString()})
    files = rewrite(model, lambda _: None)
    assert bytes(files["m.onnx"]) == bytes(model.files[0].data)
    files["m.onnx"][:] = bytes(len(files["m.onnx"]))
    assert any(model.files[0].data)


def test_the_model_that_was_read_stays_as_it_was() -> None:
    model = read_memory({"m.onnx": perceptron().SerializeToString()})
    before = bytes(model.files[0].data)
    rewrite(model, _one("w1", np.zeros_like))
    assert bytes(model.files[0].data) == before


def test_raw_data_of_onnx_is_changed_in_place() -> None:
    _check(read_memory({"m.onnx": perceptron().SerializeToString()}), "w2")


def test_a_list_of_floats_is_changed_in_place() -> None:
    model = read_memory({"m.onnx": with_constants(weights("w", _random((4, 6)), raw=False)).SerializeToString()})
    _check(model, "w")


def test_an_unpacked_list_of_floats_is_changed_between_its_tags() -> None:
    numbers = _random((4,))
    unpacked = b"".join(wire.tag(4, 5) + number.tobytes() for number in numbers)
    initializer = wire.integer(1, 4) + wire.integer(2, 1) + wire.blob(8, "w") + unpacked
    value_info = wire.blob(11, wire.blob(1, "x")) + wire.blob(12, wire.blob(1, "y"))
    model = read_memory({"m.onnx": wire.model(wire.graph(initializer, extra=value_info))})
    assert model.tensors["w"].data.strides == (5,)
    _check(model, "w")


def test_attributes_of_trees_are_changed_in_place() -> None:
    numbers = _random((40,)).tolist()
    node = helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", target_weights=numbers, target_ids=[300] * 40
    )
    graph = helper.make_graph([node], "trees", [value("x", [1, 4])], [value("y", [1, 1])])
    model = read_memory(
        {"m.onnx": make_model(graph, opset_imports=[helper.make_opsetid("ai.onnx.ml", 3)]).SerializeToString()}
    )
    again = _check(model, "node:y/target_weights")
    assert "node:y/target_ids" in again.tensors


def test_external_data_is_changed_in_its_own_file() -> None:
    main, data = externalise(perceptron())
    model = read_memory({"m.onnx": main, "weights.bin": data})
    files = rewrite(model, _one("w1", np.negative))
    assert bytes(files["m.onnx"]) == main
    assert bytes(files["weights.bin"]) != data
    _check(model, "w1")
    _check(model, "w2")


def test_many_files_are_told_apart() -> None:
    tensors = {f"w{index}": _random((3, 3), seed=index) for index in range(8)}
    model = with_constants(*(weights(name, numbers) for name, numbers in tensors.items()))
    files: dict[str, bytes] = {}
    for item in model.graph.initializer:
        files[f"{item.name}.bin"] = item.raw_data
        item.ClearField("raw_data")
        item.data_location = onnx.TensorProto.EXTERNAL
        item.external_data.add(key="location", value=f"{item.name}.bin")
    read = read_memory({"m.onnx": model.SerializeToString(), **files})
    assert locate(read) == {name: (f"{name}.bin", 0) for name in tensors}
    again = read_memory(rewrite(read, lambda tensor: tensor.data + np.float32(1)))
    for name, numbers in tensors.items():
        assert np.array_equal(again.tensors[name].data, numbers + 1)


def test_a_file_without_a_byte_is_no_obstacle() -> None:
    # opened from a sealed file, all files lie in one memory, and an empty one where the next begins
    item = onnx.TensorProto(name="nothing", data_type=onnx.TensorProto.FLOAT, dims=[0, 4])
    item.data_location = onnx.TensorProto.EXTERNAL
    item.external_data.add(key="location", value="nothing.bin")
    main = with_constants(weights("w", _random((2, 2))), item).SerializeToString()
    memory = memoryview(bytearray(main))
    model = read_memory({"m.onnx": memory, "nothing.bin": memory[:0]})
    assert locate(model).keys() == {"w"}
    _check(model, "w")


@pytest.mark.parametrize(
    ("what", "item"),
    [
        ("a list of integers", helper.make_tensor("w", onnx.TensorProto.INT64, [3], [1, 2, 300])),
        ("floats in a list of integers", helper.make_tensor("w", onnx.TensorProto.FLOAT16, [3], [1.0, 2.0, 3.0])),
        ("no numbers", weights("w", np.zeros((0, 3), np.float32))),
    ],
)
def test_what_cannot_be_changed_in_place_is_refused(what: str, item: Any) -> None:
    model = read_memory({"m.onnx": with_constants(item).SerializeToString()})
    assert locate(model) == {}, what
    with pytest.raises(ValueError, match="do not lie in a file as they are"):
        rewrite(model, lambda tensor: np.zeros(tensor.shape))


@pytest.mark.parametrize("shape", [(4, 5), (20,), (1, 5, 4), ()])
def test_numbers_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    model = _safetensors(("a", "float32", _random((5, 4))))
    with pytest.raises(ValueError, match="'a' has the shape"):
        rewrite(model, lambda _: np.zeros(shape))


def test_packed_numbers_are_changed_as_their_bytes() -> None:
    item = helper.make_tensor("w", onnx.TensorProto.INT4, [4], b"\x21\x43", raw=True)
    model = read_memory({"m.onnx": with_constants(item).SerializeToString()})
    again = read_memory(rewrite(model, _one("w", lambda data: data[::-1])))
    assert again.tensors["w"].data.tolist() == [0x43, 0x21]


def test_new_numbers_are_computed_when_they_are_asked_for_and_not_before() -> None:
    asked: list[str] = []

    def change(tensor: Tensor) -> Array:
        asked.append(tensor.name)
        return -tensor.data

    model = _safetensors(("a", "float32", _random((5, 4))), ("b", "float32", _random((3, 3))))
    changed = rewritten(model, change)
    assert asked == []
    assert np.array_equal(changed.tensors["b"].data, -model.tensors["b"].data)
    assert asked == ["b"]
    whole = b"".join(map(bytes, changed.files[0].pieces()))
    assert asked == ["b", "a", "b"]
    assert whole == bytes(rewrite(model, change)["model.safetensors"])
    assert changed.byte_count == model.byte_count


@given(st.integers(0, 400), st.integers(0, 400))
@settings(max_examples=30)
def test_any_part_of_a_changed_file_can_be_read(begin: int, end: int) -> None:
    model = _safetensors(("a", "float32", _random((5, 4))), ("b", "float64", _random((3, 3), np.float64)))
    file = rewritten(model, lambda tensor: -tensor.data).files[0]
    assert b"".join(map(bytes, file.pieces(begin, end))) == bytes(file.data)[begin:end]


def test_a_changed_model_can_be_changed_again() -> None:
    model = _safetensors(("a", "float32", _random((5, 4))), ("b", "int64", np.arange(3)))
    again = rewritten(rewritten(model, _one("a", np.negative)), _one("a", np.negative))
    assert bytes(again.files[0].data) == bytes(model.files[0].data)


def test_numbers_that_two_tensors_share_are_not_changed_for_one_of_them() -> None:
    model = _safetensors(("a", "float32", _random((5, 4))))
    shared = replace(model.tensors["a"], name="b")
    twice = replace(model, tensors={**model.tensors, "b": shared})
    with pytest.raises(ValueError, match=r"share bytes of model\.safetensors"):
        rewritten(twice, lambda _: None)


def test_integers_that_lie_in_a_file_can_be_changed() -> None:
    model = _safetensors(
        ("a", "int8", np.arange(6, dtype=np.int8)), ("b", "bfloat16", _random((2,), ml_dtypes.bfloat16))
    )
    again = read_memory(rewrite(model, _one("a", lambda data: data[::-1])))
    assert again.tensors["a"].data.tolist() == [5, 4, 3, 2, 1, 0]
