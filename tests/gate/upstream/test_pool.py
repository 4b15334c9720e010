"""The pool: whole answers from servers that behave and from servers that do not, on both event loops."""

import asyncio
import ssl
from typing import Any

import pytest

from palladion.gate.upstream.address import Address
from palladion.gate.upstream.errors import UpstreamError
from palladion.gate.upstream.limits import UpstreamLimits
from palladion.gate.upstream.pool import Upstream

from .scripted import (
    CHUNKED,
    OK,
    SOON,
    UNTIL_CLOSE,
    Peer,
    Runner,
    Script,
    answers,
    answers_and_closes,
    asking,
    good,
    serving,
)

JSON = [(b"content-type", b"application/json")]


async def ask(upstream: Upstream, body: bytes = b"{}") -> bytes:
    return (await upstream.ask(b"POST", b"/v1", JSON, body)).body


async def failing(upstream: Upstream) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await ask(upstream)
    assert upstream.failures == {caught.value.kind: 1}
    assert upstream.open == 0
    return caught.value


def test_a_connection_is_kept_for_the_next_request(run: Runner) -> None:
    async def main() -> None:
        async with serving(good) as (server, address), asking(address) as upstream:
            answer = await upstream.ask(b"POST", b"/v1/x?y=z", JSON, b"{}")
            assert await ask(upstream) == b"ok"
            assert answer == (200, [(b"content-type", b"text/plain"), (b"content-length", b"2")], b"ok")
            assert server.requests[0] == (
                b"POST /v1/x?y=z HTTP/1.1\r\nhost: " + address.authority.encode() + b"\r\naccept-encoding: identity\r\n"
                b"content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
            )
            assert (server.connections, upstream.open, upstream.idle, upstream.exchanges) == (1, 1, 1, 2)

    run(main())


def test_the_fixed_headers_go_along_and_are_never_shown(run: Runner) -> None:
    async def main() -> None:
        async with serving(answers(b"nonsense\r\n\r\n")) as (server, address):
            key = [(b"authorization", b"Bearer very-secret")]
            upstream = Upstream(address, limits=UpstreamLimits(), headers=key)
            error = await failing(upstream)
            assert b"\r\nauthorization: Bearer very-secret\r\n" in server.requests[0]
            assert "secret" not in f"{error!r} {error} {upstream!r} {vars(error)}"
            await upstream.close()

    run(main())


def test_a_socket_of_this_machine_can_be_asked(run: Runner, tmp_path_factory: pytest.TempPathFactory) -> None:
    async def main() -> None:
        path = str(tmp_path_factory.mktemp("s") / "s")

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"{}")
            writer.write(OK)
            writer.close()

        address = Address("localhost", 0, unix_path=path)
        async with await asyncio.start_unix_server(serve, path), asking(address) as upstream:
            assert await ask(upstream) == b"ok"

    run(main())


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (CHUNKED + b"2;x=y\r\nok\r\n0\r\nt: v\r\n\r\n", b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nlink: x\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", b""),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", b"ok"),
    ],
    ids=["chunked", "interim", "empty", "redirect", "old"],
)
def test_answers_of_every_shape_are_read(run: Runner, answer: bytes, body: bytes) -> None:
    async def main() -> None:
        async with serving(answers(answer)) as (_, address), asking(address) as upstream:
            assert await ask(upstream) == body

    run(main())


def test_an_answer_may_end_with_its_connection(run: Runner) -> None:
    async def main() -> None:
        async with serving(answers_and_closes(UNTIL_CLOSE, b"o", b"k")) as (_, address), asking(address) as upstream:
            assert await ask(upstream) == b"ok"
            assert upstream.open == 0

    run(main())


def test_an_answer_to_head_has_no_body(run: Runner) -> None:
    async def main() -> None:
        async with serving(answers(OK[:-2])) as (_, address), asking(address) as upstream:
            assert (await upstream.ask(b"HEAD", b"/", [], b"")).status == 200
            assert upstream.idle == 0  # the parser waits for a body

    run(main())


