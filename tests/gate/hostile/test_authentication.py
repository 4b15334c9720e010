"""Who gets in: every path of every protocol with every state of a credential, and nothing in between.

A path that is new has no row here, and fails.
"""

import asyncio
import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from palladion.access.identity import key_prefix, new_api_key
from palladion.gate.app import HEALTH_PATHS, App
from palladion.gate.chat.models import LanguageModels
from palladion.gate.protocols.open_inference import OpenInferenceErrors, model_paths
from palladion.gate.readiness import Waiting
from palladion.lifecycle.clients import add_client, add_key, revoke_client, revoke_key
from palladion.policy import RoutePolicy
from palladion.registry import StandingChange
from tests.gate.gates import MODEL, Bench, House, open_gate
from tests.lifecycle.installations import ACTOR, NOW

from .routes import BY_PATHS, INFERENCE, LANGUAGE, LATE, LATER, TALKING


@dataclass(frozen=True)
class Row:
    """What a path answers by GET and by POST of an empty object: to who may ask it, and to who may ask others alone."""

    good: tuple[int, int]
    other: tuple[int, int] = (403, 403)


DESCRIBED, ASKED, BOTH = Row((200, 405)), Row((405, 422)), Row((200, 422))
ROWS: Mapping[str, Row] = {
    f"/v1/models/{MODEL}/predict": BOTH,
    "/json": BOTH,
    "/v2": DESCRIBED,
    "/v2/health/live": DESCRIBED,
    "/v2/health/ready": Row((503, 405)),
    f"/v2/models/{MODEL}": DESCRIBED,
    f"/v2/models/{MODEL}/ready": DESCRIBED,
    f"/v2/models/{MODEL}/infer": ASKED,
    f"/v2/models/{MODEL}/versions/1": DESCRIBED,
    f"/v2/models/{MODEL}/versions/1/ready": DESCRIBED,
    f"/v2/models/{MODEL}/versions/1/infer": ASKED,
    f"/v2/models/{LATE}": Row((503, 405)),
    f"/v2/models/{LATE}/ready": Row((503, 405)),
    f"/v2/models/{LATE}/infer": Row((405, 503)),
    "/v1/chat/completions": ASKED,
    "/v1/completions": ASKED,
    "/v1/embeddings": ASKED,
    "/v1/responses": ASKED,
    "/v1/models": Row((200, 405), other=(200, 405)),
    f"/v1/models/{TALKING}": Row((200, 405), other=(404, 405)),
}
UNKNOWN_PATHS = [
    "/",
    "/v1",
    "/openapi.json",
    "/metrics",
    "/docs",
    "/v2/models",
    f"/v2/models/{MODEL}/versions/2",
    "/v2/repository/index",
]


class Caller:
    """Clients in every state, and one request of each."""

    def __init__(self, house: House, **sections: Mapping[str, Any]) -> None:
        installation = house.installation
        self.house = house
        self.keys = dict(house.keys)
        first = {}
        for name in ("gone", "rotated", "bad"):
            _, key, _ = add_client(installation, name, name, models=[], environment="test", expires=None, actor=ACTOR)
            self.keys[name], first[name] = key.text, key_prefix(key)
        revoke_client(installation, "gone", "gone", actor=ACTOR)
        add_key(installation, "rotated", "rotated", environment="test", expires=None, actor=ACTOR)
        revoke_key(installation, first["rotated"], actor=ACTOR)
        self.bench = _gate(house, **sections)
        self.bench.clock.advance(timedelta(hours=2))
        with installation.open_registry() as registry, registry.read() as records:
            bad = records.clients.named("bad", "bad").id
        self.bench.gate.stages.directory.change(StandingChange(bad, "suspended", "for the test", "user:test", NOW))
        self.app = App(self.bench.gate, ready=lambda: True)

    def status(
        self,
        method: str,
        path: str,
        headers: list[tuple[bytes, bytes]],
        query: bytes = b"",
        app: Any = None,
        **more: Any,
    ) -> int:
        statuses: list[int] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"{}"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query,
            "headers": headers,
            "client": None,
            **more,
        }
        asyncio.run((app or self.app)(scope, receive, send))
        assert len(statuses) == 1
        return statuses[0]


