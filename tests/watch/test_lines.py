"""Lines of files and streams: packed, broken off, too long, and what is counted of those that cannot be used."""

import gzip
import io
from pathlib import Path

import msgspec
import pytest

from palladion.errors import FormatError, StorageError
from palladion.watch import lines as lines_module
from palladion.watch import recorded
from palladion.watch.lines import open_lines, read_requests

GOOD = [msgspec.json.encode({"time": number, "client": f"c{number}", "inputs": [[1]]}) for number in range(5)]
NOTHING = io.BytesIO()


def _clients(path: Path, data: bytes, *, strict: bool = True) -> tuple[list[str], int]:
    path.write_bytes(data)
    with open_lines(path, NOTHING) as source:
        found = [request.client for request in read_requests(source, strict=strict)]
        return found, source.broken


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ended", [False, True])
def test_each_line_is_a_request_packed_or_not(tmp_path: Path, packed: bool, ended: bool) -> None:
    data = b"\n".join(GOOD) + (b"\n" if ended else b"")
    assert _clients(tmp_path / "t", gzip.compress(data) if packed else data) == ([f"c{n}" for n in range(5)], 0)


def test_a_dash_is_standard_input() -> None:
    with open_lines(Path("-"), io.BytesIO(b"\n".join(GOOD))) as source:
        assert [request.line for request in read_requests(source)] == [1, 2, 3, 4, 5]
        assert source.done == source.size == 0


def test_progress_is_how_much_of_the_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"\n".join(GOOD))
    with open_lines(path, NOTHING) as source:
        list(read_requests(source))
        assert source.done == source.size == path.stat().st_size


def test_a_line_that_cannot_be_used_is_named_or_counted(tmp_path: Path) -> None:
    data = b"\n".join([GOOD[0], b"junk", b"", GOOD[1], b"[]"])
    with pytest.raises(FormatError, match="line 2 "):
        _clients(tmp_path / "t", data)
    assert _clients(tmp_path / "t", data, strict=False) == (["c0", "c1"], 2)


def test_the_first_broken_line_is_remembered(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"a\nb\n")
    with open_lines(path, NOTHING) as source:
        list(read_requests(source, strict=False))
        assert source.first_broken is not None
        assert source.first_broken.message.startswith("line 1 ")


def test_a_line_that_is_too_long_is_passed_without_being_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "LINE_BYTES_MAX", 64)
    monkeypatch.setattr(recorded, "LINE_BYTES_MAX", 64)
    monkeypatch.setattr(lines_module, "_DRAIN_BYTES", 16)
    data = b"\n".join([GOOD[0], b"x" * 1000, GOOD[1], b"x" * 65])
    with pytest.raises(FormatError, match="line 2 has more than 64 bytes"):
        _clients(tmp_path / "t", data)
    assert _clients(tmp_path / "t", data, strict=False) == (["c0", "c1"], 2)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_packed_file_that_is_broken_ends_where_it_breaks(tmp_path: Path, damage: str) -> None:
    data = bytearray(gzip.compress(b"\n".join(GOOD) + b"\n"))
    if damage == "cut":
        data = data[:-12]
    else:
        data[len(data) // 2] ^= 0xFF
    with pytest.raises(FormatError):
        _clients(tmp_path / "t", bytes(data))
    assert _clients(tmp_path / "t", bytes(data), strict=False)[1] >= 1


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError), open_lines(tmp_path / "none", NOTHING):
        pass