def reset(peer: Peer) -> None:
    peer.reset()


def half_close(peer: Peer) -> None:
    peer.half_close()


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (answers_and_closes(), "broken"),
        (answers(then=reset), "broken"),
        (answers(OK[:30], then=half_close), "broken"),
        (answers_and_closes(OK[:-2]), "broken"),
        (answers(OK[:-1], then=half_close), "broken"),
        (answers(OK[:-1], then=reset), "broken"),
        (answers(UNTIL_CLOSE + b"ok", then=lambda peer: None), "timeout"),
        (answers_and_closes(CHUNKED + b"2\r\nok\r\n"), "broken"),
        (answers(OK + b"more"), "broken"),
        (answers(OK + OK), "broken"),
        (answers(b"SSH-2.0-OpenSSH\r\n\r\n"), "broken"),
        (answers(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 10000), "too-large"),
        (answers(b"HTTP/1.1 200 OK\r\na: " + b"b" * 40000), "too-large"),
        (answers(b"HTTP/1.1 100 Continue\r\n\r\n" * 9), "broken"),
        (answers(CHUNKED + b"ffffffffffffffff\r\n"), "timeout"),
        (answers(CHUNKED + b"fffffffffffffffff\r\n"), "broken"),
        (answers(CHUNKED + b"64\r\n" + b"x" * 100), "too-large"),
        (answers(OK.replace(b"length: 2", b"length: 65")), "too-large"),
        (answers(UNTIL_CLOSE + b"x" * 65), "too-large"),
        (answers(), "timeout"),
        (answers(OK[:20]), "timeout"),
        (answers(OK[:-1]), "timeout"),
        (answers(b"HTTP/1.1 100 Continue\r\n\r\n"), "timeout"),
    ],
)
def test_a_server_that_misbehaves_fails_the_request_and_loses_the_connection(
    run: Runner, script: Script, kind: str
) -> None:
    async def main() -> None:
        short: dict[str, Any] = {"head_seconds": SOON, "idle_seconds": SOON} if kind == "timeout" else {}
        async with serving(script) as (server, address), asking(address, body_bytes_max=64, **short) as upstream:
            error = await failing(upstream)
            assert (error.kind, error.sent) == (kind, True)
            assert str(error).startswith(str(address))
            await server.ended.wait()
            assert upstream.retries == 0

    run(main())


def test_a_head_that_comes_drop_by_drop_gets_no_more_time(run: Runner) -> None:
    async def drip(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\na: ")
        while True:
            await peer.send(b"b")
            await asyncio.sleep(0)

    async def main() -> None:
        limits: dict[str, Any] = {"head_seconds": SOON, "head_bytes_max": 10**9}
        async with serving(drip) as (_, address), asking(address, **limits) as upstream:
            assert (await failing(upstream)).kind == "timeout"

    run(main())


def test_a_server_that_never_reads_times_out(run: Runner) -> None:
    async def deaf(peer: Peer) -> None:
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's
        await peer.server.ended.wait()

    async def main() -> None:
        async with serving(deaf) as (server, address), asking(address, head_seconds=SOON) as upstream:
            with pytest.raises(UpstreamError) as caught:
                await ask(upstream, bytes(16 * 2**20))
            assert caught.value.kind == "timeout"
            server.ended.set()

    run(main())


def test_a_connection_with_unread_bytes_of_a_request_is_not_used_again(run: Runner) -> None:
    async def hasty(peer: Peer) -> None:
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's
        await peer.send(OK)
        await peer.server.ended.wait()

    async def main() -> None:
        async with serving(hasty) as (server, address), asking(address) as upstream:
            assert await ask(upstream, bytes(16 * 2**20)) == b"ok"
            assert (upstream.open, upstream.idle) == (0, 0)
            server.ended.set()

    run(main())


def test_an_idle_connection_that_the_server_closed_is_replaced_once(run: Runner) -> None:
    async def main() -> None:
        async def closes(peer: Peer) -> None:
            await peer.request()
            await peer.send(OK)
            await peer.request()  # and closes

        async with serving(closes, good) as (server, address), asking(address) as upstream:
            assert await ask(upstream) == b"ok"
            assert await ask(upstream) == b"ok"
            assert (server.connections, upstream.retries, upstream.open) == (2, 1, 1)

        async with serving(closes, answers_and_closes()) as (server, address), asking(address) as upstream:
            await ask(upstream)
            error = await failing(upstream)
            assert (error.kind, error.sent, server.connections) == ("broken", True, 2)

    run(main())


def test_a_request_that_may_have_arrived_is_said_to_be_sent_even_if_the_second_try_cannot_connect(run: Runner) -> None:
    async def main() -> None:
        listening: asyncio.Server

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"{}")
            writer.write(OK)
            await reader.readuntil(b"{}")
            listening.close()
            writer.close()

        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        address = Address("127.0.0.1", listening.sockets[0].getsockname()[1])
        async with asking(address) as upstream:
            await ask(upstream)
            error = await failing(upstream)
            assert (error.kind, error.sent) == ("refused", True)

    run(main())


