"""Connections: what strangers can do to them, and that the limits leave honest clients alone. No network, no clock."""

import asyncio
import resource
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from palladion.access.certificates import Certificate
from palladion.errors import FormatError
from palladion.gate import connections
from palladion.gate.app import App
from palladion.gate.connections import (
    CONNECTIONS_MAX,
    DESCRIPTORS_RESERVED,
    FRAMES_BYTES_MAX,
    HEAD_BYTES_MAX,
    HEAD_SECONDS_MAX,
    HOP_SECONDS_MAX,
    UNREAD_SECONDS_MAX,
    Connection,
    connections_max,
)
from palladion.gate.hops import SCOPE, Hop

HEAD = b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n"
KEEP_ALIVE_SECONDS = 30
CHUNKED = b"POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"


class Transport(asyncio.Transport):
    """A peer that is not there: remembers what was written and how the connection ended."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.ended: str | None = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.9", 4), "sockname": ("127.0.0.1", 5)}.get(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.ended is not None

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Timer:
    """What `call_later` gives back."""

    def __init__(self, seconds: float, action: Callable[[], None]) -> None:
        self.seconds, self.action, self.live = seconds, action, True

    def cancel(self) -> None:
        self.live = False


class Loop:
    """An event loop in which no time passes and no handler begins."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []
        self.requests: list[Any] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, action: Callable[[], None]) -> Timer:
        self.timers.append(Timer(seconds, action))
        return self.timers[-1]

    def create_task(self, coroutine: Any) -> Any:
        self.requests.append(coroutine)
        coroutine.close()

        class Task:
            def add_done_callback(self, _: object) -> None:
                pass

        return Task()

    def pass_seconds(self, seconds: float) -> None:
        """Let every timer go off that is due in so many seconds."""
        self.now = max(self.now, seconds)
        for timer in [timer for timer in self.timers if timer.live and timer.seconds <= seconds]:
            timer.live = False
            timer.action()


class Peer:
    """A connection with its transport and its loop."""

    def __init__(self, state: ServerState, *, room: int = 2, ours: bool = False) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            raise AssertionError("no handler begins here")

        config = uvicorn.Config(
            App.__new__(App) if ours else app,
            interface="asgi3",
            proxy_headers=False,
            ws="none",
            lifespan="off",
            log_config=None,
            limit_concurrency=room + 1,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        config.load()
        self.loop, self.transport = Loop(), Transport()
        self.connection = Connection(config, state, {}, self.loop)  # type: ignore[arg-type]
        self.connection.connection_made(self.transport)

    def send(self, data: bytes) -> None:
        self.connection.data_received(data)

    def answer(self, *, keep_alive: bool = True) -> None:
        """Let the handler of the request that came last be done."""
        cycle = self.connection.cycle
        cycle.response_complete = True
        if not keep_alive:
            self.transport.close()
        self.connection.on_response_complete()

    @property
    def ended(self) -> str | None:
        return self.transport.ended

    @property
    def requests(self) -> int:
        return len(self.loop.requests)


@pytest.fixture
def state() -> Iterator[ServerState]:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)  # uvicorn makes an event for each request
    yield ServerState()
    asyncio.set_event_loop(None)
    loop.close()


def test_a_request_whose_head_came_is_handled_and_no_clock_runs(state: ServerState) -> None:
    peer = Peer(state)
    peer.send(HEAD)
    peer.loop.pass_seconds(3600)
    assert (peer.requests, peer.ended) == (1, None)


@pytest.mark.parametrize(
    ("ours", "scheme", "stays"), [(True, "http", True), (True, "https", None), (False, "http", None)]
)
def test_half_a_connection_stays_open_where_that_can_be_answered(
    state: ServerState, ours: bool, scheme: str, stays: bool | None
) -> None:
    peer = Peer(state, ours=ours)
    peer.connection.scheme = scheme  # type: ignore[assignment]
    peer.send(HEAD)
    assert peer.connection.eof_received() is stays
    assert peer.connection.cycle.keep_alive is not stays


