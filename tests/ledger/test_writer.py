"""Appending: what was acknowledged stays, whatever fails; and there is one writer."""

import errno
import os
import signal
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from palladion.errors import BusyError, ConflictError, PalladionError, StorageError, TamperError
from palladion.keys import Ed25519Signer
from palladion.ledger import merkle, writer
from palladion.ledger.audit import verify_ledger
from palladion.ledger.journal import BATCH_BYTES_MAX, JOURNAL_BYTES_MAX, JournalWriter, read_journal
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import encode_record
from palladion.ledger.tiles import encode_bundle
from palladion.ledger.writer import BATCH_MAX, JOURNAL_FILE, Ledger

from .ledgers import JOURNAL_KEY, KEY, ORIGIN, SIGNER, make, record


def _open(directory: Path) -> Ledger:
    return Ledger(directory, ORIGIN, SIGNER, JOURNAL_KEY)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[1], [3, 5], [255, 1, 1], [256], [300, 212, 1], [700]])
def test_a_ledger_written_in_any_portions_has_the_root_of_its_records(tmp_path: Path, sizes: list[int]) -> None:
    directory = tmp_path / "ledger"
    Ledger.create(directory, ORIGIN, SIGNER, JOURNAL_KEY).close()
    number = 0
    for size in sizes:
        with _open(directory) as ledger:
            ledger.append([record(n) for n in range(number, number + size)])
            number += size
    leaves = [merkle.leaf_hash(encode_record(record(n))) for n in range(number)]
    report = verify_ledger(directory, KEY)
    assert (report.size, report.root) == (number, merkle.list_root(leaves))


@pytest.mark.slow
def test_a_large_ledger_has_tiles_on_three_levels_and_no_stale_partial_ones(tmp_path: Path) -> None:
    directory = tmp_path / "ledger"
    make(directory, 66_000)
    assert verify_ledger(directory, KEY).size == 66_000
    assert {path.name for path in (directory / "tile").iterdir()} == {"0", "1", "2", "entries"}
    with _open(directory) as ledger:
        for number in range(66_000, 66_200):
            ledger.append([record(number)])
            if number % 50 == 0:
                ledger.checkpoint()
    assert verify_ledger(directory, KEY).size == 66_200
    # 66,048 = 258 * 256: the tile that was partial at 66,000 is full now
    assert not (directory / "tile" / "0" / "257.p").exists()
    assert (directory / "tile" / "0" / "258.p").is_dir()


