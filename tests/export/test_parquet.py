"""Parquet, read back by DuckDB."""

import builtins
import json
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palladion.clock import timestamp
from palladion.errors import MissingExtraError, StorageError, TamperError
from palladion.export import parquet
from palladion.export.item import Item
from palladion.export.parquet import write_parquet
from tests.export.items import ITEMS, SOURCE, START, WHO, answer, item

duckdb = pytest.importorskip("duckdb", reason="needs the extra export")


def rows(path: Path) -> list[dict[str, Any]]:
    with duckdb.connect() as database:
        found = database.execute(f"SELECT * FROM read_parquet('{path}')")
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


@pytest.mark.slow
def test_an_answer_as_a_row(tmp_path: Path) -> None:
    assert write_parquet(tmp_path / "out.parquet", [answer()], SOURCE) == 1
    (row,) = rows(tmp_path / "out.parquet")
    assert json.loads(row.pop("details")) == answer().record.details
    assert row == {
        "entry": 7,
        "time": START.replace(tzinfo=None),
        "kind": "answer.given",
        "actor": WHO,
        "subject": "fraud@3",
        "client": WHO,
        "name": None,
        "model": "fraud",
        "version": 3,
        "route": "/v1/fraud",
        "standing": "trusted",
        "leaf": answer().leaf,
    }
    assert (tmp_path / "out.parquet").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


def test_the_file_says_of_which_log_it_is(tmp_path: Path) -> None:
    write_parquet(tmp_path / "o.parquet", [answer()], SOURCE)
    with duckdb.connect() as database:
        found = database.execute(f"SELECT key, value FROM parquet_kv_metadata('{tmp_path}/o.parquet')").fetchall()
    assert {bytes(key).decode(): bytes(value).decode() for key, value in found} == {
        "log": SOURCE.origin,
        "size": "1000",
        "root": SOURCE.root,
        "key": SOURCE.authority,
    }


@pytest.mark.slow
def test_pieces_and_row_groups_keep_the_order_and_the_same_entries_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "PIECE_BYTES", 100_000)
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 2048)
    many = [item("answer.refused", {"requests": n}, number=3 * n) for n in range(5000)]
    for name in ("a", "b"):
        assert write_parquet(tmp_path / name, many, SOURCE) == 5000
    assert [row["entry"] for row in rows(tmp_path / "a")] == [3 * n for n in range(5000)]
    with duckdb.connect() as database:
        groups = database.execute(f"SELECT count(DISTINCT row_group_id) FROM parquet_metadata('{tmp_path}/a')")
        assert groups.fetchone() == (3,)
    first, second = (sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("a", "b"))
    assert first == second


def test_no_entries_make_a_file_with_its_columns(tmp_path: Path) -> None:
    assert write_parquet(tmp_path / "o", [], SOURCE) == 0
    assert rows(tmp_path / "o") == []


@pytest.mark.slow
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ITEMS, min_size=1, max_size=20))
def test_no_content_breaks_a_row(tmp_path: Path, found: list[Item]) -> None:
    write_parquet(tmp_path / "o", found, SOURCE)
    for row, expected in zip(rows(tmp_path / "o"), found, strict=True):
        record = expected.record
        assert (row["kind"], row["actor"], row["subject"]) == (record.kind, record.actor, record.subject)
        assert (row["entry"], row["name"], row["route"]) == (expected.number, expected.name, expected.route)
        assert json.loads(row["details"]) == record.details
        assert isinstance(row["time"], datetime)
        assert timestamp(record.time).startswith(row["time"].isoformat())


def test_a_record_of_the_largest_size_fits(tmp_path: Path) -> None:
    found = item("x.y", {"t": "\x01" * 10_900})
    assert len(found.data) > 65_000
    write_parquet(tmp_path / "o", [found], SOURCE)
    assert json.loads(rows(tmp_path / "o")[0]["details"]) == found.record.details


def test_an_error_on_the_way_leaves_the_file_before_and_nothing_else(tmp_path: Path) -> None:
    def broken() -> Any:
        yield answer()
        raise TamperError("entry 8 was changed")

    (tmp_path / "o").write_bytes(b"before")
    with pytest.raises(TamperError):
        write_parquet(tmp_path / "o", broken(), SOURCE)
    assert (tmp_path / "o").read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["o"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        write_parquet(tmp_path / "file" / "o", [answer()], SOURCE)


def test_a_path_with_quotes_is_a_path(tmp_path: Path) -> None:
    folder = tmp_path / "it's"
    folder.mkdir()
    write_parquet(folder / "o'.parquet", [answer()], SOURCE)
    assert (folder / "o'.parquet").is_file()


def test_without_duckdb_the_install_line_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name == "duckdb":
            raise ModuleNotFoundError(name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtraError) as caught:
        write_parquet(tmp_path / "o", [answer()], SOURCE)
    assert caught.value.hints == ("pip install 'palladion[export]'",)
