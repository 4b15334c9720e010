"""Refreshing: what is due is fetched, what fails keeps its last good version, and both are said."""

from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from palladion import files
from palladion.errors import BusyError, FormatError, PalladionError, PolicyError, StorageError
from palladion.intel import refresh as module
from palladion.intel.refresh import SHIPPED, due, reader, refresh, refreshed_record
from palladion.intel.store import FeedStore
from palladion.policy.intelligence import FeedPolicy

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ONE = FeedPolicy(name="one", file="one.txt", refresh_hours=24)
TWO = FeedPolicy(name="two", file="two.txt", refresh_hours=24)


def test_what_is_due_is_fetched_and_nothing_else(tmp_path: Path) -> None:
    store, asked = FeedStore(tmp_path), list[str]()

    def read(feed: FeedPolicy) -> bytes:
        asked.append(feed.name)
        return b"192.0.2.0/24\n"

    first = refresh(store, [ONE, TWO], read, now=NOW)
    assert [(each.feed.name, each.changed) for each in first] == [("one", True), ("two", True)]
    assert refresh(store, [ONE, TWO], read, now=NOW + timedelta(hours=23)) == []
    again = refresh(store, [ONE, TWO], read, now=NOW + timedelta(hours=24))
    assert [each.changed for each in again] == [False, False]
    assert again[0].version is not None
    assert again[0].version.fetched == NOW + timedelta(hours=24)
    assert len(refresh(store, [ONE], read, now=NOW + timedelta(hours=24), force=True)) == 1
    assert asked == ["one", "two", "one", "two", "one"]


def test_a_clock_that_was_set_back_makes_a_feed_due(tmp_path: Path) -> None:
    version = FeedStore(tmp_path).keep(ONE, b"192.0.2.0/24\n", NOW)
    assert not due(ONE, version, NOW)
    assert due(ONE, version, NOW - timedelta(seconds=1))
    assert due(FeedPolicy(name="one", file="one.txt", kind="tor"), version, NOW)


def test_one_that_fails_keeps_its_last_good_version_and_stops_no_other(tmp_path: Path) -> None:
    store = FeedStore(tmp_path)
    before = store.keep(ONE, b"192.0.2.0/24\n", NOW)
    answers: dict[str, bytes | PalladionError] = {"one": b"192.0.2.0/24\nrubbish\n", "two": b"192.0.3.0/24\n"}

    def read(feed: FeedPolicy) -> bytes:
        answer = answers[feed.name]
        if isinstance(answer, PalladionError):
            raise answer
        return answer

    later = NOW + timedelta(days=1)
    one, two = refresh(store, [ONE, TWO], read, now=later)
    assert (one.version, one.changed, two.changed) == (before, False, True)
    assert isinstance(one.error, FormatError)
    assert store.current("one") == before
    record = refreshed_record(one, actor="user:a", now=later)
    assert (record.kind, record.subject) == ("intel.refreshed", "feed:one")
    assert "line 2" in str(record.details["error"])
    assert record.details["version"] == before.digest
    assert "error" not in refreshed_record(two, actor="user:a", now=later).details
    answers["one"] = StorageError("it is not there")
    assert refresh(store, [ONE], read, now=later)[0].error is answers["one"]


def test_a_damaged_state_is_fetched_again(tmp_path: Path) -> None:
    store = FeedStore(tmp_path)
    store.keep(ONE, b"192.0.2.0/24\n", NOW)
    (tmp_path / "one" / "current.json").write_bytes(b"{")
    assert refresh(store, [ONE], lambda _: b"192.0.3.0/24\n", now=NOW)[0].error is None
    assert store.current("one") is not None


def test_two_do_not_refresh_at_once(tmp_path: Path) -> None:
    store = FeedStore(tmp_path)
    with files.exclusive_lock(store.lock, what="it"), pytest.raises(BusyError):
        refresh(store, [ONE], lambda _: b"", now=NOW)


def test_a_file_is_read_beside_the_policy(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_bytes(b"192.0.2.0/24\n")
    assert reader(tmp_path)(ONE) == b"192.0.2.0/24\n"
    with pytest.raises(StorageError):
        reader(tmp_path)(TWO)


def test_signatures_of_our_own_attacks_come_with_the_release(tmp_path: Path) -> None:
    feed = FeedPolicy(name="ours", file=SHIPPED, format="stix", kind="queries")
    (outcome,) = refresh(FeedStore(tmp_path), [feed], reader(tmp_path), now=NOW)
    assert outcome.version is not None
    assert outcome.version.items > 5


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/list")
            self.end_headers()
            return
        body = b"192.0.2.0/24\n"
        self.send_response(200 if self.path == "/list" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name in the base class)
        """Say nothing."""


def test_an_address_is_fetched_within_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), _Handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}"
        read = reader(tmp_path)
        try:
            assert read(FeedPolicy(name="one", url=f"{place}/list")) == b"192.0.2.0/24\n"
            for path, words in (("/gone", "404"), ("/moved", "302")):
                with pytest.raises(StorageError, match=words):
                    read(FeedPolicy(name="one", url=f"{place}{path}"))
            monkeypatch.setattr(module, "FEED_BYTES_MAX", 5)
            with pytest.raises(StorageError, match="larger than the 5 bytes"):
                read(FeedPolicy(name="one", url=f"{place}/list"))
        finally:
            server.shutdown()


def test_plain_http_beyond_the_loopback_is_not_asked(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="plain http"):
        reader(tmp_path)(FeedPolicy(name="one", url="http://feeds.example/list"))
    with pytest.raises(PolicyError, match="neither url nor file"):
        reader(tmp_path)(FeedPolicy(name="one"))
    (tmp_path / "ca.pem").write_text("none")
    with pytest.raises(PolicyError, match="no certificate"):
        reader(tmp_path)(FeedPolicy(name="one", url="https://feeds.example/list", ca="ca.pem"))
