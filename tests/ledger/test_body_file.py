"""The file of retained bodies: what is written is read, also one after another, and nothing moves in it."""

import itertools
from pathlib import Path

import pytest

from palladion.errors import FormatError, TamperError
from palladion.ledger.body_file import (
    ENTRY_BYTES_MAX,
    HEAD,
    cipher_of,
    entry_size,
    make_head,
    read_content,
    read_data,
    seal_entry,
    write_content,
)

KEY = bytes(range(32))
NAME = ("client:" + "a" * 20, "fraud@3")
ENTRIES = [(5, b"first"), (1 << 63, b""), (7, b"third")]


def _written(folder: Path, entries: list[tuple[int, bytes]] = ENTRIES) -> Path:
    path = folder / "it.bodies"
    write_content(path, KEY, NAME, make_head(100, 3, late=True), entries)
    return path


def test_what_was_written_is_read_all_at_once_and_one_by_one(tmp_path: Path) -> None:
    path = _written(tmp_path)
    found = read_content(path, KEY, NAME)
    assert (found.capacity, found.level, found.late, list(found.entries)) == (100, 3, True, ENTRIES)
    assert found.sound_bytes == path.stat().st_size == HEAD.size + sum(entry_size(data) for _, data in ENTRIES)
    assert list(read_data(path, KEY, NAME)) == [data for _, data in ENTRIES]


def test_reading_one_by_one_looks_no_further_than_asked(tmp_path: Path) -> None:
    path = _written(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) + data[HEAD.size :])
    assert list(itertools.islice(read_data(path, KEY, NAME), 2)) == [b"first", b""]
    with pytest.raises(TamperError, match="damaged"):
        list(read_data(path, KEY, NAME))


def test_an_entry_stays_where_it_was_written(tmp_path: Path) -> None:
    path = _written(tmp_path, ENTRIES[:1])
    head = path.read_bytes()[: HEAD.size]
    cipher = cipher_of(KEY, head, NAME)
    for index in (0, 1):
        path.write_bytes(head + seal_entry(cipher, head, index, bytes(8) + b"it") + b"\0")
        found = [data for _, data in read_content(path, KEY, NAME).entries] if index == 0 else []
        assert found == [b"it"] * (index == 0)
    with pytest.raises(TamperError, match="does not authenticate"):
        read_content(path, KEY, NAME)


def test_no_entry_is_larger_than_one_may_be() -> None:
    head = make_head(1, 0, late=False)
    with pytest.raises(ValueError, match="cannot be kept"):
        seal_entry(cipher_of(KEY, head, NAME), head, 0, bytes(ENTRY_BYTES_MAX + 1))


@pytest.mark.parametrize("data", [b"", bytes(HEAD.size)], ids=["nothing", "zeros"])
def test_what_is_no_such_file_is_a_sentence(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "it"
    path.write_bytes(data)
    with pytest.raises(FormatError, match="holds no retained bodies"):
        list(read_data(path, KEY, NAME))
