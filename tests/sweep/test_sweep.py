"""The sweep as a whole: every place once, bounded, and what could not be looked at is said."""

from pathlib import Path

import pytest

from palladion.errors import NotFoundError, PalladionError
from palladion.sweep import heads
from palladion.sweep import sweep as module
from palladion.sweep.finding import Severity
from palladion.sweep.ignore import Ignored
from palladion.sweep.item import Item
from palladion.sweep.judge import Judge
from palladion.sweep.rows import Ours
from palladion.sweep.sweep import Sweep
from tests.sweep.things import ONNX, PEM, POINTER, sweep, told, write


def test_findings_come_worst_first_and_are_counted(tmp_path: Path) -> None:
    write(tmp_path, {"a.onnx": ONNX, "z/key.pem": PEM, "p": POINTER})
    swept = sweep(tmp_path)
    assert [found.severity for found in swept.findings] == ["critical", "high", "low"]
    assert swept.severities == {"critical": 1, "high": 1, "low": 1}
    least: list[tuple[Severity, int]] = [("low", 3), ("medium", 2), ("high", 2), ("critical", 1)]
    assert [(severity, len(swept.worst(severity))) for severity, _ in least] == least
    assert swept.files == 3


def test_places_are_swept_one_after_the_other(tmp_path: Path) -> None:
    write(tmp_path, {"a/a.onnx": ONNX, "b/b.onnx": ONNX, "c/c.onnx": ONNX})
    swept = sweep(tmp_path / "a", tmp_path / "b")
    assert told(swept, tmp_path) == {("plain-model", "a/a.onnx"), ("plain-model", "b/b.onnx")}
    assert swept.kinds == {"folder": 2}


def test_a_place_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        sweep(tmp_path / "gone")
    with pytest.raises(PalladionError, match="ftp:// is no kind of place"):
        sweep("ftp://host/x")


def test_a_file_that_cannot_be_read_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"a.onnx": ONNX, "b.onnx": ONNX})

    def look(item: Item) -> object:
        if item.name == "a.onnx":
            raise PermissionError(13, "Permission denied")
        return heads.look(item)

    monkeypatch.setattr(module, "look", look)
    assert told(sweep(tmp_path), tmp_path) == {("not-read", "a.onnx"), ("plain-model", "b.onnx")}


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    write(tmp_path, {"keep/a.onnx": ONNX, "skip/b.onnx": ONNX, "c.pt.onnx": ONNX})
    ignored = Ignored(["*.pt.onnx", "skip/*"])
    swept = Sweep(Judge(Ours()), ignored=ignored).run([str(tmp_path)])
    assert told(swept, tmp_path) == {("plain-model", "keep/a.onnx")}
    assert swept.ignored == 2


def test_findings_and_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {f"{index}.onnx": ONNX for index in range(6)})
    monkeypatch.setattr(module, "FINDINGS_MAX", 3)
    swept = sweep(tmp_path)
    assert len(swept.findings) == 4
    assert any("more than 3 findings" in found.text for found in swept.findings)
    monkeypatch.setattr(module, "FILES_MAX", 5)
    with pytest.raises(PalladionError, match="more than 5 files"):
        sweep(tmp_path)


def test_progress_names_what_is_looked_at(tmp_path: Path) -> None:
    write(tmp_path, {"a.onnx": ONNX})
    told_of: list[tuple[int, str]] = []
    Sweep(Judge(Ours()), progress=lambda done, place: told_of.append((done, place))).run([str(tmp_path)])
    assert told_of == [(1, str(tmp_path / "a.onnx"))]


def test_a_flood_of_harmless_findings_hides_no_critical_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FINDINGS_MAX", 3)
    write(tmp_path, {**{f"a{index}": POINTER for index in range(9)}, "z": PEM})
    swept = sweep(tmp_path)
    assert swept.severities == {"critical": 1, "low": 4}
    assert ("private-key", "z") in told(swept, tmp_path)
