"""Rows that exist nowhere are mixed into a copy of a data set, and known when they are asked."""

from pathlib import Path

import numpy as np
import pytest

from palladion.access.decoys import RowDecoys, open_rows
from palladion.errors import FormatError, StorageError
from palladion.lifecycle.decoy_rows import plant_rows
from palladion.lifecycle.protect import protect
from tests.lifecycle.installations import ACTOR, Made, make
from tests.models import onnx_bytes, write

ROWS = np.random.default_rng(0).integers(1, 9000, (60, 4)) / 100


@pytest.fixture
def made(tmp_path: Path) -> Made:
    made = make(tmp_path)
    protect(made.installation, made.owner, write(tmp_path / "m.onnx", onnx_bytes()), "fraud", actor=ACTOR)
    return made


def _plant(made: Made, into: Path, out: Path, **more: object) -> str:
    values: dict[str, object] = {"label": "copy of May", "count": 6, "target": None, "actor": ACTOR, **more}
    return plant_rows(made.installation, "fraud", into, out, **values)[0].id  # type: ignore[arg-type]


def _known(made: Made, decoy: str) -> RowDecoys:
    key = made.installation.open_gate_root().derive("decoys")
    with made.installation.open_registry() as registry, registry.read() as records:
        return RowDecoys(key, "fraud", [open_rows(key, "fraud", decoy, records.decoys.data(decoy))])


@pytest.mark.parametrize("target", ["label", "5"])
def test_a_copy_of_a_table_has_new_rows_which_are_known(made: Made, tmp_path: Path, target: str) -> None:
    lines = [",".join(f"{number:.2f}" for number in row) + f",{index % 2}" for index, row in enumerate(ROWS)]
    (tmp_path / "t.csv").write_text("a,b,c,d,label\n" + "\n".join(lines) + "\n")
    decoy = _plant(made, tmp_path / "t.csv", tmp_path / "out.csv", target=target)
    copy = (tmp_path / "out.csv").read_text().splitlines()
    assert copy[0] == "a,b,c,d,label"
    assert [line for line in copy[1:] if line in lines] == lines
    new = [line for line in copy[1:] if line not in lines]
    assert len(new) == 6
    known = _known(made, decoy)
    asked = np.array([[float(text) for text in line.split(",")[:4]] for line in new])
    assert known.touched(asked) == [decoy]
    assert known.touched(ROWS) == []
    columns = [{line.split(",")[column] for line in lines} for column in range(5)]
    assert all(text in columns[column] for line in new for column, text in enumerate(line.split(",")))


def test_a_copy_of_an_array_has_new_rows_which_are_known(made: Made, tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", ROWS.astype(np.float32))
    decoy = _plant(made, tmp_path / "t.npy", tmp_path / "out.npy")
    copy = np.load(tmp_path / "out.npy")
    assert (copy.shape, copy.dtype) == ((66, 4), np.float32)
    old = {row.tobytes() for row in ROWS.astype(np.float32)}
    new = np.array([row for row in copy if row.tobytes() not in old], np.float64)
    assert len(new) == 6
    assert _known(made, decoy).touched(new) == [decoy]


def test_tables_that_give_no_new_rows_are_refused(made: Made, tmp_path: Path) -> None:
    cases = {
        "few": ("1,2,3,4\n" * 5, "at least 10"),
        "alike": ("1,2,3,4\n" * 50, "only 0 rows"),
        "words": ("a,b\nc,d\n" * 50, "not a table of numbers"),
        "ragged": ("1,2,3,4\n1,2\n" * 50, "not a table of numbers"),
    }
    for name, (text, words) in cases.items():
        (tmp_path / f"{name}.csv").write_text(text)
        with pytest.raises(FormatError, match=words):
            _plant(made, tmp_path / f"{name}.csv", tmp_path / "out.csv")
    (tmp_path / "ok.csv").write_text("1,2,3,4\n" * 50)
    with pytest.raises(FormatError, match="no column 'x'"):
        _plant(made, tmp_path / "ok.csv", tmp_path / "out.csv", target="x")
    np.save(tmp_path / "t.npy", np.zeros((3, 3, 3)))
    with pytest.raises(FormatError, match="no table of numbers"):
        _plant(made, tmp_path / "t.npy", tmp_path / "out.npy")
    assert not (tmp_path / "out.csv").exists()


def test_nothing_is_overwritten(made: Made, tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", ROWS)
    with pytest.raises(StorageError, match="exists already"):
        _plant(made, tmp_path / "t.npy", tmp_path / "t.npy")
