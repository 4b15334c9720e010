"""Guards: they agree to what computes the same, refuse what does not, and say so where they cannot tell."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from palladion.errors import FormatError, PalladionError
from palladion.mark.guard import PROBES_MAX, command_guard, cosine_guard
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.model.rewrite import rewrite
from palladion.model.tensors import Tensor

from .suspects import network

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many

Nodes = list[onnx.NodeProto]
Size = str | int | None
Shape = list[Size]


def _model(nodes: Nodes, inputs: dict[str, tuple[int, Shape]], output: int, shape: Shape) -> Model:
    """A graph with weights (64, 8) and an output `y`."""
    weights = np.random.default_rng(1).standard_normal((64, 8)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, dims) for name, (kind, dims) in inputs.items()],
        [helper.make_tensor_value_info("y", output, shape)],
        [numpy_helper.from_array(weights, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return read_memory({"model.onnx": made.SerializeToString()})


def _linear(batch: Size = None, width: Size = 64) -> Model:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return _model(nodes, {"x": (TensorProto.FLOAT, [batch, width])}, TensorProto.FLOAT, [batch, 8])


def _labels() -> Model:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["s"]), helper.make_node("ArgMax", ["s"], ["y"], axis=1)]
    return _model(nodes, {"x": (TensorProto.FLOAT, [None, 64])}, TensorProto.INT64, [None, 1])


def _tokens() -> Model:
    # 64 embeddings, but ids go up to 100
    nodes = [
        helper.make_node("Cast", ["ids"], ["long"], to=TensorProto.INT64),
        helper.make_node("Constant", [], ["count"], value_int=64),
        helper.make_node("Mod", ["long", "count"], ["in_range"]),
        helper.make_node("Gather", ["w", "in_range"], ["embedded"]),
        helper.make_node("Constant", [], ["axis"], value_ints=[2]),
        helper.make_node("Unsqueeze", ["mask", "axis"], ["wide"]),
        helper.make_node("Mul", ["embedded", "wide"], ["masked"]),
        helper.make_node("ReduceMean", ["masked"], ["y"], axes=[1], keepdims=0),
    ]
    ports: dict[str, tuple[int, Shape]] = {
        "ids": (TensorProto.INT32, ["batch", "tokens"]),
        "mask": (TensorProto.FLOAT, ["batch", "tokens"]),
    }
    return _model(nodes, ports, TensorProto.FLOAT, ["batch", 8])


def _one_number() -> Model:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["s"]),
        helper.make_node("ReduceMax", ["s"], ["y"], axes=[1], keepdims=1),
    ]
    return _model(nodes, {"x": (TensorProto.FLOAT, [None, 64])}, TensorProto.FLOAT, [None, 1])


def _changed(model: Model, size: float, *, value: float | None = None) -> Model:
    def change(tensor: Tensor) -> np.ndarray | None:
        if tensor.name != "w":
            return None
        noise = size * np.random.default_rng(2).standard_normal(tensor.shape)
        return np.full(tensor.shape, value) if value is not None else tensor.data * (1 + noise)

    return read_memory({name: bytes(data) for name, data in rewrite(model, change).items()})


@pytest.mark.parametrize(
    "make", [_linear, _labels, _tokens, _one_number], ids=["numbers", "labels", "tokens", "one number"]
)
def test_a_small_change_is_agreed_to_and_a_large_one_refused(make: Callable[[], Model]) -> None:
    original = make()
    guard = cosine_guard(original, probes=64)
    assert guard(original)
    assert guard(_changed(original, 0.001))
    assert not guard(_changed(original, 0.5))


def test_the_least_cosine_is_the_callers() -> None:
    original = _linear()
    # noise of a tenth leaves a cosine of about .995
    marked = _changed(original, 0.1)
    assert cosine_guard(original, cosine_min=0.98)(marked)
    assert not cosine_guard(original, cosine_min=0.999)(marked)


def test_the_least_share_of_equal_labels_is_the_callers() -> None:
    original = _labels()
    marked = _changed(original, 0.1)
    assert cosine_guard(original, probes=512, equal_min=0.8)(marked)
    assert not cosine_guard(original, probes=512, equal_min=0.999)(marked)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_ruined_model_is_refused(value: float) -> None:
    original = _linear()
    assert not cosine_guard(original)(_changed(original, 0, value=value))


@pytest.mark.parametrize(("batch", "width"), [(1, 64), ("n", "m"), (3, None)])
def test_fixed_batches_and_open_sizes_are_found_out(batch: Size, width: Size) -> None:
    original = _linear(batch, width)
    guard = cosine_guard(original)
    assert guard(original)
    assert not guard(_changed(original, 0.5))


def test_the_same_seed_asks_the_same() -> None:
    original = _linear()
    marked = _changed(original, 0.1)
    bars = np.linspace(0.99, 1, 11)
    answers = [[cosine_guard(original, cosine_min=bar, seed=1)(marked) for bar in bars] for _ in range(2)]
    assert answers[0] == answers[1]
    assert set(answers[0]) == {True, False}


def test_weights_without_a_graph_need_a_command() -> None:
    with pytest.raises(FormatError, match="without a graph"):
        cosine_guard(network())


def test_inputs_without_a_random_probe_need_a_command() -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    words = _model(nodes, {"x": (TensorProto.STRING, [None, 1])}, TensorProto.STRING, [None, 1])
    with pytest.raises(FormatError, match="takes a string") as raised:
        cosine_guard(words)
    assert "command" in raised.value.hints[0]


@pytest.mark.parametrize("probes", [0, PROBES_MAX + 1])
def test_a_number_of_probes_out_of_bounds_is_refused(probes: int) -> None:
    with pytest.raises(ValueError, match="probes"):
        cosine_guard(_linear(), probes=probes)


def _program(tmp_path: Path, code: str) -> list[str]:
    script = tmp_path / "judge.py"
    script.write_text(f"import sys, os, time, pathlib\npath = pathlib.Path(sys.argv[1])\n{code}")
    return [sys.executable, str(script)]


@pytest.mark.parametrize(("code", "agreed"), [(0, True), (1, False)])
def test_a_command_says_yes_or_no_by_its_exit_code(tmp_path: Path, code: int, *, agreed: bool) -> None:
    guard = command_guard(_program(tmp_path, f"sys.exit({code})"))
    assert guard(network()) is agreed


@pytest.mark.parametrize("code", [2, 127])
def test_any_other_exit_code_is_an_error_and_no_verdict(tmp_path: Path, code: int) -> None:
    with pytest.raises(PalladionError, match=f"exit code {code}, expected 0"):
        command_guard(_program(tmp_path, f"sys.exit({code})"))(network())


def test_a_command_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(PalladionError, match="cannot be run: No such file"):
        command_guard(["/nonexistent/judge"])(network())


def test_a_command_that_does_not_end_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PalladionError, match="did not end"):
        command_guard(_program(tmp_path, "time.sleep(60)"), seconds=0.2)(network())


def test_a_command_reads_the_marked_model_from_a_private_file_that_is_gone_afterwards(tmp_path: Path) -> None:
    scratch, seen = tmp_path / "scratch", tmp_path / "seen"
    scratch.mkdir()
    model = network()
    look = (
        f"pathlib.Path({str(seen)!r}).write_bytes(path.read_bytes())\n"
        "modes = [os.stat(one).st_mode & 0o77 for one in (path, path.parent)]\n"
        f"inside = {str(scratch)!r} in str(path)\n"
        "sys.exit(0 if modes == [0, 0] and inside else 1)"
    )
    assert command_guard(_program(tmp_path, look), folder=scratch)(model)
    assert seen.read_bytes() == bytes(model.files[0].data)
    assert not list(scratch.iterdir())


def test_nothing_is_left_behind_by_a_command_that_fails(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(PalladionError):
        command_guard(_program(tmp_path, "sys.exit(9)"), folder=scratch)(network())
    assert not list(scratch.iterdir())


@pytest.mark.parametrize(("command", "seconds"), [([], 1.0), (["true"], 0.0), (["true"], 1e9)])
def test_impossible_commands_are_refused(command: list[str], seconds: float) -> None:
    with pytest.raises(ValueError, match="got"):
        command_guard(command, seconds=seconds)
