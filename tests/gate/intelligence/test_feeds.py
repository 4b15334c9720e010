"""Feeds of a running gate: loaded, swapped, fetched when due, and never in anybody's way."""

import asyncio
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any, cast

import pytest

from palladion import files
from palladion.clock import ManualClock
from palladion.errors import StorageError
from palladion.gate.intelligence import feeds as module
from palladion.gate.intelligence.feeds import Feeds
from palladion.gate.intelligence.intelligence import Intelligence
from palladion.intel import store as store_module
from palladion.intel.store import FOLDER, FeedStore
from palladion.lifecycle.installation import Installation
from palladion.policy import Policy
from palladion.policy.intelligence import FeedPolicy, IntelPolicy
from tests.lifecycle.installations import NOW

from .feeding import Book

ONE, TWO = FeedPolicy(name="one", file="one.txt"), FeedPolicy(name="two", file="two.txt", kind="tor")
LISTED = "192.0.2.7"
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


class _Gate:
    """What a gate has of feeds, over a store on disk."""

    def __init__(self, folder: Path, *feeds: FeedPolicy, refresh: bool = False) -> None:
        self.clock, self.book, self.said = ManualClock(NOW), Book(), list[str]()
        self.store = FeedStore(folder / FOLDER)
        policy = Policy(feed=feeds, intel=IntelPolicy(refresh=refresh))
        self.installation: Any = SimpleNamespace(
            paths=SimpleNamespace(directory=folder, home=folder), clock=self.clock, policy=policy
        )
        self.intelligence = Intelligence(policy, self.clock, key=bytes(32), name=str)
        self.feeds = Feeds(
            cast(Installation, self.installation),
            self.intelligence,
            append=self.book.append,
            say=self.said.append,
            generator=Random(1),
        )

    def look(self, passed: timedelta = timedelta(0)) -> None:
        self.clock.advance(passed)
        asyncio.run(self.feeds.look())

    def hits(self, address: str = LISTED) -> list[str]:
        """The feeds that list an address."""
        found = (feed.address(address, self.clock.now()) for feed in self.intelligence.feeds)
        return [hit.feed for hit in found if hit is not None]


def test_the_newest_good_versions_are_loaded_and_said(tmp_path: Path) -> None:
    gate = _Gate(tmp_path, ONE, TWO)
    version = gate.store.keep(ONE, b"192.0.2.0/24\n", NOW)
    gate.look()
    assert gate.hits() == ["one"]
    assert gate.said == [f"feed one: 1 items, version {version.digest[:16]}, until 2026-06-08T12:00:00.000000Z"]
    gate.store.keep(TWO, b"192.0.2.7\n", NOW)
    gate.look()
    assert gate.hits() == ["one", "two"]
    assert len(gate.said) == 2


def test_a_version_that_a_command_fetched_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    gate = _Gate(tmp_path, ONE)
    gate.store.keep(ONE, b"192.0.2.0/24\n", NOW)
    gate.look()
    gate.store.keep(ONE, b"192.0.3.0/24\n", NOW)
    gate.look()
    assert (gate.hits(), gate.hits("192.0.3.1")) == ([], ["one"])


def test_what_did_not_change_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = _Gate(tmp_path, ONE)
    gate.store.keep(ONE, b"192.0.2.0/24\n", NOW)
    gate.look()
    monkeypatch.setattr(store_module, "read_content", lambda *_: pytest.fail("it was read again"))
    before = gate.intelligence.feeds
    gate.look()
    assert gate.intelligence.feeds is before


def test_what_was_fetched_again_unchanged_counts_longer_and_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = _Gate(tmp_path, ONE)
    gate.store.keep(ONE, b"192.0.2.0/24\n", NOW)
    gate.look()
    gate.store.keep(ONE, b"192.0.2.0/24\n", NOW + 3 * DAY)
    monkeypatch.setattr(store_module, "read_content", lambda *_: pytest.fail("it was read again"))
    gate.look(8 * DAY)
    assert gate.hits() == ["one"]
    gate.look(2 * DAY)
    assert gate.hits() == []


