"""Pushing: whole and signed or not at all, never over something else by accident, and looked at from the other side."""

from pathlib import Path

import pytest

from palladion.errors import ConflictError, StorageError, TamperError
from palladion.transit.push import push
from palladion.transit.store import beside
from tests.seal.factories import Party
from tests.transit.factories import QUICK, SEGMENT, Sealed, sealed
from tests.transit.servers import Handler, answering, serving

pytestmark = pytest.mark.service  # each test has a server of its own on loopback


@pytest.fixture
def made(tmp_path: Path) -> Sealed:
    return sealed(tmp_path / "made")


def test_what_is_there_after_is_the_file_with_what_lies_beside_it(tmp_path: Path, made: Sealed) -> None:
    beside(made.path, ".license").write_bytes(b"licence")
    told: list[tuple[int, int]] = []
    with serving() as shelf:
        done = push(made.path, shelf.url("/x"), made.publishers, limits=QUICK, progress=lambda *now: told.append(now))
        assert shelf.files == {"/x": made.data, "/x.license": b"licence"}
    assert (done.sent, done.sidecars, done.info.header.version) == (True, (".license",), 3)
    assert told[-1] == (len(made.data), len(made.data))
    push(made.path, str(tmp_path / "folder.sealed"), made.publishers)
    assert (tmp_path / "folder.sealed").read_bytes() == made.data
    assert (tmp_path / "folder.sealed.license").read_bytes() == b"licence"


def test_the_same_file_is_not_sent_again_but_a_new_licence_is(made: Sealed) -> None:
    with serving({"/x": made.data}) as shelf:
        assert not push(made.path, shelf.url("/x"), made.publishers, limits=QUICK).sent
        beside(made.path, ".license").write_bytes(b"renewed")
        assert push(made.path, shelf.url("/x"), made.publishers, limits=QUICK).sent
        assert shelf.files["/x.license"] == b"renewed"
        assert not push(made.path, shelf.url("/x"), made.publishers, limits=QUICK).sent


def test_another_file_is_kept_unless_it_is_to_be_replaced(tmp_path: Path, made: Sealed) -> None:
    other = sealed(tmp_path / "other", party=made.party).data
    for there, words in ((other, "lies fraud version 3"), (b"hello" * 100, "is not a sealed file")):
        with serving({"/x": there}) as shelf:
            with pytest.raises(ConflictError, match=words):
                push(made.path, shelf.url("/x"), made.publishers, limits=QUICK)
            assert shelf.files["/x"] == there
            push(made.path, shelf.url("/x"), made.publishers, replace=True, limits=QUICK)
            assert shelf.files["/x"] == made.data


def test_a_file_that_appears_meanwhile_is_kept(made: Sealed) -> None:
    def race(handler: Handler) -> bool:
        if handler.command == "PUT":
            handler.shelf.files.setdefault("/x", b"theirs")
        return False

    with serving({}, race) as shelf:
        with pytest.raises(ConflictError, match="exists already"):
            push(made.path, shelf.url("/x"), made.publishers, limits=QUICK)
        assert shelf.files["/x"] == b"theirs"


@pytest.mark.parametrize("position", [300, SEGMENT + 5, -60])
def test_a_damaged_file_reaches_nobody(made: Sealed, position: int) -> None:
    data = bytearray(made.data)
    data[position] ^= 1
    made.path.write_bytes(data)
    with serving() as shelf:
        with pytest.raises(TamperError):
            push(made.path, shelf.url("/x"), made.publishers, limits=QUICK)
        assert shelf.asked == []


def test_a_file_of_another_publisher_reaches_nobody(made: Sealed) -> None:
    with serving() as shelf:
        with pytest.raises(TamperError, match="none of the 1 that are trusted"):
            push(made.path, shelf.url("/x"), Party().publishers, limits=QUICK)
        assert shelf.asked == []


def test_a_place_that_shows_something_else_after_is_told(made: Sealed) -> None:
    def lose(handler: Handler) -> bool:
        if handler.command != "PUT":
            return False
        handler.body()
        return answering(201)(handler)

    with serving({}, lose) as shelf, pytest.raises(TamperError, match="shows something else now"):
        push(made.path, shelf.url("/x"), made.publishers, limits=QUICK)


def test_a_place_that_takes_nothing_is_told(made: Sealed) -> None:
    def refuse(handler: Handler) -> bool:
        if handler.command != "PUT":
            return False
        handler.body()
        return answering(403)(handler)

    with serving({}, refuse) as shelf, pytest.raises(StorageError, match="is refused"):
        push(made.path, shelf.url("/x"), made.publishers, limits=QUICK)


def test_a_server_without_ranges_is_believed_and_not_overwritten(made: Sealed) -> None:
    with serving() as shelf:
        shelf.ranges = False
        assert push(made.path, shelf.url("/x"), made.publishers, limits=QUICK).sent
        with pytest.raises(ConflictError, match="cannot be compared"):
            push(made.path, shelf.url("/x"), made.publishers, limits=QUICK)
        assert push(made.path, shelf.url("/x"), made.publishers, replace=True, limits=QUICK).sent
