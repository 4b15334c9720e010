"""One HTTP request that cannot take for ever: a limit on its time, no redirects, no scheme but HTTP and HTTPS.

Whoever reads the answer limits its size. No proxy is used: what is fetched here proves itself by its signatures, and a
release channel behind a proxy can be copied to a folder.
"""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import SplitResult, urlsplit

from palladion.errors import PalladionError, StorageError
from palladion.seal.dialing import TOO_SLOW, Watchdog

EXCHANGE_SECONDS = 60.0  # to find, connect and answer; a busy time-stamping authority takes two or three
BYTES_PER_SECOND_MIN = 32 * 1024  # so many bytes that came buy a second more; slower is an attack, or as good as one
_READ_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Answer:
    """Status, type and body of an answer. The body comes in pieces, which can be read once, within the block."""

    status: int
    pieces: Iterator[bytes]
    content_type: str = ""


@contextmanager
def exchange(
    url: str,
    *,
    body: bytes | None = None,
    content_type: str = "",
    headers: Mapping[str, str] | None = None,
    seconds: float = EXCHANGE_SECONDS,
    context: ssl.SSLContext | None = None,
) -> Iterator[Answer]:
    """GET `url`, or POST `body` to it; `context` says who may vouch for the server, the system's authorities without.

    `headers` are sent besides; neither they nor path and query stand in an error.

    Raises StorageError, also while the body is read, if no whole answer comes in time.
    """
    parts = split_url(url)
    sent = {**(headers or {}), "Accept-Encoding": "identity", "User-Agent": "palladion"}
    if content_type:
        sent["Content-Type"] = content_type
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    watchdog = Watchdog(seconds)
    with closing(_connection(parts, seconds, context)) as connection:
        try:
            with _reported(parts, watchdog):
                watchdog.connect(connection)
                connection.request("POST" if body is not None else "GET", target, body, sent)
                response = connection.getresponse()
            with response:
                type_ = response.headers.get("Content-Type", "")
                yield Answer(response.status, _pieces(response, parts, watchdog), type_)
        finally:
            watchdog.stop()


def split_url(url: str) -> SplitResult:
    """The parts of an HTTP or HTTPS address. Raises PalladionError on any other, and on one with a password in it."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or "@" in parts.netloc or not url.isascii() or not url.isprintable() or " " in url:
        raise PalladionError("the address is not a plain http:// or https:// one, without user and password")
    return parts


def _connection(parts: SplitResult, seconds: float, context: ssl.SSLContext | None) -> HTTPConnection:
    if parts.scheme == "https":
        return HTTPSConnection(parts.netloc, timeout=seconds, context=context or ssl.create_default_context())
    return HTTPConnection(parts.netloc, timeout=seconds)


def _pieces(response: HTTPResponse, parts: SplitResult, watchdog: Watchdog) -> Iterator[bytes]:
    while True:
        with _reported(parts, watchdog):
            piece = response.read1(_READ_BYTES)
            if not piece and (watchdog.bit or response.length):
                raise HTTPException("it ended too early")
        if not piece:
            return
        watchdog.prolong(len(piece) / BYTES_PER_SECOND_MIN)
        yield piece


@contextmanager
def _reported(parts: SplitResult, watchdog: Watchdog) -> Iterator[None]:
    try:
        yield
    except (OSError, HTTPException, ValueError) as error:
        reason = TOO_SLOW if watchdog.bit else str(error) or type(error).__name__
        # without path and query, which may carry a token
        raise StorageError(f"{parts.hostname} gives no whole answer: {reason}", "try again later") from None
