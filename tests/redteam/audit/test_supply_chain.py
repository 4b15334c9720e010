"""The supply chain: the model's own file, and everything that lies in a folder beside it, by content."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from palladion.errors import StorageError
from palladion.redteam.audit import supply_chain
from palladion.redteam.audit.exhibit import Exhibit
from palladion.redteam.audit.result import Observation
from palladion.redteam.audit.run import plan_digest
from palladion.redteam.audit.stage import Allowance, Plan
from palladion.redteam.audit.supply_chain import SUPPLY_CHAIN, with_folder
from palladion.redteam.audit.surface import SURFACE
from tests.models import onnx_bytes, safetensors_bytes, write
from tests.redteam.audit.subjects import subject

ALLOWED = Allowance(0, None, lambda done, total, stage="": None, lambda: 0.0)


def _seen(folder: Path) -> list[tuple[str, str]]:
    found = with_folder(None, folder, operator_domains=["", "ai.onnx.ml"], bytes_max=10**9)
    assert all(item.rule == "supply-chain" for item in found.observations)
    return [(item.level, item.where) for item in found.observations]


def test_mere_data_is_no_finding(tmp_path: Path) -> None:
    write(tmp_path / "model.onnx", onnx_bytes())
    write(tmp_path / "weights.safetensors", safetensors_bytes())
    write(tmp_path / "config.json", b"{}")
    write(tmp_path / "README.md", "Modell für Tests".encode())
    write(tmp_path / "sealed", b"\x93PALL\r\n\x1a" + bytes(20))
    np.save(tmp_path / "rows.npy", np.ones(3))
    assert _seen(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "data", "level"),
    [
        ("weights.bin", pickle.dumps({"a": 1}, protocol=2), "error"),
        ("config.json", pickle.dumps([1]), "error"),
        ("model.onnx", b"no model", "error"),
        ("evil.onnx", onnx_bytes(domain="evil.ops"), "error"),
        ("renamed.dat", onnx_bytes(domain="evil.ops"), "error"),
        ("cut.safetensors", safetensors_bytes()[:-9], "error"),
        ("setup.py", b"import os", "warning"),
        ("run", b"#!/bin/sh\n", "warning"),
        ("lib.txt", b"\x7fELF\x02", "warning"),
        ("blob.txt", b"\x00\x01\x02", "warning"),
        ("latin.txt", b"f\xfcr Tests", "warning"),
        ("blob.dat", b"abc", "warning"),
    ],
)
def test_what_can_hold_code_or_is_not_known_is_one(tmp_path: Path, name: str, data: bytes, level: str) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep" / name, data)
    ((found, where),) = _seen(tmp_path)
    assert found == level
    assert where.startswith(f"deep/{name}")


def test_arrays_of_objects_are_pickles(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.array([{}], object), allow_pickle=True)
    np.savez(tmp_path / "rows.npz", np.ones(3))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("data.pkl", b"x")
    write(tmp_path / "model.pt", archive.getvalue())
    assert _seen(tmp_path) == [("error", "model.pt"), ("warning", "rows.npy"), ("warning", "rows.npz")]


def test_numbers_of_an_onnx_file_that_lie_outside_of_it_are_its_own(tmp_path: Path) -> None:
    import onnx

    model = onnx.load_from_string(onnx_bytes(inputs=400))
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="a.bin", size_threshold=0)
    assert (tmp_path / "a.bin").exists()
    assert _seen(tmp_path) == []


def test_links_are_named_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    outside = write(tmp_path / "evil.bin", pickle.dumps(1, protocol=2))
    (tmp_path / "folder" / "weights.bin").symlink_to(outside)
    assert _seen(tmp_path / "folder") == [("warning", "weights.bin")]


def test_lists_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(9):
        write(tmp_path / f"{number}.bin", pickle.dumps(1, protocol=2))
    monkeypatch.setattr(supply_chain, "OBSERVATIONS_MAX", 4)
    assert [where for _, where in _seen(tmp_path)] == ["0.bin", "1.bin", "2.bin", "3.bin", "folder"]
    monkeypatch.setattr(supply_chain, "FILES_MAX", 2)
    assert [where for _, where in _seen(tmp_path)] == ["0.bin", "1.bin", "folder"]


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.bin", b"x")

    def refuse(*_: object) -> object:
        raise PermissionError(13, "denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StorageError):
        _seen(tmp_path)


def test_the_stage_says_what_is_of_it_and_the_surface_the_rest(tmp_path: Path) -> None:
    write(tmp_path / "weights.bin", pickle.dumps(1, protocol=2))
    own = Exhibit((Observation("reverse-engineering", "note", "it has names", "names"),))
    shown = with_folder(own, tmp_path, operator_domains=[""], bytes_max=10**9)
    attacked = subject(exhibit=shown)
    found = SUPPLY_CHAIN.run(attacked, Plan(), ALLOWED)
    assert [item.where for item in found.observations] == ["weights.bin"]
    assert found.figures[0].value == 1
    assert [item.where for item in SURFACE.run(attacked, Plan(), ALLOWED).observations] == ["names"]
    assert SUPPLY_CHAIN.missing(attacked) is None
    assert SUPPLY_CHAIN.missing(subject()) is not None
    # what was kept of another folder is not taken
    assert plan_digest(attacked, Plan(), SUPPLY_CHAIN) != plan_digest(subject(exhibit=own), Plan(), SUPPLY_CHAIN)
    assert json.dumps(found.document())
