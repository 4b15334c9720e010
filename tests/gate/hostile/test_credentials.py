"""Every path with every state of every kind of credential: keys, tokens, certificates, and what a proxy says of them.

The paths and what they answer are those of `test_authentication`; gRPC and the operations port have the same states.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from starlette.applications import Starlette

from palladion.access.certificates import Certificate
from palladion.access.identity import new_api_key
from palladion.access.jwks import parse_jwks
from palladion.access.tokens import Tokens, token_identity
from palladion.gate.app import App
from palladion.gate.callers import CERTIFICATE, SPIFFE, TOKEN
from palladion.gate.directory import Directory
from palladion.gate.hops import SCOPE, Hop
from palladion.gate.operations.pages import make_pages
from palladion.gate.operations.verdict import TOKEN_HEADER, VERDICT_PATH, verdict_route
from palladion.gate.requests import Request
from tests.access.issuing import CLIENT, POLICY, URL, forged, jwk, jwks, signed_by_public_key, token
from tests.gate.gates import House
from tests.gate.operations.watched import watched
from tests.gate.rolls import Roll, read_roll

from .test_authentication import ROWS, UNKNOWN_PATHS, Caller

EDGE, SCORING, OTHER, GONE = (f"spiffe://example.org/{name}" for name in ("edge", "scoring", "other", "gone"))
XFCC = b"x-forwarded-client-cert"
PROXY = {"identities": (EDGE,), "certificate_header": XFCC.decode()}
BY = {name: f"{number:02x}" * 32 for number, name in enumerate((EDGE, SCORING, OTHER, GONE), start=1)}
METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD")


@dataclass(frozen=True)
class Shown:
    """What a request comes with: headers, and the other end of its connection."""

    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    hop: Hop | None = None


class Party(Caller):
    """The same gate, with an issuer of tokens, certificates that are registered, and a proxy that is believed."""

    def __init__(self, house: House) -> None:
        super().__init__(house, proxy=PROXY)
        ids, roll = house.ids, _roll(house)
        tokens = Tokens([POLICY])
        tokens.replace_keys(URL, parse_jwks(jwks(jwk(), jwk("RS256")), algorithms=POLICY.algorithms))
        directory = Directory(house.root.derive("client-key-pepper"), tokens=tokens)
        directory.load(
            Roll(
                roll.keys,
                roll.callers,
                {
                    (TOKEN, token_identity(URL, CLIENT)): ids["acme"],
                    (TOKEN, token_identity(URL, "other")): ids["initech"],
                    # clients that are gone: whoever looks them up in two steps must notice
                    (TOKEN, token_identity(URL, "gone")): "a client that is revoked",
                    (SPIFFE, GONE): "a client that is revoked",
                    (SPIFFE, SCORING): ids["acme"],
                    (CERTIFICATE, BY[OTHER]): ids["initech"],
                },
            )
        )
        self.bench.gate.stages.directory = directory
        self.app = App(self.bench.gate, ready=lambda: True)
        self.now = int(self.bench.clock.now().timestamp())

    def claims(self, **changes: Any) -> dict[str, Any]:
        return {"iat": self.now - 60, "exp": self.now + 600, **changes}

    def token(self, *arguments: Any, header: Any = None, **changes: Any) -> Shown:
        return Shown(_bearer(token(*arguments, header=header, claims=self.claims(**changes))))

    def asks(self, method: str, path: str, shown: Shown) -> int:
        more: dict[str, Any] = {} if shown.hop is None else {SCOPE: shown.hop}
        return self.status(method, path, shown.headers, **more)


def _roll(house: House) -> Roll:
    with house.installation.open_registry() as registry, registry.read() as records:
        return read_roll(records)


def _bearer(value: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", b"Bearer " + value)]


def _key(party: Party, name: str) -> Shown:
    return Shown(_bearer(party.keys[name].encode()))


def _direct(spiffe: str | None, **changes: Any) -> Hop:
    return Hop(Certificate(BY.get(spiffe or "", "ff" * 32), spiffe, **changes))


def _told(spiffe: str, hop: Hop | None) -> Shown:
    return Shown([(XFCC, f"By={EDGE};Hash={BY.get(spiffe, 'ee' * 32)};URI={spiffe}".encode())], hop)


States = Mapping[str, Callable[[Party], Shown]]
# By header alone, which gRPC has as well.
WRONG_HEADERS: States = {
    "nothing": lambda _: Shown(),
    "a malformed key": lambda _: Shown(_bearer(b"pall_test_short")),
    "a wrong key": lambda _: Shown(_bearer(new_api_key("test").text.encode())),
    "an expired key": lambda party: _key(party, "brief"),
    "a revoked key": lambda party: _key(party, "rotated"),
    "the key of a revoked client": lambda party: _key(party, "gone"),
    "a malformed token": lambda _: Shown(_bearer(b"eyJ.eyJ.x")),
    "a token with a wrong signature": lambda party: Shown(
        _bearer(token(claims=party.claims())[:-6] + b"AAAAAA"),
    ),
    "a token by another key with this id": lambda party: party.token("ES256", 1, header={"kid": "ES256-0"}),
    "a token without a signature": lambda _: Shown(_bearer(forged({"alg": "none"}))),
    "a token with an empty one": lambda _: Shown(_bearer(forged({"alg": "ES256"}))),
    "a token by HMAC with the public key": lambda _: Shown(_bearer(signed_by_public_key())),
    "an expired token": lambda party: party.token(exp=party.now - 120),
    "a token of tomorrow": lambda party: party.token(iat=party.now + 86_400, exp=party.now + 90_000),
    "a token for another audience": lambda party: party.token(aud="https://elsewhere.example"),
    "a token for nobody": lambda party: party.token(aud=None),
    "a token of another issuer": lambda party: party.token(iss="https://elsewhere.example"),
    "a token by an unknown key": lambda party: party.token("ES256", 1),
    "a token that brings its key": lambda party: party.token("ES256", 1, header={"kid": "ES256-0", "jwk": jwk()}),
    "a token of nobody": lambda party: party.token(sub="nobody"),
    "a token of a revoked client": lambda party: party.token(sub="gone"),
    "a token that a certificate is bound to": lambda party: party.token(
        cnf={"x5t#S256": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}
    ),
    "a token in the other header": lambda party: Shown([(b"x-api-key", token(claims=party.claims()))]),
    "a certificate in a header of no proxy": lambda _: _told(SCORING, None),
}
RIGHT_HEADERS: States = {"a key": lambda party: _key(party, "acme"), "a token": lambda party: party.token()}
OTHER_HEADERS: States = {
    "a key of another scope": lambda party: _key(party, "initech"),
    "a token of another scope": lambda party: party.token(sub="other"),
}
WRONG: States = {
    **WRONG_HEADERS,
    "an unknown certificate": lambda _: Shown(hop=_direct("spiffe://example.org/nobody")),
    "a certificate without a name": lambda _: Shown(hop=_direct(None)),
    "a revoked certificate": lambda _: Shown(hop=_direct(GONE)),
    "an expired certificate": lambda party: Shown(
        hop=_direct(SCORING, expires=party.bench.clock.now() - timedelta(seconds=1))
    ),
    "the proxy's own certificate": lambda _: Shown(hop=_direct(EDGE)),
    "a certificate and a key of somebody else": lambda party: Shown(_key(party, "initech").headers, _direct(SCORING)),
    "a certificate and a token of somebody else": lambda party: Shown(
        party.token(sub="other").headers, _direct(SCORING)
    ),
    "a certificate and a malformed key": lambda _: Shown(_bearer(b"x"), _direct(SCORING)),
    "a certificate and an expired key": lambda party: Shown(_key(party, "brief").headers, _direct(SCORING)),
    "told by a client with a certificate": lambda _: _told(SCORING, _direct("spiffe://example.org/nobody")),
    "told by a client that is known": lambda _: _told(SCORING, _direct(GONE)),
    "told by who is named almost as the proxy": lambda _: _told(SCORING, _direct(f"{EDGE}-2")),
    "told of nobody by the proxy": lambda _: _told("spiffe://example.org/nobody", _direct(EDGE)),
    "told of who is revoked by the proxy": lambda _: _told(GONE, _direct(EDGE)),
    "told of somebody beside another one's key": lambda party: Shown(
        _told(SCORING, _direct(EDGE)).headers + _key(party, "initech").headers, _direct(EDGE)
    ),
}
RIGHT: States = {
    **RIGHT_HEADERS,
    "a certificate": lambda _: Shown(hop=_direct(SCORING)),
    "a certificate and its own key": lambda party: Shown(_key(party, "acme").headers, _direct(SCORING)),
    "told by the proxy": lambda _: _told(SCORING, _direct(EDGE)),
    "told by a socket": lambda _: _told(SCORING, Hop(local=True)),
}
OTHERS: States = {**OTHER_HEADERS, "a certificate of another scope": lambda _: Shown(hop=_direct(OTHER))}


@pytest.fixture(scope="module")
def party(house: House, tmp_path_factory: pytest.TempPathFactory) -> Party:
    return Party(house.copy(tmp_path_factory.mktemp("credentials")))


@pytest.mark.parametrize("path", [*ROWS, *UNKNOWN_PATHS])
def test_what_is_wrong_gets_nobody_in_and_is_told_apart_by_nobody(party: Party, path: str) -> None:
    got = {
        (method, name): party.asks(method, path, state(party)) for method in METHODS for name, state in WRONG.items()
    }
    assert {key: status for key, status in got.items() if status != 401} == {}
    for method in METHODS:
        assert party.asks(method, path, _told_wrongly()) == 400


@pytest.mark.parametrize("path", ROWS)
def test_what_is_right_gets_in_by_every_kind(party: Party, path: str) -> None:
    for states, wanted in ((RIGHT, ROWS[path].good), (OTHERS, ROWS[path].other)):
        for name, state in states.items():
            got = tuple(party.asks(method, path, state(party)) for method in ("GET", "POST"))
            assert got == wanted, name


def _told_wrongly() -> Shown:
    """What a proxy that is believed must not say: a second certificate that a client has smuggled in."""
    return Shown([(XFCC, f"Hash={BY[GONE]};URI={GONE},Hash={BY[SCORING]};URI={SCORING}".encode())], _direct(EDGE))


@pytest.mark.parametrize(
    "rpc", ["ModelInfer", "ModelMetadata", "ModelReady", "ServerLive", "ServerReady", "ServerMetadata"]
)
def test_grpc_lets_in_whom_rest_lets_in(party: Party, rpc: str) -> None:
    front = pytest.importorskip("palladion.gate.grpc.front", reason="this needs the grpc extra")
    pytest.importorskip("google.protobuf", reason="this needs the grpc extra")
    calls = front.Front(party.bench.gate)
    hops = party.app._hops

    def status(shown: Shown) -> int:
        async def read() -> bytes:
            return b""

        headers = dict(shown.headers)
        peer, address = hops.peer(shown.hop, headers, None)
        answered: int = asyncio.run(calls.handle(rpc, Request("POST", "", headers, read, address, peer))).status
        return answered

    assert {name: found for name, state in WRONG.items() if (found := status(state(party))) != 401} == {}
    for states in (RIGHT, OTHERS):
        assert {name for name, state in states.items() if status(state(party)) in {401, 500}} == set()


TOKEN_SHOWN = b"t" * 40


def _headers_of(state: Callable[[Party], Shown]) -> Callable[[Party], list[tuple[bytes, bytes]]]:
    return lambda party: state(party).headers


PORT_WRONG: Mapping[str, Callable[[Party], list[tuple[bytes, bytes]]]] = {
    **{name: _headers_of(state) for name, state in {**WRONG_HEADERS, **RIGHT_HEADERS}.items()},
    "no scheme": lambda _: [(b"authorization", TOKEN_SHOWN)],
    "Basic": lambda _: [(b"authorization", b"Basic " + TOKEN_SHOWN)],
    "a token cut short": lambda _: _bearer(TOKEN_SHOWN[:-1]),
    "a token and one more": lambda _: _bearer(TOKEN_SHOWN + b"t"),
    "the header of a key": lambda _: [(b"x-api-key", TOKEN_SHOWN)],
    "a cookie": lambda _: [(b"cookie", b"authorization=Bearer " + TOKEN_SHOWN)],
}


@pytest.mark.parametrize("name", [*PORT_WRONG, "the token"])
def test_the_operations_port_takes_its_own_token_and_no_client_s(party: Party, name: str) -> None:
    item = watched(party.bench)
    app = make_pages(item.figures, item.health, token=TOKEN_SHOWN)
    headers = _bearer(TOKEN_SHOWN) if name == "the token" else PORT_WRONG[name](party)

    def get(path: str) -> int:
        return party.status("GET", path, [(b"host", b"gate.example"), *headers], b"token=" + TOKEN_SHOWN, app=app)

    assert get("/metrics") == (200 if name == "the token" else 401)
    assert (get("/health/live"), get("/nothing")) == (200, 404)
    assert get("/health/ready") in {200, 503}


@pytest.mark.parametrize("path", [*ROWS, *UNKNOWN_PATHS])
def test_the_verdict_on_a_head_lets_in_whom_the_gate_lets_in(party: Party, path: str) -> None:
    app = Starlette(routes=[verdict_route(party.bench.gate, None)])
    trusting = Starlette(routes=[verdict_route(party.bench.gate, TOKEN_SHOWN)])

    def get(shown: Shown) -> int:
        # of a connection, this port believes nothing
        return party.status("POST", VERDICT_PATH + path, shown.headers, app=app)

    def told(shown: Shown, token: bytes = TOKEN_SHOWN) -> int:
        headers = [*shown.headers, (TOKEN_HEADER, token)]
        return party.status("POST", VERDICT_PATH + path, headers, app=trusting)

    assert {name: found for name, state in WRONG.items() if (found := get(Shown(state(party).headers))) != 401} == {
        "a certificate and a key of somebody else": get(_key(party, "initech")),
        "a certificate and a token of somebody else": get(party.token(sub="other")),
        "told of somebody beside another one's key": get(_key(party, "initech")),
    }
    good = 200 if path in ROWS else 404
    assert {get(state(party)) for state in RIGHT_HEADERS.values()} == {good}
    assert {told(state(party)) for state in RIGHT_HEADERS.values()} == {good}
    assert (told(_told(SCORING, None)), told(_told(SCORING, None), b"x")) == (good, 401)
    assert told(_told(GONE, None)) == 401
    assert get(_told(SCORING, None)) == 401
