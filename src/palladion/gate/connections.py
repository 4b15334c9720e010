"""HTTP/1.1 connections: uvicorn's, with the limits that it leaves to a proxy, because strangers reach this port.

Owns how many there are, how large and how slow the head of a request may be, and how long a peer may refuse to read.
What a request means is read by `app`.
"""

import asyncio
import resource

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CONNECTIONS_MAX = 4096  # a client needs one or a few; each costs some 20 KiB
DESCRIPTORS_RESERVED = 1024  # for the rest: a checkpoint after a freeze writes 520 files at once, or the ledger fails
HEAD_BYTES_MAX = 32 * 1024  # a key and a few headers take under 1 KiB; the parser itself sets no limit
HEAD_SECONDS_MAX = 10.0  # from a connection's beginning, or a head's first byte, until the head is complete
UNREAD_SECONDS_MAX = 30.0  # a peer that takes no answer holds memory


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
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop every clock."""
        super().connection_lost(exc)
        for timer in (self._head_timer, self._unread_timer):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Take in bytes; cut off who sends a head that is too long, or is slow with what no handler waits for."""
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_head()
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header of the head. Trailers are dropped: nobody reads them, and they can go on for ever."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A head is complete: what follows is the handler's affair."""
        self._in_head = False
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """An answer is on its way; where the connection ends with it, the peer has to take it in time."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._expect_reading()

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
        self.transport.abort()

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS_MAX, self.transport.abort)

    def _expect_reading(self) -> None:
        if self._unread_timer is None:
            self._unread_timer = self.loop.call_later(UNREAD_SECONDS_MAX, self.transport.abort)
