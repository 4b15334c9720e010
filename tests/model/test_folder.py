"""Which files of a folder are a model's: by name and kind, before anything in them is read."""

import os
from pathlib import Path

import pytest

from palladion.errors import FormatError, StorageError
from palladion.model import folder as module
from palladion.model.folder import folder_names


def _write(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_files_are_listed_by_name_and_hidden_ones_left_out(tmp_path: Path) -> None:
    _write(*(tmp_path / name for name in ("b/c", "a", "b/a", ".git/config", "b/.cache", "b-", "empty/.keep")))
    assert folder_names(tmp_path) == ["a", "b-", "b/a", "b/c"]


def test_links_are_refused_unless_they_are_to_be_followed(tmp_path: Path) -> None:
    _write(tmp_path / "blobs" / "x", tmp_path / "model" / "a")
    (tmp_path / "model" / "b").symlink_to("../blobs/x")
    (tmp_path / "model" / "more").symlink_to("../blobs")
    with pytest.raises(FormatError, match="is a link, which may lead to a file that nobody meant to seal"):
        folder_names(tmp_path / "model")
    assert folder_names(tmp_path / "model", follow_links=True) == ["a", "b", "more/x"]


def test_names_that_no_sealed_file_can_hold_are_refused(tmp_path: Path) -> None:
    _write(tmp_path / "a\x1b[2J")
    with pytest.raises(FormatError, match="a name that no sealed file can hold"):
        folder_names(tmp_path)


def test_an_empty_folder_and_one_with_too_many_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FormatError, match="holds 0 files, expected 1 to"):
        folder_names(tmp_path)
    _write(tmp_path / "a", tmp_path / "b")
    monkeypatch.setattr(module, "FILES_MAX", 1)
    with pytest.raises(FormatError, match="holds 2 files, expected 1 to 1"):
        folder_names(tmp_path)


def test_a_folder_that_cannot_be_listed_is_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "a", tmp_path / "closed" / "b")
    scandir = os.scandir

    def deny(path: str) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(StorageError, match="permission denied"):
        folder_names(tmp_path)
