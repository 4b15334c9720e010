"""What is done again and again goes on after one time that fails."""

import asyncio
from collections.abc import Callable

import pytest

from palladion.errors import PalladionError, StorageError
from palladion.gate.repeating import every


def _run(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None], *, times: int, at_once: bool) -> list[str]:
    """What happened until so many sleeps were over."""
    happened: list[str] = []

    async def sleep(seconds: float) -> None:
        happened.append(f"slept {seconds}")
        if len([item for item in happened if item.startswith("slept")]) > times:
            raise asyncio.CancelledError

    async def action() -> None:
        happened.append("acted")
        act(happened.count("acted"))

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(every(5, action, at_once=at_once))
    return happened


def test_the_first_time_is_at_once_or_later(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _run(monkeypatch, lambda _: None, times=1, at_once=False) == ["slept 5", "acted", "slept 5"]
    assert _run(monkeypatch, lambda _: None, times=1, at_once=True) == ["acted", "slept 5", "acted", "slept 5"]


@pytest.mark.parametrize("error", [StorageError("the disk is full"), ZeroDivisionError("a bug")])
def test_a_time_that_fails_is_said_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def act(time: int) -> None:
        if time == 1:
            raise error

    assert _run(monkeypatch, act, times=2, at_once=False).count("acted") == 2
    assert len(caplog.records) == 1
    assert ("the disk is full" in caplog.text) == isinstance(error, PalladionError)
