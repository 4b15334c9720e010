"""Retained bodies go when their days have passed, those with marks later, and leave what proofs need."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from palladion.errors import StorageError
from palladion.ledger.bodies import BodyWriter, body_path, holds_marks, read_retained
from palladion.ledger.body import Body
from palladion.ledger.expiry import Days, expire, expired_record, is_due
from palladion.ledger.record import encode_record

KEY = bytes(range(32))
NAME = ("client:" + "a" * 20, "fraud@3")
NOW = datetime(2026, 11, 26, tzinfo=UTC)
DAYS = Days(90, 730)


def _body(number: int, *, days: float | None, marked: bool = False) -> Body:
    """A query that was asked so many days ago; None for one by an older version, which does not say."""
    at = 0.0 if days is None else (NOW - timedelta(days=days)).timestamp()
    query_hash = number.to_bytes(16, "big") if marked else b""
    inputs = {"x": np.full(2, number, np.float32)}
    return Body(f"{number:x}", 0, inputs, np.ones(3), query_hash, 0.1 if marked else 0.0, "full", at)


def _keep(folder: Path, *bodies: Body, queries_max: int = 100) -> Path:
    writer = BodyWriter(folder, KEY, queries_max=queries_max)
    writer.append(*NAME, bodies)
    writer.close()
    return body_path(folder, *NAME)


def _numbers(folder: Path) -> list[int]:
    return [int(body.request, 16) for body in read_retained(folder, KEY, *NAME).bodies]


def _expire(folder: Path, days: Days = DAYS, now: datetime = NOW) -> int:
    """What was erased; that `is_due` says the same is seen on the way."""
    due = is_due(folder, KEY, NAME, days, now)
    erased = expire(folder, KEY, NAME, days, now)
    assert due == (erased > 0)
    return erased


def test_what_is_older_than_its_days_goes_and_the_rest_stays(tmp_path: Path) -> None:
    _keep(tmp_path, *(_body(days, days=days) for days in (200, 91, 89, 1)))
    assert _expire(tmp_path) == 2
    assert _numbers(tmp_path) == [89, 1]
    assert _expire(tmp_path) == 0


def test_nothing_is_touched_where_nothing_is_old(tmp_path: Path) -> None:
    path = _keep(tmp_path, _body(1, days=89), _body(2, days=729, marked=True))
    before = path.read_bytes()
    assert _expire(tmp_path) == 0
    assert path.read_bytes() == before


def test_a_policy_of_fewer_days_erases_with_the_next_look(tmp_path: Path) -> None:
    _keep(tmp_path, _body(1, days=60), _body(2, days=10))
    assert _expire(tmp_path) == 0
    assert _expire(tmp_path, Days(30, 730)) == 1
    assert _numbers(tmp_path) == [2]


def test_a_file_with_nothing_left_is_gone_and_so_is_its_folder(tmp_path: Path) -> None:
    path = _keep(tmp_path, _body(1, days=91))
    assert _expire(tmp_path) == 1
    assert not path.parent.exists()


def test_marked_queries_stay_longer(tmp_path: Path) -> None:
    _keep(tmp_path, _body(1, days=731, marked=True), _body(2, days=729, marked=True), _body(3, days=700))
    assert _expire(tmp_path) == 2
    assert _numbers(tmp_path) == [2]


def test_no_later_query_of_a_cell_takes_the_place_of_an_erased_one(tmp_path: Path) -> None:
    path = _keep(tmp_path, _body(1, days=800, marked=True))
    size = path.stat().st_size
    assert _expire(tmp_path) == 1
    assert _numbers(tmp_path) == []
    assert path.stat().st_size < size
    _keep(tmp_path, _body(1, days=0, marked=True), _body(2, days=0, marked=True))
    assert _numbers(tmp_path) == [2]
    assert holds_marks(tmp_path, KEY, *NAME)


def test_a_query_without_a_mark_may_be_asked_and_kept_again(tmp_path: Path) -> None:
    _keep(tmp_path, _body(1, days=800), _body(2, days=0))
    assert _expire(tmp_path) == 1
    _keep(tmp_path, _body(1, days=0))
    assert _numbers(tmp_path) == [2, 1]
    assert not holds_marks(tmp_path, KEY, *NAME)


def test_erased_bytes_are_not_in_the_file_even_for_who_has_the_key(tmp_path: Path) -> None:
    path = _keep(tmp_path, _body(1, days=91), _body(2, days=1))
    before = path.read_bytes()
    assert _expire(tmp_path) == 1
    # another salt, and so another key
    assert path.read_bytes()[27:63] != before[27:63]
    assert before[80:120] not in path.read_bytes()


def test_cells_that_were_given_up_stay_so(tmp_path: Path) -> None:
    _keep(tmp_path, *(_body(n, days=100 - n, marked=True) for n in range(50)), queries_max=10)
    level, kept = read_retained(tmp_path, KEY, *NAME).level, _numbers(tmp_path)
    assert _expire(tmp_path, Days(75, 75)) == sum(100 - n > 75 for n in kept) > 0
    assert read_retained(tmp_path, KEY, *NAME).level == level > 0
    _keep(tmp_path, *(_body(n, days=0, marked=True) for n in range(50)), queries_max=10)
    assert _numbers(tmp_path) == [n for n in kept if 100 - n <= 75]


def test_a_query_without_a_time_is_as_old_as_the_next_one(tmp_path: Path) -> None:
    _keep(tmp_path, _body(1, days=None), _body(2, days=91), _body(3, days=None), _body(4, days=89))
    assert _expire(tmp_path) == 2
    assert _numbers(tmp_path) == [3, 4]


def test_without_any_it_is_as_old_as_the_file_and_stays_so(tmp_path: Path) -> None:
    path = _keep(tmp_path, _body(1, days=None), _body(2, days=None, marked=True))
    then = (NOW - timedelta(days=91)).timestamp()
    os.utime(path, (then, then))
    assert _expire(tmp_path, now=NOW - timedelta(days=2)) == 0
    assert _expire(tmp_path) == 1
    (left,) = read_retained(tmp_path, KEY, *NAME).bodies
    assert (left.request, left.at) == ("2", then)


@pytest.mark.parametrize("step", range(1, 5))
def test_a_crash_leaves_the_old_file_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    _keep(tmp_path, *(_body(days, days=days) for days in (91, 89)))
    calls = 0

    def failing(real: object) -> object:
        def call(*arguments: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls == step:
                raise OSError(5, "broken")
            return real(*arguments, **options)  # type: ignore[operator]

        return call

    for name in ("fsync", "replace", "rename", "link"):
        monkeypatch.setattr(os, name, failing(getattr(os, name)))
    try:
        expire(tmp_path, KEY, NAME, DAYS, NOW)
    except StorageError:
        pass
    else:
        assert calls < step
    monkeypatch.undo()
    assert _numbers(tmp_path) in ([91, 89], [89])


def test_the_ledger_says_how_many() -> None:
    record = expired_record(7, 2, DAYS, actor="gate", subject="home", now=NOW)
    assert record.details == {"bodies": 7, "clients": 2, "days": 90, "marked_days": 730}
    assert b'"bodies.expired"' in encode_record(record)