def test_an_answer_that_began_is_not_asked_for_again(run: Runner) -> None:
    async def begins(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()
        await peer.send(b"H")

    async def main() -> None:
        async with serving(begins, good) as (server, address), asking(address) as upstream:
            await ask(upstream)
            assert (await failing(upstream)).kind == "broken"
            assert (server.connections, upstream.retries) == (1, 0)

    run(main())


@pytest.mark.parametrize("extra", [b"", OK, b"\r\n"], ids=["end", "answer", "line"])
def test_what_comes_on_an_idle_connection_ends_it(run: Runner, extra: bytes) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def later(peer: Peer) -> None:
            await peer.request()
            await peer.send(OK)
            await go.wait()
            if extra:
                await peer.send(extra)
                assert await peer.closed() == b""

        async with serving(later, good) as (server, address), asking(address) as upstream:
            await ask(upstream)
            go.set()
            await server.ended.wait()
            while upstream.idle:
                await asyncio.sleep(0)
            assert upstream.open == 0
            assert await ask(upstream) == b"ok"
            assert (server.connections, upstream.retries) == (2, 0)

    run(main())


def test_an_idle_connection_is_closed_in_time(run: Runner) -> None:
    async def main() -> None:
        async with serving(answers(OK)) as (server, address), asking(address, keep_alive_seconds=SOON) as upstream:
            await ask(upstream)
            await server.ended.wait()
            assert (upstream.open, upstream.idle) == (0, 0)

    run(main())


def test_a_request_that_is_cancelled_closes_its_connection(run: Runner) -> None:
    async def main() -> None:
        asked = asyncio.Event()

        async def silent(peer: Peer) -> None:
            await peer.request()
            asked.set()
            assert await peer.closed() == b""

        async with serving(silent, good) as (server, address), asking(address, connections_max=1) as upstream:
            task = asyncio.create_task(ask(upstream))
            await asked.wait()
            queued = asyncio.create_task(ask(upstream))
            await asyncio.sleep(0)
            assert upstream.waiting == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await server.ended.wait()
            # the place goes to who waited
            assert await queued == b"ok"
            assert upstream.failures == {}

    run(main())


def test_many_requests_share_few_connections_in_order(run: Runner) -> None:
    async def main() -> None:
        async def echo(peer: Peer) -> None:
            while True:
                body = (await peer.request()).partition(b"\r\n\r\n")[2]
                await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

        async with serving(echo) as (server, address), asking(address, connections_max=4) as upstream:
            bodies = [b"%d" % number for number in range(200)]
            assert await asyncio.gather(*(ask(upstream, body) for body in bodies)) == bodies
            arrived = [int(request.partition(b"\r\n\r\n")[2]) for request in server.requests]
            assert server.connections == 4
            # first come, first served: only the four on their way may overtake each other
            assert all(abs(place - number) < 8 for place, number in enumerate(arrived))

    run(main())


def test_the_queue_is_bounded_in_length_and_in_time(run: Runner) -> None:
    async def main() -> None:
        limits: dict[str, Any] = {"connections_max": 1, "waiting_max": 1, "waiting_seconds": SOON}
        async with serving(answers()) as (server, address), asking(address, **limits) as upstream:
            first = asyncio.create_task(ask(upstream))
            while not server.requests:
                await asyncio.sleep(0)
            second = asyncio.create_task(ask(upstream))
            await asyncio.sleep(0)
            for request in (ask(upstream), second):
                with pytest.raises(UpstreamError) as caught:
                    await request
                assert (caught.value.kind, caught.value.sent) == ("busy", False)
            assert upstream.waiting == 0
            first.cancel()

    run(main())


def test_a_place_given_to_who_gave_up_in_that_moment_goes_to_the_next(run: Runner) -> None:
    async def main() -> None:
        async with serving(good) as (server, address), asking(address, connections_max=1) as upstream:
            tasks = [asyncio.create_task(ask(upstream)) for _ in range(3)]
            while not upstream.idle and not tasks[0].done():
                await asyncio.sleep(0)
            tasks[1].cancel()
            assert await tasks[2] == b"ok"
            assert server.connections == 1

    run(main())


def test_a_server_that_cannot_be_reached_refuses(run: Runner) -> None:
    async def main() -> None:
        async with serving(good) as (_, address):
            pass
        async with asking(address) as upstream:
            error = await failing(upstream)
            assert (error.kind, error.sent) == ("refused", False)

    run(main())


def test_a_host_name_that_no_name_service_takes_is_refused(run: Runner) -> None:
    async def main() -> None:
        async with asking(Address("a" * 64 + ".invalid", 80)) as upstream:
            assert (await failing(upstream)).kind == "refused"

    run(main())


def test_a_handshake_that_hangs_times_out(run: Runner) -> None:
    async def main() -> None:
        async def silent(peer: Peer) -> None:
            await peer.closed()

        async with serving(silent) as (server, plain):
            address = Address(plain.host, plain.port, secure=True)
            async with asking(address, ssl.create_default_context(), connect_seconds=SOON) as upstream:
                error = await failing(upstream)
                assert (error.kind, error.sent) == ("timeout", False)
                await server.ended.wait()

    run(main())


def test_closing_fails_what_is_on_its_way_and_what_waits(run: Runner) -> None:
    async def main() -> None:
        async with serving(answers()) as (server, address):
            upstream = Upstream(address, limits=UpstreamLimits(connections_max=1))
            tasks = [asyncio.create_task(ask(upstream)) for _ in range(2)]
            while not server.requests:
                await asyncio.sleep(0)
            await asyncio.gather(upstream.close(), upstream.close())
            errors = await asyncio.gather(*tasks, return_exceptions=True)
            assert [getattr(error, "kind", error) for error in errors] == ["broken", "refused"]
            with pytest.raises(UpstreamError, match="no longer asked"):
                await ask(upstream)
            assert (upstream.open, upstream.waiting) == (0, 0)

    run(main())


def test_a_pool_needs_a_tls_context_that_verifies_for_https_and_none_for_http() -> None:
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    secure, plain = Address("example.test", 443, secure=True), Address("127.0.0.1", 80)
    for address, tls in ((secure, None), (plain, ssl.create_default_context()), (secure, unverified)):
        with pytest.raises(ValueError, match="TLS context"):
            Upstream(address, limits=UpstreamLimits(), tls=tls)