def _gate(house: House, **sections: Mapping[str, Any]) -> Bench:
    routes = (RoutePolicy(model=MODEL, mode="enforce"), BY_PATHS, INFERENCE)
    bench = open_gate(house, *routes, limits={"burst": 100_000}, **sections)
    policy = house.with_policy(LANGUAGE).policy
    models = LanguageModels(policy, house.installation.paths.home, bench.gate.stages, house.root)
    late = Waiting(LATER, model_paths("", LATE, ""), OpenInferenceErrors())
    bench.gate.serve(bench.gate.served, models.endpoints, {LATER.route: late})
    return bench


@pytest.fixture(scope="module")
def caller(house: House, tmp_path_factory: pytest.TempPathFactory) -> Caller:
    return Caller(house.copy(tmp_path_factory.mktemp("authentication")))


Headers = list[tuple[bytes, bytes]]


def _bearer(value: bytes) -> Headers:
    return [(b"authorization", b"Bearer " + value)]


# What gets in: with the key of somebody who may ask.
ACCEPTED: Mapping[str, Callable[[bytes], Headers]] = {
    "a key": _bearer,
    "a key in its own header": lambda key: [(b"x-api-key", key)],
    "a scheme in lower case": lambda key: [(b"authorization", b"bearer " + key)],
    "a scheme in capitals": lambda key: [(b"authorization", b"BEARER " + key)],
    "blanks around the key": lambda key: [(b"authorization", b"Bearer   " + key + b" ")],
    "a cookie besides": lambda key: [*_bearer(key), (b"cookie", b"key=other")],
}
# What does not, though a key that is good may be somewhere near.
REFUSED: Mapping[str, Callable[[bytes], Headers]] = {
    "nothing": lambda _: [],
    "an empty header": lambda _: [(b"authorization", b"")],
    "a scheme alone": lambda _: [(b"authorization", b"Bearer")],
    "a scheme and a blank": lambda _: [(b"authorization", b"Bearer ")],
    "an empty key": lambda _: [(b"x-api-key", b"")],
    "no scheme": lambda key: [(b"authorization", key)],
    "another scheme": lambda key: [(b"authorization", b"Token " + key)],
    "Basic": lambda key: [(b"authorization", b"Basic " + base64.b64encode(b"acme:" + key))],
    "Basic, with the key as its name": lambda key: [(b"authorization", b"Basic " + base64.b64encode(key + b":"))],
    "a tab for the blank": lambda key: [(b"authorization", b"Bearer\t" + key)],
    "the scheme twice": lambda key: [(b"authorization", b"Bearer Bearer " + key)],
    "two keys in one header": lambda key: _bearer(key + b"," + key),
    "a key and a word": lambda key: _bearer(key + b" x"),
    "a key in quotes": lambda key: _bearer(b'"' + key + b'"'),
    "a key cut short": lambda key: _bearer(key[:-1]),
    "a key and one more": lambda key: _bearer(key + b"a"),
    "a key with a NUL": lambda key: _bearer(key + b"\0"),
    "a key in capitals": lambda key: _bearer(key.upper()),
    "another environment": lambda key: _bearer(key.replace(b"_test_", b"_live_")),
    "bytes that are no text": lambda _: _bearer(b"\xff\xfe"),
    "a key without end": lambda key: _bearer(key * 500),
    "a made-up key": lambda _: _bearer(new_api_key("test").text.encode()),
    "a token nobody issued": lambda _: _bearer(b"eyJhbGciOiJub25lIn0.eyJzdWIiOiJhY21lIn0."),
    "both headers": lambda key: [*_bearer(key), (b"x-api-key", key)],
    "both, one empty": lambda key: [*_bearer(key), (b"x-api-key", b"")],
    "a cookie": lambda key: [(b"cookie", b"authorization=Bearer " + key)],
    "a header of a proxy": lambda key: [
        (b"x-forwarded-authorization", b"Bearer " + key),
        (b"proxy-authorization", b"Bearer " + key),
    ],
    "a header with an underscore": lambda key: [(b"x_api_key", key)],
    "a certificate that a header tells of": lambda _: [(b"x-forwarded-client-cert", b'By=a;Hash=b;URI="spiffe://a/b"')],
    "a name that a header tells": lambda _: [(b"x-remote-user", b"acme"), (b"x-forwarded-for", b"127.0.0.1")],
}
TWICE: Mapping[str, Callable[[bytes], Headers]] = {
    "the header twice": lambda key: _bearer(key) * 2,
    "the header twice, one wrong": lambda key: [*_bearer(b"no"), *_bearer(key)],
    "its own header twice": lambda key: [(b"x-api-key", key)] * 2,
}


