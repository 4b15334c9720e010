"""Connections to web servers: TLS, proxies, and limits on time and size that hold however slowly or much is sent.

The framing of HTTP/1.1 is the standard library's; what is asked and answered is the business of `web`.
"""

import base64
import io
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPSConnection
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from palladion.seal.dialing import Watchdog
from palladion.transit.url import Url, is_loopback

HEAD_BYTES_MAX = 256 * 1024  # of one answer's headers; the standard library alone would take 6.5 MB
BUFFER_BYTES = 64 * 1024

Origin = tuple[bool, str, int]  # secure, host, port


@dataclass(frozen=True)
class Limits:
    """What a server may cost us. `insecure_http` allows unencrypted http to other machines; `wait` sleeps."""

    idle_seconds: float = 20.0  # without a single byte; a congested line pauses for some seconds
    slowest_bytes_per_second: int = 32 * 1024  # on average; slower, and a gigabyte takes nine hours
    attempts: int = 4  # at one range or request
    connections: int = 4  # to all servers together: object stores reach a line's speed with 4 to 8
    redirects: int = 5
    insecure_http: bool = False
    wait: Callable[[float], None] = field(default=time.sleep, repr=False)

    def deadline(self, size: int) -> "Deadline":
        """By when an exchange that carries `size` bytes has to be over, all attempts at it included."""
        return Deadline(2 * self.idle_seconds + size / self.slowest_bytes_per_second)


class Deadline:
    """The end of somebody's patience."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until then. Raises TimeoutError when they are over."""
        seconds = self._end - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("too slow")
        return seconds


class Connection:
    """One connection, used by one thread at a time."""

    def __init__(self, http: HTTPConnection, origin: Origin, idle_seconds: float) -> None:
        self.http = http
        self.origin = origin
        self.used = False
        self._idle_seconds = idle_seconds
        self._timed: _TimedSocket | None = None

    def begin(self, deadline: Deadline) -> None:
        """Connect unless that is done, and hold what follows to `deadline`. Raises OSError."""
        if self._timed is None or self.http.sock is None:
            self.http.timeout = min(self._idle_seconds, deadline.left())
            # all of it: the name, its addresses, the proxy and TLS
            watchdog = Watchdog(deadline.left())
            try:
                watchdog.connect(self.http)
            finally:
                watchdog.stop()
            self._timed = _TimedSocket(self.http.sock, self._idle_seconds)
            # the standard library uses of a socket what _TimedSocket has
            self.http.sock = cast(Any, self._timed)
        self._timed.begin(deadline)

    def allow(self, deadline: Deadline) -> None:
        """Hold what follows to another deadline."""
        if self._timed is not None:
            self._timed.deadline = deadline

    @property
    def tls(self) -> ssl.SSLSocket | None:
        """What it goes over, where that is TLS: who is at the other end."""
        return self._timed.tls if self._timed is not None else None

    def end_of_head(self) -> None:
        """The answer's headers are read: its body has limits of its own."""
        if self._timed is not None:
            self._timed.head_bytes_left = None

    def interrupt(self) -> None:
        """Make whoever waits on it stop waiting; from any thread."""
        if self._timed is not None:
            self._timed.interrupt()


