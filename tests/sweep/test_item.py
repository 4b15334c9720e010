"""Files by ranges."""

import os
from pathlib import Path

import pytest

from palladion.errors import FormatError
from palladion.sweep.item import Ranged, held, read_path
from tests.sweep.things import item

DATA = bytes(range(200))


def test_an_item_is_a_file_that_can_be_sought_in() -> None:
    stream = Ranged(item(DATA))
    assert stream.read(3) == DATA[:3]
    assert stream.seek(-5, os.SEEK_END) == 195
    assert stream.read() == DATA[195:]
    assert stream.read(9) == b""
    assert stream.seek(10) == 10
    assert stream.seek(5, os.SEEK_CUR) == 15
    assert stream.tell() == 15
    with pytest.raises(OSError, match="before the beginning"):
        stream.seek(-1)


def test_a_file_is_read_by_ranges_up_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(DATA)
    status, read = read_path(tmp_path / "x")
    assert status.st_size == 200
    assert read(190, 100) == DATA[190:]
    assert read(500, 10) == b""
    assert held(DATA)(190, 100) == DATA[190:]


def test_what_became_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(DATA)
    (tmp_path / "secret").write_bytes(b"secret")
    _, read = read_path(tmp_path / "x")
    (tmp_path / "x").unlink()
    (tmp_path / "x").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic"):
        read(0, 6)
    with pytest.raises(FormatError, match="not a regular file"):
        read_path(tmp_path / "x")
