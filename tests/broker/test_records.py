"""The broker's time, which goes forward, and its patience with a ledger that another command has."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from palladion.broker import records
from palladion.broker.asked import Asked
from palladion.broker.records import Clock, patiently, record_of
from palladion.clock import ManualClock
from palladion.errors import BusyError, PalladionError, StorageError

from .parts import Seconds

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ASKED = Asked("fraud", 1, "ab" * 16, "cd" * 32, "lab", "exec")


def _clock() -> tuple[Clock, ManualClock, Seconds]:
    wall, seconds = ManualClock(NOW), Seconds()
    installation: Any = SimpleNamespace(clock=wall)
    return Clock(installation, seconds), wall, seconds


def test_a_clock_that_goes_on_is_believed() -> None:
    clock, wall, seconds = _clock()
    for minutes in (0, 1, 600):
        wall.advance(timedelta(minutes=minutes))
        seconds.now += 60 * minutes
        assert clock.now() == wall.now()


@pytest.mark.parametrize(("minutes", "believed"), [(-4, True), (-6, False), (-600, False)])
def test_a_clock_that_is_set_back_is_not_believed(minutes: int, believed: bool) -> None:
    clock, wall, _ = _clock()
    wall.advance(timedelta(hours=1))
    clock.now()
    wall.advance(timedelta(minutes=minutes))
    if believed:
        assert clock.now() == wall.now()
        return
    with pytest.raises(PalladionError, match="was ahead"):
        clock.now()


def test_a_clock_that_stands_still_is_not_believed() -> None:
    clock, _, seconds = _clock()
    seconds.now += 6 * 60
    with pytest.raises(PalladionError, match="was ahead"):
        clock.now()


def test_a_ledger_that_comes_free_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_PAUSE_SECONDS", 0.0)
    answers: list[Exception | str] = [BusyError("held"), BusyError("held"), "done"]

    def act() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert patiently(act, seconds=60) == "done"


@pytest.mark.parametrize("error", [BusyError("held"), StorageError("full")])
def test_what_does_not_come_free_is_told(error: PalladionError) -> None:
    asked = []

    def act() -> None:
        asked.append(1)
        raise error

    with pytest.raises(type(error)):
        patiently(act, seconds=0.0)
    assert len(asked) == 1


def test_a_record_says_what_was_decided() -> None:
    record = record_of("refused", "client:x", ASKED, {"reason": "policy"}, at=NOW, home="home")
    assert (record.kind, record.subject, record.time) == ("broker.refused", "fraud@1", NOW)
    assert record.details == {
        "file_id": ASKED.file_id, "header": ASKED.header_digest, "purpose": "exec", "recipient": "lab",
        "reason": "policy",
    }  # fmt: skip
    assert record_of("refused", "client:x", None, {}, at=NOW, home="home").subject == "home"
