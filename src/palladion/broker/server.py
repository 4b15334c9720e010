"""The broker behind HTTPS: four paths, client certificates alone, small requests, and nobody for long.

One thread decides, in the order in which requests come whole; each connection carries one request, so that a
certificate that ended or a changed list of authorities counts at the next one.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import uvicorn

from palladion.access.certificates import Certificate
from palladion.broker.asked import FAULT
from palladion.broker.broker import Broker
from palladion.broker.connections import PEER, REQUEST_SECONDS_MAX, Connection, Server
from palladion.errors import BusyError, PolicyError, StorageError
from palladion.host.broker_messages import (
    CHALLENGE_PATH,
    KEYS_PATH,
    RELEASE_PATH,
    RENEW_PATH,
    REQUEST_BYTES_MAX,
    BrokerRefusedError,
    Refusal,
    encode,
    printable,
)
from palladion.policy.broker import BrokerPolicy

DECISIONS_MAX = 32  # that wait for the one thread; with a key service each takes up to seconds

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Act = Callable[[bytes], msgspec.Struct]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

log = logging.getLogger("palladion.broker")


class Answer(NamedTuple):
    """A status and JSON."""

    status: int
    body: bytes


class BrokerApp:
    """An ASGI application around a broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._decides = ThreadPoolExecutor(1, thread_name_prefix="broker")
        self._waiting = 0

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer one request, and end its connection."""
        if scope["type"] != "http":
            return
        answer = await self._answer(scope, receive)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(answer.body)),
            (b"cache-control", b"no-store"),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    def close(self) -> None:
        """Let the decision that is being made come to its end."""
        self._decides.shutdown(wait=True, cancel_futures=True)

    async def _answer(self, scope: _Scope, receive: _Receive) -> Answer:
        certificate = scope.get(PEER)
        if not isinstance(certificate, Certificate):
            return _refusal(403, "client", "a certificate is needed")
        try:
            self._broker.admit(certificate)
        except BusyError as error:
            return _refusal(429, "busy", error.message)
        known: dict[tuple[str, str], _Act] = {
            (CHALLENGE_PATH, "POST"): lambda _: self._broker.challenge(certificate),
            (RELEASE_PATH, "POST"): partial(self._broker.release, certificate),
            (RENEW_PATH, "POST"): partial(self._broker.renew, certificate),
            (KEYS_PATH, "GET"): lambda _: self._broker.keys(certificate),
        }
        act = known.get((scope["path"], scope["method"]))
        if act is None:
            return _refusal(404, "unknown", "there is nothing here")
        large = scope["path"] in {RELEASE_PATH, RENEW_PATH}
        body = await _body(receive, REQUEST_BYTES_MAX if large else 0)
        if isinstance(body, Answer):
            return body
        if self._waiting >= DECISIONS_MAX:
            return _refusal(503, "busy", "too many requests are waiting")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._decides, _decided, act, body)
        finally:
            self._waiting -= 1


def serve_broker(app: BrokerApp, policy: BrokerPolicy, home: Path, *, started: Callable[[str], None]) -> None:
    """Answer until the process is told to stop. `started` is told the address. Raises PolicyError."""
    try:
        Server(server_config(app, policy, home), started).run()
    finally:
        app.close()


def server_config(app: BrokerApp, policy: BrokerPolicy, home: Path) -> uvicorn.Config:
    """What uvicorn is told. Raises PolicyError where TLS cannot be had, or nobody could show a certificate."""
    paths = {name: _file(home, getattr(policy, name), f"broker.{name}") for name in _FILES}
    host, _, port = policy.listen.rpartition(":")
    if int(port) > 65535:
        raise PolicyError(f"broker.listen: {policy.listen} has no port between 0 and 65535")
    config = uvicorn.Config(
        app,
        host=host.strip("[]"),
        port=int(port),
        http=Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level=logging.ERROR,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        # how many there are, `connections` says: uvicorn's own refusal is none that hosts know
        timeout_keep_alive=int(REQUEST_SECONDS_MAX),
        timeout_graceful_shutdown=10,
        ssl_certfile=paths["tls_certificate"],
        ssl_keyfile=paths["tls_key"],
        ssl_ca_certs=paths["client_ca"],
        ssl_cert_reqs=ssl.CERT_REQUIRED,
        ssl_version=ssl.PROTOCOL_TLS_SERVER,
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise PolicyError(
            f"broker.tls_certificate, tls_key or client_ca cannot be used: {error.strerror or error}"
        ) from None
    context = config.ssl
    if context is None or not context.get_ca_certs():
        raise PolicyError(f"broker.client_ca: {paths['client_ca']} has no certificate of an authority in PEM")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # a ticket would let in, without a look at its certificate, whoever was let in before
    context.num_tickets = 0
    return config


_FILES = ("tls_certificate", "tls_key", "client_ca")


async def _body(receive: _Receive, most: int) -> bytes | Answer:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return _refusal(400, "malformed", "the request did not come whole")
        body += message.get("body", b"")
        if len(body) > most:
            return _refusal(413, "malformed", f"a request has at most {most} bytes here")
        if not message.get("more_body"):
            return bytes(body)


def _decided(act: _Act, body: bytes) -> Answer:
    """What the broker says; whatever else happens, nothing leaves."""
    try:
        return Answer(200, encode(act(body)))
    except BrokerRefusedError as error:
        # what the broker cannot decide is no refusal: hosts ask again as long as their leases last
        return _refusal(500 if error.reason == FAULT else 403, error.reason, error.message)
    except (BusyError, StorageError) as error:
        log.error("nothing is released: %s", error.message)  # noqa: TRY400 (a sentence, not a traceback)
        return _refusal(503, "busy", "the broker cannot put it on record now")
    except Exception:
        log.exception("nothing is released: this is a bug")
        return _refusal(500, FAULT, "the broker cannot decide this")


def _refusal(status: int, reason: str, sentence: str) -> Answer:
    return Answer(status, encode(Refusal(v=1, reason=reason, message=printable(sentence))))


def _file(home: Path, name: str, setting: str) -> str:
    path = home / Path(name).expanduser()
    if not name or not path.is_file():
        raise PolicyError(f"{setting}: {path if name else 'nothing'} is no file", "docs/broker.md shows how to make it")
    return str(path)
