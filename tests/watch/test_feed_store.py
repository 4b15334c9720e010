"""What a feed keeps: all of it or nothing, under one calibration, by one feed at a time."""

import sqlite3
import stat
from pathlib import Path

import pytest

from palladion.errors import BusyError, FormatError, StorageError
from palladion.watch.feed import Known
from palladion.watch.feed_store import FOLDER, open_store
from palladion.watch.follow import Position

LOG = Path("/var/log/x")


def test_what_was_saved_is_there_again(tmp_path: Path) -> None:
    with open_store(tmp_path, "fraud") as store:
        store.load("one")
        store.save(
            {"a": Known("o", "watched", b"state"), "b": Known("o"), "c": Known("p", state=b"other")},
            latest=5.5,
            log=LOG,
            position=Position(1, 2, 3),
        )
    with open_store(tmp_path, "fraud") as store:
        kept = store.load("one")
        assert dict(kept.known) == {"a": Known("o", "watched"), "b": Known("o"), "c": Known("p")}
        assert kept.latest == 5.5
        assert store.position(LOG) == Position(1, 2, 3)
        assert store.position(Path("/other")) is None
        assert store.get("a") == ("o", b"state")
        assert store.get("b") is None
        assert store.get("nobody") is None
        assert list(store.of("o")) == [("a", b"state")]
        assert not store.pending()


def test_a_client_whose_state_did_not_change_keeps_it(tmp_path: Path) -> None:
    with open_store(tmp_path, "fraud") as store:
        store.load("one")
        store.save({"a": Known("o", state=b"state")}, latest=1)
        store.save({"a": Known("o", "watched")}, latest=2)
        assert store.get("a") == ("o", b"state")
        assert store.load("one").known["a"].proposed == "watched"


def test_states_of_another_calibration_are_gone_and_what_was_proposed_stays(tmp_path: Path) -> None:
    with open_store(tmp_path, "fraud") as store:
        store.load("one")
        store.save({"a": Known("o", "watched", b"state")}, latest=1)
        assert store.load("two").known["a"].proposed == "watched"
        assert store.get("a") is None
        store.load("one")
        assert store.get("a") is None


def test_a_save_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    with open_store(tmp_path, "fraud") as store:
        store.load("one")
        store.save({"a": Known("o")}, latest=1, log=LOG, position=Position(1, 2, 3))
        broken = Position("no number", 0, 0)  # type: ignore[arg-type]
        with pytest.raises((FormatError, StorageError)):
            store.save({"b": Known("o")}, latest=2, log=LOG, position=broken)
        kept = store.load("one")
        assert (set(kept.known), kept.latest) == ({"a"}, 1)
        assert store.position(LOG) == Position(1, 2, 3)


def test_one_feed_of_a_model_at_a_time(tmp_path: Path) -> None:
    with open_store(tmp_path, "fraud"):
        with pytest.raises(BusyError, match="the feed of fraud"), open_store(tmp_path, "fraud"):
            pass
        with open_store(tmp_path, "spam"):
            pass


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    with open_store(tmp_path, "fraud"):
        pass
    folder = tmp_path / FOLDER
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "fraud.sqlite").stat().st_mode) == 0o600


@pytest.mark.parametrize("damage", ["junk", "another format", "a standing that is none"])
def test_a_file_that_no_feed_wrote_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / FOLDER / "fraud.sqlite"
    with open_store(tmp_path, "fraud") as store:
        store.load("one")
        store.save({"a": Known("o")}, latest=1)
    if damage == "junk":
        path.write_bytes(b"x" * 4096)
    else:
        connection = sqlite3.connect(path)
        with connection:
            change = "UPDATE about SET value = 'feed-9' WHERE name = 'format'"
            connection.execute(change if damage == "another format" else "UPDATE client SET proposed = 'famous'")
        connection.close()
    with pytest.raises(FormatError), open_store(tmp_path, "fraud") as store:
        store.load("one")
