"""The ASGI application: health, bodies that are too long or too slow, headers that come twice, and bugs of ours."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import pytest

from palladion.gate.app import App
from palladion.gate.hops import SCOPE, Hop
from palladion.gate.requests import Request, Response

from .gates import JOURNAL_ORIGIN, PATH, ROW, Bench, Deadlines, House, answer, header, open_gate, problem

Message = MutableMapping[str, Any]

BODY = b'{"inputs": [[0.5, -1.0, 2.0, 0.25]]}'
DISCONNECT = {"type": "http.disconnect"}


@pytest.fixture
def bench(house: House) -> Bench:
    return open_gate(house, gate={"body_bytes_max": 2048, "body_seconds_max": 7})


def _part(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


class Exchange:
    """One request as an ASGI server would hand it on, and what came back."""

    def __init__(
        self, bench: Bench, *, ready: Callable[[], bool] = lambda: True, leaving: Callable[[], bool] = lambda: False
    ) -> None:
        self.bench = bench
        self.app = App(bench.gate, ready=ready, leaving=leaving)
        self.received = 0
        self.on_receive: Callable[[int], Awaitable[None]] | None = None

    def run(
        self,
        *parts: Message,
        method: str = "POST",
        path: str = PATH,
        headers: Iterable[tuple[bytes, bytes]] | None = None,
        client: tuple[str, int] | None = ("127.0.0.7", 1234),
        hop: Hop | None = None,
    ) -> Response:
        if headers is None:
            headers = [self.key]
        scope = {"type": "http", "method": method, "path": path, "headers": list(headers), "client": client, SCOPE: hop}
        return asyncio.run(self._run(scope, list(parts) or [_part(BODY)]))

    @property
    def key(self) -> tuple[bytes, bytes]:
        return b"authorization", b"Bearer " + self.bench.house.keys["acme"].encode()

    async def _run(self, scope: Message, parts: list[Message]) -> Response:
        sent: list[Message] = []

        async def receive() -> Message:
            self.received += 1
            if self.on_receive is not None:
                await self.on_receive(self.received)
            return parts.pop(0)

        async def send(message: Message) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        start, end = sent
        assert (start["type"], end["type"]) == ("http.response.start", "http.response.body")
        return Response(start["status"], end["body"], start["headers"])


def test_a_request_is_answered_with_headers_that_keep_it_private(bench: Bench) -> None:
    response = Exchange(bench).run()
    assert response.status == 200
    assert header(response, b"content-length") == str(len(response.body)).encode()
    assert header(response, b"cache-control") == b"no-store"
    assert header(response, b"x-content-type-options") == b"nosniff"
    assert header(response, b"palladion-receipt") == f"{JOURNAL_ORIGIN}/0".encode()


def test_a_body_in_parts_is_one_body(bench: Bench) -> None:
    parts = [_part(BODY[at : at + 1], more=True) for at in range(len(BODY))]
    assert Exchange(bench).run(*parts, _part(b"")).status == 200


def test_the_peers_address_links_accounts_unless_a_proxy_stands_before(bench: Bench, house: House) -> None:
    behind = open_gate(house, gate={"behind_proxy": True})
    for gate, client in ((bench, ("127.0.0.7", 1)), (behind, ("127.0.0.7", 1)), (bench, None)):
        Exchange(gate).run(client=client)
    assert [asker.address for asker, _, _ in bench.watch.asked] == ["127.0.0.7", None]
    assert [asker.address for asker, _, _ in behind.watch.asked] == [None]


@pytest.mark.parametrize("name", [b"authorization", b"x-api-key", b"content-type", b"content-length", b"host"])
def test_a_header_that_decides_something_may_not_come_twice(bench: Bench, name: bytes) -> None:
    exchange = Exchange(bench)
    response = exchange.run(headers=[exchange.key, (name, b"1"), (name, b"1")])
    assert problem(response) == "bad-request"
    assert answer(response)["detail"] == f"the header {name.decode()} comes twice"
    assert exchange.received == 0


def test_two_keys_in_two_headers_of_one_name_are_nobodys(bench: Bench, house: House) -> None:
    headers = [(b"authorization", b"Bearer " + house.keys[name].encode()) for name in ("acme", "globex")]
    assert problem(Exchange(bench).run(headers=headers)) == "bad-request"
    assert bench.journal.records == []


def test_strangers_learn_no_name_of_a_header_that_a_proxy_is_believed(house: House) -> None:
    bench = open_gate(house, proxy={"user_header": "x-secret-user", "identities": ["spiffe://example.org/edge"]})
    refused = [
        Exchange(bench).run(headers=[(name, b"a"), (name, b"b")]) for name in (b"x-secret-user", b"x-anything-else")
    ]
    assert [problem(response) for response in refused] == ["unauthenticated"] * 2
    assert refused[0].body == refused[1].body


def test_a_proxy_that_says_a_thing_twice_is_refused(house: House) -> None:
    bench = open_gate(house, proxy={"user_header": "x-secret-user"})
    exchange = Exchange(bench)
    response = exchange.run(headers=[exchange.key, *[(b"x-secret-user", b"a")] * 2], hop=Hop(local=True))
    assert answer(response)["detail"] == "the header x-secret-user comes twice"


def test_other_headers_may_come_twice(bench: Bench) -> None:
    exchange = Exchange(bench)
    assert exchange.run(headers=[exchange.key, (b"accept", b"a"), (b"accept", b"b")]).status == 200


@pytest.mark.parametrize("length", [b"2049", b"99999999999999999999", b"9" * 5000, b"0000000000001"])
def test_a_body_that_says_it_is_too_large_is_not_read(bench: Bench, length: bytes) -> None:
    exchange = Exchange(bench)
    response = exchange.run(headers=[exchange.key, (b"content-length", length)])
    assert (response.status, answer(response)["detail"]) == (413, "a body may have 2048 bytes")
    assert exchange.received == 0


@pytest.mark.parametrize("length", [b"", b"-1", b"+5", b"0x10", b"5, 5", "٣".encode()])
def test_a_length_that_is_no_number_is_no_request(bench: Bench, length: bytes) -> None:
    exchange = Exchange(bench)
    assert problem(exchange.run(headers=[exchange.key, (b"content-length", length)])) == "bad-request"
    assert exchange.received == 0


def test_a_body_that_grows_too_large_is_read_no_further(bench: Bench) -> None:
    exchange = Exchange(bench)
    response = exchange.run(*[_part(b"x" * 1000, more=True)] * 10)
    assert response.status == 413
    assert exchange.received == 3


def test_a_body_of_exactly_the_largest_size_is_taken(bench: Bench) -> None:
    assert Exchange(bench).run(_part(BODY.ljust(2048))).status == 200
    assert Exchange(bench).run(_part(BODY.ljust(2049))).status == 413


def test_a_stranger_is_told_no_limit_and_read_nothing_of(bench: Bench) -> None:
    exchange = Exchange(bench)
    response = exchange.run(headers=[(b"content-length", b"999999999")])
    assert problem(response) == "unauthenticated"
    assert exchange.received == 0


def test_a_slow_body_is_not_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines, exchange = Deadlines(monkeypatch), Exchange(bench)

    async def stall(number: int) -> None:
        if number == 2:
            deadlines.pass_by()
            await asyncio.Event().wait()

    exchange.on_receive = stall
    response = exchange.run(_part(BODY[:5], more=True), _part(BODY[5:]))
    assert (response.status, problem(response)) == (408, "timeout")
    assert header(response, b"connection") == b"close"
    assert answer(response)["detail"] == "a body has to arrive within 7 s"
    assert deadlines.seconds == [7]


def test_a_client_that_goes_away_leaves_no_record(bench: Bench) -> None:
    response = Exchange(bench).run(_part(BODY[:5], more=True), DISCONNECT)
    assert problem(response) == "bad-request"
    assert bench.journal.records == []


def test_a_bug_of_ours_tells_the_client_nothing_and_the_operator_all(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.journal.error = RuntimeError("a bug in /secret/place")
    with caplog.at_level(logging.ERROR):
        response = Exchange(bench).run()
    assert (response.status, problem(response)) == (500, "internal")
    assert answer(response).keys() == {"type", "title", "status"}
    assert b"secret" not in response.body
    assert "a bug in /secret/place" in caplog.text
    assert bench.house.keys["acme"] not in caplog.text
    assert str(ROW) not in caplog.text


def test_being_alive_needs_no_key_and_no_body(bench: Bench) -> None:
    exchange = Exchange(bench, ready=lambda: False)
    response = exchange.run(method="GET", path="/health/live", headers=[])
    assert (response.status, response.body, exchange.received) == (200, b'{"ok":true}', 0)


@pytest.mark.parametrize(("ready", "status", "body"), [(True, 200, b'{"ok":true}'), (False, 503, b'{"ok":false}')])
def test_being_ready_is_asked_each_time(bench: Bench, ready: bool, status: int, body: bytes) -> None:
    exchange = Exchange(bench, ready=lambda: ready)
    for method in ("GET", "HEAD"):
        response = exchange.run(method=method, path="/health/ready", headers=[])
        assert (response.status, response.body) == (status, body)


def test_health_takes_no_other_method(bench: Bench) -> None:
    response = Exchange(bench).run(method="POST", path="/health/live")
    assert (response.status, header(response, b"allow")) == (405, b"GET, HEAD")


def test_what_is_no_http_is_not_served(bench: Bench) -> None:
    with pytest.raises(ValueError, match="websocket is not served"):
        asyncio.run(Exchange(bench)._run({"type": "websocket"}, []))


def test_a_path_reaches_the_gate_as_it_was_sent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    async def handle(request: Request) -> Response:
        seen.append(request.path)
        return Response(200, b"{}")

    monkeypatch.setattr(bench.gate, "handle", handle)
    for path in ("/health/live/", "/HEALTH/live", "/health/../health/live", "//health/live"):
        Exchange(bench).run(path=path)
    assert seen == ["/health/live/", "/HEALTH/live", "/health/../health/live", "//health/live"]


def test_headers_that_an_answer_shares_are_not_added_to(bench: Bench) -> None:
    path = PATH.rpartition("/")[0]
    shared = [(b"content-type", b"application/json")]

    class Sharing:
        methods = ("GET",)
        media_types = frozenset[bytes]()

        def allows(self, caller: object) -> bool:
            return True

        async def answer(self, caller: object, request: Request) -> Response:
            return Response(200, b"{}", shared)

    bench.gate.serve(bench.gate.served, {path: Sharing()})
    response = Exchange(bench, leaving=lambda: True).run(method="GET", path=path)
    assert header(response, b"connection") == b"close"
    assert shared == [(b"content-type", b"application/json")]
