"""What is let go is gone, what is kept is proved, and what is taken without being let go is told."""

import shutil
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from palladion.errors import FormatError, NotFoundError, TamperError
from palladion.ledger.audit import verify_ledger
from palladion.ledger.checkpoint import verify_checkpoint
from palladion.ledger.index import INDEX_FILE, Index, Question
from palladion.ledger.merkle import leaf_hash, verify_inclusion
from palladion.ledger.pruning import (
    PRUNED_FILE,
    decode_kept,
    encode_kept,
    kept_entries,
    plan,
    prune,
    pruned_record,
)
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import Record, decode_record, encode_record
from palladion.ledger.since import records_since
from palladion.ledger.tiles import TILE_WIDTH, tile_path
from palladion.ledger.writer import Ledger

from .ledgers import JOURNAL_KEY, KEY, ORIGIN, SIGNER, START

SIZE = 1100
NOW = START + timedelta(days=3)


def _record(number: int) -> Record:
    kind = "model.opened" if number % 50 == 0 else "answer.refused" if number % 7 == 0 else "answer.given"
    return Record(kind, START + timedelta(seconds=number), "client:a", "m@1", {"n": number})


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("l") / "ledger"
    with Ledger.create(directory, ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        for start in range(0, SIZE, 500):
            ledger.append([_record(number) for number in range(start, min(SIZE, start + 500))])
    return directory


@pytest.fixture
def directory(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "ledger")
    return tmp_path / "ledger"


def _say(directory: Path, before: int) -> int:
    """Record what is older than a number of seconds; the entry's number."""
    found = plan(LedgerReader(directory, KEY), START + timedelta(seconds=before), NOW)
    said = pruned_record(found, reason="a year is over", actor="user:t", subject="home", now=START + timedelta(days=1))
    with Ledger(directory, ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        return ledger.append([said])[0].index


def _prune(directory: Path, before: int) -> LedgerReader:
    number = _say(directory, before)
    prune(LedgerReader(directory, KEY), number)
    return LedgerReader(directory, KEY)


def test_a_plan_counts_whole_bundles_of_what_is_older(original: Path) -> None:
    found = plan(LedgerReader(original, KEY), START + timedelta(seconds=600), NOW)
    kept = sum(_record(number).kind == "model.opened" for number in range(512))
    assert (found.start, found.until, found.dropped, found.kept) == (0, 512, 512 - kept, kept)
    assert found.bytes == sum(
        len(encode_record(_record(number))) + 2 for number in range(512) if _record(number).kind != "model.opened"
    )
    assert plan(LedgerReader(original, KEY), START + timedelta(seconds=255), NOW).until == 0


def test_answers_are_gone_and_everything_else_is_proved(directory: Path) -> None:
    before = LedgerReader(directory, KEY)
    reader = _prune(directory, 600)
    expected = [n for n in range(SIZE) if n >= 512 or _record(n).kind == "model.opened"]
    assert [number for number, _ in reader.entries()] == [*expected, SIZE]
    assert all(decode_record(data, what="it") == _record(n) for n, data in reader.entries(0, SIZE))
    assert list((directory / "tile" / "entries").glob("00[01]")) == []
    # 1. what was kept has its proof, and the root over what was there before is what it was
    path = reader.inclusion_proof(50)
    verify_inclusion(leaf_hash(reader.entry(50)), 50, reader.size, path, reader.checkpoint.root)
    assert reader.root_at(before.size) == before.checkpoint.root
    # 2. who has an old entry, and asks whether it was in the log, is answered as well
    verify_inclusion(
        leaf_hash(encode_record(_record(3))), 3, reader.size, reader.inclusion_proof(3), reader.checkpoint.root
    )
    with pytest.raises(NotFoundError, match="entry 3 was pruned: entry 1100 says so"):
        reader.entry(3)
    # 3. all of it verifies, against what was saved before too
    report = verify_ledger(directory, KEY, against=[before.note])
    assert (report.size, report.pruned) == (SIZE + 1, reader.pruned)
    assert report.kinds["ledger.pruned"] == 1


def test_a_ledger_is_written_on_and_pruned_again(directory: Path) -> None:
    _prune(directory, 300)
    reader = _prune(directory, 800)
    assert reader.pruned is not None
    assert (reader.pruned.start, reader.pruned.until, reader.pruned.previous) == (256, 768, SIZE)
    assert verify_ledger(directory, KEY).size == SIZE + 2
    assert [n for n, _ in reader.entries(0, 300)] == [0, 50, 100, 150, 200, 250]


def test_it_may_be_interrupted_anywhere(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = _say(directory, 800)
    done: list[str] = []
    unlink = Path.unlink

    def stop(path: Path, missing_ok: bool = False) -> None:
        if path.parent.name == "entries":
            done.append(path.name)
            if len(done) == 2:
                raise KeyboardInterrupt
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", stop)
    with pytest.raises(KeyboardInterrupt):
        prune(LedgerReader(directory, KEY), number)
    assert verify_ledger(directory, KEY).size == SIZE + 1
    prune(LedgerReader(directory, KEY), number)
    assert verify_ledger(directory, KEY).size == SIZE + 1
    assert not (directory / tile_path("entries", 2)).exists()


def test_a_bundle_that_is_taken_without_a_word_is_told(directory: Path) -> None:
    (directory / tile_path("entries", 0)).unlink()
    with pytest.raises(TamperError, match="lacks tile/entries/000"):
        verify_ledger(directory, KEY)


@pytest.mark.parametrize("marker", [b'{"entry":50}', b'{"entry":-1}', b'{"entry":99999}', b"{}", b"x"])
def test_a_mark_that_no_entry_stands_behind_is_told(directory: Path, marker: bytes) -> None:
    (directory / tile_path("entries", 0)).unlink()
    (directory / PRUNED_FILE).write_bytes(marker)
    with pytest.raises(TamperError, match=r"names no entry by which|lacks tile/entries/000"):
        verify_ledger(directory, KEY)
    with pytest.raises(TamperError):
        list(LedgerReader(directory, KEY).entries())


def test_more_than_was_let_go_cannot_be_taken(directory: Path) -> None:
    _prune(directory, 300)
    (directory / tile_path("entries", 1)).unlink()
    with pytest.raises(TamperError, match="lacks tile/entries/001"):
        verify_ledger(directory, KEY)


def test_what_was_kept_cannot_be_taken_or_changed(directory: Path) -> None:
    _prune(directory, 600)
    path = directory / tile_path("kept", 0)
    kept = kept_entries(directory, 0)
    # 1. one of them taken
    path.write_bytes(encode_kept({place: data for place, data in kept.items() if place != 50}))
    with pytest.raises(TamperError, match="others are left than entry 1100 kept"):
        verify_ledger(directory, KEY)
    # nobody who reads is told that it was pruned
    for read in (
        lambda reader: reader.entry(50),
        lambda reader: list(reader.entries()),
        lambda reader: reader.entry(3),
    ):
        with pytest.raises(TamperError, match="others are left"):
            read(LedgerReader(directory, KEY))
    # 2. one of them changed
    path.write_bytes(encode_kept(kept | {50: kept[50].replace(b'"n":50', b'"n":51')}))
    with pytest.raises(TamperError, match="others are left"):
        LedgerReader(directory, KEY).entry(100)
    # 3. all of them
    path.unlink()
    with pytest.raises(TamperError, match="others are left"):
        verify_ledger(directory, KEY)
    # 4. with their digests
    path.write_bytes(encode_kept(kept))
    digests = directory / f"{PRUNED_FILE}.{SIZE}"
    changed = bytearray(digests.read_bytes())
    changed[0] ^= 1
    digests.write_bytes(changed)
    with pytest.raises(TamperError, match="is not what entry 1100 says was kept"):
        LedgerReader(directory, KEY).entry(100)
    digests.unlink()
    with pytest.raises(TamperError, match="which was written when it was pruned"):
        verify_ledger(directory, KEY)


@pytest.mark.slow
def test_the_record_itself_may_lie_in_what_is_pruned_later(directory: Path) -> None:
    _prune(directory, 300)
    with Ledger(directory, ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        ledger.append([_record(number) for number in range(SIZE, SIZE + 600)])
    reader = _prune(directory, 2 * 86_400)
    assert reader.pruned is not None
    assert reader.pruned.until > SIZE
    assert decode_record(reader.entry(SIZE), what="it").kind == "ledger.pruned"
    assert verify_ledger(directory, KEY).pruned == reader.pruned


@pytest.mark.slow
def test_reports_and_questions_go_on(directory: Path) -> None:
    index = Index(directory / INDEX_FILE)
    index.update(LedgerReader(directory, KEY))
    reader = _prune(directory, 600)
    index.forget(reader)
    question = Question(kinds=("answer.given", "model.opened"))
    found = [number for number, _ in index.find(reader, question)]
    assert found == [n for n in range(SIZE) if (n >= 512 and n % 7 and n % 50) or n % 50 == 0]
    index.close()
    assert reader.pruned is not None
    with closing(sqlite3.connect(directory / INDEX_FILE)) as database:
        for table in ("by_kind", "by_actor", "by_subject"):
            statement = f"SELECT COUNT(*), COUNT(DISTINCT kind) FROM {table} WHERE bundle < ?"
            rows, kinds = database.execute(statement, (reader.pruned.until // TILE_WIDTH,)).fetchone()
            assert rows >= kinds == 1  # models that were opened
    # from a moment within what is left, and from one before
    for since in (700, 100):
        seconds = [
            (record.time - START).total_seconds()
            for record in records_since(reader, START + timedelta(seconds=since), frozenset({"model.opened"}))
        ]
        assert seconds == [n for n in range(0, SIZE, 50) if n >= since]


def test_a_record_of_a_time_to_come_holds_nothing_back(directory: Path) -> None:
    wrong = Record("answer.given", START + timedelta(days=36_500), "client:a", "m@1", {})
    with Ledger(directory, ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        ledger.append([wrong, *(_record(number) for number in range(SIZE, SIZE + 500))])
    assert plan(LedgerReader(directory, KEY), START + timedelta(days=1), NOW).until > SIZE


def test_a_reader_that_was_there_before_goes_on(directory: Path) -> None:
    reader = LedgerReader(directory, KEY)
    assert reader.pruned is None
    _prune(directory, 600)
    assert [number for number, _ in reader.entries(0, 300)] == [0, 50, 100, 150, 200, 250]


def test_an_earlier_checkpoint_is_read_with_what_is_left(directory: Path) -> None:
    note = LedgerReader(directory, KEY).note
    _prune(directory, 600)
    earlier = LedgerReader(directory, KEY, note=note)
    assert verify_checkpoint(note, KEY).size == SIZE
    assert decode_record(earlier.entry(500), what="it") == _record(500)
    with pytest.raises(NotFoundError):
        earlier.entry(3)


@pytest.mark.parametrize(
    "data", [b"\x00", b"\x00\x01\x00\x05abc", b"\x00\x01\x00\x00\x00\x01\x00\x00", b"\x01\x00\x00\x00"]
)
def test_what_is_no_list_of_kept_entries_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode_kept(data, what="it")
    entries = {0: b"", 7: b"abc", 255: b"x" * 300}
    assert decode_kept(encode_kept(entries), what="it") == entries
