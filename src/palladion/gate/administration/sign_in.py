"""How an operator's machine gets a token from the provider: by its browser, or by a code that is typed elsewhere.

For commands; a gate only verifies what comes of it. Source: OpenID Connect Core 1.0, OpenID Connect Discovery 1.0,
RFC 7636 (PKCE), RFC 8252 (native apps: loopback redirects), RFC 8628 (devices), RFC 9207 (who issued an answer).
"""

import hmac
import secrets
import socket
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from palladion.access.strict_json import decode_object
from palladion.access.tokens import read_token
from palladion.errors import FormatError, KeysError, PalladionError
from palladion.gate.administration.terms import ID_TOKEN, Terms
from palladion.seal.http import exchange, split_url
from palladion.transit.url import is_loopback

DISCOVERY = "/.well-known/openid-configuration"
ANSWER_BYTES_MAX = 256 * 1024  # a token has at most 8 KiB, a configuration some 10
EXCHANGE_SECONDS = 30.0
BROWSER_SECONDS_MAX = 300.0  # for a person who has to find a second factor
VISIT_SECONDS_MAX = 5.0  # of one connection to our own listener
VISITS_MAX = 100  # whoever else on this machine knocks there does so in vain, and not for ever
DEVICE_SECONDS_MAX = 1800.0  # however long the provider says that a code lasts
INTERVAL_SECONDS = (1, 5, 60)  # between polls: least, usual (RFC 8628 §3.2), most
SLOWER_SECONDS = 5  # RFC 8628 §3.5
CALLBACK = "/callback"
_DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_WORD_CHARACTERS_MAX = 100


@dataclass(frozen=True)
class Provider:
    """Where a provider is asked what."""

    issuer: str
    authorization: str
    token: str
    device: str | None
    names_itself: bool


@dataclass(frozen=True)
class _Secrets:
    """What binds the answer to this question: CSRF, replay and theft of the code, in this order."""

    state: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    nonce: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48), repr=False)

    @property
    def challenge(self) -> str:
        return urlsafe_b64encode(sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()


def discover(issuer: str) -> Provider:
    """Ask a provider for its addresses. Raises FormatError if it is another, or does not take PKCE; StorageError."""
    _require_safe(issuer, issuer)
    document = _ask(issuer.rstrip("/") + DISCOVERY)
    if document.get("issuer") != issuer:
        raise FormatError("the provider's configuration is that of another issuer")
    methods = document.get("code_challenge_methods_supported", ["S256"])
    if not isinstance(methods, list) or "S256" not in methods:
        raise FormatError("the provider does not take PKCE with S256")
    device = document.get("device_authorization_endpoint")
    return Provider(
        issuer,
        _place(document, "authorization_endpoint", issuer),
        _place(document, "token_endpoint", issuer),
        None if device is None else _place(document, "device_authorization_endpoint", issuer),
        document.get("authorization_response_iss_parameter_supported") is True,
    )


def by_browser(
    terms: Terms,
    provider: Provider,
    open_browser: Callable[[str], object],
    *,
    seconds: Callable[[], float] = time.monotonic,
) -> str:
    """A token, once somebody has signed in in a browser of this machine, which `open_browser` shows an address to.

    Raises KeysError if the provider refuses or nobody comes, FormatError if the answer is not to our question.
    """
    secret = _Secrets()
    with _Listener(secret.state, provider) as listener:
        asked = {
            "response_type": "code",
            "client_id": terms.client_id,
            "redirect_uri": listener.redirect,
            "scope": terms.scope,
            "state": secret.state,
            "nonce": secret.nonce,
            "code_challenge": secret.challenge,
            "code_challenge_method": "S256",
            **({"resource": terms.audience} if terms.audience.startswith("https://") else {}),
        }
        joint = "&" if urlsplit(provider.authorization).query else "?"
        open_browser(f"{provider.authorization}{joint}{urlencode(asked)}")
        code = listener.wait(seconds)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": listener.redirect,
            "client_id": terms.client_id,
            "code_verifier": secret.verifier,
        }
    status, answer = _post(provider.token, form)
    if status != 200:
        raise _refused(answer)
    return _token(answer, terms, nonce=secret.nonce)


