"""One request: redirects, refusals, and servers that send too much, too slowly, or what is no HTTP."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from palladion.errors import FormatError, NotFoundError, StorageError
from palladion.transit.url import parse_url
from palladion.transit.web import InterruptedTransferError, Web, attempt_pauses, refusal
from tests.transit.factories import IMPATIENT, QUICK
from tests.transit.servers import Handler, Shelf, answering, hang_up, only, serving

pytestmark = pytest.mark.service  # servers on loopback


def _get(shelf: Shelf, path: str = "/x", headers: dict[str, str] | None = None) -> bytes:
    web = Web(QUICK)
    try:
        with web.ask("GET", parse_url(shelf.url(path)), headers) as answer:
            return answer.read(1000)
    finally:
        web.close()


@contextmanager
def _raw(respond: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that reads one request and then does what `respond` does."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            try:
                while True:
                    client, _ = listening.accept()
                    with client:
                        while b"\r\n\r\n" not in client.recv(65536):
                            pass
                        respond(client)
            except OSError:
                pass

        threading.Thread(target=run, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/x"


def _to(location: str, status: int = 302) -> Callable[[Handler], bool]:
    def hook(handler: Handler) -> bool:
        if handler.place != "/x":
            return False
        return answering(status, {"Location": location})(handler)

    return hook


def test_a_request_says_who_asks_and_wants_no_compression() -> None:
    with serving({"/x": b"content"}) as shelf:
        assert _get(shelf) == b"content"
        assert shelf.headers[0]["User-Agent"] == "palladion"
        assert shelf.headers[0]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(status: int) -> None:
    with serving({"/y": b"content"}, _to("/y", status)) as shelf:
        assert _get(shelf) == b"content"


def test_a_redirect_loop_ends() -> None:
    with serving({}, _to("/x")) as shelf:
        with pytest.raises(FormatError, match="more than 5 redirects"):
            _get(shelf)
        assert len(shelf.asked) == 6


def test_a_redirect_without_a_target_is_refused() -> None:
    with serving({}, answering(302)) as shelf, pytest.raises(FormatError, match="without saying where to"):
        _get(shelf)


def test_a_redirect_to_a_less_secure_place_is_refused_and_nobody_asked() -> None:
    with serving({}, _to("http://192.0.2.1/x")) as shelf, pytest.raises(FormatError, match="not encrypted"):
        _get(shelf)


def test_credentials_stay_with_the_origin_that_they_are_for() -> None:
    with serving({"/y": b"content"}) as other, serving({"/y": b"content"}, _to(other.url("/y"))) as shelf:
        assert _get(shelf, headers={"Authorization": "Basic c2VjcmV0", "Range": "bytes=0-1"}) == b"co"
        assert shelf.headers[0]["Authorization"] == "Basic c2VjcmV0"
        assert "Authorization" not in other.headers[0]
        assert other.headers[0]["Range"] == "bytes=0-1"
    with serving({"/y": b"content"}, _to("/y")) as shelf:
        _get(shelf, headers={"Authorization": "Basic c2VjcmV0"})
        assert shelf.headers[1]["Authorization"] == "Basic c2VjcmV0"


def test_a_connection_that_the_server_closed_meanwhile_is_made_anew() -> None:
    with serving({"/x": b"content"}, only("GET", 1, hang_up)) as shelf:
        web = Web(QUICK)
        for _ in range(2):
            with web.ask("GET", parse_url(shelf.url("/x"))) as answer:
                assert answer.read(100) == b"content"
        assert len(shelf.asked) == 3
        web.close()


def test_a_new_connection_that_breaks_off_is_an_interruption() -> None:
    with serving({}, hang_up) as shelf:
        with pytest.raises(InterruptedTransferError, match="broke off or cannot be reached"):
            _get(shelf)
        assert len(shelf.asked) == 1


def test_a_body_larger_than_allowed_is_refused() -> None:
    with serving({"/x": bytes(1001)}) as shelf, pytest.raises(FormatError, match="more than the 1000 bytes"):
        _get(shelf)


def test_an_endless_body_is_refused() -> None:
    def endless(client: socket.socket) -> None:
        client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            client.sendall(b"1000\r\n" + bytes(4096) + b"\r\n")

    with (
        _raw(endless) as url,
        pytest.raises(FormatError, match="more than the 100 bytes"),
        Web(QUICK).ask("GET", parse_url(url)) as answer,
    ):
        answer.read(100)


def test_a_body_shorter_than_announced_is_an_interruption() -> None:
    def short(client: socket.socket) -> None:
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")

    with (
        _raw(short) as url,
        pytest.raises(InterruptedTransferError, match="after 5 of 100 bytes"),
        Web(QUICK).ask("GET", parse_url(url)) as answer,
    ):
        answer.read(1000)


@pytest.mark.parametrize(
    "head",
    [
        b"X-Long: " + b"a" * 300_000 + b"\r\n\r\n",
        b"".join(b"X-%d: %s\r\n" % (number, b"a" * 60_000) for number in range(50)) + b"\r\n",
        b"".join(b"X-%d: a\r\n" % number for number in range(10_000)) + b"\r\n",
    ],
    ids=["one long header", "many long headers", "many headers"],
)
def test_headers_without_end_are_refused(head: bytes) -> None:
    with (
        _raw(lambda client: client.sendall(b"HTTP/1.1 200 OK\r\n" + head)) as url,
        pytest.raises(InterruptedTransferError),
    ):
        Web(QUICK).ask("GET", parse_url(url))


def test_provisional_answers_without_end_are_refused() -> None:
    def forever(client: socket.socket) -> None:
        while True:
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)

    with _raw(forever) as url, pytest.raises(InterruptedTransferError, match=r"headers of more than|too slow"):
        Web(QUICK).ask("GET", parse_url(url))


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"])
def test_a_server_that_drips_one_byte_at_a_time_is_given_up(begin: bytes) -> None:
    """Slow loris: each byte comes before the idle limit, and the whole never."""
    over = threading.Event()

    def drip(client: socket.socket) -> None:
        client.sendall(begin)
        while not over.wait(0.01):
            client.sendall(b"H")

    with (
        _raw(drip) as url,
        pytest.raises(InterruptedTransferError, match="too slow"),
        Web(IMPATIENT).ask("GET", parse_url(url)) as answer,
    ):
        answer.read(100_000)
    over.set()


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
    ],
)
def test_what_is_no_http_is_an_interruption(answer: bytes) -> None:
    with (
        _raw(lambda client: client.sendall(answer)) as url,
        pytest.raises((InterruptedTransferError, FormatError)),
        Web(QUICK).ask("GET", parse_url(url)) as opened,
    ):
        opened.read(2)


@pytest.mark.parametrize("lengths", [b"5\r\nContent-Length: 6", b"+5", b"5, 5", b"-1"])
def test_a_length_that_is_none_or_two_is_refused(lengths: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: " + lengths + b"\r\n\r\nhello"
    with (
        _raw(lambda client: client.sendall(head)) as url,
        pytest.raises((FormatError, InterruptedTransferError)),
        Web(QUICK).ask("GET", parse_url(url)) as answer,
    ):
        assert answer.length() == len(answer.read(100))


def test_a_body_that_goes_on_is_refused() -> None:
    with serving({"/x": b"content"}) as shelf, Web(QUICK).ask("GET", parse_url(shelf.url("/x"))) as answer:
        assert answer.read_into(memoryview(bytearray(3))) == 3
        with pytest.raises(FormatError, match="more than it announced"):
            answer.end()


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (404, NotFoundError, "404 Not Found"),
        (410, NotFoundError, "410 Gone"),
        (401, StorageError, "is refused"),
        (403, StorageError, "is refused"),
        (412, FormatError, "replaced by another file"),
        (418, StorageError, "418"),
        (429, InterruptedTransferError, "Too Many Requests"),
        (503, InterruptedTransferError, "Service Unavailable"),
        (599, StorageError, "599"),
        (307, StorageError, "not done for an upload"),
    ],
)
def test_a_refusal_is_a_sentence(status: int, kind: type[Exception], words: str) -> None:
    with (
        serving({}, answering(status, {"Retry-After": "7"})) as shelf,
        Web(QUICK).ask("PUT", parse_url(shelf.url("/x")), body=[], body_bytes=0) as answer,
    ):
        error = refusal(answer, "it")
    assert type(error) is kind
    assert words in error.message


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("100000", 30.0), ("-1", 0.0), ("soon", 0.0), ("9" * 99, 0.0)]
)
def test_how_long_a_server_may_make_us_wait_is_capped(header: str, seconds: float) -> None:
    with (
        serving({}, answering(503, {"Retry-After": header})) as shelf,
        Web(QUICK).ask("GET", parse_url(shelf.url("/x"))) as answer,
    ):
        error = refusal(answer, "it")
    assert isinstance(error, InterruptedTransferError)
    assert error.wait_seconds == seconds


def test_pauses_grow_and_end() -> None:
    assert list(attempt_pauses(replace(QUICK, attempts=9))) == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_an_upload_that_is_refused_early_brings_the_reason(tmp_path: Path) -> None:
    def refuse(client: socket.socket) -> None:
        client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        client.recv(65536)

    body = [bytes(100_000)] * 100
    with _raw(refuse) as url:
        try:
            with Web(QUICK).ask("PUT", parse_url(url), body=body, body_bytes=10_000_000) as answer:
                assert answer.status == 403
        except InterruptedTransferError:
            # the system may throw the answer away with the connection: then it is an interruption, and no success
            pass
