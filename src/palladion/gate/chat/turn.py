"""One request to a language model that was let in: what is asked, what is given, and its entries in the ledger.

The order is that of all questions: infer, observe, disclose, record. Whole answers are given here, streams in `relay`.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import msgspec

from palladion.errors import FormatError
from palladion.gate.callers import Caller
from palladion.gate.chat.budget import Reservation
from palladion.gate.chat.kept import arrays_of, name_of
from palladion.gate.chat.route import ModelRoute
from palladion.gate.chat.shown import TEXT_WEIGHT, Shown
from palladion.gate.chat.terms import Terms
from palladion.gate.chat.usage import Tally
from palladion.gate.disclosure import Level
from palladion.gate.problems import Problem
from palladion.gate.requests import JSON, Request, Response
from palladion.gate.stages import Stages
from palladion.gate.together import Showing
from palladion.ledger.record import Record
from palladion.ledger.salts import Salt
from palladion.ledger.writer import Receipt
from palladion.watch.text.encoder import Vectors
from palladion.watch.text.query import NOT_SAID, Query
from palladion.watch.watch import AskedTexts, Observation

log = logging.getLogger("palladion.gate")


class Streaming(Protocol):
    """An answer that comes piece by piece."""

    complete: bool
    last: bytes  # what ends the stream, after everything else

    @property
    def all_ended(self) -> bool:
        """Whether every answer has its end, though the server has not said that it is done."""
        ...

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

    def read(self, body: bytes) -> Callable[[Terms], tuple[bytes, str]]:
        """Read and count the server's answer; returns what tells the client of it, and how it ended.

        Both raise FormatError.
        """
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
    salt: Salt
    shown: Shown | None = None  # where anybody looks at it
    p_value: float | None = None
    covered: int = 0  # buckets that were new to the client, by what was observed of this request

    async def whole(self) -> Response:
        """Ask, and answer at once. Raises Problem."""
        try:
            try:
                with self.stages.deadlines.within(self.route.policy.answer_seconds):
                    body = await self.route.ask(self.kind, self.sent)
            except TimeoutError:
                # the server worked on it all the same: what was asked is charged, if not what was never said
                self.reservation.settle(self.work.tally.total, information=self.covered)
                raise Problem("upstream-timeout") from None
            except Problem as problem:
                if problem.kind == "bad-input":
                    # what the model could not take tells of who asks; that its server is down does not
                    await self.observe(failed=True)
                raise
            try:
                tell = self.work.read(body)
                await self.observe(answer_chars=self.work.tally.characters or NOT_SAID)
                # who was suspended or revoked meanwhile gets nothing, and who was lowered gets less
                self.renew()
                answer, finish = tell(self.given)
            except FormatError as error:
                raise self.route.failed(error.message) from None
            tokens = self.tokens
            details = {"streamed": False, "finish": finish, **tokens, "information": self.information}
            receipt = await self.record("answer.given", details, answer=answer)
        except BaseException:
            self.give_up()
            raise
        self.charge()
        self.stages.meter.used(self.id, self.route.policy.model).tell(*tokens.values())
        self.stages.answered += self.rows
        return Response(200, answer, [(b"content-type", JSON), *self.headers(receipt)])

    def renew(self) -> None:
        """Take the caller as it stands now. Raises Problem."""
        self.caller = self.stages.identify(self.request)
        disclosed = self.route.given_to(self.caller, self.stages.modes, self.stages.promises)
        if disclosed is None:
            raise Problem("suspended")
        self.level, self.given = disclosed

    async def streamed(self) -> Streaming:
        """What an answer comes by, piece by piece. Raises Problem.

        What is asked is observed before the server is: an answer that has begun cannot be taken back.
        """
        try:
            if self.shown is not None:
                await self.observe()
            if self.watched:
                self.renew()
        except BaseException:
            self.give_up()
            raise
        streaming: Streaming = self.work.streamed(self.given)
        return streaming

    async def observe(self, *, answer_chars: float = NOT_SAID, failed: bool = False) -> None:
        """Show the watch what was asked and what came of it; what follows is in effect and recorded then.

        What texts are kept of is kept as the watch sees it, also where there is none. Raises Problem, also where it
        cannot be recorded.
        """
        stages, model, keeps = self.stages, self.route.policy.model, self._keeps
        if self.shown is None or not (self.watched or keeps):
            return
        at, place = stages.clock.now().timestamp(), 0
        vectors = await self._vectors(self.shown.texts)
        for part in self.shown.parts(at=at, answer_chars=answer_chars, failed=failed, vectors=vectors):
            if self.watched:
                recording = await stages.together.observe(model, partial(self._show, part), self._settle)
                if recording is not None:
                    await asyncio.shield(recording)
            elif place:
                await asyncio.sleep(0)
            if keeps:
                # who was revoked meanwhile may be forgotten already: nothing that it asked may be kept after that
                stages.identify(self.request)
                self._keep(part, place)
            place += len(part)

    @property
    def watched(self) -> bool:
        """Whether the watch is shown what was asked."""
        return self.shown is not None and self.route.calibration is not None

    @property
    def _keeps(self) -> bool:
        return self.stages.retention is not None and self.stages.retention.keeps_texts

    def _keep(self, queries: Sequence[Query], first: int) -> None:
        """Keep what was asked; `first` says which text of the request comes first."""
        retention = self.stages.retention
        if retention is not None:
            name = self.stages.name(self.caller.id), name_of(self.route.policy.model)
            for place, query in enumerate(queries, first):
                retention.keep_text(name, *arrays_of(query), place, request=self.id, disclosed=self.level)

    async def _vectors(self, texts: Sequence[str]) -> Sequence[Vectors] | None:
        """What an encoder makes of texts, where the calibration has one. Raises Problem."""
        if self.route.encoding is None:
            return None
        try:
            return await self.route.encoding.vectors(texts)
        except FormatError as error:
            # what cannot be observed is not answered
            log.error("%s: %s", self.route.policy.route, error.message)  # noqa: TRY400 (where it was raised is known)
            raise Problem("internal") from None

    def _show(self, queries: Sequence[Query]) -> Showing:
        stages = self.stages
        caller = stages.identify(self.request)
        asked = AskedTexts(stages.asker(caller, self.request), queries)
        return Showing(caller, self.route.policy.model, asked, alone=stages.may_rise(caller), weight=TEXT_WEIGHT)

    def _settle(self, caller: Caller, observation: Observation) -> asyncio.Task[list[Receipt]] | None:
        """Put the verdict into effect; returns what records it, if it changes anything."""
        self.p_value = observation.p_value
        self.covered += observation.new_buckets if observation.calibrated else observation.distinct
        steps = self.stages.settle(caller, self.route.policy, observation)
        return self.stages.begin_recording([], steps, self.route.policy) if steps else None

    @property
    def tokens(self) -> dict[str, int]:
        """What it cost, for its record."""
        return {"tokens_in": self.work.tally.prompt, "tokens_out": self.work.tally.completion}

    @property
    def information(self) -> int:
        """What its answer is charged: a new bucket is one, and each text where the watch has no buckets."""
        return self.covered if self.watched else self.rows

    def charge(self) -> None:
        """Spend what it cost, in place of what was reserved."""
        self.reservation.settle(sum(self.tokens.values()), information=self.information)

    def give_up(self) -> None:
        """Give back what was reserved, as there is no answer.

        What was observed is charged all the same: the watch will not take it for new again, and a request that the
        server refuses would otherwise make the next ones free.
        """
        self.reservation.settle(0, queries=0, information=self.covered)

    def headers(self, receipt: Receipt) -> list[tuple[bytes, bytes]]:
        """What a client needs to have the answer proved."""
        return [(b"palladion-request", self.id.encode()), (b"palladion-receipt", str(receipt).encode())]

    async def record(self, kind: str, details: Mapping[str, object], *, answer: bytes | None = None) -> Receipt:
        """Write an entry, with the digest of a whole `answer`; durable when this returns. Raises Problem."""
        stages, policy = self.stages, self.route.policy
        common = {
            "request": self.id,
            "route": policy.route,
            "endpoint": self.kind,
            "queries": self.rows,
            "standing": self.caller.standing,
            "disclosed": self.level,
            "mode": stages.modes.of(self.caller, policy),
            **stages.network(self.request),
            **stages.end_user(self.caller),
            "p_value": None if self.p_value is None else f"{self.p_value:.3g}",
            "request_digest": self.salt.digest(self.body),
            "seed": self.salt.seed,
        }
        if answer is not None:
            common["answer_digest"] = self.salt.digest(answer)
        record = Record(kind, stages.clock.now(), stages.name(self.caller.id), policy.model, {**common, **details})
        return (await stages.record([record], [], policy))[-1]


def encoded(asked: object) -> bytes:
    """A bound request, as it goes upstream."""
    return msgspec.json.encode(asked)
