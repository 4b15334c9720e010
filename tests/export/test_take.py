"""Which entries are taken, and that none is that cannot be proved."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from palladion.errors import TamperError
from palladion.export.take import take
from palladion.ledger.index import Question, scan
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import Record
from palladion.ledger.tiles import TILE_WIDTH, tile_path
from tests.export.items import START, WHO, make, refusals
from tests.ledger.ledgers import KEY


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Refusals of one client for a quarter of an hour, and other records between them that quote one."""
    folder = tmp_path_factory.mktemp("take") / "ledger"
    quoting = Record("incident.noted", START, "user:a", "incident:1", {"text": '"kind":"answer.refused"'})
    records = refusals(900)
    records[::300] = [quoting] * 3
    make(folder, records)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "question",
    [
        Question(),
        Question(kinds=("answer.refused",)),
        Question(kinds=("incident.noted", "model.opened")),
        Question(actor="user:a"),
        Question(party=WHO),
        Question(party="user:a", kinds=("answer.refused", "incident.noted")),
        Question(subject=WHO, kinds=("answer.refused",), details=(("requests", "17"),)),
        Question(since=START + timedelta(seconds=850), until=START + timedelta(seconds=860)),
        Question(kinds=("no.such",)),
    ],
)
def test_what_is_taken_is_what_a_scan_finds(question: Question, directory: Path) -> None:
    reader = LedgerReader(directory, KEY)
    found, expected, entries = list(take(reader, question)), list(scan(reader, question)), dict(reader.entries())
    assert [item.number for item in found] == [number for number, _ in expected]
    assert all(item.record == record for item, (_, record) in zip(found, expected, strict=True))
    assert all(item.data == entries[item.number] for item in found)


def test_what_is_before_the_moment_is_not_read(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, read = LedgerReader(directory, KEY), list[int]()
    entries = reader.entries

    def noticed(start: int) -> Iterator[tuple[int, bytes]]:
        read.append(start)
        return entries(start)

    monkeypatch.setattr(reader, "entries", noticed)
    # a record may be written up to ten minutes after its time
    found = list(take(reader, Question(since=START + timedelta(seconds=890))))
    assert [item.number for item in found] == list(range(890, 900))
    assert read == [TILE_WIDTH]


def test_a_start_is_kept(directory: Path) -> None:
    assert [item.number for item in take(LedgerReader(directory, KEY), Question(), start=897)] == [897, 898, 899]


def test_a_client_is_named_on_either_side_and_only_where_names_are_given(directory: Path) -> None:
    reader, question = LedgerReader(directory, KEY), Question(until=START + timedelta(seconds=3))
    assert {item.name for item in take(reader, question)} == {None}
    assert {item.name for item in take(reader, question, names={WHO: "acme/web"})} == {None, "acme/web"}


def test_nothing_of_a_piece_that_was_changed_is_taken(tmp_path: Path) -> None:
    make(tmp_path / "ledger", refusals(600))
    path = tmp_path / "ledger" / tile_path("entries", 1)
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    taken = list[int]()
    with pytest.raises(TamperError, match="entry 257 was changed"):
        taken.extend(item.number for item in take(LedgerReader(tmp_path / "ledger", KEY), Question()))
    assert taken == list(range(256))