def test_a_broken_store_is_said_once_and_what_is_loaded_counts_until_its_end(tmp_path: Path) -> None:
    gate = _Gate(tmp_path, ONE, TWO)
    gate.store.keep(ONE, b"192.0.2.0/24\n", NOW)
    gate.store.keep(TWO, b"192.0.2.7\n", NOW)
    gate.look()
    version = gate.store.keep(ONE, b"192.0.3.0/24\n", NOW)
    (tmp_path / FOLDER / "one" / f"{version.digest}.data").write_bytes(b"192.0.9.0/24\n")
    (tmp_path / FOLDER / "two" / "current.json").write_bytes(b"{")
    for _ in range(3):
        gate.look()
    assert gate.hits() == ["one", "two"]
    assert sorted(gate.feeds.faults) == ["one", "two"]
    assert [(record.kind, record.subject) for record in gate.book.records] == [
        ("intel.refreshed", "feed:one"),
        ("intel.refreshed", "feed:two"),
    ]
    assert "not what was fetched" in str(gate.book.records[0].details["error"])
    gate.look(8 * DAY)
    assert gate.hits() == []
    gate.store.keep(ONE, b"192.0.2.0/24\n", gate.clock.now())
    gate.look()
    assert gate.hits() == ["one"]
    assert sorted(gate.feeds.faults) == ["two"]


def test_what_is_broken_is_not_read_all_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = _Gate(tmp_path, ONE)
    version = gate.store.keep(ONE, b"192.0.2.0/24\n", NOW)
    path = tmp_path / FOLDER / "one" / f"{version.digest}.data"
    path.unlink()
    gate.look()
    path.write_bytes(b"192.0.2.0/24\n")
    gate.look(timedelta(minutes=14))
    assert (gate.hits(), len(gate.feeds.faults)) == ([], 1)
    gate.look(timedelta(minutes=1))
    assert (gate.hits(), gate.feeds.faults) == (["one"], {})
    gate.store.keep(ONE, b"192.0.3.0/24\n", gate.clock.now())
    gate.look()
    assert gate.hits("192.0.3.1") == ["one"]


def test_a_feed_of_another_policy_is_not_what_was_fetched(tmp_path: Path) -> None:
    gate = _Gate(tmp_path, ONE)
    gate.store.keep(ONE, b"192.0.2.0/24\n", NOW)
    gate.look()
    heavier = FeedPolicy(name="one", file="one.txt", weight=1.5, expiry_days=1)
    for feed, hits in ((heavier, ["one"]), (FeedPolicy(name="one", file="one.txt", kind="tor"), [])):
        policy = Policy(feed=(feed,))
        gate.installation.policy = policy
        gate.intelligence.renew(policy)
        assert gate.hits() == []
        gate.look()
        assert gate.hits() == hits
        if hits:
            hit = gate.intelligence.feeds[0].address(LISTED, NOW)
            assert hit is not None
            assert (hit.log_odds, hit.expires) == (1.5, NOW + DAY)


def test_so_many_items_are_loaded_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOADED_MAX", 2)
    gate = _Gate(tmp_path, ONE, TWO)
    gate.store.keep(ONE, b"192.0.2.0/24\n192.0.3.0/24\n", NOW)
    gate.store.keep(TWO, b"192.0.2.7\n", NOW)
    gate.look()
    assert gate.hits() == ["one"]
    assert "more than 2 items" in gate.feeds.faults["two"]


def test_a_gate_that_was_not_told_to_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "refresh", lambda *_, **__: pytest.fail("it asked"))
    gate = _Gate(tmp_path, ONE)
    for _ in range(3):
        gate.look(DAY)
    assert gate.feeds.faults == {}


def test_a_ledger_that_takes_nothing_is_told_later(tmp_path: Path) -> None:
    gate = _Gate(tmp_path, ONE)
    (tmp_path / FOLDER / "one").mkdir(parents=True)
    (tmp_path / FOLDER / "one" / "current.json").write_bytes(b"{")
    gate.book.error = StorageError("the disk is full")
    with pytest.raises(StorageError):
        gate.look()
    gate.book.error = None
    gate.look()
    assert len(gate.book.records) == 1


def test_while_much_is_read_requests_come_first_and_afterwards_all_is_as_before() -> None:
    before, within = (sys.getswitchinterval(), gc.isenabled()), list[tuple[float, bool]]()

    def read() -> None:
        with module._quietly():
            within.append((sys.getswitchinterval(), gc.isenabled()))
            raise StorageError("it broke")

    with pytest.raises(StorageError):
        read()
    ((interval, collecting),) = within
    assert interval == pytest.approx(module.SWITCH_SECONDS)
    assert not collecting
    assert (sys.getswitchinterval(), gc.isenabled()) == before


class _Server:
    """A server of feeds over real HTTP: what it says can be changed, and it can be held."""

    def __init__(self) -> None:
        self.status, self.body, self.asked = 200, b"192.0.2.0/24\n", 0
        self.free = Event()
        self.free.set()
        self.came = Event()

    @property
    def handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                outer.came.set()
                outer.free.wait(30)
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(outer.body)))
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name in the base class)
                """Say nothing."""

        return Handler


