"""What the doctor says of feeds: what is late, over or never came, and nothing where there are none."""

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from palladion.clock import ManualClock
from palladion.intel import freshness
from palladion.intel.freshness import look
from palladion.intel.store import FOLDER, FeedStore
from palladion.lifecycle.doctor import Check
from palladion.policy import Policy
from palladion.policy.intelligence import FeedPolicy, IntelPolicy
from tests.lifecycle.installations import NOW

FEED = FeedPolicy(name="one", file="one.txt", refresh_hours=12, expiry_days=3)
HOUR = timedelta(hours=1)


def _look(folder: Path, *feeds: FeedPolicy, passed: timedelta = timedelta(0), refresh: bool = False) -> list[Check]:
    policy = Policy(feed=feeds, intel=IntelPolicy(refresh=refresh))
    installation: Any = SimpleNamespace(
        paths=SimpleNamespace(directory=folder), clock=ManualClock(NOW + passed), policy=policy
    )
    return list(look(installation))


@pytest.mark.parametrize(
    ("passed", "status", "words"),
    [
        (0 * HOUR, "ok", "1 feeds, 1 items"),
        (24 * HOUR, "ok", "in time"),
        (25 * HOUR, "warning", "feed one was fetched last at 2026-06-01T12:00:00.000000Z"),
        (71 * HOUR, "warning", "every 12 hours"),
        (72 * HOUR, "warning", "has expired (2026-06-04T12:00:00.000000Z)"),
    ],
)
def test_a_feed_is_fine_late_or_over(tmp_path: Path, passed: timedelta, status: str, words: str) -> None:
    FeedStore(tmp_path / FOLDER).keep(FEED, b"192.0.2.0/24\n", NOW)
    (check,) = _look(tmp_path, FEED, passed=passed)
    assert (check.name, check.status) == ("feeds", status)
    assert words in check.message


def test_what_was_never_fetched_says_nothing_and_who_is_to_do_it(tmp_path: Path) -> None:
    (check,) = _look(tmp_path, FEED)
    assert (check.status, "never fetched" in check.message) == ("warning", True)
    assert "timer" in check.hint
    (check,) = _look(tmp_path, FEED, refresh=True)
    assert "the gate's log" in check.hint


def test_what_was_fetched_as_another_kind_says_nothing(tmp_path: Path) -> None:
    FeedStore(tmp_path / FOLDER).keep(FEED, b"192.0.2.0/24\n", NOW)
    (check,) = _look(tmp_path, FeedPolicy(name="one", file="one.txt", kind="tor"))
    assert (check.status, "as networks" in check.message) == ("warning", True)


def test_a_damaged_state_is_a_problem_and_hides_no_other_feed(tmp_path: Path) -> None:
    (tmp_path / FOLDER / "one").mkdir(parents=True)
    (tmp_path / FOLDER / "one" / "current.json").write_bytes(b"{")
    found = _look(tmp_path, FEED, FeedPolicy(name="two", file="two.txt"))
    assert [check.status for check in found] == ["problem", "warning"]


def test_more_than_a_gate_loads_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "LOADED_MAX", 1)
    FeedStore(tmp_path / FOLDER).keep(FEED, b"192.0.2.0/24\n192.0.3.0/24\n", NOW)
    (check,) = _look(tmp_path, FEED)
    assert "a gate loads 1" in check.message


def test_without_feeds_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert _look(tmp_path) == []
