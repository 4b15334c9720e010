"""Captures: what was asked and answered, in a chain that cannot be changed unnoticed."""

import json
from pathlib import Path

import pytest

from palladion.clock import ManualClock
from palladion.errors import FormatError, PalladionError, StorageError, TamperError
from palladion.lifecycle.capture import FIRST_PREVIOUS, body_of, headers_of, new_capture, verify_capture
from tests.lifecycle.installations import NOW


def captured(path: Path, lines: int = 3) -> str:
    with new_capture(path, ManualClock(NOW)) as capture:
        for number in range(lines):
            capture.write("exchange", {"request": body_of(f"question {number}".encode())})
    return capture.digest


def test_a_capture_verifies_against_its_last_hash(tmp_path: Path) -> None:
    digest = captured(tmp_path / "c.jsonl")
    lines = verify_capture((tmp_path / "c.jsonl").read_bytes(), digest)
    assert [line["request"]["text"] for line in lines] == ["question 0", "question 1", "question 2"]
    assert (tmp_path / "c.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("change", ["answer", "order", "first", "last", "middle", "number", "digest", "blank"])
def test_a_change_of_a_capture_is_noticed(tmp_path: Path, change: str) -> None:
    digest = captured(tmp_path / "c.jsonl")
    lines = (tmp_path / "c.jsonl").read_bytes().splitlines()
    match change:
        case "answer":
            lines[1] = lines[1].replace(b"question 1", b"question 9")
        case "order":
            lines[1], lines[2] = lines[2], lines[1]
        case "first" | "last" | "middle":
            del lines[{"first": 0, "middle": 1, "last": 2}[change]]
        case "number":
            lines[0] = lines[0].replace(b'"number":0', b'"number":1')
        case "digest":
            digest = FIRST_PREVIOUS
        case "blank":
            lines.insert(1, b"")
    with pytest.raises((TamperError, FormatError)):
        verify_capture(b"\n".join(lines), digest)


def test_a_line_that_is_no_object_is_refused() -> None:
    with pytest.raises(PalladionError):
        verify_capture(b"[]\n", FIRST_PREVIOUS)


def test_what_is_no_text_is_kept_too() -> None:
    assert body_of(b"\xff\x00") == {"sha256": body_of(b"\xff\x00")["sha256"], "base64": "/wA="}


def test_headers_that_could_be_secret_are_not_kept() -> None:
    kept = headers_of({"Date": "today", "Set-Cookie": "session=1", "Authorization": "Bearer x", "Server": "ü"})
    assert kept == {"date": "today", "server": "?"}


def test_an_existing_file_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text("mine")
    with pytest.raises(StorageError):
        captured(tmp_path / "c.jsonl")
    assert (tmp_path / "c.jsonl").read_text() == "mine"


def test_what_was_written_before_a_failure_stays(tmp_path: Path) -> None:
    def fail() -> None:
        with new_capture(tmp_path / "c.jsonl", ManualClock(NOW)) as capture:
            capture.write("plan", {"budget": 8})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert json.loads((tmp_path / "c.jsonl").read_text())["budget"] == 8
