"""HTTP/1.1 connections: uvicorn's, with the limits that it leaves to a proxy, because strangers reach this port.

Owns how many there are, how large and how slow the head of a request may be, and how long a peer may refuse to read.
A request and its answer are in `exchange`; what a request means is read by `app`.
"""

import asyncio
import re
import resource
import time
from collections.abc import Sequence

from httptools import HttpParserError, HttpParserUpgrade
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from palladion.errors import FormatError
from palladion.gate.app import App, Scope
from palladion.gate.exchange import Exchange
from palladion.gate.hops import SCOPE, Hop, read_hop

CONNECTIONS_MAX = 4096  # a client needs one or a few; each costs some 20 KiB
DESCRIPTORS_RESERVED = 1024  # for the rest: a checkpoint after a freeze writes 520 files at once, or the ledger fails
HEAD_BYTES_MAX = 32 * 1024  # a key and a few headers take under 1 KiB; the parser itself sets no limit
HEAD_SECONDS_MAX = 10.0  # from a connection's beginning, or a head's first byte, until the head is complete
HOP_SECONDS_MAX = 24 * 3600.0  # that a connection with a certificate lives: whose end may be years away
FRAMES_BYTES_MAX = (
    64 * 1024
)  # of chunk sizes, extensions and trailers, beside eight times the body: the least of chunks
UNREAD_SECONDS_MAX = 30.0  # a peer that takes no answer holds memory
# RFC 9110 §7.2: a name or an address, and a port
_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]*")


class HeadError(Exception):
    """A head that is not served. The parser ends the connection for it, as for what is no HTTP."""


def check_head(version: str, target: bytes, headers: Sequence[tuple[bytes, bytes]], *, upgrade: bool) -> None:
    """Raise HeadError for a head that somebody on the way may have read differently; names are in lower case.

    The parser takes what RFC 9112 lets a server take. A gate needs none of it: no version but two, no target but a
    path, no coding but chunks, no other protocol on the same connection.
    """
    if version not in {"1.1", "1.0"}:
        raise HeadError("a version of HTTP that is not spoken here")
    if upgrade:
        # the parser stops there, and what follows would be read by nobody
        raise HeadError("the connection stays with this protocol")
    if not target.startswith(b"/") or b"#" in target:
        raise HeadError("the target is no path")
    size, hosts = len(target), 0
    for name, value in headers:
        size += len(name) + len(value) + 4
        if name == b"transfer-encoding" and (version == "1.0" or value.lower() != b"chunked"):
            raise HeadError("a transfer coding that is not taken")
        if name == b"host":
            hosts += 1
            if not _HOST.fullmatch(value):
                raise HeadError("the host is none")
    if hosts == 0 and version == "1.1":
        raise HeadError("there is no host")
    if size > HEAD_BYTES_MAX:
        # one that came in a single piece, and was complete before it could be counted
        raise HeadError("the head is too long")


