"""Captures: what was asked and answered, in a chain that cannot be changed unnoticed."""

import json
import os
from pathlib import Path

import pytest

from palladion.clock import ManualClock
from palladion.errors import FormatError, InconclusiveError, PalladionError, StorageError, TamperError
from palladion.lifecycle import capture as module
from palladion.lifecycle.capture import (
    FIRST_PREVIOUS,
    Summary,
    body_of,
    headers_of,
    new_capture,
    summarise_capture,
    verify_capture,
)
from palladion.lifecycle.servers import Certificate, Server
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


def test_who_answers_is_noted_once_and_whenever_it_changes(tmp_path: Path) -> None:
    one = Server("192.0.2.1:443", "TLSv1.3", (Certificate("ab" * 32, "CN=one"),))
    other = Server("192.0.2.2:443", "TLSv1.3", (Certificate("ab" * 32, "CN=one"),))
    with new_capture(tmp_path / "c.jsonl", ManualClock(NOW)) as capture:
        for server in (one, one, other, one):
            capture.note_server(server)
            capture.write("exchange", {})
    lines = verify_capture((tmp_path / "c.jsonl").read_bytes(), capture.digest)
    assert [line["kind"] for line in lines] == ["server", "exchange", "exchange", *["server", "exchange"] * 2]
    assert [line["address"] for line in lines if line["kind"] == "server"] == [one.address, other.address, one.address]
    assert lines[0]["certificates"][0]["sha256"] == "ab" * 32
    assert summarise_capture((tmp_path / "c.jsonl").read_bytes(), capture.digest).exchanges == 4


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


@pytest.mark.parametrize(
    ("data", "kept"),
    [(b"", "text"), (b"\n" * 9, "text"), ("ü€".encode(), "text"), (b"\x00" * 9, "base64"), (b"a\x00", "base64")],
)
def test_text_that_escapes_make_longer_than_twice_itself_is_kept_in_base64(data: bytes, kept: str) -> None:
    assert body_of(data).keys() == {"sha256", kept}


def test_a_capture_says_what_it_is_about(tmp_path: Path) -> None:
    with new_capture(tmp_path / "c.jsonl", ManualClock(NOW)) as capture:
        capture.write("plan", {"suspect": "https://theirs.example/predict"})
        capture.write("exchange", {"request": body_of(b"1")})
        capture.write("exchange", {"request": body_of(b"2")})
    data = (tmp_path / "c.jsonl").read_bytes()
    assert summarise_capture(data, capture.digest) == Summary("https://theirs.example/predict", 3, 2)
    with pytest.raises(TamperError):
        summarise_capture(data[: data.rindex(b"\n", 0, -1) + 1], capture.digest)


def test_a_capture_grows_no_larger_than_can_be_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILE_BYTES_MAX", 1000)
    path = tmp_path / "c.jsonl"
    with new_capture(path, ManualClock(NOW)) as capture:
        for number in range(4):
            capture.write("exchange", {"request": str(number)})
        for _ in range(2):
            with pytest.raises(InconclusiveError, match="full"):
                capture.write("exchange", {"request": "x" * 300})
    assert len(verify_capture(path.read_bytes(), capture.digest)) == 4
    assert path.stat().st_size <= 1000


def test_a_line_longer_than_can_be_verified_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE_BYTES_MAX", 500)
    with new_capture(tmp_path / "c.jsonl", ManualClock(NOW)) as capture, pytest.raises(InconclusiveError):
        capture.write("exchange", {"request": "x" * 500})
    assert (tmp_path / "c.jsonl").read_bytes() == b""


def test_a_disk_that_refuses_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "c.jsonl"
    with new_capture(path, ManualClock(NOW)) as capture:
        capture.write("exchange", {"request": "1"})
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", refuse)
            with pytest.raises(StorageError, match="no space"):
                capture.write("exchange", {"request": "2"})
        assert len(verify_capture(path.read_bytes(), capture.digest)) == 1
        capture.write("exchange", {"request": "3"})
    assert [line["request"] for line in verify_capture(path.read_bytes(), capture.digest)] == ["1", "3"]


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
