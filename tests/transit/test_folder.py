"""Places in folders of this machine."""

import os
from pathlib import Path

import pytest

from palladion.errors import ConflictError, FormatError, NotFoundError
from palladion.transit.folder import FolderStore
from palladion.transit.store import SIDECAR_BYTES_MAX, Whole
from tests.transit.factories import sealed


def test_a_file_is_copied_with_what_lies_beside_it(tmp_path: Path) -> None:
    made = sealed(tmp_path / "from")
    whole = Whole(made.path, made.publishers)
    store = FolderStore(tmp_path / "copy.sealed")
    store.put(whole, {".license": b"licence"}, replace=False)
    assert (tmp_path / "copy.sealed").read_bytes() == made.data
    assert store.sidecar(".license") == b"licence"
    assert store.sidecar(".tsr") is None
    assert store.open().size == len(made.data)


def test_a_file_that_is_there_is_kept_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    made = sealed(tmp_path / "from")
    whole = Whole(made.path, made.publishers)
    (tmp_path / "copy.sealed").write_bytes(b"old")
    store = FolderStore(tmp_path / "copy.sealed")
    with pytest.raises(ConflictError, match="exists already"):
        store.put(whole, {}, replace=False)
    assert (tmp_path / "copy.sealed").read_bytes() == b"old"
    store.put(whole, {}, replace=True)
    assert (tmp_path / "copy.sealed").read_bytes() == made.data


def test_what_is_missing_or_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        FolderStore(tmp_path / "x").open()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="not a regular file"):
        FolderStore(tmp_path / "pipe").open()


def test_what_lies_beside_it_is_limited(tmp_path: Path) -> None:
    (tmp_path / "x.license").write_bytes(bytes(SIDECAR_BYTES_MAX + 1))
    with pytest.raises(FormatError, match="larger than"):
        FolderStore(tmp_path / "x").sidecar(".license")
