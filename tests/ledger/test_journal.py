"""The journal: torn ends are dropped, other damage is told."""

from pathlib import Path

import pytest

from palladion.errors import FormatError, TamperError
from palladion.ledger.journal import BATCH_BYTES_MAX, MAGIC, JournalWriter, read_journal, start_journal

BATCHES = [[b"one", b"two"], [b"three"], [b"", b"five", b"six"]]


def _journal(path: Path) -> list[int]:
    """A journal with `BATCHES` after entry 7; returns its length after each batch."""
    writer = start_journal(path, 7)
    lengths = [path.stat().st_size]
    for batch in BATCHES:
        writer.append(batch)
        lengths.append(path.stat().st_size)
    writer.close()
    return lengths


def test_batches_read_back_in_order(tmp_path: Path) -> None:
    lengths = _journal(tmp_path / "journal")
    content = read_journal(tmp_path / "journal")
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
        content = read_journal(path)
        assert content.entries == [entry for batch in BATCHES[:whole] for entry in batch]
        assert content.sound_bytes == lengths[whole]


def test_blocks_of_zeros_after_the_end_are_a_torn_batch(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    _journal(path)
    path.write_bytes(path.read_bytes() + bytes(4096))
    assert len(read_journal(path).entries) == 6


def test_a_flipped_byte_before_the_last_batch_is_told(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    lengths = _journal(path)
    data = path.read_bytes()
    for position in range(lengths[0], lengths[2]):
        broken = bytearray(data)
        broken[position] ^= 0x10
        path.write_bytes(broken)
        with pytest.raises(TamperError, match="damaged at byte"):
            read_journal(path)


def test_a_journal_goes_on_after_its_torn_end(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    lengths = _journal(path)
    path.write_bytes(path.read_bytes()[:-1])
    writer = JournalWriter(path, read_journal(path))
    assert path.stat().st_size == lengths[2]
    writer.append([b"new"])
    writer.close()
    assert read_journal(path).entries == [b"one", b"two", b"three", b"new"]


@pytest.mark.parametrize("data", [b"", b"something else entirely, and longer", MAGIC])
def test_what_is_no_journal_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "journal").write_bytes(data)
    with pytest.raises(FormatError, match="not a ledger journal"):
        read_journal(tmp_path / "journal")


def test_a_batch_that_is_too_large_is_refused_before_it_is_written(tmp_path: Path) -> None:
    writer = start_journal(tmp_path / "journal", 0)
    with pytest.raises(ValueError, match="at most"):
        writer.append([bytes(65_000)] * (BATCH_BYTES_MAX // 65_000 + 1))
    writer.close()
    assert read_journal(tmp_path / "journal").entries == []
