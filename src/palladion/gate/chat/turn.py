"""One request to a language model that was let in: what is asked, what is given, and its entries in the ledger.

The order is that of all questions: infer, observe, disclose, record. Whole answers are given here, streams in `relay`.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from palladion.errors import FormatError
from palladion.gate.chat.budget import Reservation
from palladion.gate.chat.route import ModelRoute
from palladion.gate.chat.terms import Terms
from palladion.gate.chat.usage import Tally
from palladion.gate.directory import Caller
from palladion.gate.disclosure import Level
from palladion.gate.problems import Problem
from palladion.gate.requests import JSON, Request, Response
from palladion.gate.stages import Stages
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt


class Streaming(Protocol):
    """An answer that comes piece by piece."""

    complete: bool
    last: bytes  # what ends the stream, after everything else

    def take(self, data: bytes) -> bytes:
        """What the client gets of an event's data now. Raises FormatError."""
        ...

    def cut(self) -> None:
        """End the answer here, though the model would go on."""
        ...

    def end(self) -> bytes:
        """What was held back: it leaves when the answer is recorded."""
        ...

    @property
    def finish(self) -> str:
        """How the answer ended."""
        ...


class Work(Protocol):
    """A bound request: `texts`, `embeddings` and `responses` are the kinds."""

    tally: Tally
    tokens_max: int  # of all answers together

    def whole(self, body: bytes, given: Terms) -> tuple[bytes, str]:
        """The answer that the client gets, and how it ended. Raises FormatError."""
        ...


@dataclass(eq=False)
class Turn:
    """A request that was let in."""

    stages: Stages
    route: ModelRoute
    kind: str
    caller: Caller
    request: Request
    body: bytes
    sent: bytes
    rows: int
    level: Level
    given: Terms
    work: Any
    reservation: Reservation
    id: str

    async def whole(self) -> Response:
        """Ask, and answer at once. Raises Problem."""
        try:
            try:
                async with asyncio.timeout(self.route.policy.answer_seconds):
                    body = await self.route.ask(self.kind, self.sent)
            except TimeoutError:
                # the server worked on it all the same: what was asked is charged, if not what was never said
                self.reservation.settle(self.work.tally.total)
                raise Problem("upstream-timeout") from None
            # who was suspended or revoked meanwhile gets nothing, and who was lowered gets less
            self.renew()
            self.observe()
            try:
                answer, finish = self.work.whole(body, self.given)
            except FormatError as error:
                raise self.route.failed(error.message) from None
            details = {"streamed": False, "finish": finish, **self.tokens}
            receipt = await self.record("answer.given", details, answer=answer)
        except BaseException:
            self.reservation.release()
            raise
        self.reservation.settle(self.work.tally.total)
        self.stages.answered += self.rows
        return Response(200, answer, [(b"content-type", JSON), *self.headers(receipt)])

    def renew(self) -> None:
        """Take the caller as it stands now. Raises Problem."""
        self.caller = self.stages.identify(self.request)
        disclosed = self.route.given_to(self.caller, self.stages.promises)
        if disclosed is None:
            raise Problem("suspended")
        self.level, self.given = disclosed

    def observe(self) -> None:
        """Where the watch will see what was asked and answered: it does not know texts yet."""

    @property
    def tokens(self) -> dict[str, int]:
        """What it cost, for its record."""
        return {"tokens_in": self.work.tally.prompt, "tokens_out": self.work.tally.completion}

    def headers(self, receipt: Receipt) -> list[tuple[bytes, bytes]]:
        """What a client needs to have the answer proved."""
        return [(b"palladion-request", self.id.encode()), (b"palladion-receipt", str(receipt).encode())]

    async def record(self, kind: str, details: Mapping[str, object], *, answer: bytes | None = None) -> Receipt:
        """Write an entry, with the digest of a whole `answer`; durable when this returns. Raises Problem."""
        stages, policy = self.stages, self.route.policy
        digests = stages.digests(self.id, self.body, answer or b"")
        common = {
            "request": self.id,
            "route": policy.route,
            "endpoint": self.kind,
            "queries": self.rows,
            "standing": self.caller.standing,
            "disclosed": self.level,
            "mode": policy.mode,
            "p_value": None,
            "request_digest": digests.request,
        }
        if answer is not None:
            common["answer_digest"] = digests.answer
        record = Record(kind, stages.clock.now(), stages.name(self.caller.id), policy.model, {**common, **details})
        return (await stages.record([record], [], policy))[-1]


def encoded(asked: object) -> bytes:
    """A bound request, as it goes upstream."""
    return msgspec.json.encode(asked)
