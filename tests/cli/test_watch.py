"""`palladion watch live` as people read it: who stands out of all, and whether anything is promised still."""

from typing import Any

import pytest

from palladion.cli import watch as module
from palladion.cli.main import main

STATUS: dict[str, Any] = {"answered": 0, "clients_total": 0, "clients": []}
QUIET: dict[str, Any] = {"tested": True, "left_at": None, "clients": 9, "moved": []}
LEFT = {"tested": True, "left_at": "2026-06-01T12:00:00.000000Z", "clients": 99, "moved": ["level above …: brighter"]}


def _live(monkeypatch: pytest.MonkeyPatch, drift: dict[str, Any]) -> None:
    monkeypatch.setattr(module, "_status", lambda ctx: {**STATUS, "drift": drift})
    assert main(["watch", "live", "--once"]) == 0


def test_a_withdrawn_promise_is_told_below_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _live(monkeypatch, {"fraud": LEFT, "other": QUIET})
    told = capsys.readouterr()
    assert (
        "traffic on fraud has left the calibration since 2026-06-01T12:00:00.000000Z: no rate is promised" in told.err
    )
    assert "other" not in told.err
    assert "level above …: brighter" in told.out
    assert "at most 5 % are honest: nobody" in told.out


def test_nothing_is_said_of_traffic_that_stays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _live(monkeypatch, {"fraud": QUIET})
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("spent", ["epoch", "lifetime"])
def test_it_says_where_rates_are_for_all_epochs_together(
    spent: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_status", lambda ctx: {**STATUS, "drift": {}, "alpha_spent": spent})
    assert main(["watch", "live", "--once"]) == 0
    assert ("for all epochs of a client together" in capsys.readouterr().out) == (spent == "lifetime")
