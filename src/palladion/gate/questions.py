"""Questions in arrays: decode, infer, observe, mark, disclose, record, encode, in this order, for every protocol.

The record is durable before the answer leaves; if it cannot be written, nothing leaves.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from palladion.errors import FormatError, PalladionError
from palladion.gate.budgets import Reservation, heaviest, weight
from palladion.gate.callers import Caller
from palladion.gate.contract import LABEL, Outputs
from palladion.gate.decode import Feeds, numbers
from palladion.gate.disclosure import Level, disclose_to
from palladion.gate.disclosure.private_answers import Spending, details_of, with_noise
from palladion.gate.problems import Problem
from palladion.gate.protocols.protocol import About, Asked, Encoded
from palladion.gate.requests import Request, Response
from palladion.gate.served import Served
from palladion.gate.sources.layered import seen, taken
from palladion.gate.stages import Stages
from palladion.gate.together import Showing
from palladion.gate.unlike import refusal, rows_unlike
from palladion.ledger.body import Body
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.model.run import Port
from palladion.registry.privacy import PrivacySpent
from palladion.watch.rows import Rows
from palladion.watch.watch import Asked as Shown
from palladion.watch.watch import Observation

REQUEST_ID_BYTES = 8
LATE = "the answer was not ready in time"
_ACTIONS = {"GET": "describe", "POST": "ask"}  # as access policies call them
_UNWATCHED = ""  # no model is called so


# structs, as all that is made for each request here: a dataclass takes three times as long to make, a frozen one ten
class Question(msgspec.Struct, eq=False):
    """A decoded request: as it came, its body, what was made of it, and how much its answer tells once it is made.

    `inputs` (rows, inputs) are its numbers, `layers` is what the model's layers showed of it (rows, …) where they are
    looked at, `shown` what the watch saw of it, `decoys` are those that it touches, `spent` is what privacy it cost.
    """

    request: Request
    body: bytes
    asked: Asked
    inputs: Rows
    information: float = 0
    layers: Rows | None = None
    shown: Shown | None = None
    decoys: Sequence[str] = ()
    spent: PrivacySpent | None = None

    @property
    def feeds(self) -> Feeds:
        """The arrays by input name."""
        return self.asked.feeds

    @property
    def rows(self) -> int:
        """How many queries."""
        return self.asked.rows


class _Given(msgspec.Struct, eq=False):
    """An answer that may leave once its record is durable; without one, the caller is refused, for `problem`.

    `recording` is under way already where the request changed a standing; `keeping` is that of marked answers.
    """

    answer: Encoded | None
    request_id: str
    records: list[Record]
    recording: asyncio.Task[list[Receipt]] | None = None
    keeping: Awaitable[None] | None = None
    kept: bool = False  # whether `keeping` has to succeed
    problem: Problem | None = None


class Questions:
    """Answers on the paths of one route. Satisfies `endpoint.Endpoint`."""

    def __init__(
        self,
        stages: Stages,
        served: Served,
        action: str,
        *,
        is_current: Callable[[Served], bool],
        spending: Spending,
    ) -> None:
        """`action` is "ask", "describe" or both; `is_current` says whether the calibration still counts."""
        self.methods: Sequence[str] = [
            method for method, word in (("GET", "describe"), ("POST", "ask")) if word in action.split()
        ]
        self._actions = [_ACTIONS[method] for method in self.methods]
        self.media_types = served.protocol.media_types
        self._stages = stages
        self._served = served
        self._about = about(served)
        self._is_current = is_current
        self._spending = spending

    def allows(self, caller: Caller) -> bool:
        """Whether the caller may do any of what is done here; `answer` looks at which."""
        for action in self._actions:  # noqa: SIM110 (in half of the time)
            if caller.may(action, self._served.route):
                return True
        return False

    async def answer(self, caller: Caller, request: Request) -> Response:
        """The response to a request. Raises Problem."""
        stages, served = self._stages, self._served
        if not caller.may(_ACTIONS[request.method], served.route):
            raise Problem("forbidden")
        if request.method == "GET":
            stages.admit(caller, served.route, 1, address=request.address)
            described = served.protocol.describe(request.path, self._about)
            return Response(200, described.body, [*described.headers])
        # 2. admit: one query is paid for before the body is read, the others when their number is known
        with stages.reserve(caller, served.route, information=1, begin=False) as held:
            stages.admit(caller, served.route, 1, address=request.address)
            return await self._ask(caller, request, held)

    async def _ask(self, caller: Caller, request: Request, held: Reservation) -> Response:
        stages, served = self._stages, self._served
        ended = stages.meter.laps()
        # 3. decode
        body = await request.body()
        ended("receive")
        stages.limits.work.require(caller.id, stages.modes.effective(caller, served.route), request, body)
        asked = served.decode(body, request.headers)
        more = asked.rows - 1
        if more:
            # of information at most: one new bucket for each query
            held.reserve(queries=more, information=more)
        held.begin()
        if more:
            stages.admit(caller, served.route, more, rows=asked.rows, address=request.address)
        question = Question(request, body, asked, numbers(asked.feeds, asked.rows))
        try:
            with stages.deadlines.within(stages.policy.gate.deadline_ms / 1000):
                # 4. infer
                ended("decode")
                if served.noise is not None:
                    # before the model runs: what was answered must never be unpaid, whatever ends this process
                    question.spent = await self._spending.spend(served.route, caller.id, served.noise, asked.rows)
                if not stages.seeds.holds(caller.id):
                    await stages.seeds.open(caller.id)
                # what layers show is for the watch: nothing that answers a client ever holds it
                outputs, question.layers = taken(await served.source.infer(asked.feeds, asked.rows))
                try:
                    outputs = served.contract.verify_outputs(outputs, asked.rows)
                except FormatError:
                    # what a model says of its own may tell of its inside
                    raise Problem("model-failed") from None
                ended("infer")
                # 5. observe, together with what else came in this moment
                given = await stages.together.observe(
                    served.watched, partial(self._show, question, outputs), partial(self._give, question, outputs)
                )
                ended("judge")
                response = await self._respond(question, given)
                held.settle(information=question.information, answers=served.share_of(len(response.body)))
                ended("record")
                return response
        except BaseException as error:
            # no query was answered; but if it was observed, the watch will not take its buckets for new again
            held.settle(queries=0, information=question.information)
            if isinstance(error, TimeoutError):
                raise Problem("busy", LATE, retry_after_seconds=1) from None
            raise

    def _show(self, question: Question, outputs: Outputs) -> Showing:
        """What the watch sees of a request, and of whom as of now. Raises Problem."""
        stages, served = self._stages, self._served
        caller = stages.identify(question.request)
        inputs = question.inputs
        question.decoys = stages.directory.decoys.asked(served.route.model, inputs)
        scores = seen(served.contract.class_scores(outputs, question.rows), question.layers)
        # a version that was replaced while it ran cannot be weighed by the calibration of the new one
        model = served.watched if self._is_current(served) else _UNWATCHED
        question.shown = asked = Shown(stages.asker(caller, question.request), inputs, scores)
        return Showing(caller, model, asked, alone=stages.may_rise(caller))

    def _give(self, question: Question, outputs: Outputs, caller: Caller, observation: Observation) -> _Given:
        """The answer to a request that was observed: until it is made, no other request changes this client."""
        stages, served = self._stages, self._served
        if question.decoys:
            observation = stages.touched(caller, observation, question.decoys, question.request)
        steps = stages.settle(caller, served.route, observation, watched=served.watched)
        try:
            given = self._made(question, outputs, stages.directory.current(caller), observation)
        except BaseException:
            # a change that was made is recorded and kept, whatever comes of the answer
            if steps:
                stages.begin_recording([], steps, served.route)
            raise
        # 8. record, before that of any request that was observed later
        if steps:
            given.recording = stages.begin_recording(given.records, steps, served.route)
        return given

    def _made(self, question: Question, outputs: Outputs, caller: Caller, observation: Observation) -> _Given:
        """The answer and its record, for a caller who stands as the observation left it."""
        stages, served = self._stages, self._served
        terms = stages.terms(caller, served.route, served.contract)
        if terms is None:
            return _Given(None, "", [], problem=Problem("suspended"))
        if observation.calibrated:
            routes = stages.policy.route
            weighs = heaviest(terms, caller, served.route.model, routes, stages.terms)
            question.information = observation.new_buckets * weighs
        else:
            question.information = observation.distinct * weight(terms.level, terms.contract.answer)
        unlike = rows_unlike(served.route, served.calibration, question.shown)
        if unlike:
            mode = stages.modes.of(caller, served.route)
            stages.count_unlike(served.route, mode, rows=len(unlike))
            if mode == "enforce":
                # its buckets are charged: asked again without these rows, the others would pass for known
                return _Given(None, "", [], problem=refusal(unlike, of=question.rows))
        # 6. mark: what was observed is what the model said
        request_id = secrets.token_hex(REQUEST_ID_BYTES)
        shown, bodies = self._mark(caller, question, outputs, request_id=request_id, level=terms.level)
        if served.marks is None and stages.retention is not None:
            stages.retention.keep(
                (stages.name(caller.id), served.subject),
                question.feeds,
                served.contract.retained(outputs),
                question.rows,
                request=request_id,
                disclosed=terms.level,
            )
        # 7. disclose
        if served.noise is not None:
            shown = with_noise(shown, served.contract, served.noise)
        answer = served.protocol.encode(question.asked, disclose_to(terms, shown), self._about)
        record = self._record(
            caller,
            question,
            observation=observation,
            level=terms.level,
            request_id=request_id,
            answer=answer.body,
            unlike=len(unlike),
        )
        return _Given(answer, request_id, [record], keeping=self._retain(caller, bodies), kept=bool(bodies))

    async def _respond(self, question: Question, given: _Given) -> Response:
        """The answer, once its record is durable."""
        stages = self._stages
        if given.recording is not None:
            receipts = await asyncio.shield(given.recording)
        else:
            receipts = await stages.record(given.records, [], self._served.route)
        if given.answer is None:
            raise given.problem or Problem("suspended")
        if given.kept:
            await _kept(given.keeping)
        # 9. encode
        stages.answered += question.rows
        headers = [
            *given.answer.headers,
            (b"palladion-request", given.request_id.encode()),
            (b"palladion-receipt", str(receipts[-1]).encode()),
        ]
        return Response(200, given.answer.body, headers)

    def _mark(
        self, caller: Caller, question: Question, outputs: Outputs, *, request_id: str, level: Level
    ) -> tuple[Outputs, list[Body]]:
        """The outputs that the client may see something of, and what is kept of the marked ones."""
        marks = self._served.marks
        if marks is None:
            return outputs, []
        trusted = caller.standing == "trusted"
        marked = marks.mark(outputs, question.inputs, caller.id, trusted=trusted)
        self._stages.flipped += marked.flipped
        if not any(marked.strengths):
            return marked.outputs, []
        at = self._stages.clock.now().timestamp()
        bodies = marks.bodies(marked, question.feeds, outputs, request=request_id, disclosed=level, at=at)
        return marked.outputs, bodies

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
        unlike: int,
    ) -> Record:
        stages, served = self._stages, self._served
        salt = stages.seeds.salt(caller.id, request_id)
        p_value = observation.p_value
        details: dict[str, Any] = {
            "request": request_id,
            "route": served.route.route,
            "queries": question.rows,
            "standing": caller.standing,
            "disclosed": level,
            "mode": stages.modes.of(caller, served.route),
            **stages.network(question.request),
            **stages.end_user(caller),
            "p_value": None if p_value is None else f"{p_value:.3g}",
            "request_digest": salt.digest(question.body),
            "answer_digest": salt.digest(answer),
            "seed": salt.seed,
        }
        if unlike:
            details["unlike"] = unlike
        if question.spent is not None:
            details["privacy"] = details_of(served.route, question.spent)
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
    promised = contract.names if contract.answer == "scores" else [contract.label]
    outputs = [port for port in served.source.outputs if port.name in promised]
    # without an output for labels, the label is made from the scores
    return About(
        served.route.model,
        served.version_text,
        served.source.inputs,
        outputs or [Port(LABEL, "int64", (None,))],
    )
