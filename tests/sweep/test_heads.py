"""What a file is, by its first bytes: every format that a model is passed on in, and what is none."""

import io
import pickle
import zlib

import numpy as np
import pytest

from palladion.sweep.heads import Seen, look, sealed_header
from tests.sweep.things import ONNX, POINTER, SAFETENSORS, item, npz_bytes, tar_bytes, torch_bytes, zip_bytes


def _npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(9.0))
    return buffer.getvalue()


def _optimiser_safetensors() -> bytes:
    from safetensors.numpy import save

    saved: bytes = save({"exp_avg.weight": np.zeros(8, np.float32)})
    return saved


CSV = b"age,income,default\n" + b"41,5200.5,0\n" * 30
CASES = {
    "onnx": (ONNX, "model", "ONNX"),
    "safetensors": (SAFETENSORS, "model", "safetensors"),
    "state of an optimiser": (_optimiser_safetensors(), "training", "safetensors"),
    "gguf": (b"GGUF" + bytes(64), "model", "GGUF"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "model", "HDF5"),
    "tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(64), "model", "TensorFlow Lite"),
    "pickle": (pickle.dumps({"a": [1.5] * 9}, 4), "model", "pickle"),
    "pickle of an optimiser": (pickle.dumps({"param_groups": [1.5] * 9}, 2), "training", "pickle"),
    "legacy torch": (
        bytes.fromhex("80028a0a6cfc9c46f9206aa850192e") + b"\x80\x02}.ctorch",
        "model",
        "PyTorch (pickle)",
    ),
    "torch": (torch_bytes(b"\1" * 64), "model", "PyTorch"),
    "torch checkpoint": (torch_bytes(b"\1" * 64, {"optimizer": [1]}), "training", "PyTorch"),
    "torchscript": (
        zip_bytes({"m/data.pkl": pickle.dumps({}), "m/code/__torch__.py": b"x" * 9}),
        "model",
        "TorchScript",
    ),
    "npz": (npz_bytes(a=np.arange(9.0)), "model", "NumPy archive"),
    "keras": (zip_bytes({"config.json": b"{}", "model.weights.h5": b"x" * 20}), "model", "Keras"),
    "joblib": (zlib.compress(pickle.dumps({"a": [1.5] * 99}, 4)), "model", "joblib"),
    "npy": (_npy(), "data", "NumPy array"),
    "parquet": (b"PAR1" + bytes(64), "data", "Parquet"),
    "arrow": (b"ARROW1\0\0" + bytes(64), "data", "Arrow"),
    "csv": (CSV, "data", "CSV"),
    "json lines": (b'{"prompt": "a"}\n' * 9, "data", "JSON lines"),
    "zip": (zip_bytes({"a.txt": b"hello", "b.txt": b"you"}), "archive", "zip"),
    "tar": (tar_bytes({"a": b"1"}), "archive", "tar"),
    "gzip": (b"\x1f\x8b\x08" + bytes(20), "archive", "gzip"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(20), "archive", "7z"),
    "pointer": (POINTER.encode(), "pointer", "LFS pointer"),
    "prose": (b"It was a dark night,\nand, as it happened, a cold one;\nnobody was out\nat all\n" * 5, "none", ""),
    "program": (b"def f(a, b):\n    return a, b\n" * 9, "none", ""),
    "noise": (bytes(range(7, 255)) * 3, "none", ""),
    "few bytes": (b"GGUF", "none", ""),
}


@pytest.mark.parametrize("name", CASES)
def test_a_file_is_known_by_its_content(name: str) -> None:
    data, sort, format_ = CASES[name]
    seen = look(item(data, "without.extension"))
    assert (seen.sort, seen.format) == (sort, format_)


def test_a_safetensors_header_that_is_longer_than_the_file_is_none() -> None:
    assert look(item((2**20).to_bytes(8, "little") + b"{" + bytes(50))) == Seen("none")


def test_a_broken_zip_is_known_by_the_names_that_are_left() -> None:
    assert look(item(torch_bytes(b"\1" * 5000)[:3000])).format == "PyTorch"


def test_a_sealed_file_whose_header_is_broken_says_nothing() -> None:
    broken = b"\x93PALL\r\n\x1a\x01\0\0\0\x05\0\0\0{bad}"
    assert look(item(broken)).sort == "sealed"
    assert sealed_header(item(broken)) is None


@pytest.mark.torch
def test_what_torch_and_h5py_write_is_known() -> None:
    torch = pytest.importorskip("torch", reason="this needs the torch extra")
    layer = torch.nn.Linear(4, 3)
    optimiser = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 4)).sum().backward()
    optimiser.step()
    for saved, sort, old in (
        (layer.state_dict(), "model", False),
        (layer.state_dict(), "model", True),
        ({"model": layer.state_dict(), "o": optimiser.state_dict()}, "training", False),
        ({"model": layer.state_dict(), "o": optimiser.state_dict()}, "training", True),
    ):
        buffer = io.BytesIO()
        torch.save(saved, buffer, _use_new_zipfile_serialization=not old)
        seen = look(item(buffer.getvalue()))
        assert (seen.sort, seen.format[:7]) == (sort, "PyTorch")


@pytest.mark.parametrize(
    ("name", "start", "format"),
    [
        ("x", b"ftrt", "TensorRT"),
        ("x", b"CBM1", "CatBoost"),
        ("x", b"tree\nversion=v4\n", "LightGBM"),
        ("x", b'{"learner":{"attributes":{}', "XGBoost"),
        ("x", b"\x20\0\0\0ET12", "ExecuTorch"),
        ("variables.data-00000-of-00001", b"", "bare numbers"),
        ("model.onnx.data", b"", "bare numbers"),
    ],
)
def test_models_of_other_programs_are_known(name: str, start: bytes, format: str) -> None:  # noqa: A002
    numbers = start + b"\x91\x3e\xd7\xbf" * (300 * 1024)
    seen = look(item(numbers, name))
    assert (seen.sort, seen.format) == ("model", format)
    assert look(item(numbers[len(start) :], "x")).sort == "none"