def by_device(
    terms: Terms,
    provider: Provider,
    tell: Callable[[str, str], object],
    *,
    sleep: Callable[[float], object] = time.sleep,
    seconds: Callable[[], float] = time.monotonic,
) -> str:
    """A token, once somebody has typed a code elsewhere; `tell` gets the address and the code.

    Raises KeysError if the provider refuses, or nobody comes in time.
    """
    if provider.device is None:
        raise KeysError("the provider has no sign-in by code", "sign in with a browser on this machine")
    status, answer = _post(provider.device, {"client_id": terms.client_id, "scope": terms.scope})
    if status != 200:
        raise _refused(answer)
    device_code, user_code, place = (_text(answer, name) for name in ("device_code", "user_code", "verification_uri"))
    _require_safe(place, provider.issuer)
    least, usual, most = INTERVAL_SECONDS
    interval = min(max(_number(answer, "interval", usual), least), most)
    end = seconds() + min(_number(answer, "expires_in", DEVICE_SECONDS_MAX), DEVICE_SECONDS_MAX)
    tell(place, user_code)
    form = {"grant_type": _DEVICE_GRANT, "device_code": device_code, "client_id": terms.client_id}
    while seconds() < end:
        sleep(interval)
        status, answer = _post(provider.token, form)
        if status == 200:
            return _token(answer, terms, nonce=None)
        if answer.get("error") == "slow_down":
            interval = min(interval + SLOWER_SECONDS, most)
        elif answer.get("error") != "authorization_pending":
            raise _refused(answer)
    raise KeysError("nobody has typed the code in time", "sign in again")


class _Listener:
    """Waits on the loopback for the browser to come back, on a port that nobody knew before (RFC 8252 §7.3, §8.3)."""

    def __init__(self, state: str, provider: Provider) -> None:
        self._state = state
        self._provider = provider
        self._found: dict[str, str] | None = None
        self._left = VISIT_SECONDS_MAX
        self._server = HTTPServer(("127.0.0.1", 0), self._handler())
        self.redirect = f"http://127.0.0.1:{self._server.server_port}{CALLBACK}"

    def __enter__(self) -> "_Listener":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    def wait(self, seconds: Callable[[], float]) -> str:
        """The code. Raises KeysError, FormatError."""
        end = seconds() + BROWSER_SECONDS_MAX
        for _ in range(VISITS_MAX):
            left = end - seconds()
            if left <= 0.0:
                break
            # both from one clock: whoever connects just before the end is not waited for beyond it
            self._server.timeout = left
            self._left = min(VISIT_SECONDS_MAX, left)
            self._server.handle_request()
            if self._found is not None:
                return self._code(self._found)
        raise KeysError("nobody has signed in in time", "sign in again, or with --device")

    def take(self, host: str, target: str) -> bool:
        """Whether this is the visit that is waited for. Others are sent away, and end nothing."""
        parts = urlsplit(target)
        pairs = parse_qsl(parts.query, keep_blank_values=True, max_num_fields=20)
        query = dict(pairs)
        if f"http://{host}{parts.path}" != self.redirect or len(query) != len(pairs):
            return False
        if not hmac.compare_digest(query.get("state", "").encode(), self._state.encode()):
            return False
        self._found = query
        return True

    def _code(self, query: Mapping[str, str]) -> str:
        issuer = query.get("iss")
        if issuer != self._provider.issuer and (issuer is not None or self._provider.names_itself):
            # RFC 9207: the code of one provider must not be shown to another
            raise FormatError("the answer is that of another provider than was asked")
        if "error" in query or not query.get("code"):
            raise _refused(query)
        return query["code"]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def setup(self) -> None:
                super().setup()
                self.connection.settimeout(listener._left)
                # the timeout is that of each read: who sends a byte now and then would stay for ever
                self._end = threading.Timer(listener._left, self._cut)
                self._end.daemon = True
                self._end.start()

            def finish(self) -> None:
                self._end.cancel()
                super().finish()

            def _cut(self) -> None:
                with suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)

            def do_GET(self) -> None:
                try:
                    good = listener.take(self.headers.get("Host", ""), self.path)
                except ValueError:
                    good = False
                body = b"Palladion: you can close this page." if good else b"Palladion: this is not for you."
                self.send_response(200 if good else 404)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Referrer-Policy", "no-referrer")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (as the library calls it)
                """The address has the code in it: nothing is written."""

        return Handler


