"""MatMulNBits' weights: read as ONNX Runtime multiplies with them, and stored again."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from palladion.mark.quantised.nbits import NBits, nbits_of
from palladion.mark.quantised.onnx import onnx_integers
from palladion.model.read import read_memory
from palladion.model.tensors import Tensor
from tests.mark.suspects import KEY, Array, tensor

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many

OUTPUTS, INPUTS, BLOCK = 24, 80, 32  # the last block is half empty
BLOCKS = 3
STATED = {"K": INPUTS, "N": OUTPUTS, "bits": 4, "block_size": BLOCK}


def parts(*, zeros: bool) -> dict[str, Array]:
    rng = np.random.default_rng(1)
    made: dict[str, Array] = {
        "w": rng.integers(0, 256, (OUTPUTS, BLOCKS, BLOCK // 2), dtype=np.uint8),
        "s": rng.uniform(0.01, 0.02, OUTPUTS * BLOCKS).astype(np.float32),
    }
    if zeros:
        made["z"] = rng.integers(0, 256, OUTPUTS * 2, dtype=np.uint8)
    return made


def found(held: dict[str, Array], stated: dict[str, int] | None = None) -> NBits | None:
    tensors = {name: tensor(name, values) for name, values in held.items()}
    return nbits_of(tensors["w"], tensors.get("s"), tensors.get("z"), STATED if stated is None else stated)


def graph(held: dict[str, Array]) -> bytes:
    stated: dict[str, Any] = {**STATED, "domain": "com.microsoft"}
    used = helper.make_node("MatMulNBits", ["x", *held], ["y"], **stated)
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        [used],
        "g",
        [value("x", TensorProto.FLOAT, [None, INPUTS])],
        [value("y", TensorProto.FLOAT, [None, OUTPUTS])],
        [numpy_helper.from_array(values, name) for name, values in held.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    data: bytes = helper.make_model(made, opset_imports=opsets, ir_version=10).SerializeToString()
    return data


@pytest.mark.parametrize("zeros", [False, True])
def test_weights_are_read_as_the_runtime_multiplies_with_them(zeros: bool) -> None:
    runtime: Any = pytest.importorskip("onnxruntime", reason="ONNX Runtime is the reference here")
    data = graph(parts(zeros=zeros))
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": np.eye(INPUTS, dtype=np.float32)})[0].T

    kind = onnx_integers(read_memory({"m.onnx": data}))["w"]

    assert kind.shape == (OUTPUTS, INPUTS)
    assert kind.beside == (("s", "z") if zeros else ("s",))
    assert np.allclose(kind.read(), expected, atol=2e-3)


def test_zero_points_may_be_numbers() -> None:
    held = parts(zeros=False)
    kind = found(held | {"z": np.full((OUTPUTS, BLOCKS), 3.5, np.float16)})
    plain = found(held)
    assert kind is not None
    assert plain is not None
    scales = np.repeat(held["s"].reshape(OUTPUTS, BLOCKS), BLOCK, axis=1)[:, :INPUTS]
    assert np.allclose(kind.read(), plain.read() + (8 - 3.5) * scales, atol=1e-6)


def test_other_weights_are_stored_by_chance_and_the_padding_stays() -> None:
    held = parts(zeros=True)
    kind = found(held)
    assert kind is not None
    assert np.array_equal(kind.encode(kind.read(), KEY), held["w"])
    step = np.repeat(held["s"].reshape(OUTPUTS, BLOCKS), BLOCK, axis=1)[:, :INPUTS]

    stored = kind.encode(kind.read() + 0.3 * step, KEY)

    again = found(held | {"w": stored})
    assert again is not None
    moved = np.rint((again.read() - kind.read()) / step)
    assert set(np.unique(moved)) == {0.0, 1.0}
    assert 0.2 < moved.mean() < 0.35
    assert np.array_equal(stored[:, 2, 8:], held["w"][:, 2, 8:])
    assert kind.gap() == pytest.approx(held["s"].mean())


@pytest.mark.parametrize(
    ("defect", "stated", "change"),
    [
        ("8 bits", {"bits": 8}, {}),
        ("no inputs", {"K": 0}, {}),
        ("more inputs than codes", {"K": 97}, {}),
        ("a block too many", {"K": 64}, {}),
        ("a block of another size", {"block_size": 16}, {}),
        ("a negative block", {"block_size": -32}, {}),
        ("scales missing", {}, {"s": np.ones(71, np.float32)}),
        ("scales of integers", {}, {"s": np.ones(72, np.int32)}),
        ("zero points missing", {}, {"z": np.ones(47, np.uint8)}),
        ("zero points of another type", {}, {"z": np.ones(48, np.int8)}),
        ("two dimensions", {}, {"w": np.ones((24, 48), np.uint8)}),
        ("another type", {}, {"w": np.ones((24, 3, 16), np.int8)}),
        ("nothing", {}, {"w": np.ones((0, 3, 16), np.uint8)}),
    ],
)
def test_what_does_not_fit_is_no_weights(defect: str, stated: dict[str, int], change: dict[str, Array]) -> None:
    assert found(parts(zeros=True) | change, STATED | stated) is None, defect


def test_inputs_in_another_order_are_not_read() -> None:
    held = parts(zeros=True) | {"g": np.zeros(INPUTS, np.int32)}
    assert not onnx_integers(read_memory({"m.onnx": graph(held)}))
    nothing: Tensor | None = None
    assert nbits_of(tensor("w", held["w"]), nothing, None, STATED) is None