def test_half_a_connection_does_not_outlive_its_last_answer(state: ServerState) -> None:
    peer = Peer(state, ours=True)
    assert peer.connection.eof_received() is None
    peer.send(HEAD)
    peer.answer()
    assert peer.connection.eof_received() is None


def test_who_says_nothing_is_cut_off(state: ServerState) -> None:
    peer = Peer(state)
    peer.loop.pass_seconds(HEAD_SECONDS_MAX - 1)
    assert peer.ended is None
    peer.loop.pass_seconds(HEAD_SECONDS_MAX)
    assert peer.ended == "aborted"


def test_a_head_that_comes_byte_by_byte_gets_no_more_time(state: ServerState) -> None:
    peer = Peer(state)
    for byte in HEAD[:-1]:
        peer.send(bytes([byte]))
    peer.loop.pass_seconds(HEAD_SECONDS_MAX)
    assert (peer.requests, peer.ended) == (0, "aborted")


def test_a_second_head_on_the_same_connection_has_its_own_clock(state: ServerState) -> None:
    peer = Peer(state)
    peer.send(HEAD)
    peer.answer()
    peer.send(HEAD[:5])
    peer.loop.pass_seconds(HEAD_SECONDS_MAX)
    assert peer.ended == "aborted"


def test_a_client_that_waits_between_requests_is_not_cut_off_by_that_clock(state: ServerState) -> None:
    peer = Peer(state)
    peer.send(HEAD)
    peer.answer()
    peer.loop.pass_seconds(KEEP_ALIVE_SECONDS - 1)
    assert peer.ended is None


@pytest.mark.parametrize(
    "part", [b"h: %s\r\n" % (b"v" * 1000), b"v" * 1000, b"\r\n" * 500], ids=["many", "one long", "blank lines"]
)
def test_a_head_without_end_is_refused(state: ServerState, part: bytes) -> None:
    peer = Peer(state)
    peer.send(b"" if part.startswith(b"\r") else b"GET /x HTTP/1.1\r\nhost: a\r\nx: ")
    sent = 0
    while peer.ended is None and sent < 10 * HEAD_BYTES_MAX:
        peer.send(part)
        sent += len(part)
    assert peer.ended == "closed"
    assert peer.requests == 0
    assert sent <= HEAD_BYTES_MAX + len(part)
    assert peer.transport.written.startswith(b"HTTP/1.1 400 ")