def test_receipts_name_the_log_the_index_and_the_leaf(tmp_path: Path) -> None:
    with Ledger.create(tmp_path / "ledger", ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        ledger.append([record(0)])
        (receipt,) = ledger.append([record(1)])
    assert str(receipt) == f"{ORIGIN}/1"
    assert receipt.leaf_hash == merkle.leaf_hash(encode_record(record(1)))


@pytest.mark.slow
def test_acknowledged_records_survive_a_writer_that_never_closed(tmp_path: Path) -> None:
    directory = tmp_path / "ledger"
    make(directory, 300)
    script = (
        "import os, sys, pathlib\nfrom tests.ledger.ledgers import *\n"
        "ledger = Ledger(pathlib.Path(sys.argv[1]), ORIGIN, SIGNER, JOURNAL_KEY)\n"
        "ledger.append([record(300), record(301)]); os._exit(9)\n"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", script, str(directory)], check=False, cwd=root).returncode == 9
    assert LedgerReader(directory, KEY).size == 300
    with _open(directory) as ledger:
        assert ledger.size == 302
    assert [index for index, _ in LedgerReader(directory, KEY).tail(2)] == [300, 301]
    assert verify_ledger(directory, KEY).size == 302


class InjectedError(Exception):
    """The n-th operation failed, or the process was stopped before it."""


def _failing(n: int, failure: Callable[[], BaseException]) -> Callable[[Any], Any]:
    """A wrapper for os functions; the n-th call of any of them fails instead."""
    state = {"calls": 0}

    def wrap(function: Any) -> Any:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            state["calls"] += 1
            if state["calls"] == n:
                raise failure()
            return function(*arguments, **options)

        return wrapped

    return wrap


@pytest.mark.slow
@pytest.mark.parametrize(
    "failure", [lambda: OSError(28, "No space left on device"), InjectedError], ids=["disk-full", "stopped"]
)
def test_whichever_operation_fails_no_acknowledged_record_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Callable[[], BaseException]
) -> None:
    finished = False
    n = 0
    while not finished:
        n += 1
        directory = tmp_path / str(n)
        make(directory, 254)
        acknowledged = 254
        ledger = _open(directory)
        with monkeypatch.context() as patch:
            wrap = _failing(n, failure)
            for name in ("write", "fsync", "fdatasync", "open"):
                patch.setattr(os, name, wrap(getattr(os, name)))
            patch.setattr(Path, "replace", wrap(Path.replace))
            try:
                for _ in range(3):
                    ledger.append([record(acknowledged), record(acknowledged + 1)])
                    acknowledged += 2
                    ledger.checkpoint()
                finished = True
            except (StorageError, InjectedError):
                with pytest.raises(StorageError, match="refuses to go on"):
                    ledger.append([record(0)])
        ledger._lock.close()
        with _open(directory) as recovered:
            # a record may have reached the disk without its acknowledgement, never the other way round
            assert acknowledged <= recovered.size <= acknowledged + 2
        assert verify_ledger(directory, KEY).size >= acknowledged
        kept = [entry for _, entry in LedgerReader(directory, KEY).entries(254)]
        assert kept == [encode_record(record(254 + i)) for i in range(len(kept))]
    assert n > 30


def _read_only(patch: pytest.MonkeyPatch) -> None:
    """From now on the disk is mounted read-only: nothing is written, synced, made or replaced, and reading goes on."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("write", "pwrite", "writev", "pwritev", "fsync", "fdatasync", "mkdir", "replace", "rename", "unlink"):
        patch.setattr(os, name, refuse)
    for name in ("replace", "mkdir", "unlink"):
        patch.setattr(Path, name, refuse)
    real = os.open

    def only_read(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            refuse()
        return real(path, flags, *arguments, **options)

    patch.setattr(os, "open", only_read)


def test_a_disk_that_becomes_read_only_takes_nothing_more_and_is_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, 300)
    ledger = _open(tmp_path)
    ledger.append([record(300)])
    with monkeypatch.context() as patch:
        _read_only(patch)
        with pytest.raises(StorageError, match=r"(?i)read-only"):
            ledger.append([record(301)])
        with pytest.raises(StorageError, match="refuses to go on"):
            ledger.append([record(301)])
        # what is published is proved as before
        assert verify_ledger(tmp_path, KEY).size == 300
        assert [index for index, _ in LedgerReader(tmp_path, KEY).tail(1)] == [299]
    ledger._lock.close()
    with _open(tmp_path) as recovered:
        # never acknowledged, and there was no place that it could have come to
        assert recovered.size == 301
        recovered.append([record(301)])
    assert verify_ledger(tmp_path, KEY).size == 302


def test_a_ledger_on_a_read_only_disk_is_not_opened_for_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, 300)
    with monkeypatch.context() as patch:
        _read_only(patch)
        with pytest.raises(StorageError, match=r"(?i)read-only"):
            _open(tmp_path)
        assert LedgerReader(tmp_path, KEY).size == 300
    with _open(tmp_path) as ledger:
        assert ledger.size == 300


@pytest.mark.slow
def test_a_killed_writer_keeps_every_record_that_it_acknowledged(tmp_path: Path) -> None:
    directory = tmp_path / "ledger"
    Ledger.create(directory, ORIGIN, SIGNER, JOURNAL_KEY).close()
    script = (
        "import sys, pathlib\nfrom tests.ledger.ledgers import *\n"
        "ledger = Ledger(pathlib.Path(sys.argv[1]), ORIGIN, SIGNER, JOURNAL_KEY)\n"
        "while True:\n"
        "    ledger.append([record(ledger.size)]); print(ledger.size, flush=True)\n"
        "    if ledger.size % 7 == 0: ledger.checkpoint()\n"
    )
    root = Path(__file__).parents[2]
    acknowledged = 0
    for rounds in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", script, str(directory)], stdout=subprocess.PIPE, text=True, cwd=root
        ) as process:
            assert process.stdout is not None
            for _ in range(40 + 13 * rounds):
                acknowledged = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            acknowledged = max([acknowledged, *(int(line) for line in process.stdout if line.endswith("\n"))])
        with _open(directory) as ledger:
            assert ledger.size >= acknowledged
        entries = [entry for _, entry in LedgerReader(directory, KEY).entries()]
        assert entries == [encode_record(record(number)) for number in range(len(entries))]
        verify_ledger(directory, KEY)


@pytest.mark.parametrize("opened", range(2))
def test_whoever_dies_while_tiles_are_written_leaves_those_that_are_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: int
) -> None:
    directory = tmp_path / "ledger"
    make(directory, 520)  # two full tiles, which a partial one above them holds
    ledger = _open(directory)
    ledger.append([record(520)])
    count = 0

    def die(descriptor: int, data: bytes) -> int:
        nonlocal count
        count += 1
        if count > opened:
            raise _Died  # the file is there, and empty
        return write(descriptor, data)

    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", die)
        with pytest.raises(_Died):
            ledger.checkpoint()
    ledger.close()
    assert LedgerReader(directory, KEY).root_at(512)
    with _open(directory) as again:
        assert again.size == 521
    assert verify_ledger(directory, KEY).size == 521


class _Died(BaseException):
    """As a process that is killed: nothing of ours catches it."""


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "ledger", 1)
    with _open(tmp_path / "ledger"), pytest.raises(BusyError, match="another process"):
        _open(tmp_path / "ledger")
    _open(tmp_path / "ledger").close()


def test_a_ledger_is_not_made_over_another(tmp_path: Path) -> None:
    make(tmp_path / "ledger", 3)
    with pytest.raises(ConflictError, match="already"):
        Ledger.create(tmp_path / "ledger", ORIGIN, SIGNER, JOURNAL_KEY)
    assert verify_ledger(tmp_path / "ledger", KEY).size == 3


def test_a_batch_over_the_limit_is_refused_whole(tmp_path: Path) -> None:
    with Ledger.create(tmp_path / "ledger", ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        with pytest.raises(ValueError, match="at most 1024"):
            ledger.append([record(0)] * (BATCH_MAX + 1))
        with pytest.raises(ValueError, match="at most 65535"):
            ledger.append([record(0), record(1, "x" * 66_000)])
        assert ledger.size == 0
        assert ledger.append([]) == []


def test_a_checkpoint_is_published_before_memory_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "UNPUBLISHED_MAX", 10)
    with Ledger.create(tmp_path / "ledger", ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        ledger.append([record(n) for n in range(9)])
        assert LedgerReader(tmp_path / "ledger", KEY).size == 0
        ledger.append([record(9)])
        assert LedgerReader(tmp_path / "ledger", KEY).size == 10


def test_a_checkpoint_is_published_before_the_journal_is_too_large_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert writer.UNPUBLISHED_BYTES_MAX + BATCH_BYTES_MAX + 4096 < JOURNAL_BYTES_MAX
    monkeypatch.setattr(writer, "UNPUBLISHED_BYTES_MAX", 100_000)
    with Ledger.create(tmp_path / "ledger", ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        ledger.append([record(0, "x" * 50_000)])
        assert ledger.published == 0
        ledger.append([record(1, "x" * 50_000)])
        assert ledger.published == 2
        ledger.append([record(2)])
        assert ledger.published == 2


def test_what_was_in_the_journal_before_counts_towards_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "ledger", 1)
    ledger = _open(tmp_path / "ledger")
    ledger.append([record(1, "x" * 50_000)])
    ledger._lock.close()
    monkeypatch.setattr(writer, "UNPUBLISHED_BYTES_MAX", 50_000)
    with _open(tmp_path / "ledger") as recovered:
        recovered.append([record(2)])
        assert recovered.published == 3


def test_a_batch_that_somebody_without_the_key_puts_into_the_journal_is_never_signed(tmp_path: Path) -> None:
    directory = tmp_path / "ledger"
    make(directory, 3)
    content = encode_bundle([encode_record(record(666))])
    length = struct.pack("<I", len(content))
    forged = length + struct.pack("<I", zlib.crc32(length)) + sha256(content).digest()[:16] + content
    with (directory / "journal").open("ab") as stream:
        stream.write(forged)
    with _open(directory) as ledger:
        ledger.append([record(3)])
    assert verify_ledger(directory, KEY).size == 4
    assert LedgerReader(directory, KEY).entry(3) == encode_record(record(3))


@pytest.mark.parametrize("entry", [b"not json", b'{"v":1}', encode_record(record(3)).replace(b'"v":1', b'"v": 1')])
def test_a_journal_entry_that_is_no_record_is_not_accepted(tmp_path: Path, entry: bytes) -> None:
    directory = tmp_path / "ledger"
    make(directory, 3)
    path = directory / JOURNAL_FILE
    journal = JournalWriter(path, JOURNAL_KEY, read_journal(path, JOURNAL_KEY))
    journal.append([encode_record(record(3)), entry])
    journal.close()
    with pytest.raises(TamperError, match="entry 4, in the journal,"):
        _open(directory)
    assert verify_ledger(directory, KEY).size == 3


def test_another_journal_key_does_not_open_a_ledger(tmp_path: Path) -> None:
    make(tmp_path / "ledger", 3)
    with pytest.raises(TamperError, match="does not authenticate"):
        Ledger(tmp_path / "ledger", ORIGIN, SIGNER, bytes(32))


def test_another_key_cannot_go_on_with_a_ledger(tmp_path: Path) -> None:
    make(tmp_path / "ledger", 3)
    with pytest.raises(TamperError, match="no signature by the key"):
        Ledger(tmp_path / "ledger", ORIGIN, Ed25519Signer(b"\x09" * 32), JOURNAL_KEY)


def test_an_older_checkpoint_put_back_is_noticed_on_opening(tmp_path: Path) -> None:
    directory = tmp_path / "ledger"
    make(directory, 3)
    old = (directory / "checkpoint").read_bytes()
    with _open(directory) as ledger:
        ledger.append([record(3)])
    (directory / "checkpoint").write_bytes(old)
    with pytest.raises(TamperError, match="one of the two was replaced"):
        _open(directory)


def test_an_edited_tile_is_noticed_on_opening(tmp_path: Path) -> None:
    directory = tmp_path / "ledger"
    make(directory, 300)
    tile = directory / "tile" / "1" / "000.p" / "1"
    data = bytearray(tile.read_bytes())
    data[20] ^= 1
    tile.write_bytes(data)
    with pytest.raises(TamperError, match="do not lead to its signed root"):
        _open(directory)


def test_an_edited_entry_of_the_unfinished_bundle_is_named_on_opening(tmp_path: Path) -> None:
    directory = tmp_path / "ledger"
    make(directory, 260)
    bundle = directory / "tile" / "entries" / "001.p" / "4"
    bundle.write_bytes(bundle.read_bytes().replace(b"fraud@258", b"fraud@666"))
    with pytest.raises(TamperError, match="entry 258 was changed"):
        _open(directory)


def test_a_ledger_that_is_not_there_is_an_error_not_a_new_one(tmp_path: Path) -> None:
    with pytest.raises(PalladionError):
        _open(tmp_path / "nowhere")


@pytest.mark.slow
@pytest.mark.parametrize("failing", [0, 10, 39])
def test_a_sync_that_fails_among_many_side_by_side_is_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    directory = tmp_path / "ledger"
    size = 20 * 256  # twenty tiles and twenty bundles
    ledger = Ledger.create(directory, ORIGIN, SIGNER, JOURNAL_KEY)
    for start in range(0, size, 512):
        ledger.append([record(number) for number in range(start, start + 512)])
    note, lock, done = (directory / "checkpoint").read_bytes(), threading.Lock(), 0

    def fail(descriptor: int) -> None:
        nonlocal done
        with lock:
            done += 1
            mine = done - 1
        if mine == failing:
            raise OSError(errno.EIO, "the disk")
        real(descriptor)

    real = os.fsync
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        with pytest.raises(StorageError):
            ledger.checkpoint()
        assert done >= failing
    assert (directory / "checkpoint").read_bytes() == note
    with pytest.raises(StorageError, match="refuses to go on"):
        ledger.checkpoint()
    ledger.close()
    with Ledger(directory, ORIGIN, SIGNER, JOURNAL_KEY) as again:
        assert again.size == size
    assert verify_ledger(directory, KEY).size == size