def connections_max() -> int:
    """How many connections there can be beside everything else; raises this process's limit of descriptors for them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = max(soft, min(hard, CONNECTIONS_MAX + DESCRIPTORS_RESERVED))
    if descriptors > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))
    # where the host allows few, half of them
    return min(CONNECTIONS_MAX, max(descriptors - DESCRIPTORS_RESERVED, descriptors // 2))


class Connection(HttpToolsProtocol):
    """One connection; uvicorn's `limit_concurrency` says how many there may be, and is never reached."""

    _in_head = True
    _head_bytes = 0
    _in_body = False
    _body_bytes = 0
    _wire_bytes = 0  # of a body, with its frames
    _idle_since = 0.0
    cycle: Exchange  # the one whose head came last
    _answering: RequestResponseCycle | None = None  # an earlier one, where requests come before they are answered
    hop: Hop | None = None  # who is at the other end
    half_closed = False  # it sends no more, and waits for answers, or has left
    _hop_timer: asyncio.TimerHandle | None = None
    _head_timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Let a peer in, or close at once where there is no room."""
        super().connection_made(transport)
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            # not counted until it is lost either: uvicorn would refuse the requests of others meanwhile
            self.connections.discard(self)
            transport.abort()
            return
        try:
            self.hop = read_hop(transport)
        except FormatError:
            # verified by TLS, and still not to be read: nobody whom we could know
            transport.abort()
            return
        if self.hop is not None and self.hop.certificate is not None and self.hop.certificate.expires is not None:
            # a connection must not outlive the certificate that opened it; what is being answered is answered
            seconds = max(0.0, self.hop.certificate.expires.timestamp() - time.time())
            self._hop_timer = self.loop.call_later(min(seconds, HOP_SECONDS_MAX), self.shutdown)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop every clock, and every answer: also one that goes on while other requests wait for it."""
        super().connection_lost(exc)
        self.pipeline.clear()
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()
        self._unset_keepalive_if_required()
        for timer in (self._head_timer, self._unread_timer, self._hop_timer):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Take in bytes; cut off who sends a head that is too long, or is slow with what no handler waits for."""
        in_body = self._in_body
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self.send_400_response("Invalid HTTP request received.")
            return
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            # not before what came was read: most heads come in one piece, and need no clock
            self._expect_head()
        if in_body and self._in_body:
            self._wire_bytes += len(data)
            if self._wire_bytes > FRAMES_BYTES_MAX + 8 * self._body_bytes and not self.transport.is_closing():
                self.send_400_response("The frames of the body are too long.")
        if self._in_head and self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")

    def eof_received(self) -> bool | None:  # type: ignore[override]  # uvicorn's closes at once
        """The peer sends no more; whether it is still answered (True), or the connection closed, once all is written.

        What it asked in full is answered, but for streams: whoever has left is not to be told from who only sends no
        more, and a model would write on for nobody. TLS has no half of a connection here.
        """
        cycle, answering = self.cycle, self._answering
        streaming = answering is not None and answering.response_started and not answering.response_complete
        # other applications do not ask whether it is half closed, and may stream
        if self.scheme == "https" or streaming or not isinstance(self.app, App):
            return None
        if cycle is None or cycle.response_complete or cycle.more_body:
            return None
        self.half_closed = True
        cycle.keep_alive = False
        return True

    def on_message_begin(self) -> None:
        """A head begins."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header of the head. Trailers are dropped: nobody reads them, and they can go on for ever."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A head is complete: what follows is the handler's affair. Raises HeadError, to the parser."""
        version, fields = self.parser.get_http_version(), self.headers
        check_head(version, self.url, fields, upgrade=self.parser.should_upgrade())
        self._in_head, self._in_body = False, True
        self._body_bytes = self._wire_bytes = 0
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        before = self.cycle
        # the path as it was sent: a proxy may have let it pass for another one than it decodes to. None of ours has a %
        target, _, query = self.url.partition(b"?")
        method, path = self.parser.get_method().decode("ascii"), target.decode("ascii")
        keep_alive = version == "1.1" and self.parser.should_keep_alive()
        # each request its own: another may come before this one is answered
        ours = isinstance(self.app, App)
        scope = {"method": method} if ours else self._describe(version, method, path, query)
        # one of HTTP/1.0 that expects to be asked has to be answered as if it did not
        expects = self.expect_100_continue and version == "1.1"
        self.cycle = exchange = Exchange(
            self, method, path, fields, scope, keep_alive=keep_alive, expects_continue=expects
        )
        if before is None or before.response_complete:
            self._start_asgi_task(exchange, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        self._body_bytes += len(body)
        if not self.cycle.response_complete and self.cycle.add(body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        """A request is complete."""
        self._in_body = False
        if not self.cycle.response_complete:
            self.cycle.end_body()

    def send_400_response(self, msg: str) -> None:
        """Refuse what came last and end the connection; what came before it is answered first, and only once."""
        cycle = self.cycle
        if cycle is None or (cycle.response_complete and not self._in_body):
            super().send_400_response(msg)
        elif not self._in_body:
            # a head after requests that are still being answered: this must not be taken for their answer
            cycle.keep_alive = False
            self.flow.pause_reading()
        elif cycle.response_complete:
            self.transport.close()
            self._expect_reading()
        elif cycle.response_started or self.pipeline:
            self.transport.abort()
        else:
            super().send_400_response(msg)

    def on_response_complete(self) -> None:
        """An answer is on its way; where the connection ends with it, the peer has to take it in time."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._expect_reading()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        # one clock for many requests: it rings in vain where there was one meanwhile
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._expect_request(self.timeout_keep_alive)

    def pause_writing(self) -> None:
        """The peer does not read what it is sent."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, with whatever its peer has not read by now."""
        self.timeout_keep_alive_task = None
        if self.cycle is None or not self.cycle.response_complete or self._head_timer is not None:
            return  # busy, or a head has begun, which has a clock of its own
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._expect_request(left)
        else:
            self.transport.abort()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _describe(self, version: str, method: str, path: str, query: bytes) -> Scope:
        """What ASGI says of a request, for applications that are not ours."""
        scope: Scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme or "http",
            "method": method,
            "path": path,
            "raw_path": path.encode("ascii"),
            "query_string": query,
            "root_path": self.root_path,
            "headers": self.headers,
            "state": self.app_state.copy(),
        }
        if self.hop is not None:
            scope[SCOPE] = self.hop
        return scope

    def _expect_request(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS_MAX, self.transport.abort)

    def _expect_reading(self) -> None:
        if self._unread_timer is None:
            self._unread_timer = self.loop.call_later(UNREAD_SECONDS_MAX, self.transport.abort)