def test_a_head_of_usual_size_is_taken_again_and_again(state: ServerState) -> None:
    peer = Peer(state)
    for _ in range(20):
        peer.send(HEAD[:-2] + b"cookie: " + b"v" * (HEAD_BYTES_MAX // 4) + b"\r\n\r\n")
        peer.answer()
    assert (peer.requests, peer.ended) == (20, None)


def test_a_long_body_is_no_long_head(state: ServerState) -> None:
    peer = Peer(state)
    peer.send(POST % (4 * HEAD_BYTES_MAX))
    for _ in range(4):
        peer.send(b"b" * HEAD_BYTES_MAX)
    assert peer.ended is None
    assert len(peer.connection.cycle.body) == 4 * HEAD_BYTES_MAX


def test_trailers_are_not_kept(state: ServerState) -> None:
    peer = Peer(state)
    peer.send(CHUNKED + b"1\r\nb\r\n0\r\n")
    before = list(peer.connection.headers)
    for _ in range(100):
        peer.send(b"authorization: Bearer other\r\n")
    assert peer.connection.headers == before


def test_a_body_that_nobody_waits_for_any_more_has_to_end_soon(state: ServerState) -> None:
    peer = Peer(state)
    peer.send(POST % 1_000_000)
    peer.answer()
    peer.send(b"b" * 10)
    peer.loop.pass_seconds(HEAD_SECONDS_MAX)
    assert peer.ended == "aborted"


def test_there_is_room_for_so_many_and_no_more(state: ServerState) -> None:
    first, second, third = (Peer(state, room=2) for _ in range(3))
    assert (first.ended, second.ended, third.ended) == (None, None, "aborted")
    assert state.connections == {first.connection, second.connection}
    first.connection.connection_lost(None)
    third.connection.connection_lost(None)
    fourth = Peer(state, room=2)
    fourth.send(HEAD)
    assert (fourth.ended, fourth.requests) == (None, 1)


def test_who_does_not_read_is_cut_off(state: ServerState) -> None:
    peer = Peer(state)
    peer.send(HEAD)
    peer.connection.pause_writing()
    peer.loop.pass_seconds(UNREAD_SECONDS_MAX)
    assert peer.ended == "aborted"


def test_who_reads_again_is_not(state: ServerState) -> None:
    peer = Peer(state)
    peer.send(HEAD)
    peer.connection.pause_writing()
    peer.connection.resume_writing()
    peer.loop.pass_seconds(UNREAD_SECONDS_MAX)
    assert peer.ended is None


def test_an_ended_connection_does_not_wait_for_its_reader_without_end(state: ServerState) -> None:
    peer = Peer(state)
    peer.send(HEAD)
    peer.answer(keep_alive=False)
    assert peer.ended == "closed"
    peer.loop.pass_seconds(UNREAD_SECONDS_MAX)
    assert peer.ended == "aborted"


def test_an_idle_connection_ends_with_whatever_was_not_read(state: ServerState) -> None:
    peer = Peer(state)
    peer.send(HEAD)
    peer.answer()
    peer.loop.pass_seconds(KEEP_ALIVE_SECONDS)
    assert peer.ended == "aborted"


def test_a_connection_that_is_gone_leaves_no_clock(state: ServerState) -> None:
    peer = Peer(state)
    peer.send(HEAD)
    peer.connection.pause_writing()
    peer.connection.connection_lost(None)
    assert [timer.seconds for timer in peer.loop.timers if timer.live] == []
    assert state.connections == set()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\n folded: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nna me: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a/b\r\n\r\n",
        b"GET / HTTP/2.0\r\nhost: a\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET /#a HTTP/1.1\r\nhost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        HEAD[:-2] + b"x: " + b"v" * HEAD_BYTES_MAX + b"\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused_and_ends_the_connection(state: ServerState, garbage: bytes) -> None:
    peer = Peer(state)
    peer.send(garbage)
    assert (peer.requests, peer.ended) == (0, "closed")


@pytest.mark.parametrize(
    ("soft", "hard", "expected", "raised"),
    [
        (1024, 1_048_576, CONNECTIONS_MAX, CONNECTIONS_MAX + DESCRIPTORS_RESERVED),
        (1_048_576, 1_048_576, CONNECTIONS_MAX, None),
        (1024, 4096, 4096 - DESCRIPTORS_RESERVED, 4096),
        (256, 256, 128, None),
    ],
)
def test_as_many_connections_as_leave_descriptors_for_the_ledger(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, expected: int, raised: int | None
) -> None:
    limits: list[tuple[int, int]] = []

    def set_limit(_: int, limit: tuple[int, int]) -> None:
        limits.append(limit)

    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    assert connections_max() == expected
    assert limits == ([] if raised is None else [(raised, hard)])


def test_a_path_is_handed_on_as_it_was_sent(state: ServerState) -> None:
    peer = Peer(state)
    peer.send(HEAD.replace(b"/x", b"/%78%2fy"))
    assert peer.connection.cycle.scope["path"] == "/%78%2fy"


def test_garbage_behind_a_request_waits_for_its_answer_and_ends_the_connection(state: ServerState) -> None:
    peer = Peer(state)
    peer.send(HEAD + b"garbage\r\n\r\n")
    peer.send(b"more")
    assert (peer.requests, peer.ended, peer.transport.written) == (1, None, b"")
    assert peer.connection.cycle.keep_alive is False


def test_a_body_that_breaks_before_the_answer_is_refused_by_it(state: ServerState) -> None:
    peer = Peer(state)
    peer.send(CHUNKED + b"zz\r\n")
    assert (peer.transport.written[:12], peer.ended) == (b"HTTP/1.1 400", "closed")


def test_a_body_that_breaks_after_the_answer_gets_no_second_one(state: ServerState) -> None:
    peer = Peer(state)
    peer.send(CHUNKED)
    peer.answer()
    peer.send(b"zz\r\n")
    assert (peer.transport.written, peer.ended) == (b"", "closed")
    peer.loop.pass_seconds(UNREAD_SECONDS_MAX)
    assert peer.ended == "aborted"


def test_a_body_that_breaks_in_the_middle_of_an_answer_cuts_it(state: ServerState) -> None:
    peer = Peer(state)
    peer.send(CHUNKED)
    peer.connection.cycle.response_started = True
    peer.send(b"zz\r\n")
    assert (peer.transport.written, peer.ended) == (b"", "aborted")


def test_a_broken_body_behind_an_open_request_answers_neither(state: ServerState) -> None:
    peer = Peer(state)
    peer.send(HEAD + CHUNKED + b"zz\r\n")
    assert (peer.transport.written, peer.ended) == (b"", "aborted")


@pytest.mark.parametrize("frame", [b"0" * 1000, b"1;" + b"a" * 998], ids=["zeros", "extensions"])
def test_frames_of_a_body_are_not_without_end(state: ServerState, frame: bytes) -> None:
    peer = Peer(state)
    peer.send(CHUNKED + frame)
    sent = 0
    while peer.ended is None and sent < 10 * FRAMES_BYTES_MAX:
        peer.send(frame[2:])
        sent += len(frame)
    assert (peer.ended, sent <= FRAMES_BYTES_MAX + 2 * len(frame)) == ("closed", True)


def test_the_smallest_chunks_are_no_such_frames(state: ServerState) -> None:
    peer = Peer(state)
    peer.send(CHUNKED)
    for _ in range(FRAMES_BYTES_MAX):
        peer.send(b"1\r\nb\r\n")
    assert peer.ended is None


BEGUN = 1_780_000_000.0


@pytest.fixture
def certified(state: ServerState, monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], Peer]:
    """A peer with a certificate that lives so long."""
    monkeypatch.setattr(time, "time", lambda: BEGUN)

    def connect(lives: timedelta) -> Peer:
        hop = Hop(Certificate("ab" * 32, None, datetime.fromtimestamp(BEGUN, UTC) + lives))
        monkeypatch.setattr(connections, "read_hop", lambda _: hop)
        return Peer(state)

    return connect


def test_every_request_of_a_connection_says_who_is_at_its_other_end(certified: Callable[[timedelta], Peer]) -> None:
    peer = certified(timedelta(hours=1))
    for _ in range(2):
        peer.send(HEAD)
        assert peer.connection.cycle.scope[SCOPE].certificate.fingerprint == "ab" * 32  # type: ignore[literal-required]
        peer.answer()


def test_a_connection_in_plain_text_says_nothing_of_that(state: ServerState) -> None:
    peer = Peer(state)
    peer.send(HEAD)
    assert SCOPE not in peer.connection.cycle.scope


def test_an_idle_connection_ends_with_its_certificate(certified: Callable[[timedelta], Peer]) -> None:
    peer = certified(timedelta(seconds=100))
    peer.send(HEAD)
    peer.answer()
    peer.connection._unset_keepalive_if_required()
    peer.loop.pass_seconds(99)
    assert peer.ended is None
    peer.loop.pass_seconds(100)
    assert peer.ended == "closed"


def test_what_is_being_answered_is_answered_before(certified: Callable[[timedelta], Peer]) -> None:
    peer = certified(timedelta(seconds=100))
    peer.send(HEAD)
    peer.loop.pass_seconds(100)
    assert peer.ended is None
    assert peer.connection.cycle.keep_alive is False


def test_a_connection_with_a_certificate_for_years_ends_within_a_day(certified: Callable[[timedelta], Peer]) -> None:
    peer = certified(timedelta(days=3650))
    peer.send(HEAD)
    peer.answer()
    peer.connection._unset_keepalive_if_required()
    peer.loop.pass_seconds(HOP_SECONDS_MAX)
    assert peer.ended == "closed"


def test_a_certificate_that_cannot_be_read_opens_nothing(state: ServerState, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> Hop:
        raise FormatError("a certificate that cannot be read")

    monkeypatch.setattr(connections, "read_hop", refuse)
    assert Peer(state).ended == "aborted"
