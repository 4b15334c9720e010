"""Rows of the user's own data."""

from pathlib import Path

import numpy as np
import pytest

from palladion.errors import FormatError
from palladion.lifecycle.rows import read_rows
from tests.mark.classifiers import linear, rows


def test_an_array_is_for_the_only_input_and_an_archive_goes_by_name(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", rows(5))
    np.savez(tmp_path / "rows.npz", x=rows(5))
    for name in ("rows.npy", "rows.npz"):
        np.testing.assert_array_equal(read_rows(tmp_path / name, linear())["x"], rows(5))


@pytest.mark.parametrize("what", ["text", "empty", "pickle", "cut off", "other name", "list", "words"])
def test_what_holds_no_rows_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "rows.npz"
    match what:
        case "text":
            path.write_text("1,2,3")
        case "empty":
            path.write_bytes(b"")
        case "pickle":
            np.savez(path, x=np.array([{"a": 1}], object))
        case "cut off":
            np.savez(path, x=rows(5))
            path.write_bytes(path.read_bytes()[:-40])
        case "other name":
            np.savez(path, y=rows(5))
        case "list":
            np.savez(path, x=rows(5)[0])
        case "words":
            np.savez(path, x=np.array([["a"]]))
    with pytest.raises(FormatError):
        read_rows(path, linear())
