"""Plaintext files go only if what they hold is sealed and nothing else needs or keeps it; else it is said why not."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from palladion.lifecycle import plaintext
from palladion.lifecycle.plaintext import delete_plaintext
from palladion.model import read as read_module
from palladion.model.model import Model, ModelFile
from palladion.model.read import read_file
from tests.model import factories
from tests.models import onnx_bytes, safetensors_bytes, write


def _external(folder: Path, name: str, location: str = "weights.bin") -> Path:
    """An ONNX model in `folder`, with its weights in a file beside it."""
    data, weights = factories.externalise(factories.perceptron(), location)
    target = folder / location
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(weights)
    return write(folder / name, data)


def _delete(path: Path, model: Model) -> tuple[list[Path], dict[str, str]]:
    deleted, stayed = delete_plaintext(path.parent, model.files)
    return deleted, {item.path.name: item.reason for item in stayed}


def test_a_model_goes_with_its_external_data(tmp_path: Path) -> None:
    path = _external(tmp_path, "m.onnx", "data/weights.bin")
    write(tmp_path / "notes.txt", b"about weights.bin")
    assert _delete(path, read_file(path)) == ([path, tmp_path / "data" / "weights.bin"], {})
    assert not path.exists()
    assert not (tmp_path / "data" / "weights.bin").exists()


def test_a_link_and_the_file_that_it_leads_to_stay(tmp_path: Path) -> None:
    target = write(tmp_path / "target.onnx", onnx_bytes())
    link = tmp_path / "link.onnx"
    link.symlink_to(target)
    deleted, stayed = _delete(link, read_file(link))
    assert deleted == []
    assert "it is a link, and the file that it leads to would stay" in stayed["link.onnx"]
    assert link.is_symlink()
    assert target.exists()


def _replace(path: Path) -> None:
    write(path.with_suffix(".new"), onnx_bytes(2)).replace(path)


def _overwrite(path: Path) -> None:
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _grow(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"\0")


@pytest.mark.parametrize("change", [_replace, _overwrite, _grow])
def test_a_file_that_was_changed_after_it_was_read_stays(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = write(tmp_path / "m.onnx", onnx_bytes(1))
    model = read_file(path)
    change(path)
    before = path.read_bytes()
    assert _delete(path, model)[1] == {
        "m.onnx": "it was changed after it was read: what it holds now is not sealed",
    }
    assert path.read_bytes() == before


def test_a_file_that_is_replaced_while_it_is_compared_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "m.onnx", onnx_bytes(1))
    model = read_file(path)
    compare = plaintext._holds

    def compare_and_replace(descriptor: int, file: ModelFile) -> bool:
        same = compare(descriptor, file)
        _replace(path)
        return same

    monkeypatch.setattr(plaintext, "_holds", compare_and_replace)
    assert _delete(path, model)[1] == {"m.onnx": "it was changed while it was compared with what is sealed"}
    assert path.read_bytes() == onnx_bytes(2)


def test_a_file_with_a_second_name_stays(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", onnx_bytes())
    (tmp_path / "elsewhere").hardlink_to(path)
    assert _delete(path, read_file(path))[1] == {
        "m.onnx": "it has 2 names (hard links), and would stay under the others"
    }


def test_a_named_pipe_in_its_place_stays_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", onnx_bytes())
    model = read_file(path)
    path.unlink()
    os.mkfifo(path)
    assert _delete(path, model)[1] == {"m.onnx": "it is not a plain file"}


def test_a_file_that_is_gone_is_not_called_deleted(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", onnx_bytes())
    model = read_file(path)
    path.unlink()
    assert _delete(path, model) == ([], {"m.onnx": "no such file or directory"})


@pytest.mark.parametrize("place", [".", "data"])
def test_external_data_that_another_model_may_need_stays(tmp_path: Path, place: str) -> None:
    path = _external(tmp_path, "m.onnx", "data/weights.bin")
    model = read_file(path)
    other = write(tmp_path / place / "other.onnx", path.read_bytes())
    assert _delete(path, model) == ([path], {"weights.bin": f"{other} may need it"})
    assert (tmp_path / "data" / "weights.bin").exists()


def test_external_data_stays_with_a_model_that_stays(tmp_path: Path) -> None:
    path = _external(tmp_path, "m.onnx")
    model = read_file(path)
    (tmp_path / "second-name").hardlink_to(path)
    assert _delete(path, model)[1].keys() == {"m.onnx", "weights.bin"}
    assert (tmp_path / "weights.bin").exists()


def test_another_model_beside_it_with_data_of_its_own_hinders_nothing(tmp_path: Path) -> None:
    path = _external(tmp_path, "m.onnx")
    model = read_file(path)
    _external(tmp_path, "other.onnx", "other.bin")
    write(tmp_path / "empty", b"")
    assert _delete(path, model)[1] == {}
    assert sorted(item.name for item in tmp_path.iterdir()) == ["empty", "other.bin", "other.onnx"]


def test_a_large_file_that_was_changed_after_it_was_read_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_module, "HELD_BYTES_MAX", 0)
    path = write(tmp_path / "m.safetensors", safetensors_bytes())
    model = read_file(path)
    assert list(model.files[0].pieces())
    write(path, safetensors_bytes(1))
    assert list(_delete(path, model)[1]) == ["m.safetensors"]
    assert path.read_bytes() == safetensors_bytes(1)


def test_a_large_file_that_is_still_what_it_was_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_module, "HELD_BYTES_MAX", 0)
    path = write(tmp_path / "m.safetensors", safetensors_bytes())
    assert _delete(path, read_file(path))[1] == {}
    assert not path.exists()
