"""Connections to the broker: how many there are, of whom, how long and how large one is, before a word is believed.

uvicorn hears of a connection when its handshake is over, and a stranger need never end one; it bounds no head, and says
no in words that hosts do not know. What a request means is in `server`.
"""

import asyncio
import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from palladion.access.certificates import Certificate, read_certificate
from palladion.access.networks import network_of
from palladion.errors import FormatError, PolicyError
from palladion.host.broker_messages import REQUEST_BYTES_MAX

HANDSHAKES_MAX = 128  # that go on at once
HANDSHAKES_OWN_MAX = 16  # of one network: hosts that all start at once behind one address
HANDSHAKE_SECONDS_MAX = 10.0
CONNECTIONS_MAX = 64  # each may hold a request of 3 MiB, and what it becomes when it is read
CONNECTIONS_OWN_MAX = 8  # of one certificate: a host asks one thing after the other
REQUEST_SECONDS_MAX = 20.0  # until a request has come whole, over a slow line
CLOSING_SECONDS_MAX = 5.0  # for the other side to take its answer, and its leave: TLS would wait for 30
HEAD_BYTES_MAX = 16 * 1024  # ours has 200 bytes; the parser itself sets no limit
FRAMES_BYTES_MAX = 64 * 1024  # of chunks, beside the largest body: hosts send none
PEER = "palladion.peer"
_ACCEPTED_MAX = 64  # between two looks at everything else: a flood must not stop the loop
_PAUSE_SECONDS = 0.1  # where no descriptor is left to accept by
_BACKLOG = 512
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Server(uvicorn.Server):
    """uvicorn's, which accepts connections itself, says where it listens, and stops at a signal without dying of it.

    Where there is no room, a newcomer gets in, and the oldest handshake of its own network, or of all, goes for it.
    """

    def __init__(self, config: uvicorn.Config, started: Callable[[str], None]) -> None:
        super().__init__(config)
        self._tell = started
        self._listener: socket.socket | None = None
        self._shaking: dict[asyncio.Task[None], str] = {}  # oldest first: and its network

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take a signal as the wish to stop; uvicorn's own raises it once more at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open for requests, and say so. Raises PolicyError where the address cannot be had."""
        await super().startup(sockets or [])
        self._listener = _listening(self.config.host, self.config.port)
        self._listen()
        host, port = self._listener.getsockname()[:2]
        self._tell(f"https://{f'[{host}]' if ':' in host else host}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, end unfinished handshakes, and let open connections end as uvicorn does."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for shaking in list(self._shaking):
            shaking.cancel()
        await super().shutdown(sockets)

    def _listen(self) -> None:
        # not after a shutdown that came during a pause
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(_ACCEPTED_MAX):
            try:
                opened, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    loop.remove_reader(listener)
                    loop.call_later(_PAUSE_SECONDS, self._listen)
                    return
                continue  # that one has gone again
            network = network_of(str(address[0]))
            self._make_room(network)
            opened.setblocking(False)
            shaking = loop.create_task(self._admit(opened))
            self._shaking[shaking] = network
            shaking.add_done_callback(self._forget)

    def _make_room(self, network: str) -> None:
        own = [shaking for shaking, other in self._shaking.items() if other == network]
        gone = None
        if len(own) >= HANDSHAKES_OWN_MAX:
            gone = own[0]
        elif len(self._shaking) >= HANDSHAKES_MAX:
            gone = next(iter(self._shaking))
        if gone is not None:
            self._forget(gone)
            gone.cancel()

    def _forget(self, shaking: "asyncio.Task[None]") -> None:
        self._shaking.pop(shaking, None)

    async def _admit(self, opened: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make_connection, opened, ssl=self.config.ssl, ssl_handshake_timeout=HANDSHAKE_SECONDS_MAX
            )
        except OSError:  # also TimeoutError and ssl.SSLError; what strangers do must not fill a log
            opened.close()
        except asyncio.CancelledError:
            opened.close()
            raise

    def _make_connection(self) -> asyncio.Protocol:
        return Connection(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


class Connection(HttpToolsProtocol):
    """One request of one certificate, within limits of time and size.

    Where there is no room, a newcomer gets in, and the oldest of its certificate, or of all, goes for it whose request
    is not being decided.
    """

    peer: Certificate | None = None
    _deciding = False  # its request has come, and is not answered yet
    _in_head = True
    _bytes = 0
    _began = 0.0
    _waits: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Let whoever showed a certificate in, for a while."""
        super().connection_made(transport)
        self._began = self.loop.time()
        connection = transport.get_extra_info("ssl_object")
        der = connection.getpeercert(binary_form=True) if connection is not None else None
        try:
            self.peer = read_certificate(der) if der else None
        except FormatError:
            self.peer = None
        if self.peer is None or not self._has_room():
            self._end()
            return
        self._waits = self.loop.call_later(REQUEST_SECONDS_MAX, self._end)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in bytes, up to the limits of a head and of everything."""
        self._bytes += len(data)
        if self._bytes > REQUEST_BYTES_MAX + HEAD_BYTES_MAX + FRAMES_BYTES_MAX:
            self._end()
            return
        super().data_received(data)
        if self._in_head and self._bytes > HEAD_BYTES_MAX:
            self._end()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        cast("dict[str, object]", self.scope)[PEER] = self.peer

    def on_headers_complete(self) -> None:
        """Its head is here."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """All of it is here."""
        self._deciding = True
        self._stop_clock()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """It is answered, and the connection closes."""
        super().on_response_complete()
        self._deciding = False
        self._stop_clock()
        self._waits = self.loop.call_later(CLOSING_SECONDS_MAX, self._end)

    def _has_room(self) -> bool:
        others = [one for one in self.connections if isinstance(one, Connection) and one is not self]
        others.sort(key=lambda one: one._began)  # uvicorn keeps a set
        own = [one for one in others if one.peer is not None and self.peer is not None and _same(one.peer, self.peer)]
        crowd = own if len(own) >= CONNECTIONS_OWN_MAX else others if len(others) >= CONNECTIONS_MAX else []
        if not crowd:
            return True
        gone = next((one for one in crowd if not one._deciding), None)
        if gone is None:
            return False
        gone._end()
        return True

    def _end(self) -> None:
        self._stop_clock()
        # at once, and not when it is lost: whoever is not let in takes no room
        self.connections.discard(self)
        self.transport.abort()

    def _stop_clock(self) -> None:
        if self._waits is not None:
            self._waits.cancel()
            self._waits = None


def _same(one: Certificate, other: Certificate) -> bool:
    return one.names[0] == other.names[0]


def _listening(host: str, port: int) -> socket.socket:
    try:
        listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=_BACKLOG
        )
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise PolicyError(
            f"broker.listen: {host}:{port} cannot be opened: {reason}", "is another process on that port?"
        ) from None
    listener.setblocking(False)
    return listener
