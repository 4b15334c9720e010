"""What do reading and digesting a model cost beside `onnx.load`, `safetensors.numpy.load_file`, and SHA-256?"""

import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from bench.report import SEED, Report, interleaved, main, peak_bytes
from palladion.model.digest import model_digest
from palladion.model.read import read_file

OPSET = 17
TENSOR_BYTES = 8 * 2**20
Run = Callable[[Path], object]


def measure(report: Report) -> None:
    """Fill the report."""
    tensors, nodes, splits = (8, 1_000, 20_000) if report.quick else (32, 5_000, 200_000)
    with tempfile.TemporaryDirectory() as folder:
        small, path = Path(folder) / "small", Path(folder) / "model"
        _save_safetensors(small, 1, 4096)
        _save_safetensors(path, tensors, TENSOR_BYTES)
        _compare(report, f"safetensors, {tensors} tensors", path, small, _safetensors_reference, "load_file")

        _save_onnx(small, _layers(1, 4096))
        _save_onnx(path, _layers(tensors, TENSOR_BYTES))
        _compare(report, f"ONNX, {tensors} tensors", path, small, _onnx_reference, "onnx.load")
        _save_onnx(path, _layers(nodes, 64))
        _compare(report, f"ONNX, {nodes:,} nodes", path, small, _onnx_reference, "onnx.load")
        _save_onnx(path, _trees(splits))
        _compare(report, f"ONNX, tree of {splits:,} nodes", path, small, _onnx_reference, "onnx.load")


def _compare(report: Report, what: str, path: Path, small: Path, reference: Run, loader: str) -> None:
    size = path.stat().st_size
    runs: dict[str, Callable[[], object]] = {"ours": lambda: _ours(path), "theirs": lambda: reference(path)}
    times = interleaved(runs, repeats=3 if report.quick else 7)
    beside = times["ours"].beside(times["theirs"], f"{loader} and SHA-256")
    report.add(f"{what}: read and digest", times["ours"].median * 1000, "ms CPU", reference=beside)
    ours, theirs = (peak_bytes(run, path, warm=small) for run in (_ours, reference))
    beside = f"{ours / size:.2f}x the file's {size / 2**20:.3g} MiB; {loader}: {theirs / 2**20:.3g} MiB"
    report.add(f"{what}: peak memory", ours / 2**20, "MiB", reference=beside)


def _ours(path: Path) -> bytes:
    return model_digest(read_file(path))


def _safetensors_reference(path: Path) -> bytes:
    hasher = sha256()
    for array in safetensors.numpy.load_file(path).values():
        hasher.update(array.data)
    return hasher.digest()


def _onnx_reference(path: Path) -> tuple[object, bytes]:
    import onnx

    # the file is read once, which onnx.load and a hash of the file would not do
    data = path.read_bytes()
    return onnx.load_model_from_string(data), sha256(data).digest()


def _save_safetensors(path: Path, tensors: int, size: int) -> None:
    safetensors.numpy.save_file(dict(_arrays(tensors, size)), path)


def _save_onnx(path: Path, nodes_and_tensors: tuple[list[Any], list[Any]]) -> None:
    from onnx import TensorProto, helper

    nodes, tensors = nodes_and_tensors
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("v0", f"v{len(nodes)}")]
    graph = helper.make_graph(nodes, "bench", ends[:1], ends[1:], tensors)
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 3)]
    path.write_bytes(helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString())


def _layers(count: int, size: int) -> tuple[list[Any], list[Any]]:
    """One addition after the other, each with a tensor of `size` bytes."""
    from onnx import helper, numpy_helper

    nodes = [helper.make_node("Add", [f"v{number}", f"t{number}"], [f"v{number + 1}"]) for number in range(count)]
    return nodes, [numpy_helper.from_array(array, name) for name, array in _arrays(count, size)]


def _trees(splits: int) -> tuple[list[Any], list[Any]]:
    """A tree ensemble, whose numbers all stand in attributes of one node, in the encoding for many small numbers."""
    from onnx import helper

    generator = np.random.default_rng(SEED)
    values = generator.random(splits, dtype=np.float32).tolist()
    attributes: dict[str, Any] = {"nodes_values": values, "nodes_modes": ["BRANCH_LEQ"] * splits}
    for name in ("nodes_nodeids", "nodes_truenodeids", "nodes_falsenodeids", "nodes_featureids"):
        attributes[name] = list(range(splits))
    node = helper.make_node("TreeEnsembleRegressor", ["v0"], ["v1"], domain="ai.onnx.ml", **attributes)
    return [node], []


def _arrays(count: int, size: int) -> list[tuple[str, Any]]:
    generator = np.random.default_rng(SEED)
    return [(f"t{number}", generator.random(size // 4, dtype=np.float32)) for number in range(count)]


if __name__ == "__main__":
    main("model", __doc__ or "", measure)
