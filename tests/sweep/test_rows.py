"""Tensors of ours are found by their digests in every container that keeps their bytes, and nothing else is."""

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.model.digest import tensor_digest
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.registry import SealedFile, Version
from palladion.sweep.heads import look
from palladion.sweep.item import Item, held
from palladion.sweep.judge import Judge
from palladion.sweep.rows import Match, Ours
from tests.lifecycle.installations import NOW
from tests.sweep.known import weights_bytes
from tests.sweep.things import item, npz_bytes, sweep, told, torch_bytes, write, zip_bytes

WEIGHTS = weights_bytes(1)


def _model(data: bytes = WEIGHTS) -> Model:
    return read_memory({"w": data})


def _version(number: int = 1, **marks: str) -> Version:
    kept = (marks,) if marks else ()
    sealed = SealedFile("p", "r", "h")
    return Version("fraud", number, None, "ab" * 32, None, "safetensors", "cd" * 8, kept, "", NOW, sealed, None)


def _ours(data: bytes = WEIGHTS, **marks: str) -> Ours:
    ours = Ours()
    tensors = _model(data).tensors.values()
    rows = [(tensor.name, tensor.dtype.name, tensor.shape, tensor_digest(tensor).hex()) for tensor in tensors]
    ours.add(_version(1, **marks), rows)
    return ours


def _matches(data: bytes, ours: Ours | None = None, path: Path | None = None) -> list[Match]:
    found = item(data, path=path)
    return (ours or _ours()).of_model(found, look(found))


def _arrays() -> dict[str, NDArray[np.float32]]:
    return {name.replace(".", "_"): np.asarray(tensor.data) for name, tensor in _model().tensors.items()}


def test_the_very_file_is_the_version() -> None:
    (match,) = _matches(WEIGHTS)
    # the ones of a norm are in every model: they are there, and tell nothing
    assert (match.version, match.tensors, match.of, match.original) == ("fraud@1", 4, 4, False)
    assert match.byte_count == 2 * 96 * 64 * 4 + 96 * 4


@pytest.mark.parametrize("form", ["npz", "npz, compressed", "torch", "onnx"])
def test_the_bytes_are_found_in_other_containers(form: str) -> None:
    arrays = _arrays()
    if form == "npz":
        data = npz_bytes(**arrays)
    elif form == "npz, compressed":
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        data = buffer.getvalue()
    elif form == "torch":
        data = zip_bytes(
            {"a/data.pkl": b"\x80\x02}.", **{f"a/data/{i}": array.tobytes() for i, array in enumerate(arrays.values())}}
        )
    else:
        import onnx
        from onnx import helper, numpy_helper

        nodes = [helper.make_node("Identity", [name], [f"y_{name}"]) for name in arrays]
        outputs = [helper.make_tensor_value_info(f"y_{name}", onnx.TensorProto.FLOAT, None) for name in arrays]
        held_in = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
        graph = helper.make_graph(nodes, "g", [], outputs, held_in)
        data = helper.make_model(graph, ir_version=8).SerializeToString()
    (match,) = _matches(data)
    assert (match.version, match.tensors) == ("fraud@1", 4)


def test_the_bytes_are_found_in_hdf5(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="this needs h5py")
    with h5py.File(tmp_path / "w.h5", "w") as file:
        for name, array in _arrays().items():
            file[f"model_weights/{name}"] = array
    (match,) = _matches((tmp_path / "w.h5").read_bytes())
    assert (match.version, match.tensors) == ("fraud@1", 4)


def test_a_part_is_told_from_the_whole() -> None:
    (match,) = _matches(npz_bytes(a=_arrays()["layer1_weight"], b=np.arange(4096.0)))
    assert (match.tensors, match.of, match.whole) == (1, 4, False)
    assert match.byte_count == 96 * 64 * 4


@pytest.mark.parametrize(
    "data", [weights_bytes(2), torch_bytes(b"\1" * 96 * 64 * 4), npz_bytes(a=np.ones(128, np.float32))]
)
def test_other_weights_of_the_same_shapes_are_not_ours(data: bytes) -> None:
    assert _matches(data) == []


def test_nothing_is_read_but_what_has_a_shape_of_ours() -> None:
    from safetensors.numpy import save

    other = save({"w": np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)})
    asked: list[int] = []

    def read(offset: int, size: int) -> bytes:
        asked.append(size)
        return other[offset : offset + size]

    found = Item("x", "x", len(other), read)
    assert _ours().of_model(found, look(found)) == []
    assert sum(asked) < 400_000  # of a megabyte: heads alone


def test_the_unmarked_original_is_known_by_the_digest_of_the_whole() -> None:
    from palladion.model.digest import model_digest

    other = weights_bytes(3)
    ours = _ours(original=model_digest(_model(other)).hex(), kind="ownership")
    (match,) = _matches(other, ours)
    assert (match.version, match.original, match.whole) == ("fraud@1", True, True)


def test_a_whole_file_is_known_by_its_bytes() -> None:
    from palladion.model.payload import file_row

    data = bytes(range(256)) * 40
    row = file_row("engine.plan", len(data), iter([memoryview(data)]))
    ours = Ours()
    ours.add(_version(), [(row.name, row.dtype, row.shape, row.digest.hex())])
    assert [match.version for match in ours.of_file(item(data))] == ["fraud@1"]
    assert ours.of_file(item(data[:-1] + b"x")) == []
    assert ours.of_file(item(data + b"x")) == []


@pytest.mark.parametrize("cut", [20, 300, 2000, -5])
@pytest.mark.parametrize("form", ["safetensors", "npz"])
def test_a_broken_file_is_still_a_model_and_no_crash(tmp_path: Path, cut: int, form: str) -> None:
    data = WEIGHTS if form == "safetensors" else npz_bytes(**_arrays())
    write(tmp_path, {"x": data[:cut]})
    rules = {rule for rule, _ in told(sweep(tmp_path, judge=Judge(_ours())))}
    assert rules <= {"plain-model", "our-tensors", "not-read"}


def test_too_many_tensors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from palladion.errors import PalladionError
    from palladion.sweep import rows

    monkeypatch.setattr(rows, "TENSORS_MAX", 2)
    with pytest.raises(PalladionError, match="more than 2 tensors"):
        _ours()


def test_what_is_only_a_beginning_is_not_compared() -> None:
    part = Item("x", "x", len(WEIGHTS), held(WEIGHTS[:900]), whole=False)
    assert _ours().of_model(part, look(part)) == []


def test_a_tensor_by_itself_in_an_array_is_ours() -> None:
    tensor = max(_model().tensors.values(), key=lambda each: each.byte_count)
    buffer = io.BytesIO()
    np.save(buffer, tensor.data)
    found = item(buffer.getvalue(), "w.npy")
    (match,) = _ours().of_model(found, look(found))
    assert (match.tensors, match.whole) == (1, False)
