"""The outbox: what is in it is sent at least once, whatever dies in between, and it never grows without end."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from palladion.errors import BusyError, FormatError, NotFoundError, StorageError
from palladion.incident.alerts import outbox as module
from palladion.incident.alerts.alert import Alert, Ended, Event, Taken
from palladion.incident.alerts.outbox import GIVEN_UP, KEPT, Outbox

from .factories import CASE, NOW, alert, at, routing

REPEAT = timedelta(hours=1)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox.open(tmp_path / "alerts.sqlite") as opened:
        yield opened


def _take_in(outbox: Outbox, *events: Event, place: int = 1, now: datetime = NOW) -> None:
    outbox.take_in(events, {}, place=("log", place), now=now, repeat=REPEAT)


def _alert(number: int, **changes: Any) -> Alert:
    return alert(id=f"{number:016x}", thread=f"thread {number}", case=None, kind="drift", **changes)


def _due(outbox: Outbox, now: datetime = NOW, channel: str = "chat") -> str | None:
    found = outbox.due(channel, now)
    return None if found is None else f"{found[0].id[-2:]} {found[1].action}"


def test_what_is_taken_in_is_due_once_and_then_not(outbox: Outbox) -> None:
    _take_in(outbox, alert())
    outbox.plan(routing(), NOW)
    found = outbox.due("chat", NOW)
    assert found is not None
    assert (found[0].alert, found[1].action, found[1].attempts) == (alert(), "alert", 0)
    outbox.sent(found[1], NOW)
    outbox.plan(routing(), at(1))
    assert outbox.due("chat", at(1)) is None


def test_it_is_all_there_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "alerts.sqlite"
    first = Outbox.open(path)
    _take_in(first, alert(), place=7)
    first.plan(routing(("pager", 5)), NOW)
    # not closed: a process that was killed closes nothing
    with Outbox.open(path) as second:
        assert second.place("log") == 7
        assert second.place("another") is None
        assert second.topics() == first.topics()
        assert (_due(second), _due(second, channel="pager")) == ("00 alert", "00 alert")
        # and who was told is told of the end
        _take_in(second, Ended(f"case:{CASE}"))
        second.plan(routing(("pager", 5)), at(1))
        assert [item.action for item in second.deliveries("00" * 8)] == ["alert", "alert", "ended", "ended"]
    first.close()


def test_events_and_place_are_kept_together_or_not_at_all(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(module, "_make_room", fail)
        with pytest.raises(StorageError, match="disk I/O error"):
            _take_in(outbox, alert(), place=7)
    assert (outbox.topics(), outbox.place("log")) == ([], None)
    with Outbox.open(outbox.path) as other:
        assert other.topics() == []
    _take_in(outbox, alert(), place=7)
    assert len(outbox.topics()) == 1


def test_what_fails_is_tried_again_ever_later_and_given_up_after_days(outbox: Outbox) -> None:
    _take_in(outbox, alert())
    outbox.plan(routing(), NOW)
    pauses, now = [], NOW
    for _ in range(12):
        found = outbox.due("chat", now)
        assert found is not None
        assert not outbox.failed(found[1], "refused", now)
        retry = outbox.deliveries(found[0].id)[0].due
        assert outbox.due("chat", retry - timedelta(microseconds=1)) is None
        pauses.append((retry - now).total_seconds())
        now = retry
    assert pauses == [5, 10, 20, 40, 80, 160, 320, 640, 900, 900, 900, 900]
    found = outbox.due("chat", NOW + GIVEN_UP)
    assert found is not None
    assert found[1].error == "refused"
    assert outbox.failed(found[1], "refused", NOW + GIVEN_UP)
    assert outbox.due("chat", NOW + 2 * GIVEN_UP) is None


def test_an_end_never_overtakes_what_ended(outbox: Outbox) -> None:
    _take_in(outbox, alert(), _alert(1))
    outbox.plan(routing(), NOW)
    found = outbox.due("chat", NOW)
    assert found is not None
    outbox.failed(found[1], "refused", NOW)
    _take_in(outbox, Taken(CASE))
    outbox.plan(routing(), at(1))
    assert _due(outbox, at(1)) == "01 alert"  # of another topic
    other = outbox.due("chat", at(1))
    assert other is not None
    outbox.sent(other[1], at(1))
    assert _due(outbox, at(4)) is None
    assert _due(outbox, at(5)) == "00 alert"


def test_an_update_that_waits_behind_an_alert_is_part_of_it(outbox: Outbox) -> None:
    _take_in(outbox, alert())
    outbox.plan(routing(), NOW)
    _take_in(outbox, alert(id="ff" * 8, sentence="again"))
    outbox.plan(routing(), NOW + REPEAT)
    found = outbox.due("chat", NOW + REPEAT)
    assert found is not None
    assert (found[0].count, found[0].alert.sentence) == (2, "again")
    assert len(outbox.deliveries(found[0].id)) == 1


def test_levels_are_told_until_the_ledger_knows(outbox: Outbox) -> None:
    found = routing(("pager", 5), ("boss", 5))
    _take_in(outbox, alert())
    assert outbox.plan(found, NOW) == []
    (topic,) = outbox.plan(found, at(300))
    assert topic.unrecorded == (2,)
    with Outbox.open(outbox.path) as other:
        assert [topic.unrecorded for topic in other.plan(found, at(301))] == [(2,)]
    outbox.recorded(topic.id, topic.unrecorded)
    assert outbox.plan(found, at(301)) == []


def test_the_oldest_of_what_is_least_severe_goes_first_and_one_alert_says_so(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOPICS_MAX", 10)
    _take_in(outbox, *(_alert(number, severity="critical") for number in range(4)))
    _take_in(outbox, *(_alert(number, severity="info") for number in range(4, 10)), now=at(1))
    assert len(outbox.topics()) == 10
    _take_in(outbox, _alert(10, severity="info"), now=at(2))
    left = [topic.id[-2:] for topic in outbox.topics() if topic.alert.kind != "operational"]
    assert left == ["00", "01", "02", "03", "06", "07", "08", "09", "0a"] or len(left) == 9
    assert {"00", "01", "02", "03"} <= set(left)
    (said,) = [topic for topic in outbox.topics() if topic.alert.kind == "operational"]
    assert said.alert.figures == {"dropped": 2, "untold": 2}


def test_what_is_over_for_long_is_forgotten(outbox: Outbox) -> None:
    _take_in(outbox, alert())
    outbox.plan(routing(), NOW)
    _take_in(outbox, Ended(f"case:{CASE}"))
    outbox.plan(routing(), at(1))
    _take_in(outbox, _alert(1), now=NOW + KEPT - timedelta(seconds=1))
    assert len(outbox.topics()) == 2
    _take_in(outbox, _alert(2), now=NOW + KEPT)
    assert [topic.id[-1] for topic in outbox.topics()] == ["1", "2"]
    assert outbox.deliveries("00" * 8) == []


def test_what_was_sent_can_be_sent_again(outbox: Outbox) -> None:
    _take_in(outbox, alert())
    outbox.plan(routing(), NOW)
    found = outbox.due("chat", NOW)
    assert found is not None
    outbox.sent(found[1], NOW)
    assert outbox.again("00" * 8, at(60)) == ["chat"]
    assert _due(outbox, at(60)) == "00 alert"
    assert outbox.due("chat", at(60), topic="ff") is None


def test_an_alert_is_found_by_the_beginning_of_its_id(outbox: Outbox) -> None:
    _take_in(outbox, _alert(0x10), _alert(0x20))
    assert outbox.find(f"{0x10:016x}").alert.thread == "thread 16"
    for wrong in ("", "0", "f"):
        with pytest.raises(NotFoundError):
            outbox.find(wrong)


def test_the_file_is_for_its_owner_alone(outbox: Outbox) -> None:
    _take_in(outbox, alert())
    modes = {path.stat().st_mode & 0o777 for path in outbox.path.parent.iterdir()}
    assert modes == {0o600}


@pytest.mark.parametrize("damage", ["rubbish", "version", "topic"])
def test_a_file_that_is_no_outbox_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "alerts.sqlite"
    if damage == "rubbish":
        path.write_bytes(b"rubbish" * 1000)
    else:
        Outbox.open(path).close()
        with sqlite3.connect(path) as connection:
            if damage == "version":
                connection.execute("PRAGMA user_version = 9")
            else:
                connection.execute("INSERT INTO topic VALUES ('a', x'7b7d')")
    with pytest.raises(FormatError) as refused:
        Outbox.open(path)
    assert any("remove it" in hint for hint in refused.value.hints)


def test_somebody_who_writes_for_long_is_an_error_and_no_hang(outbox: Outbox) -> None:
    outbox._connection.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(outbox.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(BusyError):
        _take_in(outbox, alert())
    other.execute("ROLLBACK")
    other.close()
    _take_in(outbox, replace(alert(), case=None))
    assert len(outbox.topics()) == 1
