"""Plaintext files that a user asked for: where they go, private, all or none, and nothing overwritten."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from palladion.errors import FormatError, StorageError
from palladion.lifecycle.export import free_paths, write_files


def test_a_file_goes_where_it_was_asked_for_and_its_data_beside_it(tmp_path: Path) -> None:
    names = ["model.onnx", "weights/w.bin"]
    assert free_paths("onnx", names, tmp_path / "out.onnx") == [tmp_path / "out.onnx", tmp_path / "weights" / "w.bin"]


@pytest.mark.parametrize("kind", ["folder", "adapter", "opaque"])
def test_a_folder_goes_below_the_new_one(tmp_path: Path, kind: str) -> None:
    names = ["config.json", "model.safetensors"]
    assert free_paths(kind, names, tmp_path / "out") == [tmp_path / "out" / name for name in names]
    (tmp_path / "out").mkdir()
    with pytest.raises(StorageError, match="a file of this name exists"):
        free_paths(kind, names, tmp_path / "out")


def test_a_name_that_is_taken_or_wanted_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"mine")
    with pytest.raises(StorageError, match=r"w\.bin: a file of this name exists"):
        free_paths("onnx", ["model.onnx", "w.bin"], tmp_path / "out.onnx")
    with pytest.raises(StorageError, match="would exist twice"):
        free_paths("onnx", ["model.onnx", "x.bin"], tmp_path / "x.bin")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StorageError, match="link"):
        free_paths("gguf", ["model.gguf"], tmp_path / "link")


def test_files_are_written_in_their_pieces_and_are_private(tmp_path: Path) -> None:
    write_files([(tmp_path / "new" / "a", iter([memoryview(b"one"), memoryview(b"two")])), (tmp_path / "b", iter([]))])
    assert (tmp_path / "new" / "a").read_bytes() == b"onetwo"
    assert (tmp_path / "new" / "a").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "b").read_bytes() == b""


def test_a_file_that_cannot_be_made_takes_the_others_with_it(tmp_path: Path) -> None:
    def broken() -> Iterator[memoryview]:
        yield memoryview(b"half")
        raise FormatError("the source changed")

    with pytest.raises(FormatError, match="the source changed"):
        write_files([(tmp_path / "new" / "a", iter([memoryview(b"whole")])), (tmp_path / "new" / "b", broken())])
    assert list(tmp_path.iterdir()) == []
