"""Files of a folder: links are not followed, modes are seen, and caches say what lies in them."""

import os
from pathlib import Path

from palladion.sweep import folders
from palladion.sweep.folders import Folder, forget
from tests.sweep.things import ONNX, SAFETENSORS, sweep, the, told, write


def test_links_pipes_and_what_they_lead_to_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path, {"inside/a.onnx": ONNX, "outside/b.onnx": ONNX})
    (tmp_path / "inside/link").symlink_to(tmp_path / "outside")
    (tmp_path / "inside/file").symlink_to(tmp_path / "outside/b.onnx")
    os.mkfifo(tmp_path / "inside/pipe")
    folder = Folder(tmp_path / "inside")
    assert [item.name for item in folder.items()] == ["a.onnx"]
    assert folder.findings == []


def test_a_single_file_is_a_place_too(tmp_path: Path) -> None:
    write(tmp_path, {"a.onnx": ONNX, "b.onnx": ONNX})
    assert told(sweep(tmp_path / "a.onnx"), tmp_path) == {("plain-model", "a.onnx")}


def test_a_folder_that_anybody_may_write_to_is_said_of_every_file_below(tmp_path: Path) -> None:
    forget()
    write(tmp_path, {"open/deep/a.onnx": ONNX})
    (tmp_path / "open").chmod(0o777)
    (item,) = Folder(tmp_path / "open").items()
    assert item.access is not None
    assert str(tmp_path / "open") in item.access.writable
    forget()
    (tmp_path / "open").chmod(0o1777)  # as /tmp is: whoever owns a file there keeps it
    (item,) = Folder(tmp_path / "open").items()
    assert item.access is not None
    assert str(tmp_path / "open") not in item.access.writable


def test_a_cache_of_the_hub_names_model_and_revision(tmp_path: Path) -> None:
    cache = tmp_path / "hub/models--acme--llama"
    write(cache, {"blobs/abc123": SAFETENSORS})
    (cache / "snapshots/0123456789abcdef").mkdir(parents=True)
    (cache / "snapshots/0123456789abcdef/model.safetensors").symlink_to("../../blobs/abc123")
    found = the(sweep(tmp_path), "hub-model")
    assert found.severity == "low"
    assert "acme/llama, model.safetensors of revision 0123456789ab" in found.text


def test_a_run_of_mlflow_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"mlruns/7/f00d/meta.yaml": "x: 1", "mlruns/7/f00d/artifacts/model/model.onnx": ONNX})
    assert "MLflow run f00d of experiment 7" in the(sweep(tmp_path), "plain-model").text


def test_a_folder_that_cannot_be_listed_is_a_finding(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder._unread(PermissionError(13, "Permission denied", str(tmp_path / "x")))
    (found,) = folder.findings
    assert (found.rule, found.place, found.text) == ("not-read", str(tmp_path / "x"), "permission denied")


def test_a_name_that_is_no_text_is_swept_like_any_other(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"a\xff.onnx")).write_bytes(ONNX)
    assert the(sweep(tmp_path), "plain-model").place.startswith(str(tmp_path))


def test_a_link_that_the_caller_names_is_followed(tmp_path: Path) -> None:
    write(tmp_path, {"there/a.onnx": ONNX})
    (tmp_path / "file").symlink_to(tmp_path / "there/a.onnx")
    (tmp_path / "folder").symlink_to(tmp_path / "there")
    for name in ("file", "folder"):
        assert told(sweep(tmp_path / name), tmp_path) == {("plain-model", "there/a.onnx")}


def test_a_thousand_folders_in_each_other_do_not_end_a_sweep(tmp_path: Path) -> None:
    write(tmp_path, {"z.onnx": ONNX})
    deep = tmp_path
    for _ in range(1200):
        deep /= "a"
        deep.mkdir()
    write(deep, {"m.onnx": ONNX})
    try:
        assert told(sweep(tmp_path), tmp_path) == {("plain-model", "z.onnx"), ("plain-model", "a/" * 1200 + "m.onnx")}
    finally:
        (deep / "m.onnx").unlink()
        while deep != tmp_path:
            deep.rmdir()
            deep = deep.parent


def test_shared_memory_is_looked_at_and_devices_are_not() -> None:
    assert not {"/dev", "/dev/shm"} & folders._PSEUDO
    assert {"/proc", "/sys"} <= folders._PSEUDO