def test_every_path_has_its_row(caller: Caller) -> None:
    assert ROWS.keys() == caller.bench.gate.endpoints.keys()
    assert HEALTH_PATHS.isdisjoint(ROWS)


@pytest.mark.parametrize("path", ROWS)
@pytest.mark.parametrize("name", ACCEPTED)
def test_a_good_key_gets_in_however_it_is_written(caller: Caller, path: str, name: str) -> None:
    headers = ACCEPTED[name](caller.keys["acme"].encode())
    got = tuple(caller.status(method, path, headers) for method in ("GET", "POST"))
    assert got == ROWS[path].good


@pytest.mark.parametrize("path", [*ROWS, *UNKNOWN_PATHS])
def test_nothing_else_gets_in(caller: Caller, path: str) -> None:
    key = caller.keys["acme"].encode()
    for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"):
        for name, headers in REFUSED.items():
            assert caller.status(method, path, headers(key)) == 401, (method, name)
        for name, headers in TWICE.items():
            assert caller.status(method, path, headers(key)) == 400, (method, name)
        assert caller.status(method, path, [], b"api_key=%s&access_token=%s" % (key, key)) == 401, method


@pytest.mark.parametrize("path", [*ROWS, *UNKNOWN_PATHS])
@pytest.mark.parametrize("name", ["gone", "rotated", "brief"])
def test_a_key_that_is_over_gets_nobody_in(caller: Caller, path: str, name: str) -> None:
    key = caller.keys[name].encode()
    assert {caller.status(method, path, _bearer(key)) for method in ("GET", "POST", "PUT")} == {401}


@pytest.mark.parametrize("path", ROWS)
def test_who_may_ask_another_model_learns_nothing_here(caller: Caller, path: str) -> None:
    headers = _bearer(caller.keys["initech"].encode())
    assert tuple(caller.status(method, path, headers) for method in ("GET", "POST")) == ROWS[path].other


@pytest.mark.parametrize("path", ROWS)
def test_who_is_suspended_is_told_so_and_nothing_else(caller: Caller, path: str) -> None:
    headers = _bearer(caller.keys["bad"].encode())
    got = tuple(caller.status(method, path, headers) for method in ("GET", "POST"))
    assert got == tuple(405 if good == 405 else 403 for good in ROWS[path].good)


@pytest.mark.parametrize("path", UNKNOWN_PATHS)
def test_what_nobody_serves_is_not_there(caller: Caller, path: str) -> None:
    headers = _bearer(caller.keys["acme"].encode())
    assert {caller.status(method, path, headers) for method in ("GET", "POST", "PUT")} == {404}


@pytest.mark.parametrize("path", sorted(HEALTH_PATHS))
@pytest.mark.parametrize("name", [*ACCEPTED, *REFUSED])
def test_health_is_for_everybody_and_says_the_same_to_all(caller: Caller, path: str, name: str) -> None:
    headers = {**ACCEPTED, **REFUSED}[name](caller.keys["acme"].encode())
    assert (caller.status("GET", path, headers), caller.status("POST", path, headers)) == (200, 405)
