"""One connection to a model server, as asyncio drives it: bytes out, answers in, and how long either may take.

How answers are read is in `answer`; which connections there are, and what may be asked again, in `pool`.
"""

import asyncio
import math
from collections.abc import Callable

from palladion.gate.upstream.answer import Answer, AnswerParser
from palladion.gate.upstream.errors import Kind, UpstreamError
from palladion.gate.upstream.limits import UpstreamLimits
from palladion.gate.upstream.request import Request

BUFFER_BYTES = 64 * 1024  # of a body that nobody has taken yet: with more, reading pauses; one read may come on top
JOINED_BYTES_MAX = 16 * 1024  # a smaller body is copied behind its head, which is cheaper than a second buffer
_TIMER_SECONDS = 0.001  # what the clocks of event loops are exact to


class Connection(asyncio.Protocol):
    """One connection; one exchange at a time.

    `exchange`, then `answer`, or `part` until it is empty; then `rest`, which says whether another may follow. `rest`
    is called in any case: where the answer is not complete, it closes the connection.
    """

    def __init__(
        self,
        server: str,
        limits: UpstreamLimits,
        *,
        secure: bool,
        loop: asyncio.AbstractEventLoop,
        lost: Callable[["Connection"], None],
    ) -> None:
        """`server` is for messages, `secure` says that this is TLS, and `lost` is called once: when it is gone."""
        self._server = server
        self._limits = limits
        self._lost = lost
        self._loop = loop
        self._parser = AnswerParser(server, limits, secure=secure)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._due = math.inf
        self._expecting = False  # whether bytes may come: between a request and the end of its answer
        self._whole = True
        self._paused = False
        self._used = False
        self.fault: UpstreamError | None = None
        self.dead = False
        self.stale = False  # whether the server closed it after use, without a byte in answer to the last request

    async def exchange(self, request: Request, *, whole: bool) -> None:
        """Send a request; returns when the answer is there if it is wanted `whole`, else when its head is."""
        limits, transport = self._limits, self._transport
        if transport is None or self.dead:
            raise self._error("broken", "closed the connection", sent=False)
        bytes_max = limits.body_bytes_max if whole else limits.stream_bytes_max
        self._parser.begin(head_only=request.head_only, body_bytes_max=bytes_max)
        self._whole, self._expecting = whole, True
        self._expect_within(limits.head_seconds)
        if len(request.body) <= JOINED_BYTES_MAX:
            transport.write(request.head + request.body)
        else:
            transport.writelines([request.head, request.body])
        await self._wake()
        if self.fault is not None:
            raise self.fault

    @property
    def head(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Status and headers of the answer."""
        return self._parser.status, self._parser.headers

    def answer(self) -> Answer:
        """The whole answer."""
        return Answer(self._parser.status, self._parser.headers, self._parser.take())

    async def part(self) -> bytes:
        """What comes next of the body, or nothing at its end. Raises UpstreamError, even with bytes not yet taken."""
        parser = self._parser
        while self.fault is None and not parser.body and not parser.complete:
            await self._wake()
        if self.fault is not None:
            raise self.fault
        part = parser.take()
        if self._paused and not self.dead and self._transport is not None:
            self._paused = False
            self._expect_within(self._limits.idle_seconds)
            self._transport.resume_reading()
        return part

    def rest(self) -> bool:
        """Be idle until the next exchange, and whether there can be one; if not, close."""
        transport, parser = self._transport, self._parser
        read = parser.complete and parser.reusable and not parser.body and not self._paused
        # bytes of the request that are still here would go before the next one, or be it
        if self.dead or transport is None or not read or transport.get_write_buffer_size():
            self.end()
            return False
        self._used = True
        self._expect_within(self._limits.keep_alive_seconds)
        return True

    def end(self, fault: UpstreamError | None = None) -> None:
        """Close at once; an exchange that is not over fails with `fault`."""
        if self.dead:
            return
        self.dead = True
        if self._expecting:
            self._expecting = False
            self.fault = fault or self._error("broken", "was left before its answer was complete")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()
        self._wake_up()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands."""
        self._transport = transport  # type: ignore[assignment]  # a stream's

    def data_received(self, data: bytes) -> None:
        """Read on; what comes unasked ends the connection, since it could be taken for the next answer."""
        parser = self._parser
        if not self._expecting:
            self.end()
            return
        try:
            parser.feed(data)
        except UpstreamError as fault:
            self.end(fault)
            return
        if parser.complete:
            self._finish()
        elif parser.head_complete:
            self._go_on()

    def eof_received(self) -> None:
        """The server closed its side."""
        if self._expecting:
            self.stale = self._used and self._parser.untouched
            try:
                self._parser.end()
            except UpstreamError as fault:
                self.end(fault)
                return
            self._finish()
        self.end()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        if self._expecting:
            self.stale = self._used and self._parser.untouched
            self.end(self._error("broken", "broke the connection off"))
        self.end()
        self._lost(self)

    def _finish(self) -> None:
        self._expecting = False
        self._due = math.inf
        self._wake_up()

    def _go_on(self) -> None:
        """Some of the body came, and more is to come."""
        if self._whole:
            self._expect_within(self._limits.idle_seconds)
            return
        if len(self._parser.body) > BUFFER_BYTES and not self._paused and self._transport is not None:
            # the reader is slow: that is not the server's fault
            self._paused = True
            self._due = math.inf
            self._transport.pause_reading()
        elif not self._paused:
            self._expect_within(self._limits.idle_seconds)
        self._wake_up()

    def _wake(self) -> asyncio.Future[None]:
        """What ends when something has come that is worth a look."""
        self._waiter = self._loop.create_future()
        return self._waiter

    def _wake_up(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _expect_within(self, seconds: float) -> None:
        # a timer is set anew only where it would ring too late: most never ring
        self._due = self._loop.time() + seconds
        if self._timer is None or self._timer_at > self._due:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._due
        self._timer = self._loop.call_at(self._due, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._due > self._loop.time() + _TIMER_SECONDS:
            if self._due < math.inf:
                self._set_timer()
        elif not self._expecting:
            self.end()
        elif self._parser.head_complete:
            self.end(self._error("timeout", f"sent nothing for {self._limits.idle_seconds:g} s amid its answer"))
        else:
            self.end(self._error("timeout", f"sent no head of an answer within {self._limits.head_seconds:g} s"))

    def _error(self, kind: Kind, deed: str, *, sent: bool = True) -> UpstreamError:
        return UpstreamError(f"{self._server} {deed}", kind=kind, sent=sent)
