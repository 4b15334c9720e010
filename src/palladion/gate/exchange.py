"""One request on a connection, and its answer: uvicorn's cycle, without what costs more than an answer does.

Our own application gets the request as it is, and head and body of its answer leave in one write. Every other one is
asked by ASGI, and answers that come in parts take that way too.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from uvicorn._types import ASGI3Application, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from palladion.gate.app import ALWAYS, App, Scope, send_parts
from palladion.gate.hops import Hop
from palladion.gate.requests import Response

if TYPE_CHECKING:
    from palladion.gate.connections import Connection

_ALWAYS = b"".join(name + b": " + value + b"\r\n" for name, value in ALWAYS)
_CONTROLS = bytes([*range(32), 127])  # none of them stands in a head, but for the end of each line
_FIXED_LINES = 3 + len(ALWAYS)  # the first, the length, and the empty one


class Exchange(RequestResponseCycle):
    """A request, from the end of its head to the end of its answer. Satisfies `app.Arrived`."""

    # not uvicorn's constructor: it makes an event, a scope and two closures for each request
    access_log = False
    disconnected = False
    more_body = True
    response_started = False
    response_complete = False
    chunked_encoding: bool | None = None
    expected_content_length = 0
    _arrival: asyncio.Event | None = None

    def __init__(
        self,
        connection: "Connection",
        method: str,
        path: str,
        fields: Sequence[tuple[bytes, bytes]],
        scope: Scope,
        *,
        keep_alive: bool,
        expects_continue: bool,
    ) -> None:
        """`fields` are the headers, with names in lower case; `scope` is what ASGI has of this request alone.

        Of the scope, uvicorn's `send` needs the method.
        """
        self.method = method
        self.path = path
        self.fields = fields
        self.scope = scope  # type: ignore[assignment]
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = expects_continue
        self.hop: Hop | None = connection.hop
        self.client = connection.client
        self.body: bytes | bytearray = b""  # type: ignore[assignment]  # what came and was not taken
        self.transport = connection.transport
        self.flow = connection.flow
        self.logger = connection.logger
        self._connection = connection

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:  # type: ignore[override]
        """What goes with every answer: the date."""
        return self._connection.server_state.default_headers

    @property
    def message_event(self) -> asyncio.Event:  # type: ignore[override]
        """Set when there is something to receive; made where somebody waits for it."""
        if self._arrival is None:
            self._arrival = asyncio.Event()
            if self.body or not self.more_body:
                self._arrival.set()
        return self._arrival

    def on_response(self) -> None:
        """The answer is written."""
        self._connection.on_response_complete()

    def add(self, part: bytes) -> int:
        """A part of the body came; returns how many bytes wait to be taken."""
        if not self.body:
            self.body = part  # most are in one piece, which is then never copied
        else:
            if isinstance(self.body, bytes):
                self.body = bytearray(self.body)
            self.body += part
        if self._arrival is not None:
            self._arrival.set()
        return len(self.body)

    def end_body(self) -> None:
        """All of it came."""
        self.more_body = False
        if self._arrival is not None:
            self._arrival.set()

    def whole(self) -> bytes | None:
        """The body, if all of it is here, and nobody has to ask the client for it."""
        if self.more_body or self.waiting_for_100_continue or self.disconnected:
            return None
        return bytes(self.body)

    async def may_stream(self) -> bool:
        """Whether a stream can begin at once: not where the client has closed its direction, also while this waits."""
        while self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        return not self._connection.half_closed

    async def run_asgi(self, app: ASGI3Application) -> None:
        """Have an application answer. Never raises."""
        if not isinstance(app, App):
            await super().run_asgi(app)
            return
        try:
            response = await app.answer(self)
            if response.stream is not None:
                await send_parts(self.receive, self.send, response)
                return
            if self.flow.write_paused and not self.disconnected:
                await self.flow.drain()
            self._write(response)
        except BaseException:
            # nobody waits for this task: the client sees that its connection ends
            self.logger.exception("an answer could not be sent")
            self.transport.close()

    async def send(self, message: ASGISendEvent) -> None:
        """Send a part of an answer, as ASGI has it."""
        if not self.response_started:
            self._leave_unasked()
        await super().send(message)

    def _leave_unasked(self) -> None:
        """End the connection with an answer that comes instead of a body which the client waits to be asked for.

        It need not send that body then (RFC 9110 §10.1.1), and what it sends next would be taken for it.
        """
        if self.waiting_for_100_continue and self.more_body:
            self.keep_alive = False

    def _write(self, response: Response) -> None:
        """Send an answer that is whole, at once."""
        if self.disconnected:
            return
        self._leave_unasked()
        self.response_started = True
        head, lines = [STATUS_LINE[response.status]], _FIXED_LINES
        for fields in (self.default_headers, response.headers):
            for name, value in fields:
                if name == b"connection":
                    self.keep_alive = False  # all that an answer ever says of it
                else:
                    head += (name, b": ", value, b"\r\n")
                    lines += 1
        if not self.keep_alive:
            head.append(b"connection: close\r\n")
            lines += 1
        head += (_ALWAYS, b"content-length: %d\r\n\r\n" % len(response.body))
        written = b"".join(head)
        if len(written) - len(written.translate(None, _CONTROLS)) != len(b"\r\n") * lines:
            raise ValueError("a header of an answer has a character that none may have")
        self.transport.write(written if self.method == "HEAD" else written + response.body)
        self.response_complete = True
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
