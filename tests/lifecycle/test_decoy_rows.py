"""Rows that exist nowhere are mixed into a copy of a data set, and known when they are asked."""

from pathlib import Path

import numpy as np
import pytest

from palladion.access.decoys import PlantedRows, RowDecoys, open_rows
from palladion.errors import FormatError, StorageError
from palladion.lifecycle import decoy_rows
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
    assert all(len(text.partition(".")[2]) == 2 for line in new for text in line.split(",")[:4])
    assert {line.split(",")[4] for line in new} <= {"0", "1"}


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


def _drawn(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    lines = [",".join(f"{number:.4f}" for number in row) for row in rows]
    return decoy_rows._mixed(decoy_rows._Table(rows, [], lines, None), count, np.random.default_rng(seed))[0]


def _area(real: np.ndarray, made: np.ndarray) -> float:
    """How often a number of `made` is above one of `real`: 0.5 tells nothing."""
    return float((made[:, None] > real).mean() + (made[:, None] == real).mean() / 2)


def test_what_goes_together_still_does_and_no_number_is_there_twice() -> None:
    twice, far = [], []
    for seed in range(6):
        generator = np.random.default_rng(seed)
        hidden, noise = generator.standard_normal((300, 2)), generator.standard_normal((300, 6))
        rows = 20 + hidden @ generator.standard_normal((2, 6)) + 0.15 * noise
        whole = np.concatenate([rows, _drawn(rows, 12, seed)])
        centred = whole - whole.mean(axis=0)
        distance = ((centred @ np.linalg.inv(np.cov(whole.T))) * centred).sum(axis=1)
        far.append(_area(distance[:300], distance[300:]))
        shared = np.zeros(len(whole))
        for column in whole.round(4).T:
            _, place, counts = np.unique(column, return_inverse=True, return_counts=True)
            shared += counts[place] > 1
        twice.append(_area(shared[:300], shared[300:]))
    # numbers drawn column by column have 1.00 and 0.98
    assert max(np.mean(twice), np.mean(far)) < 0.7


def test_no_row_is_so_near_to_a_real_one_that_who_asks_that_touches_it() -> None:
    # half of the rows lie together: what is between them is equal to each within the tolerance
    generator = np.random.default_rng(3)
    rows = np.concatenate([generator.uniform(1, 20, (40, 4)), generator.uniform(1, 1.0005, (40, 4))])
    made = _drawn(rows, 8, 0)
    known = RowDecoys(bytes(32), "fraud", [PlantedRows("d", made.astype(np.float32), decoy_rows.TOLERANCE)])
    assert known.touched(rows) == []
    assert known.touched(made) == ["d"]


def test_whole_numbers_stay_whole(made: Made, tmp_path: Path) -> None:
    rows = np.random.default_rng(1).permutation(60_000)[:240].reshape(60, 4).astype(np.int32)
    np.save(tmp_path / "t.npy", rows)
    decoy = _plant(made, tmp_path / "t.npy", tmp_path / "out.npy")
    copy = np.load(tmp_path / "out.npy")
    old = {row.tobytes() for row in rows}
    new = np.array([row for row in copy if row.tobytes() not in old], np.float64)
    assert (copy.dtype, len(new)) == (np.int32, 6)
    assert _known(made, decoy).touched(new) == [decoy]