@contextmanager
def _serving() -> Iterator[tuple[_Server, FeedPolicy]]:
    server = _Server()
    with ThreadingHTTPServer(("127.0.0.1", 0), server.handler) as real:
        Thread(target=real.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server, FeedPolicy(name="far", url=f"http://127.0.0.1:{real.server_port}/list", refresh_hours=10)
        finally:
            server.free.set()
            real.shutdown()


def test_a_gate_that_may_fetches_what_is_due_and_a_random_time_later(tmp_path: Path) -> None:
    with _serving() as (server, feed):
        gate = _Gate(tmp_path, feed, refresh=True)
        gate.look()
        assert server.asked == 0  # gates that start together do not ask together
        gate.look(timedelta(seconds=60))
        assert (server.asked, gate.hits()) == (1, ["far"])
        (record,) = gate.book.records
        assert (record.kind, record.details["changed"], record.actor) == ("intel.refreshed", True, "gate")
        gate.look(9 * HOUR)
        gate.look(HOUR)
        assert server.asked == 1
        server.body = b"192.0.3.0/24\n"
        gate.look(HOUR)
        assert (server.asked, gate.hits(), gate.hits("192.0.3.1")) == (2, [], ["far"])


@pytest.mark.slow
@pytest.mark.parametrize(("status", "body"), [(503, b""), (200, b"192.0.2.0/24\nrubbish\n"), (302, b"")])
def test_a_server_that_fails_is_asked_less_and_less_and_the_last_good_version_stays(
    tmp_path: Path, status: int, body: bytes
) -> None:
    with _serving() as (server, feed):
        gate = _Gate(tmp_path, feed, refresh=True)
        gate.look()
        gate.look(timedelta(seconds=60))
        server.status, server.body = status, body
        gate.look(10 * HOUR)
        asked = []
        for _ in range(24):
            gate.look(HOUR)
            asked.append(server.asked)
        assert gate.hits() == ["far"]
        assert 4 <= asked[-1] <= 8
        assert len(gate.book.records) == 2  # what it became, and once that it failed
        assert "error" in gate.book.records[1].details
        server.status, server.body = 200, b"192.0.3.0/24\n"
        gate.look(2 * DAY)
        assert (gate.hits("192.0.3.1"), gate.feeds.faults) == (["far"], {})


def test_a_server_that_does_not_answer_holds_up_nobody_and_not_the_end(tmp_path: Path) -> None:
    with _serving() as (server, feed):
        gate = _Gate(tmp_path, feed, refresh=True)
        gate.look()
        server.free.clear()
        gate.clock.advance(timedelta(seconds=60))

        async def look_meanwhile() -> int:
            looking, turns = asyncio.create_task(gate.feeds.look()), 0
            while not server.came.is_set():
                await asyncio.sleep(0.001)
            for _ in range(50):
                await asyncio.sleep(0)
                turns += 1
            assert not looking.done()
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
            return turns

        assert asyncio.run(look_meanwhile()) == 50


def test_a_command_that_refreshes_is_not_in_the_way(tmp_path: Path) -> None:
    with _serving() as (server, feed):
        gate = _Gate(tmp_path, feed, refresh=True)
        gate.look()
        with files.exclusive_lock(gate.store.lock, what="it"):
            gate.look(timedelta(seconds=60))
        assert (server.asked, gate.feeds.faults) == (0, {})
        gate.look()
        assert server.asked == 1


def test_what_a_gate_says_of_itself_names_feeds_and_what_they_know(tmp_path: Path) -> None:
    gate = _Gate(tmp_path, ONE)
    version = gate.store.keep(ONE, b"192.0.2.0/24\n", NOW)
    gate.look()
    gate.intelligence.note("a", LISTED, None, NOW)
    shown = gate.feeds.shown({"clients": [{"id": "a"}, {"id": "b"}], "ready": True})
    assert [len(client["listed"]) for client in shown["clients"]] == [1, 0]
    assert shown["feeds"][0]["version"] == version.digest
    assert shown["ready"]


def test_whatever_waits_is_recorded_at_the_end(tmp_path: Path) -> None:
    gate = _Gate(tmp_path, ONE)
    gate.store.keep(ONE, b"192.0.2.0/24\n", NOW)
    gate.look()
    for number in range(150):
        gate.intelligence.note(f"c{number}", LISTED, None, NOW)
    asyncio.run(gate.feeds.tell())
    assert len(gate.book.records) == 100
    asyncio.run(gate.feeds.close())
    assert len(gate.book.records) == 150
    gate.book.error = StorageError("closed")
    gate.intelligence.note("late", LISTED, None, NOW)
    asyncio.run(gate.feeds.close())
