"""The pool of connections to one model server: who gets one, who waits, and what is asked a second time.

One connection is in `connection`; which server serves which route is the caller's affair. No redirect is followed, and
no proxy of the environment is used: a request goes to the server that was named, or nowhere.
"""

import asyncio
import ssl
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from palladion.gate.upstream.address import Address
from palladion.gate.upstream.answer import Answer
from palladion.gate.upstream.connection import Connection
from palladion.gate.upstream.errors import Kind, UpstreamError
from palladion.gate.upstream.limits import UpstreamLimits
from palladion.gate.upstream.request import Headers, Request, RequestWriter


class Streamed:
    """An answer whose body still comes: iterate over its parts. Raises UpstreamError where it breaks off."""

    def __init__(self, connection: Connection) -> None:
        self.status, self.headers = connection.head
        self._connection: Connection | None = connection

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._connection is None:
            raise ValueError("the answer was left: its connection may carry another one by now")
        part = await self._connection.part()
        if not part:
            raise StopAsyncIteration
        return part

    def leave(self) -> None:
        """Read no further."""
        self._connection = None


class _Streaming:
    """What `stream` is entered by: a generator there would be registered with the event loop for every answer."""

    def __init__(self, begin: Callable[[], Awaitable[Connection]], end: Callable[[Connection], None]) -> None:
        self._begin, self._end = begin, end

    async def __aenter__(self) -> Streamed:
        self._connection = await self._begin()
        self._streamed = Streamed(self._connection)
        return self._streamed

    async def __aexit__(self, *_: object) -> None:
        self._streamed.leave()
        self._end(self._connection)


