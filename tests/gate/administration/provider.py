"""A strict OpenID provider over HTTP: whatever a client leaves out, says twice or says wrong is refused.

Authorization code with PKCE (S256 alone), devices, discovery, and keys that change. Whoever comes is `person`.
"""

import hmac
import json
import re
import secrets
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from tests.access import issuing

CLIENT_ID = "palladion"
AUTHORIZE = {
    *("response_type", "client_id", "redirect_uri", "scope", "state", "nonce"),
    *("code_challenge", "code_challenge_method"),
}
EXCHANGE = {"grant_type", "code", "redirect_uri", "client_id", "code_verifier"}
POLL = {"grant_type", "device_code", "client_id"}


@dataclass
class Provider:
    """What it says, and what was asked of it."""

    person: str = "00u1"
    claims: dict[str, Any] = field(default_factory=dict)  # of the ID token, beyond what it has to have
    discovered: dict[str, Any] = field(default_factory=dict)  # of the configuration; None leaves out
    answered: dict[str, str] = field(default_factory=dict)  # of the redirect, in place of what is right
    key: int = 0
    published: tuple[int, ...] = (0,)
    pending: list[str] = field(default_factory=list)  # what a device is told before it gets its token
    refused: list[str] = field(default_factory=list)  # why a request was refused
    url: str = ""
    audience: str = ""  # what a client has to name as `resource` (RFC 8707)
    now: Callable[[], float] = time.time
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)
    _devices: set[str] = field(default_factory=set)

    def rotate(self, *, publish_old: bool = False) -> None:
        """Sign by a new key from now on."""
        self.key += 1
        self.published = (self.key - 1, self.key) if publish_old else (self.key,)

    def token(self, **claims: Any) -> str:
        """An ID token; claims that are None are left out."""
        now = int(self.now())
        said = {"iss": self.url, "aud": CLIENT_ID, "sub": self.person, "iat": now, "exp": now + 300}
        return issuing.token("ES256", self.key, claims={**said, **self.claims, **claims}).decode()

    def configuration(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "device_authorization_endpoint": f"{self.url}/device",
            "jwks_uri": f"{self.url}/jwks",
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            **self.discovered,
        }
        return {name: value for name, value in document.items() if value is not None}

    def authorize(self, query: str) -> tuple[int, str]:
        """The redirect, or why there is none."""
        audience = {"resource"} if self.audience else set()
        asked = self._strict(query, AUTHORIZE | audience)
        self._require(asked.get("resource", "") == self.audience, "resource")
        redirect = asked["redirect_uri"]
        self._require(re.fullmatch(r"http://127\.0\.0\.1:\d+/callback", redirect) is not None, "redirect_uri")
        self._require(asked["response_type"] == "code", "response_type")
        self._require(asked["client_id"] == CLIENT_ID, "client_id")
        self._require("openid" in asked["scope"].split(" "), "scope")
        self._require(asked["code_challenge_method"] == "S256", "code_challenge_method")
        self._require(re.fullmatch(r"[A-Za-z0-9_-]{43}", asked["code_challenge"]) is not None, "code_challenge")
        self._require(len(asked["state"]) >= 22 and len(asked["nonce"]) >= 22, "state and nonce")
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        answer = {"code": code, "state": asked["state"], "iss": self.url, **self.answered}
        return 302, f"{redirect}?{urlencode({name: value for name, value in answer.items() if value})}"

    def exchange(self, body: str) -> tuple[int, dict[str, Any]]:
        """The answer of the token endpoint."""
        grant = dict(parse_qsl(body)).get("grant_type")
        if grant == "urn:ietf:params:oauth:grant-type:device_code":
            asked = self._strict(body, POLL)
            self._require(asked["client_id"] == CLIENT_ID and asked["device_code"] in self._devices, "device_code")
            if self.pending:
                return 400, {"error": self.pending.pop(0)}
            self._devices.remove(asked["device_code"])
            return 200, self._tokens(self.token())
        asked = self._strict(body, EXCHANGE)
        self._require(asked["grant_type"] == "authorization_code", "grant_type")
        begun = self._codes.pop(asked["code"], None)  # once
        self._require(begun is not None, "code")
        assert begun is not None
        self._require(asked["redirect_uri"] == begun["redirect_uri"], "redirect_uri")
        self._require(asked["client_id"] == begun["client_id"], "client_id")
        self._require(re.fullmatch(r"[A-Za-z0-9._~-]{43,128}", asked["code_verifier"]) is not None, "code_verifier")
        made = urlsafe_b64encode(sha256(asked["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        self._require(hmac.compare_digest(made, begun["code_challenge"]), "code_verifier")
        return 200, self._tokens(self.token(**{"nonce": begun["nonce"], **self.claims}))

    def begin_device(self, body: str) -> tuple[int, dict[str, Any]]:
        """The answer of the device endpoint."""
        asked = self._strict(body, {"client_id", "scope"})
        self._require(asked["client_id"] == CLIENT_ID and "openid" in asked["scope"].split(" "), "client_id")
        code = secrets.token_urlsafe(16)
        self._devices.add(code)
        place = {"verification_uri": f"{self.url}/type", "user_code": "WDJB-MJHT"}
        return 200, {"device_code": code, "expires_in": 600, "interval": 5, **place}

    def _tokens(self, id_token: str) -> dict[str, Any]:
        return {"id_token": id_token, "access_token": self.token(aud="https://gate"), "token_type": "Bearer"}

    def _strict(self, text: str, expected: set[str]) -> dict[str, str]:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True)
        self._require(sorted(name for name, _ in pairs) == sorted(expected), f"parameters {sorted(dict(pairs))}")
        return dict(pairs)

    def _require(self, good: bool, what: str) -> None:
        if not good:
            self.refused.append(what)
            raise ValueError(what)


@contextmanager
def provided(provider: Provider | None = None) -> Iterator[Provider]:
    """A provider that answers for the length of the block."""
    found = provider or Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/.well-known/openid-configuration":
                self._send(200, found.configuration())
            elif parts.path == "/jwks":
                self._send(200, {"keys": [issuing.jwk("ES256", number) for number in found.published]})
            elif parts.path == "/authorize":
                try:
                    status, place = found.authorize(parts.query)
                except ValueError as error:
                    self._send(400, {"error": "invalid_request", "why": str(error)})
                    return
                self.send_response(status)
                self.send_header("Location", place)
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self._send(404, {})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            try:
                if self.headers["Content-Type"] != "application/x-www-form-urlencoded":
                    raise ValueError("content type")
                status, document = found.begin_device(body) if self.path == "/device" else found.exchange(body)
            except ValueError as error:
                status, document = 400, {"error": "invalid_grant", "why": str(error)}
            self._send(status, document)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

        def _send(self, status: int, document: Mapping[str, Any]) -> None:
            data = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
