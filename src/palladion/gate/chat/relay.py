"""A streamed answer on its way: each piece is read, counted and written anew; its record is there before its end.

The first entry (`answer.begun`) is durable before the first piece leaves, the last (`answer.given`) before what ends
the answer. A stream that breaks gets `answer.broken`, whoever broke it.
"""

import asyncio
from collections.abc import AsyncGenerator
from hashlib import blake2b

import msgspec

from palladion.errors import FormatError
from palladion.gate.chat.events import EventReader, comment, event
from palladion.gate.chat.problems import ErrorObject
from palladion.gate.chat.turn import Streaming, Turn
from palladion.gate.operations.meter import Usage
from palladion.gate.problems import Problem
from palladion.gate.requests import Response, Stream
from palladion.gate.upstream.errors import UpstreamError
from palladion.gate.upstream.pool import Streamed
from palladion.ledger.writer import Receipt

RENEW_SECONDS = 1.0  # a key that was revoked ends its streams so soon; a suspension, with the next piece
REST_SECONDS = 0.25  # for the server to end its stream after its last word: then its connection can carry the next one
CLIENT_LEFT = "the client left"


class Relay:
    """One streamed answer."""

    def __init__(self, turn: Turn, stream: Streaming) -> None:
        self._turn = turn
        self._stream = stream
        self._reader = EventReader()
        self._digest = blake2b(digest_size=32, key=turn.salt.value)
        self._receipt: Receipt | None = None
        self._ended = False
        self._usage: Usage | None = None
        loop = asyncio.get_running_loop()
        self._now = loop.time
        self._until = loop.time() + turn.route.policy.answer_seconds
        self._renew_at = loop.time() + RENEW_SECONDS

    async def response(self) -> Response:
        """The response, once the server has begun to answer and that is recorded. Raises Problem."""
        parts = self._parts()
        # up to its first part, which is empty: from there on, closing it closes the server's stream as well
        await anext(parts)
        if self._receipt is None:
            raise ValueError("a stream begins with its record")
        self._usage = self._turn.stages.meter.used(self._turn.id, self._turn.route.policy.model)
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), *self._turn.headers(self._receipt)]
        return Response(200, b"", headers, Stream(parts))

    async def _parts(self) -> AsyncGenerator[bytes, None]:
        turn = self._turn
        reason = CLIENT_LEFT
        try:
            async with turn.route.stream(turn.kind, turn.sent) as parts:
                self._receipt = await turn.record("answer.begun", {})
                yield b""
                async for part in parts:
                    piece = self._take(part)
                    if piece:
                        yield piece
                    if self._ended:
                        break
                else:
                    # in good order; some servers (`transformers serve`) then leave out the word that they are done
                    self._ended = self._stream.all_ended
                await self._rest(parts)
            ending = await self._end()
            reason = ""
            yield ending
        except (UpstreamError, FormatError, Problem) as error:
            if self._receipt is None:
                raise
            problem = error if isinstance(error, Problem) else turn.route.failed(error.message)
            reason = problem.kind
            await self._break(reason)
            yield event(msgspec.json.encode(ErrorObject().error_members(problem)), name=b"error")
        finally:
            if self._receipt is None:
                turn.give_up()
            else:
                if reason == CLIENT_LEFT:
                    await self._break(reason)
                turn.charge()
                if self._usage is not None:
                    self._usage.tell(*turn.tokens.values())

    def _take(self, part: bytes) -> bytes:
        """What leaves of a part. Raises FormatError, and Problem where the client may have no more."""
        turn, stream = self._turn, self._stream
        self._check_caller()
        pieces = []
        for data in self._reader.feed(part):
            pieces.append(stream.take(data))
            if stream.complete:
                self._ended = True
                break
        tokens = turn.work.tally.so_far
        if not self._ended and (tokens > turn.work.tokens_max or turn.reservation.exceeded(tokens)):
            stream.cut()
            self._ended = True
        piece = b"".join(pieces)
        self._digest.update(piece)
        return piece

    def _check_caller(self) -> None:
        turn = self._turn
        now = self._now()
        if now >= self._until:
            raise Problem("upstream-timeout")
        if now >= self._renew_at:
            self._renew_at = now + RENEW_SECONDS
            turn.renew()
            return
        caller = turn.stages.directory.callers.get(turn.caller.id)
        if caller is None:
            raise Problem("unauthenticated", "the client was revoked")
        if turn.caller.end_user is not None:
            caller = turn.stages.directory.current(turn.caller)
        if caller is not turn.caller and turn.stages.modes.level(caller, turn.route.policy) is None:
            raise Problem("suspended")

    async def _rest(self, parts: Streamed) -> None:
        """Let the server end what it has ended; a stream that was cut is left at once."""
        if not self._stream.complete:
            return
        try:
            async with asyncio.timeout(REST_SECONDS):
                async for _ in parts:
                    return
        except (TimeoutError, UpstreamError):
            return

    async def _end(self) -> bytes:
        """What ends the answer, recorded."""
        turn, stream = self._turn, self._stream
        if not self._ended:
            raise FormatError("the server broke off its stream")
        last = stream.end()
        self._digest.update(last)
        details = {"answer_digest": self._digest.hexdigest(), "streamed": True, "finish": stream.finish}
        receipt = await turn.record("answer.given", {**details, **turn.tokens, "information": turn.information})
        turn.stages.answered += turn.rows
        return last + comment(b"palladion-receipt %b" % str(receipt).encode()) + stream.last

    async def _break(self, reason: str) -> None:
        """Record that the answer has no end."""
        try:
            details = {"answer_digest": self._digest.hexdigest(), "reason": reason}
            turn = self._turn
            await turn.record("answer.broken", {**details, **turn.tokens, "information": turn.information})
        except Problem:
            return  # the ledger says so itself, to the operator; what was broken is not given
