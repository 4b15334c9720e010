"""One connection: streams, slow readers and clocks. Where time matters, none passes by itself."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from palladion.gate.upstream.connection import BUFFER_BYTES, JOINED_BYTES_MAX, Connection
from palladion.gate.upstream.errors import UpstreamError
from palladion.gate.upstream.limits import UpstreamLimits
from palladion.gate.upstream.pool import Upstream
from palladion.gate.upstream.request import Request

from .scripted import CHUNKED, OK, SOON, UNTIL_CLOSE, Peer, Runner, answers, answers_and_closes, asking, good, serving

LIMITS = UpstreamLimits(head_seconds=60, idle_seconds=30, keep_alive_seconds=4)
REQUEST = Request(b"GET / HTTP/1.1\r\n\r\n", b"", head_only=False)
READ_BYTES = 256 * 1024  # what both event loops read at most at once


class Transport(asyncio.Transport):
    """A server that is not there."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.unsent = 0
        self.reading = True
        self.aborted = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.written += list_of_data

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def abort(self) -> None:
        self.aborted = True


class Clock:
    """Of an event loop what a connection uses; no time passes until it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None], asyncio.Event]] = []

    def time(self) -> float:
        return self.now

    def create_future(self) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

    def call_at(self, when: float, action: Callable[[], None]) -> Any:
        cancelled = asyncio.Event()
        self.timers.append((when, action, cancelled))

        class Timer:
            def cancel(self) -> None:
                cancelled.set()

        return Timer()

    def pass_seconds(self, seconds: float) -> None:
        self.now += seconds
        due, self.timers = (
            [timer for timer in self.timers if timer[0] <= self.now],
            [timer for timer in self.timers if timer[0] > self.now],
        )
        for _, action, cancelled in due:
            if not cancelled.is_set():
                action()


class Pair:
    """A connection, the server that is not there, and the clock of both."""

    def __init__(self) -> None:
        self.clock, self.transport, self.losses = Clock(), Transport(), 0

        def lost(connection: Connection) -> None:
            self.losses += 1

        loop = cast(asyncio.AbstractEventLoop, self.clock)
        self.connection = Connection("it", LIMITS, secure=False, loop=loop, lost=lost)
        self.connection.connection_made(self.transport)

    async def begin(self, *, whole: bool, request: Request = REQUEST) -> "asyncio.Task[None]":
        task = asyncio.create_task(self.connection.exchange(request, whole=whole))
        await asyncio.sleep(0)
        return task

    def alive(self) -> tuple[bool, bool]:
        """Whether the connection may be used, and whether it was cut off."""
        return not self.connection.dead, self.transport.aborted

    def reading(self) -> bool:
        return self.transport.reading

    async def streaming(self, data: bytes) -> None:
        task = await self.begin(whole=False)
        self.connection.data_received(data)
        await task


async def fault(awaitable: Any, kind: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        await awaitable
    assert (caught.value.kind, caught.value.sent) == (kind, True)


def test_a_head_has_its_time_and_a_body_has_it_anew_with_every_piece() -> None:
    async def slow_head() -> None:
        pair = Pair()
        task = await pair.begin(whole=True)
        for piece in (OK[:5], OK[5:10]):
            pair.connection.data_received(piece)
            pair.clock.pass_seconds(30)
        await fault(task, "timeout")
        assert pair.transport.aborted

    async def slow_body() -> None:
        pair = Pair()
        task = await pair.begin(whole=True)
        pair.clock.pass_seconds(59)
        pair.connection.data_received(OK[:-2])
        pair.clock.pass_seconds(29)
        pair.connection.data_received(OK[-2:-1])
        pair.clock.pass_seconds(29)
        assert not task.done()
        pair.clock.pass_seconds(1)
        await fault(task, "timeout")

    asyncio.run(slow_head())
    asyncio.run(slow_body())


def test_an_idle_connection_rests_for_its_time_and_no_longer() -> None:
    async def main() -> None:
        pair = Pair()
        for _ in range(3):
            task = await pair.begin(whole=True)
            pair.clock.pass_seconds(20)
            pair.connection.data_received(OK)
            await task
            assert pair.connection.answer().body == b"ok"
            assert pair.connection.rest()
            pair.clock.pass_seconds(3)
        assert pair.alive() == (True, False)
        pair.clock.pass_seconds(1)
        assert pair.alive() == (False, True)

    asyncio.run(main())


def test_a_slow_reader_pauses_the_server_and_is_not_its_fault() -> None:
    async def main() -> None:
        pair = Pair()
        await pair.streaming(UNTIL_CLOSE)
        pair.connection.data_received(bytes(BUFFER_BYTES))
        assert pair.reading()
        pair.connection.data_received(b"x")
        assert not pair.reading()
        pair.clock.pass_seconds(10_000)
        assert len(await pair.connection.part()) == BUFFER_BYTES + 1
        assert pair.reading()
        # from now on it is the server's turn
        pair.clock.pass_seconds(30)
        await fault(pair.connection.part(), "timeout")

    asyncio.run(main())


def test_a_fault_is_told_before_what_came_ahead_of_it() -> None:
    async def main() -> None:
        pair = Pair()
        await pair.streaming(OK[:-1])
        pair.connection.connection_lost(None)
        await fault(pair.connection.part(), "broken")
        assert pair.losses == 1

    asyncio.run(main())


def test_an_answer_that_is_complete_can_be_taken_after_the_connection_is_gone() -> None:
    async def main() -> None:
        pair = Pair()
        await pair.streaming(OK)
        pair.connection.connection_lost(None)
        assert await pair.connection.part() == b"ok"
        assert await pair.connection.part() == b""
        assert not pair.connection.rest()

    asyncio.run(main())


def test_only_a_used_connection_without_a_byte_of_an_answer_is_stale() -> None:
    async def main() -> None:
        for used, came, stale in ((True, b"", True), (True, b"H", False), (False, b"", False)):
            for in_order in (True, False):
                pair = Pair()
                if used:
                    task = await pair.begin(whole=True)
                    pair.connection.data_received(OK)
                    await task
                    pair.connection.answer()
                    assert pair.connection.rest()
                task = await pair.begin(whole=True)
                if came:
                    pair.connection.data_received(came)
                if in_order:
                    pair.connection.eof_received()
                else:
                    pair.connection.connection_lost(None)
                await fault(task, "broken")
                assert pair.connection.stale == stale

    asyncio.run(main())


def test_a_connection_rests_only_after_an_answer_and_a_request_that_are_over() -> None:
    async def main() -> None:
        for data, unsent, usable in (
            (OK, 0, True),
            (OK, 1, False),
            (OK[:-1], 0, False),
            (OK.replace(b"content-type: text/plain", b"connection: close"), 0, False),
        ):
            pair = Pair()
            await pair.streaming(data)
            await pair.connection.part()
            pair.transport.unsent = unsent
            assert pair.connection.rest() == usable == (not pair.transport.aborted)

    asyncio.run(main())


def test_what_comes_between_exchanges_ends_the_connection() -> None:
    async def main() -> None:
        pair = Pair()
        task = await pair.begin(whole=True)
        pair.connection.data_received(OK)
        pair.connection.data_received(OK)
        await task
        assert pair.connection.answer().body == b"ok"
        assert not pair.connection.rest()
        await_again = pair.connection.exchange(REQUEST, whole=True)
        with pytest.raises(UpstreamError) as caught:
            await await_again
        assert (caught.value.kind, caught.value.sent) == ("broken", False)

    asyncio.run(main())


def test_a_large_body_is_not_copied() -> None:
    async def main() -> None:
        for size, writes in ((JOINED_BYTES_MAX, 1), (JOINED_BYTES_MAX + 1, 2)):
            pair = Pair()
            body = bytes(size)
            task = await pair.begin(whole=True, request=Request(b"POST", body, head_only=False))
            assert len(pair.transport.written) == writes
            assert b"".join(pair.transport.written) == b"POST" + body
            task.cancel()

    asyncio.run(main())


def test_parts_come_as_they_are_sent(run: Runner) -> None:
    async def main() -> None:
        taken = asyncio.Event()

        async def speak(peer: Peer) -> None:
            await peer.request()
            await peer.send(CHUNKED)
            for word in (b"one", b"two"):
                await peer.send(b"3\r\n" + word + b"\r\n")
                await taken.wait()
                taken.clear()
            await peer.send(b"0\r\n\r\n")
            await good(peer)

        async with serving(speak) as (server, address), asking(address) as upstream:
            async with upstream.stream(b"POST", b"/v1", [], b"{}") as answer:
                assert (answer.status, answer.headers) == (200, [(b"transfer-encoding", b"chunked")])
                parts = []
                async for part in answer:
                    parts.append(part)
                    taken.set()
                assert parts == [b"one", b"two"]
            assert upstream.idle == 1
            assert (await upstream.ask(b"GET", b"/", [], b"")).body == b"ok"
            assert server.connections == 1
            with pytest.raises(ValueError, match="was left"):
                await anext(answer)

    run(main())


def test_who_stops_early_closes_the_connection(run: Runner) -> None:
    async def main() -> None:
        async def endless(peer: Peer) -> None:
            await peer.request()
            await peer.send(UNTIL_CLOSE)
            while not peer.writer.is_closing():
                await peer.send(b"x" * 1000)

        async with serving(endless) as (server, address), asking(address) as upstream:
            async with upstream.stream(b"GET", b"/", [], b"") as answer:
                assert await anext(answer)
            await server.ended.wait()
            assert (upstream.open, upstream.failures) == (0, {})

    run(main())


async def listen(upstream: Upstream) -> None:
    async with upstream.stream(b"GET", b"/", [], b"") as answer:
        async for _ in answer:
            pass


def test_a_stream_that_breaks_off_says_so(run: Runner) -> None:
    async def main() -> None:
        for script, kind in (
            (answers_and_closes(CHUNKED + b"2\r\nok\r\n"), "broken"),
            (answers(CHUNKED + b"2\r\nok\r\n"), "timeout"),
            (answers(CHUNKED + b"2\r\nokk"), "broken"),
            (answers(UNTIL_CLOSE + b"x" * 65), "too-large"),
        ):
            limits: dict[str, Any] = {"idle_seconds": SOON, "stream_bytes_max": 64}
            async with serving(script) as (server, address), asking(address, **limits) as upstream:
                with pytest.raises(UpstreamError) as caught:
                    await listen(upstream)
                assert caught.value.kind == kind
                await server.ended.wait()
                assert (upstream.open, upstream.failures) == (0, {kind: 1})

    run(main())


def test_a_slow_reader_costs_no_memory(run: Runner) -> None:
    size = 8 * 2**20

    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size

    async def main() -> None:
        async with (
            serving(answers(head, bytes(size))) as (_, address),
            asking(address) as upstream,
        ):
            async with upstream.stream(b"GET", b"/", [], b"") as answer:
                largest = total = 0
                async for part in answer:
                    largest, total = max(largest, len(part)), total + len(part)
                    for _ in range(20):
                        await asyncio.sleep(0)
                assert total == size
                assert largest <= BUFFER_BYTES + READ_BYTES
            assert upstream.idle == 1

    run(main())
