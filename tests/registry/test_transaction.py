"""Transactions: all or nothing, whichever statement fails; and reading never writes."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from palladion.errors import StorageError
from palladion.registry import Records, Registry
from tests.registry.factories import add_client, add_model, dump, new_version, sealed


def _a_day_of_work(records: Records) -> None:
    records.versions.add(new_version("b", parent=1, original=sealed("o")))
    records.promotions.promote("digits", 2, actor="ada")
    records.recipients.add("acme", kind="x25519", public_key="pub")
    client = add_client(records)
    records.clients.add_key(client.id, prefix="pall_live_a", key_hash=b"h" * 32)
    records.standings.change(client.id, "watched", reason="", actor="watch")
    case = records.incidents.open("a case", actor="watch", clients=[client.id])
    records.incidents.close(case.id, actor="ada", finding="nothing")


def _try(registry: Registry) -> bool:
    try:
        with registry.write() as records:
            _a_day_of_work(records)
    except StorageError:
        return False
    return True


@contextmanager
def _failing_at(registry: Registry, failing: int) -> Iterator[list[int]]:
    """Let the n-th statement fail as if the disk were full; hands out the count of statements."""
    count = [0]

    def execute(*_: Any) -> None:
        count[0] += 1
        if count[0] == failing:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

    for name in ("do_execute", "do_executemany"):
        event.listen(registry._engine, name, execute)
    try:
        yield count
    finally:
        for name in ("do_execute", "do_executemany"):
            event.remove(registry._engine, name, execute)


@pytest.mark.slow
def test_whichever_statement_fails_nothing_is_left_half_written(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a")
    before = dump(registry)
    failing = 0
    while True:
        failing += 1
        with _failing_at(registry, failing) as count:
            finished = _try(registry)
        if finished:
            break
        assert dump(registry) == before, f"statement {failing}"
        assert count[0] >= failing, f"statement {failing}"
    assert failing > 30
    assert dump(registry) != before


def _fill(registry: Registry, spare_pages: int) -> None:
    with registry.write() as records:
        connection = records.models._transaction._connection
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + spare_pages}")
        for number in range(100):
            records.versions.add(new_version(f"content {number}", note="a" * 2000))


def test_a_disk_that_is_really_full_leaves_nothing_half_written(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a")
    before = dump(registry)
    with pytest.raises(StorageError, match="no space left on device") as caught:
        _fill(registry, spare_pages=2)
    assert caught.value.hints == ("free some space and run it again",)
    assert dump(registry) == before


def test_a_transaction_that_reads_cannot_write(registry: Registry) -> None:
    with registry.read() as records, pytest.raises(ValueError, match=r"open it with Registry\.write\(\)"):
        records.models.add("digits", owner="Ada", model_format="onnx")


def test_a_reader_sees_one_moment(registry: Registry) -> None:
    with registry.read() as reading:
        assert reading.models.all() == []
        with registry.write() as writing:
            add_model(writing)
        assert reading.models.all() == []
    with registry.read() as reading:
        assert [model.name for model in reading.models.all()] == ["digits"]