class Upstream:
    """A model server. Made, used and closed in one event loop.

    Counts for metrics: `open`, `idle` and `waiting` now; `exchanges`, `retries` and `failures` by kind so far. Whoever
    asks says in `well` whether the last answer was one, as the log was told.
    """

    def __init__(
        self, address: Address, *, limits: UpstreamLimits, tls: ssl.SSLContext | None = None, headers: Headers = ()
    ) -> None:
        """`headers` go with every request, such as the server's own key. Raises ValueError for what cannot be sent.

        `tls` goes with https and nothing else; a context that does not verify the server is refused.
        """
        if address.secure != (tls is not None):
            raise ValueError(f"{address} {'needs' if address.secure else 'does not take'} a TLS context")
        if tls is not None and (tls.verify_mode != ssl.CERT_REQUIRED or not tls.check_hostname):
            raise ValueError("the TLS context does not verify whom it talks to")
        self.address = address
        self._name = str(address)
        self._limits = limits
        self._tls = tls
        self._writer = RequestWriter(address.authority, headers, head_bytes_max=limits.head_bytes_max)
        self._idle: list[Connection] = []  # the one used last goes first, so that those beyond need can time out
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()  # None: a place for a new connection
        self._connections: set[Connection] = set()
        self._all_lost: asyncio.Future[None] | None = None
        self._closed = False
        self.open = 0  # places taken: by connections, and by those that are being made
        self.exchanges = 0
        self.retries = 0
        self.failures: Counter[Kind] = Counter()
        self.well = True

    def __repr__(self) -> str:
        return f"<Upstream {self._name}>"

    @property
    def idle(self) -> int:
        """Connections that wait for a request."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """Requests that wait for a connection."""
        return len(self._waiters)

    async def ask(self, method: bytes, target: bytes, headers: Headers, body: bytes) -> Answer:
        """The server's whole answer. Raises UpstreamError, and ValueError for a request that must not be sent."""
        request = self._writer.write(method, target, headers, body)
        connection = await self._exchange(request, whole=True)
        answer = connection.answer()
        self._give_back(connection)
        return answer

    def stream(
        self, method: bytes, target: bytes, headers: Headers, body: bytes
    ) -> AbstractAsyncContextManager[Streamed, None]:
        """The server's answer as it comes; leaving it before its end closes the connection. Raises like `ask`.

        The server is read as fast as the caller takes the parts, and holds a connection as long as the caller takes.
        """
        request = self._writer.write(method, target, headers, body)
        return _Streaming(lambda: self._exchange(request, whole=False), self._end_stream)

    async def close(self) -> None:
        """Close every connection; requests that are on their way fail. Safe to call twice."""
        self._closed = True
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(self._error("refused", "is no longer asked"))
        if self._connections:
            self._all_lost = self._all_lost or asyncio.get_running_loop().create_future()
            for connection in list(self._connections):
                connection.end()
            await asyncio.shield(self._all_lost)

    def _end_stream(self, connection: Connection) -> None:
        if connection.fault is not None:
            self.failures[connection.fault.kind] += 1
        self._give_back(connection)

    async def _exchange(self, request: Request, *, whole: bool) -> Connection:
        """A connection that carries the answer, or its head; the caller gives it back."""
        self.exchanges += 1
        try:
            connection = await self._take()
            try:
                await connection.exchange(request, whole=whole)
            except BaseException as error:
                if not isinstance(error, UpstreamError) or not connection.stale or self._closed:
                    self._give_back(connection)
                    raise
            else:
                return connection
            return await self._exchange_again(request, whole=whole)
        except UpstreamError as error:
            self.failures[error.kind] += 1
            raise

    async def _exchange_again(self, request: Request, *, whole: bool) -> Connection:
        """The server closed an idle connection while the request was on its way: on a new one, in the place of that."""
        self.retries += 1
        try:
            connection = await self._connect()
        except UpstreamError as error:
            error.sent = True
            raise
        try:
            await connection.exchange(request, whole=whole)
        except BaseException:
            self._give_back(connection)
            raise
        return connection

    async def _take(self) -> Connection:
        """A connection for one exchange: an idle one, a new one, or the next that comes free, in order of arrival."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.dead:
                return connection
            self.open -= 1
        if self._closed:
            raise self._error("refused", "is no longer asked")
        if self.open < self._limits.connections_max:
            self.open += 1
            return await self._connect()
        if len(self._waiters) >= self._limits.waiting_max:
            raise self._error("busy", f"has {len(self._waiters)} requests waiting for a connection already")
        given = await self._wait()
        return await self._connect() if given is None or given.dead else given

    async def _wait(self) -> Connection | None:
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(self._limits.waiting_seconds):
                return await waiter
        except BaseException as error:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif not waiter.cancelled() and waiter.exception() is None:
                # given in the moment in which nobody wanted it any more
                self._pass_on(waiter.result())
            if isinstance(error, TimeoutError):
                seconds = self._limits.waiting_seconds
                raise self._error("busy", f"had no free connection within {seconds:g} s") from None
            raise

    async def _connect(self) -> Connection:
        """A new connection in a place that the caller holds, which is free again where this fails."""
        loop, address, limits = asyncio.get_running_loop(), self.address, self._limits

        def make() -> Connection:
            return Connection(self._name, limits, secure=address.secure, loop=loop, lost=self._forget)

        try:
            async with asyncio.timeout(limits.connect_seconds):
                if address.unix_path:
                    _, connection = await loop.create_unix_connection(make, address.unix_path)
                else:
                    _, connection = await loop.create_connection(make, address.host, address.port, ssl=self._tls)
            self._connections.add(connection)
            if self._closed:
                connection.end()
                raise self._error("refused", "is no longer asked")
        except BaseException as error:
            self._pass_on(None)
            if isinstance(error, TimeoutError):
                seconds = limits.connect_seconds
                raise self._error("timeout", f"took no connection within {seconds:g} s") from None
            if isinstance(error, OSError | UnicodeError):  # of TLS and of names, too
                reason = getattr(error, "strerror", None) or str(error)
                raise self._error("refused", f"cannot be reached: {reason}") from None
            raise
        return connection

    def _give_back(self, connection: Connection) -> None:
        self._pass_on(connection if connection.rest() else None)

    def _pass_on(self, connection: Connection | None) -> None:
        """Give a connection, or a place for one, to who has waited longest; keep it where nobody does."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        if connection is None:
            self.open -= 1
        else:
            self._idle.append(connection)

    def _forget(self, connection: Connection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
            self._pass_on(None)
        if not self._connections and self._all_lost is not None and not self._all_lost.done():
            self._all_lost.set_result(None)

    def _error(self, kind: Kind, deed: str) -> UpstreamError:
        return UpstreamError(f"{self._name} {deed}", kind=kind, sent=False)
