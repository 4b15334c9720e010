"""Entries from a moment on: all of them, none before, and without reading those before."""

from datetime import timedelta
from pathlib import Path

import pytest

from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import Record
from palladion.ledger.since import ORDER_SLACK, records_since
from palladion.ledger.writer import Ledger

from .ledgers import JOURNAL_KEY, KEY, ORIGIN, SIGNER, START, make

OPENED = frozenset({"model.opened"})


@pytest.mark.slow
def test_everything_from_a_moment_on_is_there_once(tmp_path: Path) -> None:
    make(tmp_path / "ledger", 1500)
    reader = LedgerReader(tmp_path / "ledger", KEY)
    for second in (0, 1, 255, 256, 777, 1499, 5000):
        found = list(records_since(reader, START + timedelta(seconds=second), OPENED))
        assert [record.details["n"] for record in found] == list(range(second, 1500))


@pytest.mark.slow
def test_a_moment_in_the_middle_of_a_piece_loses_none_of_it(tmp_path: Path) -> None:
    hourly = [Record("model.opened", START + timedelta(hours=n), "ada", str(n)) for n in range(600)]
    with Ledger.create(tmp_path / "ledger", ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        ledger.append(hourly)
    reader = LedgerReader(tmp_path / "ledger", KEY)
    for hour in (255, 256, 300, 511, 512, 599):
        found = list(records_since(reader, START + timedelta(hours=hour), OPENED))
        assert [record.subject for record in found] == [str(n) for n in range(hour, 600)]


def test_other_kinds_are_left_out_though_they_are_quoted(tmp_path: Path) -> None:
    quoting = Record("client.added", START, "ada", "it", {"note": {"kind": "model.opened"}})
    with Ledger.create(tmp_path / "ledger", ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        ledger.append([quoting, Record("model.opened", START, "ada", "it")])
    found = list(records_since(LedgerReader(tmp_path / "ledger", KEY), START, OPENED))
    assert [record.kind for record in found] == ["model.opened"]


def test_records_that_were_written_late_are_found(tmp_path: Path) -> None:
    late = [Record("model.opened", START + timedelta(seconds=60 - n % 2 * 50), "ada", str(n)) for n in range(600)]
    with Ledger.create(tmp_path / "ledger", ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        ledger.append(late)
    found = list(records_since(LedgerReader(tmp_path / "ledger", KEY), START + timedelta(seconds=60), OPENED))
    assert len(found) == 300


@pytest.mark.slow
def test_what_lies_far_before_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "ledger", 5000)
    reader = LedgerReader(tmp_path / "ledger", KEY)
    bundle, read = LedgerReader.checked_bundle, list[int]()

    def counted(self: LedgerReader, index: int) -> tuple[list[bytes], list[bytes]]:
        read.append(index)
        return bundle(self, index)

    monkeypatch.setattr(LedgerReader, "checked_bundle", counted)
    assert len(list(records_since(reader, START + timedelta(seconds=4990), OPENED))) == 10
    # 20 pieces in all: a handful to find the place, and those that the slack of ten minutes covers
    assert len(set(read)) < 5 + ORDER_SLACK.total_seconds() / 256 + 2