class Connections:
    """Connections kept open for further requests, at most `limits.connections` at a time."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._slots = threading.BoundedSemaphore(limits.connections)
        self._lock = threading.Lock()
        self._idle: dict[Origin, list[Connection]] = {}
        self._taken: set[Connection] = set()
        self._tls: ssl.SSLContext | None = None
        self._closed = False

    def take(self, url: Url, *, fresh: bool = False) -> Connection:
        """A connection to the origin of `url`, a new one if it has to be `fresh`; waits for a free place."""
        self._slots.acquire()
        try:
            with self._lock:
                if self._closed:
                    raise ConnectionAbortedError("it was closed on this side")
                kept = self._idle.get(url.origin)
                connection = kept.pop() if kept and not fresh else self._new(url)
                self._taken.add(connection)
                return connection
        except BaseException:
            self._slots.release()
            raise

    def give_back(self, connection: Connection, *, usable: bool) -> None:
        """Keep it for the next request if its last answer was read to the end; else close it."""
        with self._lock:
            self._taken.discard(connection)
            if usable and not self._closed:
                connection.used = True
                self._idle.setdefault(connection.origin, []).append(connection)
            else:
                connection.http.close()
        self._slots.release()

    def close(self) -> None:
        """Close all, also under the threads that wait for an answer; safe to call twice."""
        with self._lock:
            self._closed = True
            for connection in (item for kept in self._idle.values() for item in kept):
                connection.http.close()
            self._idle.clear()
            for connection in self._taken:
                connection.interrupt()

    def _new(self, url: Url) -> Connection:
        seconds = self._limits.idle_seconds
        if not url.secure:
            return Connection(HTTPConnection(url.host, url.port, timeout=seconds), url.origin, seconds)
        if self._tls is None:
            self._tls = tls_context()
        proxy = _proxy(url.host)
        if proxy is None:
            direct = HTTPSConnection(url.host, url.port, timeout=seconds, context=self._tls)
            return Connection(direct, url.origin, seconds)
        tunnelled = HTTPSConnection(proxy.host, proxy.port, timeout=seconds, context=self._tls)
        tunnelled.set_tunnel(url.host, url.port, headers=proxy.headers)
        return Connection(tunnelled, url.origin, seconds)


def tls_context() -> ssl.SSLContext:
    """TLS 1.3, or 1.2 where the other side has no better; the system's certificates, or those of SSL_CERT_FILE."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


@dataclass(frozen=True)
class _Proxy:
    host: str
    port: int
    headers: dict[str, str] = field(repr=False)


def _proxy(host: str) -> _Proxy | None:
    """The proxy of the environment (`https_proxy`, `no_proxy`): it sees a TLS tunnel, and nothing in it."""
    if is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    text = urllib.request.getproxies().get("https")
    if not text:
        return None
    parts = urlsplit(text if "://" in text else f"http://{text}")
    headers = {}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return _Proxy(parts.hostname or "", parts.port or 3128, headers)


class _TimedSocket:
    """Of a socket, what http.client uses; no call outlasts the deadline, and headers end at some size."""

    def __init__(self, connected: socket.socket, idle_seconds: float) -> None:
        self._socket = connected
        self._idle_seconds = idle_seconds
        self.deadline = Deadline(idle_seconds)
        self.head_bytes_left: int | None = None

    @property
    def tls(self) -> ssl.SSLSocket | None:
        return self._socket if isinstance(self._socket, ssl.SSLSocket) else None

    def begin(self, deadline: Deadline) -> None:
        self.deadline = deadline
        # what the buffer reads ahead belongs to the body, and is counted here too
        self.head_bytes_left = HEAD_BYTES_MAX + BUFFER_BYTES

    def sendall(self, data: Any) -> None:
        self._hurry()
        self._socket.sendall(data)

    def receive(self, raw: io.RawIOBase, buffer: memoryview) -> int:
        self._hurry()
        count = raw.readinto(buffer) or 0
        if self.head_bytes_left is not None:
            self.head_bytes_left -= count
            if self.head_bytes_left < 0:
                raise ConnectionError(f"headers of more than {HEAD_BYTES_MAX} bytes")
        return count

    def makefile(self, _mode: str) -> io.BufferedReader:
        raw = cast(io.RawIOBase, self._socket.makefile("rb", buffering=0))
        return io.BufferedReader(_TimedReader(self, raw), BUFFER_BYTES)

    def interrupt(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()

    def _hurry(self) -> None:
        seconds = min(self._idle_seconds, self.deadline.left())
        if seconds != self._socket.gettimeout():
            self._socket.settimeout(seconds)


class _TimedReader(io.RawIOBase):
    def __init__(self, owner: _TimedSocket, raw: io.RawIOBase) -> None:
        self._owner = owner
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        return self._owner.receive(self._raw, buffer)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()
