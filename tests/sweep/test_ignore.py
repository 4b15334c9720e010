"""Which places are passed over."""

from pathlib import Path

import pytest

from palladion.errors import FormatError
from palladion.sweep import ignore
from palladion.sweep.ignore import Ignored, read_patterns


@pytest.mark.parametrize(
    ("pattern", "place", "covered"),
    [
        ("*.onnx", "/a/b.onnx", True),
        ("*.onnx", "/a.onnx/b", False),
        ("b.onnx", "/a/b.onnx", True),
        ("a/*", "/x/a/b", True),
        ("/x/a/*", "/x/a/b", True),
        ("a/b", "/x/a/bc", False),
        ("", "/x", False),
    ],
)
def test_a_pattern_covers_names_or_ends_of_places(pattern: str, place: str, covered: bool) -> None:
    ignored = Ignored([pattern])
    assert ignored.covers(place) is covered
    assert ignored.count == int(covered)


def test_a_file_of_patterns_has_comments(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("# not these\n*.onnx\n\n  a/*  \n")
    assert read_patterns(tmp_path / "x") == ["*.onnx", "a/*"]
    (tmp_path / "x").write_bytes(b"\xff\n")
    with pytest.raises(FormatError, match="not UTF-8"):
        read_patterns(tmp_path / "x")


def test_too_many_patterns_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ignore, "PATTERNS_MAX", 2)
    with pytest.raises(FormatError, match="3 patterns"):
        Ignored(["a", "b", "c"])
