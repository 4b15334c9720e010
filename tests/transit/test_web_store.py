"""Plain web servers: streams where there are no ranges, uploads by PUT, and what lies beside a file."""

from pathlib import Path

import pytest

from palladion.errors import ConflictError, FormatError, NotFoundError, StorageError
from palladion.transit.store import SIDECAR_BYTES_MAX, Whole
from palladion.transit.url import parse_url
from palladion.transit.web_store import WebStore
from tests.transit.factories import IMPATIENT, QUICK, sealed
from tests.transit.servers import Handler, Shelf, answering, hang_up, only, serving

pytestmark = pytest.mark.service  # servers on loopback


def _store(shelf: Shelf, path: str = "/x") -> WebStore:
    return WebStore(parse_url(shelf.url(path)), QUICK)


def _stream(store: WebStore, size_max: int = 10_000_000) -> bytes:
    data = bytearray()

    def write(piece: memoryview, offset: int) -> None:
        assert offset == len(data)
        data.extend(piece)

    store.stream(write, size_max=size_max)
    return bytes(data)


def test_a_stream_brings_the_whole_file_and_tells_its_progress() -> None:
    content = bytes(range(256)) * 4000
    with serving({"/x": content}) as shelf:
        told: list[tuple[int, int]] = []
        _store(shelf).stream(
            lambda _piece, _offset: None, size_max=len(content), progress=lambda *now: told.append(now)
        )
        assert told[-1] == (len(content), len(content))
        assert _stream(_store(shelf)) == content


def test_a_stream_larger_than_allowed_is_refused_at_once() -> None:
    with serving({"/x": bytes(1000)}) as shelf:
        with pytest.raises(FormatError, match="has 1000 bytes and comes without"):
            _stream(_store(shelf), 999)
        assert shelf.sent_bytes <= 1000


def test_a_stream_of_unknown_length_is_refused() -> None:
    def endless(handler: Handler) -> bool:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        return hang_up(handler)

    with serving({}, endless) as shelf, pytest.raises(FormatError, match="an unknown number of bytes"):
        _stream(_store(shelf))


def test_a_stream_that_breaks_off_is_told() -> None:
    def short(handler: Handler) -> bool:
        handler.answer(200, {"Content-Length": "100"}, b"x" * 40)
        return hang_up(handler)

    with serving({}, short) as shelf, pytest.raises(StorageError, match="broke off after 40 of 100"):
        _stream(_store(shelf))


def test_a_stream_that_drips_is_given_up() -> None:
    def drip(handler: Handler) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        while not handler.shelf.over.wait(0.02) and not handler.close_connection:
            handler.send(b"x")
        return True

    with serving({}, drip) as shelf, pytest.raises(StorageError, match="too slow"):
        _stream(WebStore(parse_url(shelf.url("/x")), IMPATIENT))


def test_a_stream_of_nothing_is_told() -> None:
    with serving() as shelf, pytest.raises(NotFoundError):
        _stream(_store(shelf))


def test_what_lies_beside_a_file_is_fetched() -> None:
    with serving({"/x.license": b"licence"}) as shelf:
        assert _store(shelf).sidecar(".license") == b"licence"
        assert _store(shelf).sidecar(".tsr") is None
        shelf.files["/x.sig"] = bytes(SIDECAR_BYTES_MAX + 1)
        with pytest.raises(FormatError, match="more than the"):
            _store(shelf).sidecar(".sig")
        shelf.hooks.append(answering(500))
        with pytest.raises(StorageError, match="500"):
            _store(shelf).sidecar(".license")


def test_a_sidecar_that_breaks_off_once_is_asked_for_again() -> None:
    # twice, since a new connection may meet the first
    with serving({"/x.license": b"licence"}, only("GET", 0, hang_up)) as shelf:
        assert _store(shelf).sidecar(".license") == b"licence"


def test_an_address_with_a_query_stands_for_one_file(tmp_path: Path) -> None:
    made = sealed(tmp_path)
    with serving() as shelf:
        store = _store(shelf, "/x?signature=secret")
        assert store.sidecar(".license") is None
        assert shelf.asked == []
        with pytest.raises(ConflictError, match=r"leaving \.license without address") as caught:
            store.put(Whole(made.path, made.publishers), {".license": b""}, replace=False)
        assert "secret" not in str(caught.value)
        assert shelf.asked == []


def test_an_upload_is_the_file_and_refuses_to_replace_one(tmp_path: Path) -> None:
    made = sealed(tmp_path)
    whole = Whole(made.path, made.publishers)
    with serving() as shelf:
        _store(shelf).put(whole, {".tsr": b"stamp"}, replace=False)
        assert shelf.files == {"/x": made.data, "/x.tsr": b"stamp"}
        shelf.files["/x"] = b"other"
        with pytest.raises(ConflictError, match="exists already"):
            _store(shelf).put(whole, {}, replace=False)
        assert shelf.files["/x"] == b"other"
        _store(shelf).put(whole, {}, replace=True)
        assert shelf.files["/x"] == made.data


@pytest.mark.parametrize(("status", "words"), [(405, "does not know PUT"), (403, "is refused"), (507, "507")])
def test_an_upload_that_is_refused_is_told(tmp_path: Path, status: int, words: str) -> None:
    made = sealed(tmp_path, segments=1)

    def refuse(handler: Handler) -> bool:
        handler.body()
        return answering(status)(handler)

    with serving({}, refuse) as shelf, pytest.raises(StorageError, match=words):
        _store(shelf).put(Whole(made.path, made.publishers), {}, replace=False)


def test_logins_go_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "netrc"
    path.write_text("machine 127.0.0.1 login hector password troy\n")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))
    with serving({"/x": b"content"}) as shelf:
        _store(shelf).open()
        assert shelf.headers[0]["Authorization"] == "Basic aGVjdG9yOnRyb3k="