def _token(answer: Mapping[str, Any], terms: Terms, *, nonce: str | None) -> str:
    """The token that the gate wants, if the ID token beside it is the answer to our question (Core §3.1.3.7).

    It came from the provider itself, over TLS; its signature is verified by the gate.
    """
    id_token = _text(answer, "id_token")
    claims = read_token(id_token.encode("ascii", "replace")).claims
    audience = claims.get("aud")
    if claims.get("iss") != terms.issuer or terms.client_id not in (
        audience if isinstance(audience, list) else [audience]
    ):
        raise FormatError("the provider answers with a token for somebody else")
    said = claims.get("nonce")
    if nonce is not None and not (isinstance(said, str) and hmac.compare_digest(said.encode(), nonce.encode())):
        raise FormatError("the provider answers with a token that was not asked for now")
    return id_token if terms.token == ID_TOKEN else _text(answer, "access_token")


def _refused(answer: Mapping[str, Any]) -> KeysError:
    said = answer.get("error")
    word = said if isinstance(said, str) and said.isprintable() else "no reason"
    return KeysError(f"the provider refuses: {word[:_WORD_CHARACTERS_MAX]}", "sign in again")


def _ask(place: str) -> dict[str, Any]:
    with exchange(place, seconds=EXCHANGE_SECONDS) as answer:
        status, data = answer.status, _limited(answer.pieces)
    if status != 200:
        raise KeysError(f"{urlsplit(place).hostname} answers with HTTP status {status}")
    return decode_object(data, what="the provider's answer")


def _post(place: str, form: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
    kind = "application/x-www-form-urlencoded"
    with exchange(place, body=urlencode(form).encode(), content_type=kind, seconds=EXCHANGE_SECONDS) as answer:
        status, data = answer.status, _limited(answer.pieces)
    if status not in {200, 400, 401, 403}:
        raise KeysError(f"{urlsplit(place).hostname} answers with HTTP status {status}")
    return status, decode_object(data, what="the provider's answer")


def _limited(pieces: Any) -> bytes:
    data = bytearray()
    for piece in pieces:
        data += piece
        if len(data) > ANSWER_BYTES_MAX:
            raise FormatError(f"the provider sends more than {ANSWER_BYTES_MAX} bytes")
    return bytes(data)


def _place(document: Mapping[str, Any], name: str, issuer: str) -> str:
    place = document.get(name)
    if not isinstance(place, str):
        raise FormatError(f"the provider's configuration has no {name}")
    _require_safe(place, issuer)
    return place


def _require_safe(place: str, issuer: str) -> None:
    """Https, or the loopback where the provider itself is there: a code or a token must not travel in the clear."""
    try:
        parts = split_url(place)
    except PalladionError:
        raise FormatError("the provider names an address that is none") from None
    local = is_loopback(parts.hostname or "") and is_loopback(urlsplit(issuer).hostname or "")
    if parts.scheme != "https" and not local:
        raise FormatError(f"the provider names an address that is not encrypted: {parts.hostname}")


def _text(answer: Mapping[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not value or not value.isprintable():
        raise FormatError(f"the provider's answer has no {name}")
    return value


def _number(answer: Mapping[str, Any], name: str, default: float) -> float:
    value = answer.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        return default
    return float(value)
