"""Questions in arrays: decode, infer, observe, mark, disclose, record, encode, in this order, for every protocol.

The record is durable before the answer leaves; if it cannot be written, nothing leaves.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from palladion.errors import FormatError, PalladionError
from palladion.gate.contract import LABEL, Outputs
from palladion.gate.decode import Feeds, numbers
from palladion.gate.directory import Caller
from palladion.gate.disclosure import Level, disclose
from palladion.gate.problems import Problem
from palladion.gate.protocols.protocol import About, Asked
from palladion.gate.requests import Request, Response
from palladion.gate.served import Served
from palladion.gate.stages import Stages, level_of
from palladion.ledger.body import Body
from palladion.ledger.record import Record
from palladion.model.run import Port
from palladion.watch.watch import Observation

REQUEST_ID_BYTES = 8
_UNWATCHED = ""  # no model is called so


@dataclass(frozen=True, eq=False)
class Question:
    """A decoded request: as it came, its body, and what was made of it."""

    request: Request
    body: bytes
    asked: Asked

    @property
    def feeds(self) -> Feeds:
        """The arrays by input name."""
        return self.asked.feeds

    @property
    def rows(self) -> int:
        """How many queries."""
        return self.asked.rows


class Questions:
    """Answers on the paths of one route. Satisfies `endpoint.Endpoint`."""

    def __init__(self, stages: Stages, served: Served, action: str, *, is_current: Callable[[Served], bool]) -> None:
        """`action` is "ask", "describe" or both; `is_current` says whether the calibration still counts."""
        self.methods: Sequence[str] = [
            method for method, word in (("GET", "describe"), ("POST", "ask")) if word in action.split()
        ]
        self.media_types = served.protocol.media_types
        self._stages = stages
        self._served = served
        self._is_current = is_current

    def allows(self, caller: Caller) -> bool:
        """Whether the caller may ask this model."""
        return caller.may_ask(self._served.route.model)

    async def answer(self, caller: Caller, request: Request) -> Response:
        """The response to a request. Raises Problem."""
        stages, served = self._stages, self._served
        # 2. admit: one query is paid for before the body is read, the others when their number is known
        stages.admit(caller, served.route, 1)
        if request.method == "GET":
            described = served.protocol.describe(request.path, about(served))
            return Response(200, described.body, described.headers)
        # 3. decode
        body = await request.body()
        asked = served.decode(body, request.headers)
        if asked.rows > 1:
            stages.admit(caller, served.route, asked.rows - 1, rows=asked.rows)
        question = Question(request, body, asked)
        try:
            async with asyncio.timeout(stages.policy.gate.deadline_ms / 1000):
                # 4. infer
                outputs = await self._infer(question)
                return await self._respond(stages.identify(request), question, outputs)
        except TimeoutError:
            raise Problem("busy", "the answer was not ready in time", retry_after_seconds=1) from None

    async def _infer(self, question: Question) -> Outputs:
        outputs = await self._served.source.infer(question.feeds, question.rows)
        try:
            return self._served.contract.verify_outputs(outputs, question.rows)
        except FormatError:
            # what a model says of its own may tell of its inside
            raise Problem("model-failed") from None

    async def _respond(self, caller: Caller, question: Question, outputs: Outputs) -> Response:
        stages, served = self._stages, self._served
        # 5. observe: from here until the record is handed over, no other request changes this client
        observation = self._observe(caller, question, outputs)
        steps = stages.settle(caller, served.route, observation)
        caller = stages.directory.callers[caller.id]
        level = level_of(caller, served.route)
        if level is None:
            await stages.record([], steps, served.route)
            raise Problem("suspended")
        # 6. mark: what was observed is what the model said
        request_id = secrets.token_hex(REQUEST_ID_BYTES)
        shown, bodies = self._mark(caller, question, outputs, request_id=request_id, level=level)
        # 7. disclose
        answer = served.protocol.encode(question.asked, disclose(shown, served.contract, level), about(served))
        # 8. record
        record = self._record(
            caller, question, observation=observation, level=level, request_id=request_id, answer=answer.body
        )
        keeping = self._retain(caller, bodies)
        receipts = await stages.record([record], steps, served.route)
        if bodies:
            await _kept(keeping)
        # 9. encode
        stages.answered += question.rows
        headers = [
            *answer.headers,
            (b"palladion-request", request_id.encode()),
            (b"palladion-receipt", str(receipts[-1]).encode()),
        ]
        return Response(200, answer.body, headers)

    def _observe(self, caller: Caller, question: Question, outputs: Outputs) -> Observation:
        stages, served = self._stages, self._served
        inputs = numbers(question.feeds, question.rows)
        scores = served.contract.class_scores(outputs, question.rows)
        # a version that was replaced while it ran cannot be weighed by the calibration of the new one
        model = served.route.model if self._is_current(served) else _UNWATCHED
        asker = stages.asker(caller, question.request)
        return stages.watch.observe(asker, model, inputs, scores, now=stages.clock.now().timestamp())

    def _mark(
        self, caller: Caller, question: Question, outputs: Outputs, *, request_id: str, level: Level
    ) -> tuple[Outputs, list[Body]]:
        """The outputs that the client may see something of, and what is kept of the marked ones."""
        marks = self._served.marks
        if marks is None:
            return outputs, []
        trusted = caller.standing == "trusted"
        marked = marks.mark(outputs, question.feeds, question.rows, caller.id, trusted=trusted)
        self._stages.flipped += marked.flipped
        return marked.outputs, marks.bodies(marked, question.feeds, outputs, request=request_id, disclosed=level)

    def _retain(self, caller: Caller, bodies: list[Body]) -> Awaitable[None] | None:
        """Begin to keep what a mark is tested on later, while the ledger is written."""
        if not bodies or self._stages.retainer is None:
            return None
        return self._stages.retainer.keep(self._stages.name(caller.id), self._served.subject, bodies)

    def _record(
        self,
        caller: Caller,
        question: Question,
        *,
        observation: Observation,
        level: Level,
        request_id: str,
        answer: bytes,
    ) -> Record:
        stages, served = self._stages, self._served
        digests = stages.digests(request_id, question.body, answer)
        details = {
            "request": request_id,
            "queries": question.rows,
            "standing": caller.standing,
            "disclosed": level,
            "mode": served.route.mode,
            "p_value": None if observation.p_value is None else f"{observation.p_value:.3g}",
            "request_digest": digests.request,
            "answer_digest": digests.answer,
        }
        return Record("answer.given", stages.clock.now(), stages.name(caller.id), served.subject, details)


async def _kept(keeping: Awaitable[None] | None) -> None:
    """Raise Problem unless the bodies are kept: a mark that nobody can test is none, so the answer stays here."""
    try:
        if keeping is not None:
            return await keeping
    except (PalladionError, ValueError):
        pass  # the reason is for the operator, not for the client
    raise Problem("unrecorded", retry_after_seconds=5)


def about(served: Served) -> About:
    """What clients may be told of a served model."""
    contract = served.contract
    promised = {contract.label, contract.scores if contract.answer == "scores" else None}
    outputs = [port for port in served.source.outputs if port.name in promised]
    # without an output for labels, the label is made from the scores
    return About(
        served.route.model,
        served.version_text,
        served.source.inputs,
        outputs or [Port(LABEL, "int64", (None,))],
    )
