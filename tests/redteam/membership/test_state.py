"""What is kept is found again, and nothing else is taken for it."""

from pathlib import Path

import numpy as np
import pytest

from palladion.errors import ConflictError, FormatError
from palladion.redteam.membership.state import Journal, fingerprint, load_arrays, save_arrays

ROWS = np.arange(6.0).reshape(3, 2)


def test_answers_are_found_again_by_place_and_rows(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "target", "fraud 3")
    journal.count(3)
    journal.keep(0, ROWS, np.array([1, 2, 3]))
    again = Journal(tmp_path / "target", "fraud 3")
    assert again.queries == 3
    found = again.recall(0, ROWS)
    assert found is not None
    assert found.tolist() == [1, 2, 3]
    assert again.recall(1, ROWS) is None
    for other in (ROWS + 1, ROWS.astype(np.float32), ROWS.reshape(2, 3)):
        with pytest.raises(ConflictError, match="other rows"):
            again.recall(0, other)
    with pytest.raises(ConflictError, match="another target"):
        Journal(tmp_path / "target", "fraud 4").recall(0, ROWS)


def test_the_folder_and_its_files_are_private(tmp_path: Path) -> None:
    Journal(tmp_path / "target", "fraud 3").keep(0, ROWS, ROWS)
    assert (tmp_path / "target").stat().st_mode & 0o077 == 0
    assert (tmp_path / "target" / "000000.npz").stat().st_mode & 0o077 == 0


def test_broken_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    assert load_arrays(path, {"a"}) is None
    save_arrays(path, {"a": ROWS})
    whole = path.read_bytes()
    for broken in (whole[:-30], b"", b"PK\x03\x04", np.arange(3).tobytes()):
        path.write_bytes(broken)
        with pytest.raises(FormatError, match=r"a\.npz"):
            load_arrays(path, {"a"})
    path.write_bytes(whole)
    with pytest.raises(FormatError, match="expected was"):
        load_arrays(path, {"a", "b"})
    np.savez(path, a=np.array([object()]))
    with pytest.raises(FormatError):
        load_arrays(path, {"a"})


def test_a_fingerprint_tells_values_types_shapes_and_borders_apart() -> None:
    parts = [
        (ROWS,), (ROWS + 1,), (ROWS.astype(np.float32),), (ROWS.reshape(2, 3),), (ROWS, "a"), (ROWS, "b"), ("ab",),
        ("a", "b"), (1,), ("1",),
    ]  # fmt: skip
    assert len({fingerprint(*part) for part in parts}) == len(parts)
    assert fingerprint(ROWS, "a") == fingerprint(ROWS.copy(), "a")
