"""The index finds what a scan finds, follows the ledger, and what it says is never believed."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palladion.errors import StorageError, TamperError
from palladion.ledger import index as index_module
from palladion.ledger.index import INDEX_FILE, Index, Question, scan
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import Record
from palladion.ledger.writer import Ledger

from .ledgers import JOURNAL_KEY, KEY, ORIGIN, SIGNER, START

KINDS, ACTORS, SUBJECTS = ("answer.given", "answer.refused", "model.opened"), ("client:a", "client:b"), ("m@1", "m@2")
SIZE = 700


def _record(number: int) -> Record:
    details = {"n": number % 7, "route": f"/v{number % 2}", "deep": {"er": number % 3 == 0}}
    return Record(
        KINDS[number % 3],
        START + timedelta(seconds=number),
        ACTORS[number % 5 // 3],
        SUBJECTS[number % 11 // 7],
        details,
    )


def _grow(directory: Path, size: int) -> LedgerReader:
    with Ledger(directory, ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        for start in range(ledger.size, size, 500):
            ledger.append([_record(number) for number in range(start, min(size, start + 500))])
    return LedgerReader(directory, KEY)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> LedgerReader:
    directory = tmp_path_factory.mktemp("l") / "ledger"
    Ledger.create(directory, ORIGIN, SIGNER, JOURNAL_KEY).close()
    return _grow(directory, SIZE)


@pytest.fixture(scope="module")
def index(original: LedgerReader) -> Iterator[Index]:
    opened = Index(original.directory / INDEX_FILE)
    assert opened.update(original) == SIZE
    yield opened
    opened.close()


_moments = st.none() | st.integers(-5, SIZE + 5).map(lambda seconds: START + timedelta(seconds=seconds))
_questions = st.builds(
    Question,
    st.lists(st.sampled_from([*KINDS, "model.sealed"]), max_size=3, unique=True).map(tuple),
    st.none() | st.sampled_from([*ACTORS, "nobody"]),
    st.none() | st.sampled_from(SUBJECTS),
    st.none() | st.sampled_from(["client:a", "m@2"]),
    _moments,
    _moments,
    st.lists(st.sampled_from([("n", "3"), ("route", "/v1"), ("deep.er", "true"), ("n.x", "1")]), max_size=2).map(tuple),
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=_questions, newest=st.booleans())
def test_the_index_finds_what_reading_everything_finds(
    original: LedgerReader, index: Index, question: Question, newest: bool
) -> None:
    expected = [(n, _record(n)) for n in range(SIZE) if question.fits(_record(n))]
    assert list(scan(original, question)) == expected
    assert list(index.find(original, question, newest_first=newest)) == (expected[::-1] if newest else expected)


def test_a_question_without_conditions_fits_everything(original: LedgerReader, index: Index) -> None:
    assert [number for number, _ in index.find(original, Question())] == list(range(SIZE))


@pytest.fixture
def made(tmp_path: Path) -> LedgerReader:
    Ledger.create(tmp_path / "ledger", ORIGIN, SIGNER, JOURNAL_KEY).close()
    return _grow(tmp_path / "ledger", 300)


def _path(directory: Path) -> Any:
    return closing(Index(directory / INDEX_FILE))


def _index(reader: LedgerReader) -> Any:
    return _path(reader.directory)


def test_it_follows_the_ledger_and_reads_only_what_is_new(made: LedgerReader) -> None:
    with _index(made) as index:
        index.update(made)
        later = _grow(made.directory, 340)
        seen: list[tuple[int, int]] = []
        assert index.update(later, lambda done, total: seen.append((done, total))) == 40
        assert seen == [(340, 340)]
        assert index.update(later) == 0
        # somebody who still has the checkpoint before sees what that covers
        assert index.update(made) == 0
        assert len(list(index.find(made, Question()))) == 300
    assert (made.directory / INDEX_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_an_index_of_another_history_is_made_anew(made: LedgerReader, tmp_path: Path) -> None:
    with _index(made) as index:
        index.update(made)
    other = tmp_path / "other"
    with Ledger.create(other, ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        ledger.append([_record(number + 1) for number in range(310)])
    (other / INDEX_FILE).write_bytes((made.directory / INDEX_FILE).read_bytes())
    reader = LedgerReader(other, KEY)
    with _index(reader) as index:
        assert index.update(reader) == 310
        assert [record for _, record in index.find(reader, Question())] == [_record(n + 1) for n in range(310)]


def test_a_busy_index_is_an_error_and_not_made_anew(made: LedgerReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palladion.ledger.index.BUSY_SECONDS", 0.01)
    with _index(made) as index:
        index.update(made)
        later = _grow(made.directory, 340)
        with closing(sqlite3.connect(made.directory / INDEX_FILE)) as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(StorageError, match="locked"):
                index.update(later)
        assert index.update(later) == 40


@pytest.mark.slow
@pytest.mark.parametrize("damage", [b"no database at all, whatever its name says", b""])
def test_a_damaged_index_is_made_anew(made: LedgerReader, damage: bytes) -> None:
    with _index(made) as index:
        index.update(made)
    (made.directory / INDEX_FILE).write_bytes(damage)
    with _index(made) as index:
        assert index.update(made) == 300
        assert len(list(index.find(made, Question(kinds=("answer.given",))))) == 100


def _forge(reader: LedgerReader, statement: str) -> None:
    with closing(sqlite3.connect(reader.directory / INDEX_FILE)) as database, database:
        database.execute(statement)


def test_what_a_forged_index_names_is_not_believed(made: LedgerReader) -> None:
    with _index(made) as index:
        index.update(made)
        # client:a is said to have sealed models, in bundles that there are and in some that there are not
        sealed = index_module._number_of("model.sealed")
        _forge(made, f"UPDATE by_actor SET kind = {sealed} WHERE kind = {index_module._number_of('answer.given')}")
        for bundle in (100_000, -7):
            _forge(made, f"INSERT INTO by_kind VALUES ({sealed}, {bundle})")
        _forge(made, f"INSERT INTO by_kind VALUES ({sealed}, 'none')")
        assert list(index.find(made, Question(kinds=("model.sealed",)))) == []
        assert list(index.find(made, Question(kinds=("model.sealed",), actor="client:a"))) == []


def test_an_index_that_cannot_be_read_is_an_error_with_a_way_out(made: LedgerReader) -> None:
    with _index(made) as index:
        index.update(made)
        _forge(made, "DROP TABLE by_actor")
        with pytest.raises(StorageError, match="cannot be read") as raised:
            list(index.find(made, Question(actor="client:a")))
    assert "--scan" in raised.value.hints[0]


def test_what_a_forged_index_hides_a_scan_finds(made: LedgerReader) -> None:
    question = Question(actor="client:b")
    with _index(made) as index:
        index.update(made)
        _forge(made, "DELETE FROM by_actor WHERE bundle = 0")
        assert 3 not in [number for number, _ in index.find(made, question)]
    assert 3 in [number for number, _ in scan(made, question)]


def test_an_entry_that_was_changed_is_told_and_not_indexed(made: LedgerReader) -> None:
    path = made.directory / "tile" / "entries" / "000"
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    reader = LedgerReader(made.directory, KEY)
    with _index(reader) as index, pytest.raises(TamperError, match="entry 0 was changed"):
        index.update(reader)


def test_a_bundle_that_was_known_in_part_is_found_by_what_came_since(tmp_path: Path) -> None:
    directory = tmp_path / "ledger"
    # the clock goes backwards meanwhile
    records = [replace(_record(0), actor=f"client:{n}", time=START - timedelta(seconds=n)) for n in range(600)]
    with Ledger.create(directory, ORIGIN, SIGNER, JOURNAL_KEY) as ledger, _path(directory) as index:
        for size in (1, 255, 256, 300, 600):
            ledger.append(records[ledger.size : size])
            ledger.checkpoint()
            reader = LedgerReader(directory, KEY)
            index.update(reader)
            for number in {0, *(number for number in (128, 254, 255, 256, 299) if number < size), size - 1}:
                question = Question(actor=f"client:{number}", until=START - timedelta(seconds=number - 1))
                assert [found for found, _ in index.find(reader, question)] == [number]
                late = replace(question, since=START - timedelta(seconds=number - 1))
                assert list(index.find(reader, late)) == []


def test_an_index_of_a_release_before_is_made_anew(made: LedgerReader) -> None:
    path = made.directory / INDEX_FILE
    with closing(sqlite3.connect(path)) as old, old:
        old.execute("CREATE TABLE state (version INTEGER, origin TEXT, size INTEGER, root BLOB)")
        old.execute("INSERT INTO state VALUES (2, ?, 300, ?)", (ORIGIN, made.root_at(300)))
        old.execute("CREATE TABLE entry (number INTEGER PRIMARY KEY)")
        old.execute("CREATE TABLE word (id INTEGER PRIMARY KEY, text TEXT UNIQUE)")
    with _index(made) as index:
        assert index.update(made) == 300
    with closing(sqlite3.connect(path)) as new:
        tables = {name for (name,) in new.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == {"state", "bundle", "by_kind", "by_actor", "by_subject"}


def test_no_name_stands_in_it(made: LedgerReader) -> None:
    with _index(made) as index:
        index.update(made)
    data = (made.directory / INDEX_FILE).read_bytes()
    assert [text for text in (*KINDS, *ACTORS, *SUBJECTS) if text.encode() in data] == []
