"""TLS handshakes: how many go on at once and for how long, counted together with the connections that are open.

uvicorn hears of a connection when its handshake is over, and a stranger need never end one. What an open connection may
do is in `connections`.
"""

import asyncio
import errno
import socket

import uvicorn

from palladion.gate.connections import HEAD_SECONDS_MAX

ACCEPTED_MAX = 64  # between two looks at everything else: a flood must not stop the loop
PAUSE_SECONDS = 0.1  # where nothing is left to accept by: it would fail again and again, and do nothing else
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Server(uvicorn.Server):
    """uvicorn's server, which over TLS accepts connections itself; the limit is one below `limit_concurrency`."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        if config.limit_concurrency is None:
            raise ValueError("there is no limit of connections")
        self._connections_max = config.limit_concurrency - 1
        self._listeners: list[socket.socket] = []
        self._shaking: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open for requests."""
        if not self.config.is_ssl:
            await super().startup(sockets)
            return
        await super().startup([])
        self._listeners = list(sockets or [])
        for listener in self._listeners:
            listener.setblocking(False)
            self._listen(listener)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, end unfinished handshakes, and let open connections end as uvicorn does."""
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)
        self._listeners = []
        for shaking in self._shaking:
            shaking.cancel()
        await super().shutdown(sockets)

    def _listen(self, listener: socket.socket) -> None:
        # not after a shutdown that came during a pause
        if listener in self._listeners:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(ACCEPTED_MAX):
            try:
                opened, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    loop.remove_reader(listener)
                    loop.call_later(PAUSE_SECONDS, self._listen, listener)
                    return
                continue  # that one has gone again
            if len(self._shaking) + len(self.server_state.connections) >= self._connections_max:
                opened.close()
                continue
            opened.setblocking(False)
            shaking = loop.create_task(self._admit(opened))
            self._shaking.add(shaking)
            shaking.add_done_callback(self._shaking.discard)

    async def _admit(self, opened: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make_connection, opened, ssl=self.config.ssl, ssl_handshake_timeout=HEAD_SECONDS_MAX
            )
        except OSError:  # also TimeoutError and ssl.SSLError; what strangers do must not fill a log
            opened.close()

    def _make_connection(self) -> asyncio.Protocol:
        make = self.config.http_protocol_class
        connection: asyncio.Protocol = make(  # type: ignore[call-arg]  # as uvicorn's own
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return connection
