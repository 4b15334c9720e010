"""Feeds on disk: only what is well formed becomes current, and what was changed there is noticed."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from palladion import files
from palladion.errors import FormatError, NotFoundError, StorageError, TamperError
from palladion.intel.indicators import look_up
from palladion.intel.store import VERSIONS_KEPT, FeedStore
from palladion.policy.intelligence import FeedPolicy

NOW = datetime(2026, 6, 1, tzinfo=UTC)
FEED = FeedPolicy(name="one", file="one.txt", expiry_days=7)
DATA = b"192.0.2.0/24\n"


def test_a_version_is_found_again(tmp_path: Path) -> None:
    store = FeedStore(tmp_path / "intel")
    assert store.current("one") is None
    assert store.load(FEED) is None
    version = store.keep(FEED, DATA, NOW)
    assert FeedStore(tmp_path / "intel").current("one") == version
    assert version.digest == hashlib.sha256(DATA).hexdigest()
    assert (version.fetched, version.valid_until, version.items) == (NOW, NOW + timedelta(days=7), 1)
    loaded = store.load(FEED)
    assert loaded is not None
    (hit,) = look_up([loaded], "192.0.2.1", NOW)
    assert (hit.version, hit.expires) == (version.digest, version.valid_until)


def test_a_malformed_feed_changes_nothing(tmp_path: Path) -> None:
    store = FeedStore(tmp_path)
    version = store.keep(FEED, DATA, NOW)
    with pytest.raises(FormatError):
        store.keep(FEED, b"<html>\n", NOW + timedelta(days=1))
    assert store.current("one") == version
    assert len(list((tmp_path / "one").iterdir())) == 2


def test_a_write_that_fails_leaves_the_old_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FeedStore(tmp_path)
    version = store.keep(FEED, DATA, NOW)
    write, calls, failing = files.write_atomically, list[Path](), [0]

    def fail(path: Path, data: bytes, *, mode: int = files.PRIVATE_FILE) -> None:
        calls.append(path)
        if len(calls) == failing[0]:
            raise StorageError(f"{path}: no space left")
        write(path, data, mode=mode)

    monkeypatch.setattr(files, "write_atomically", fail)
    for failing[0] in (1, 2):
        calls.clear()
        with pytest.raises(StorageError):
            store.keep(FEED, b"192.0.3.0/24\n", NOW)
        assert store.current("one") == version
        assert store.content("one", version).items == 1


def test_a_stricter_policy_ends_it_sooner(tmp_path: Path) -> None:
    store = FeedStore(tmp_path)
    store.keep(FEED, DATA, NOW)
    loaded = store.load(FeedPolicy(name="one", file="one.txt", expiry_days=1))
    assert loaded is not None
    assert look_up([loaded], "192.0.2.1", NOW + timedelta(hours=23))
    assert not look_up([loaded], "192.0.2.1", NOW + timedelta(days=1))


def test_another_kind_in_the_policy_is_another_feed(tmp_path: Path) -> None:
    store = FeedStore(tmp_path)
    store.keep(FEED, DATA, NOW)
    assert store.load(FeedPolicy(name="one", file="one.txt", kind="tor")) is None


def test_what_was_changed_on_the_disk_is_noticed(tmp_path: Path) -> None:
    store = FeedStore(tmp_path)
    version = store.keep(FEED, DATA, NOW)
    path = tmp_path / "one" / f"{version.digest}.data"
    path.write_bytes(b"10.0.0.0/8\n")
    with pytest.raises(TamperError):
        store.load(FEED)
    path.unlink()
    with pytest.raises(NotFoundError):
        store.load(FEED)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"v":1', b'"v":2'),
        (b'"items":1', b'"items":-1'),
        (b'"kind":"networks"', b'"kind":"files"'),
        (b'"version":"', b'"version":"../'),
        (b"2026-06-01T", b"2026-06-01 "),
        (b'{"fetched"', b'{"a":1,"fetched"'),
    ],
)
def test_a_state_that_is_none_is_refused(tmp_path: Path, old: bytes, new: bytes) -> None:
    store = FeedStore(tmp_path)
    store.keep(FEED, DATA, NOW)
    path = tmp_path / "one" / "current.json"
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(FormatError):
        store.current("one")


def test_old_versions_stay_for_a_while(tmp_path: Path) -> None:
    store = FeedStore(tmp_path)
    versions = [store.keep(FEED, b"192.0.%d.0/24\n" % number, NOW) for number in range(VERSIONS_KEPT + 3)]
    assert len(list((tmp_path / "one").glob("*.data"))) == VERSIONS_KEPT
    assert store.content("one", versions[-1]).items == store.content("one", versions[-2]).items == 1
