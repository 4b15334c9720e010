"""The journal: torn ends are dropped; other damage, and whatever was written without the key, is told."""

import os
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from palladion.errors import FormatError, TamperError
from palladion.ledger.journal import (
    BATCH_BYTES_MAX,
    JOURNAL_BYTES_MAX,
    MAGIC,
    JournalWriter,
    read_journal,
    start_journal,
)

KEY = bytes(range(32))
BATCHES = [[b"one", b"two"], [b"three"], [b"", b"five", b"six"]]


def _journal(path: Path, *, first: int = 7, batches: list[list[bytes]] = BATCHES) -> list[int]:
    """A journal with `batches` from entry `first` on; returns its length before them and after each."""
    writer = start_journal(path, KEY, first)
    lengths = [path.stat().st_size]
    for batch in batches:
        writer.append(batch)
        lengths.append(path.stat().st_size)
    writer.close()
    return lengths


def test_batches_read_back_in_order(tmp_path: Path) -> None:
    lengths = _journal(tmp_path / "journal")
    content = read_journal(tmp_path / "journal", KEY)
    assert content.first == 7
    assert content.entries == [b"one", b"two", b"three", b"", b"five", b"six"]
    assert content.sound_bytes == lengths[-1]


def test_a_cut_anywhere_keeps_every_whole_batch_before_it(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    lengths = _journal(path)
    data = path.read_bytes()
    for cut in range(lengths[0], len(data)):
        path.write_bytes(data[:cut])
        whole = sum(length <= cut for length in lengths[1:])
        content = read_journal(path, KEY)
        assert content.entries == [entry for batch in BATCHES[:whole] for entry in batch]
        assert content.sound_bytes == lengths[whole]


def test_blocks_of_zeros_after_the_end_are_a_torn_batch(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    _journal(path)
    path.write_bytes(path.read_bytes() + bytes(4096))
    assert len(read_journal(path, KEY).entries) == 6


def test_a_flipped_byte_before_the_last_batch_is_told(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    lengths = _journal(path)
    data = path.read_bytes()
    for position in range(lengths[0], lengths[2]):
        broken = bytearray(data)
        broken[position] ^= 0x10
        path.write_bytes(broken)
        with pytest.raises(TamperError, match="damaged at byte"):
            read_journal(path, KEY)


def test_a_journal_goes_on_after_its_torn_end(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    lengths = _journal(path)
    path.write_bytes(path.read_bytes()[:-1])
    writer = JournalWriter(path, KEY, read_journal(path, KEY))
    assert path.stat().st_size == lengths[2]
    writer.append([b"new"])
    writer.close()
    assert read_journal(path, KEY).entries == [b"one", b"two", b"three", b"new"]


@pytest.mark.parametrize("data", [b"", b"something else entirely, and longer", MAGIC, MAGIC + bytes(23)])
def test_what_is_no_journal_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "journal").write_bytes(data)
    with pytest.raises(FormatError, match="not a ledger journal"):
        read_journal(tmp_path / "journal", KEY)


def test_a_batch_that_is_too_large_is_refused_before_it_is_written(tmp_path: Path) -> None:
    writer = start_journal(tmp_path / "journal", KEY, 0)
    with pytest.raises(ValueError, match="at most"):
        writer.append([bytes(65_000)] * (BATCH_BYTES_MAX // 65_000 + 1))
    writer.close()
    assert read_journal(tmp_path / "journal", KEY).entries == []


def test_every_byte_of_the_head_is_authenticated(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    (length, *_) = _journal(path)
    data = path.read_bytes()
    for position in range(len(MAGIC), length):
        broken = bytearray(data)
        broken[position] ^= 1
        path.write_bytes(broken)
        with pytest.raises(TamperError, match="its first index does not authenticate"):
            read_journal(path, KEY)


def test_another_key_reads_nothing(tmp_path: Path) -> None:
    _journal(tmp_path / "journal")
    with pytest.raises(TamperError, match="was not begun by this installation"):
        read_journal(tmp_path / "journal", bytes(32))


def _pieces(path: Path, **options: Any) -> tuple[bytes, list[bytes]]:
    """The head of such a journal, and its batches."""
    head, *ends = _journal(path, **options)
    data = path.read_bytes()
    return data[:head], [data[start:end] for start, end in pairwise([head, *ends])]


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2, 1), (0, 2), (1, 2), (0, 0, 1, 2), (2, 2)])
def test_batches_that_were_reordered_left_out_or_repeated_are_told(tmp_path: Path, order: tuple[int, ...]) -> None:
    path = tmp_path / "journal"
    head, batches = _pieces(path)
    # the sound one at the end shows that it is not the end that is torn
    path.write_bytes(head + b"".join(batches[place] for place in order) + batches[2])
    with pytest.raises(TamperError, match="a batch does not authenticate"):
        read_journal(path, KEY)


@pytest.mark.parametrize(
    "other",
    [{"first": 8}, {"batches": [[b"one", b"2"], [b"three"], [b"four"]]}, {"batches": [[b"one"], [b"two", b"three"]]}],
    ids=["begun elsewhere", "of the same length", "cut otherwise"],
)
def test_a_batch_from_another_journal_of_the_same_key_is_told(tmp_path: Path, other: dict[str, Any]) -> None:
    path = tmp_path / "journal"
    _, foreign = _pieces(path, **other)
    head, batches = _pieces(path)
    for place in range(1, len(foreign)):
        path.write_bytes(head + b"".join([*batches[:place], foreign[place], *batches[place:]]))
        with pytest.raises(TamperError, match="a batch does not authenticate"):
            read_journal(path, KEY)


def test_a_last_batch_that_does_not_authenticate_is_dropped_as_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    lengths = _journal(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    content = read_journal(path, KEY)
    assert content.entries == [b"one", b"two", b"three"]
    assert content.sound_bytes == lengths[2]


def test_reading_takes_memory_for_what_is_there_and_not_for_the_limit(tmp_path: Path) -> None:
    _journal(tmp_path / "journal")
    tracemalloc.start()
    read_journal(tmp_path / "journal", KEY)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1024 * 1024


@pytest.mark.slow
def test_a_journal_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    _journal(tmp_path / "journal")
    os.truncate(tmp_path / "journal", JOURNAL_BYTES_MAX + 1)  # takes no room on the disk
    with pytest.raises(FormatError, match="larger than"):
        read_journal(tmp_path / "journal", KEY)


def test_a_key_of_another_length_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        start_journal(tmp_path / "journal", b"", 0)
