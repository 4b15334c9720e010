"""The verdict on a head: what the gate itself would say, to whom it may be told, and that it costs nothing."""

import asyncio
from collections.abc import Mapping, MutableMapping
from typing import Any

import msgspec
import pytest

from palladion.gate.callers import SPIFFE
from palladion.gate.directory import Directory
from palladion.gate.operations.pages import make_pages
from palladion.gate.operations.verdict import TOKEN_HEADER, VERDICT_PATH, verdict_route
from palladion.policy import RoutePolicy
from tests.gate.gates import MODEL, OTHER_MODEL, PATH, Bench, House, _roll, open_gate
from tests.gate.rolls import Roll

from .watched import watched

TOKEN = b"t" * 40
OTHER_PATH = f"/v1/models/{OTHER_MODEL}/predict"
SCORING = "spiffe://example.org/scoring"
TOLD = (b"x-forwarded-client-cert", f"Hash={'ab' * 32};URI={SCORING}".encode())
ROUTES = (RoutePolicy(model=MODEL, mode="enforce"), RoutePolicy(model=OTHER_MODEL, mode="enforce"))


def _ask(
    bench: Bench,
    *headers: tuple[bytes, bytes],
    path: str = PATH,
    method: str = "POST",
    token: bytes | None = None,
) -> tuple[int, Mapping[bytes, bytes], bytes]:
    item = watched(bench)
    app = make_pages(item.figures, item.health, token=token, others=[verdict_route(bench.gate, token)])
    scope: dict[str, Any] = {
        "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "path": VERDICT_PATH + path,
        "raw_path": b"", "root_path": "", "query_string": b"", "headers": [(b"host", b"gate.example"), *headers],
        "client": ("127.0.0.1", 2), "server": ("127.0.0.1", 1),
    }  # fmt: skip
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return int(sent[0]["status"]), dict(sent[0]["headers"]), b"".join(item.get("body", b"") for item in sent)


def _key(house: House, name: str) -> tuple[bytes, bytes]:
    return b"authorization", b"Bearer " + house.keys[name].encode()


def test_who_may_ask_is_let_through_with_nothing_said(house: House) -> None:
    bench = open_gate(house, *ROUTES)
    for method in ("POST", "GET"):
        assert _ask(bench, _key(house, "acme"), method=method)[::2] == (200, b"")
    assert _ask(bench, (b"x-api-key", house.keys["acme"].encode()))[0] == 200


def test_it_says_what_the_gate_would(house: House) -> None:
    bench = open_gate(house, *ROUTES)
    assert _ask(bench)[0] == 401
    assert _ask(bench, (b"x-api-key", b"wrong"))[0] == 401
    assert _ask(bench, _key(house, "acme"), (b"x-api-key", b"k"))[0] == 401
    assert _ask(bench, _key(house, "acme"), _key(house, "acme"))[0] == 400
    assert _ask(bench, _key(house, "initech"))[0] == 403
    assert _ask(bench, _key(house, "initech"), path=OTHER_PATH)[0] == 200
    assert _ask(bench, _key(house, "acme"), path="/nowhere")[0] == 404
    bench.put("suspended")
    status, headers, body = _ask(bench, _key(house, "acme"))
    assert (status, headers[b"content-type"]) == (403, b"application/problem+json")
    assert msgspec.json.decode(body)["type"] == "urn:palladion:problem:suspended"
    assert headers[b"cache-control"] == b"no-store"


def test_it_costs_nothing_and_says_when_to_come_again(house: House) -> None:
    bench = open_gate(house, *ROUTES, limits={"queries_per_second": 0.01, "burst": 2})
    assert {_ask(bench, _key(house, "acme"))[0] for _ in range(20)} == {200}
    assert [bench.ask().status for _ in range(3)] == [200, 200, 429]
    assert bench.gate.stages.answered == 2
    status, headers, _ = _ask(bench, _key(house, "acme"))
    assert status == 429
    assert int(headers[b"retry-after"]) > 1
    assert _ask(bench, _key(house, "globex"))[0] == 200
    assert bench.gate.stages.answered == 2


def test_where_there_is_a_token_only_who_shows_it_is_told_anything(house: House) -> None:
    bench = open_gate(house, *ROUTES)
    key = _key(house, "acme")
    for shown in ((), ((TOKEN_HEADER, b"wrong"),), ((TOKEN_HEADER, TOKEN + b"t"),), ((TOKEN_HEADER, b""),)):
        assert _ask(bench, key, *shown, token=TOKEN)[0] == 401
    assert _ask(bench, key, (TOKEN_HEADER, TOKEN), (TOKEN_HEADER, TOKEN), token=TOKEN)[0] == 400
    assert _ask(bench, key, (TOKEN_HEADER, TOKEN), token=TOKEN)[0] == 200


def test_a_certificate_that_is_told_of_counts_from_who_shows_the_token_alone(house: House) -> None:
    bench = open_gate(house, *ROUTES, proxy={"certificate_header": TOLD[0].decode()})
    known = _roll(house)
    directory = Directory(house.root.derive("client-key-pepper"))
    directory.load(Roll(known.keys, known.callers, {(SPIFFE, SCORING): house.ids["acme"]}))
    bench.gate.stages.directory = directory
    assert _ask(bench, TOLD)[0] == 401
    assert _ask(bench, TOLD, token=TOKEN)[0] == 401
    assert _ask(bench, TOLD, (TOKEN_HEADER, TOKEN), token=TOKEN)[0] == 200
    assert _ask(bench, TOLD, TOLD, (TOKEN_HEADER, TOKEN), token=TOKEN)[0] == 400


def test_what_fails_lets_nobody_in_and_says_nothing(house: House, caplog: pytest.LogCaptureFixture) -> None:
    bench = open_gate(house, *ROUTES)
    bench.gate.stages.limits = None  # type: ignore[assignment]
    assert _ask(bench, _key(house, "acme"))[::2] == (500, b"")
    assert "a verdict failed" in caplog.text
