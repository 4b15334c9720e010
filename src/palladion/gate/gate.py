"""The data path: identify, admit, decode, infer, observe, mark, disclose, record, encode, in this order, for all.

The record is durable before the answer leaves; if it cannot be written, nothing leaves. Knows no transport.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec

from palladion.access.limits import Rate, admit
from palladion.access.pseudonyms import pseudonym
from palladion.errors import FormatError, PalladionError
from palladion.gate.contract import LABEL, Outputs
from palladion.gate.decode import Feeds, numbers
from palladion.gate.directory import Caller, Directory
from palladion.gate.disclosure import LEVELS, Level, disclose, rate_divisor
from palladion.gate.hosted import Hosted
from palladion.gate.marks import Retainer
from palladion.gate.problems import Problem
from palladion.gate.requests import JSON, Digests, Request, Response
from palladion.gate.standing import Standings, Step
from palladion.keys import Root
from palladion.ledger.body import Body
from palladion.ledger.record import Record
from palladion.ledger.writer import BATCH_MAX, Receipt
from palladion.lifecycle.clients import standing_record
from palladion.lifecycle.installation import Installation
from palladion.model.run import Port
from palladion.registry import StandingChange
from palladion.registry.rows import Standing
from palladion.watch.watch import Asker, Observation, Watch

REQUEST_ID_BYTES = 8
_UNWATCHED = ""  # no model is called so


class Journal(Protocol):
    """Where records go."""

    async def append(self, records: Sequence[Record]) -> list[Receipt]:
        """Append `records`, at most `BATCH_MAX`; they are durable when this returns. Raises StorageError, BusyError."""
        ...


@dataclass(frozen=True, eq=False)
class Question:
    """A decoded request: the route's model, the body as it came, the arrays made of it, and how many queries."""

    hosted: Hosted
    address: str | None
    body: bytes
    feeds: Feeds
    rows: int


class Gate:
    """Answers requests. One per process, used from one event loop."""

    def __init__(
        self,
        installation: Installation,
        root: Root,
        *,
        directory: Directory,
        watch: Watch,
        journal: Journal,
        keep: Callable[[Iterable[StandingChange]], Awaitable[None]],
        retainer: Retainer | None = None,
    ) -> None:
        """`keep` writes changes of standing to the registry, after they are recorded. Must not raise.

        Without a `retainer`, routes that mark answers give none.
        """
        self.policy = installation.policy
        self.directory = directory
        self.watch = watch
        self.hosted: Mapping[str, Hosted] = {}  # by path; replaced as a whole when a version is swapped
        self.limits: dict[str, float] = {}
        self.changed_limits: set[str] = set()
        self.refusals: Counter[tuple[str, str]] = Counter()  # since the last record of them, by client and kind
        self.answered = 0
        self.flipped = 0  # labels that marks turned: told of all together, since of one answer it would help a thief
        self.unrecorded: list[StandingChange] = []  # in effect already, and on their way into the ledger
        self._clock = installation.clock
        self._journal = journal
        self._keep = keep
        self._retainer = retainer
        self._standings = Standings(directory, self.policy.watch)
        self._pseudonyms = root.derive("pseudonyms")
        self._salts = root.derive("ledger-salts")
        self._rate = Rate(self.policy.limits.queries_per_second, self.policy.limits.burst)
        self._models = ThreadPoolExecutor(self.policy.gate.threads, thread_name_prefix="model")
        self._working: Counter[str] = Counter()  # requests that are being worked on, by client
        self._recording: set[asyncio.Task[list[Receipt]]] = set()

    async def handle(self, request: Request) -> Response:
        """Answer one request; never raises for anything that a client can cause."""
        caller = None
        try:
            # 1. identify: before anything else, so that a stranger learns nothing, not even which routes exist
            caller = self._identify(request)
            with self._room(caller):
                return await self._answer(caller, request)
        except Problem as problem:
            if caller is not None:
                self.refusals[caller.id, problem.kind] += 1
            return Response.of_problem(problem)

    def name(self, client: str) -> str:
        """The client's pseudonym, as the ledger has it."""
        return pseudonym(self._pseudonyms, client)

    def forgive(self, client: str) -> None:
        """Begin anew with a client whose standing was raised."""
        self.watch.forgive(client)
        self._standings.forget(client)

    async def close(self) -> None:
        """Finish what is being recorded, and end the threads that run models."""
        if self._recording:
            await asyncio.wait(self._recording)
        self._models.shutdown(wait=True, cancel_futures=True)

    async def _answer(self, caller: Caller, request: Request) -> Response:
        hosted = self._route(caller, request)
        # 2. admit: one query is paid for before the body is read, the others when their number is known
        self._admit(caller, hosted, 1)
        if request.method == "GET":
            return _description(hosted)
        # 3. decode
        body = await request.body()
        feeds, rows = hosted.decode(body)
        if rows > 1:
            self._admit(caller, hosted, rows - 1, rows=rows)
        question = Question(hosted, request.address, body, feeds, rows)
        try:
            async with asyncio.timeout(self.policy.gate.deadline_ms / 1000):
                # 4. infer
                outputs = await self._infer(question)
                return await self._respond(self._identify(request), question, outputs)
        except TimeoutError:
            raise Problem("busy", "the answer was not ready in time", retry_after_seconds=1) from None

    @contextmanager
    def _room(self, caller: Caller) -> Iterator[None]:
        """A place for one more request; at most half of them for one client, whose slow bodies would stop all."""
        places, mine = self.policy.gate.requests_max, self._working[caller.id]
        if self._working.total() >= places or mine >= max(1, places // 2):
            raise Problem("busy", retry_after_seconds=1)
        self._working[caller.id] += 1
        try:
            yield
        finally:
            self._working[caller.id] -= 1
            if not self._working[caller.id]:
                del self._working[caller.id]

    def _identify(self, request: Request) -> Caller:
        """Who asks, as of now: a key can be revoked while a body arrives or a model runs."""
        return self.directory.identify(request.headers, self._clock.now())

    async def _respond(self, caller: Caller, question: Question, outputs: Outputs) -> Response:
        # 5. observe: from here until the record is handed over, no other request changes this client
        observation = self._observe(caller, question, outputs)
        steps = self._settle(caller, question, observation)
        records = [self._step_record(step, question.hosted) for step in steps]
        caller = self.directory.callers[caller.id]
        level = LEVELS.get(effective(caller, question.hosted))
        if level is None:
            await self._record(records, steps)
            raise Problem("suspended")
        # 6. mark: what was observed is what the model said
        request_id = secrets.token_hex(REQUEST_ID_BYTES)
        shown, bodies = self._mark(caller, question, outputs, request_id=request_id, level=level)
        # 7. disclose
        answer = _encode(question.hosted, shown, level)
        # 8. record
        records.append(
            self._answer_record(
                caller, question, observation=observation, level=level, request_id=request_id, answer=answer
            )
        )
        keeping = self._retain(caller, question.hosted, bodies)
        receipts = await self._record(records, steps)
        if bodies:
            await _kept(keeping)
        # 9. encode
        self.answered += question.rows
        headers = [
            (b"content-type", JSON),
            (b"palladion-request", request_id.encode()),
            (b"palladion-receipt", str(receipts[-1]).encode()),
        ]
        return Response(200, answer, headers)

    def _route(self, caller: Caller, request: Request) -> Hosted:
        hosted = self.hosted.get(request.path)
        if hosted is None:
            raise Problem("not-found")
        if not caller.may_ask(hosted.route.model):
            raise Problem("forbidden")
        if request.method not in {"GET", "POST"}:
            raise Problem("method-not-allowed", allow="GET, POST")
        if request.method == "POST":
            kind = request.headers.get(b"content-type", JSON).partition(b";")[0].strip().lower()
            if kind != JSON or request.headers.get(b"content-encoding", b"identity") != b"identity":
                raise Problem("unsupported-media-type", "application/json without an encoding was expected")
        return hosted

    def _admit(self, caller: Caller, hosted: Hosted, queries: int, *, rows: int = 1) -> None:
        standing = effective(caller, hosted)
        if standing not in LEVELS:
            raise Problem("suspended")
        rate = self._rate.divided(rate_divisor(standing))
        if rows > rate.burst:
            raise Problem("rate-limited", f"{rows} rows are more than can ever be asked at once: send fewer")
        admission = admit(rate, self.limits.get(caller.id, 0.0), self._clock.now().timestamp(), queries)
        self.limits[caller.id] = admission.state
        self.changed_limits.add(caller.id)
        if not admission.admitted:
            raise Problem("rate-limited", retry_after_seconds=admission.wait_seconds)

    async def _infer(self, question: Question) -> Outputs:
        run, contract = question.hosted.session.run, question.hosted.contract
        try:
            outputs = await asyncio.get_running_loop().run_in_executor(self._models, run, question.feeds)
            return contract.verify_outputs(outputs, question.rows)
        except (FormatError, ValueError):
            # what the runtime says may tell of the model's inside
            raise Problem("model-failed") from None

    def _observe(self, caller: Caller, question: Question, outputs: Outputs) -> Observation:
        hosted = question.hosted
        asker = Asker(caller.id, caller.client.organisation, question.address)
        inputs = numbers(question.feeds, question.rows)
        scores = hosted.contract.class_scores(outputs, question.rows)
        # a version that was replaced while it ran cannot be weighed by the calibration of the new one
        current = self.hosted.get(hosted.route.route)
        model = hosted.route.model if current and current.calibration is hosted.calibration else _UNWATCHED
        return self.watch.observe(asker, model, inputs, scores, now=self._clock.now().timestamp())

    def _settle(self, caller: Caller, question: Question, observation: Observation) -> list[Step]:
        """Put the verdict into effect, in memory; returns what changed, or would have."""
        route, concerned = question.hosted.route, {caller.id}
        if observation.verdict.cause == "campaign":
            concerned |= self.watch.members(caller.id, route.model)
        steps = self._standings.settle(caller, concerned, route, observation, self._clock.now())
        for step in steps:
            if step.raised:
                self.watch.forgive(step.change.client)
        return steps

    def _mark(
        self, caller: Caller, question: Question, outputs: Outputs, *, request_id: str, level: Level
    ) -> tuple[Outputs, list[Body]]:
        """The outputs that the client may see something of, and what is kept of the marked ones."""
        marks = question.hosted.marks
        if marks is None:
            return outputs, []
        trusted = caller.standing == "trusted"
        marked = marks.mark(outputs, question.feeds, question.rows, caller.id, trusted=trusted)
        self.flipped += marked.flipped
        return marked.outputs, marks.bodies(marked, question.feeds, outputs, request=request_id, disclosed=level)

    def _retain(self, caller: Caller, hosted: Hosted, bodies: list[Body]) -> Awaitable[None] | None:
        """Begin to keep what a mark is tested on later, while the ledger is written."""
        if not bodies or self._retainer is None:
            return None
        return self._retainer.keep(self.name(caller.id), hosted.subject, bodies)

    def _step_record(self, step: Step, hosted: Hosted) -> Record:
        subject = self.name(step.change.client)
        record = standing_record(step.change, before=step.before.standing, subject=subject, route=hosted.route.route)
        return replace(record, kind="standing.proposed") if step.proposed_on else record

    def _answer_record(
        self,
        caller: Caller,
        question: Question,
        *,
        observation: Observation,
        level: Level,
        request_id: str,
        answer: bytes,
    ) -> Record:
        digests = Digests.of(self._salts, request_id, question.body, answer)
        details = {
            "request": request_id,
            "queries": question.rows,
            "standing": caller.standing,
            "disclosed": level,
            "mode": question.hosted.route.mode,
            "p_value": None if observation.p_value is None else f"{observation.p_value:.3g}",
            "request_digest": digests.request,
            "answer_digest": digests.answer,
        }
        return Record("answer.given", self._clock.now(), self.name(caller.id), question.hosted.subject, details)

    async def _record(self, records: list[Record], steps: list[Step]) -> list[Receipt]:
        if not steps:
            return await self._append(records)
        # a change that was made has to be recorded and kept, whether or not the client still waits
        changes = [step.change for step in steps if not step.proposed_on]
        self.unrecorded += changes
        task = asyncio.create_task(self._record_steps(records, steps, changes))
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)
        return await asyncio.shield(task)

    async def _record_steps(
        self, records: list[Record], steps: list[Step], changes: list[StandingChange]
    ) -> list[Receipt]:
        try:
            receipts = await self._append(records)
        except BaseException:
            self._standings.revert(steps)
            raise
        finally:
            self.unrecorded = [change for change in self.unrecorded if change not in changes]
        if changes:
            await self._keep(changes)
        return receipts

    async def _append(self, records: list[Record]) -> list[Receipt]:
        receipts: list[Receipt] = []
        try:
            # a campaign can have more members than records fit into one piece; the answer's own comes last
            for start in range(0, len(records), BATCH_MAX):
                receipts += await self._journal.append(records[start : start + BATCH_MAX])
        except PalladionError:
            # the reason is for the operator, not for the client
            raise Problem("unrecorded", retry_after_seconds=5) from None
        return receipts


async def _kept(keeping: Awaitable[None] | None) -> None:
    """Raise Problem unless the bodies are kept: a mark that nobody can test is none, so the answer stays here."""
    try:
        if keeping is not None:
            return await keeping
    except (PalladionError, ValueError):
        pass  # the reason is for the operator, not for the client
    raise Problem("unrecorded", retry_after_seconds=5)


def effective(caller: Caller, hosted: Hosted) -> Standing:
    """The standing that counts on a route: one that only observes withholds nothing but from suspended clients."""
    if hosted.route.mode == "observe" and caller.standing != "suspended":
        return "trusted"
    return caller.standing


def _encode(hosted: Hosted, outputs: Outputs, level: Level) -> bytes:
    shown = disclose(outputs, hosted.contract, level)
    document = {
        "model": hosted.version.model,
        "version": hosted.version.number,
        "outputs": {name: values.tolist() for name, values in shown.items()},
    }
    return msgspec.json.encode(document)


def _description(hosted: Hosted) -> Response:
    """What a client has to know to ask: names, types and shapes of inputs and of what it may get."""
    contract = hosted.contract
    promised = {contract.label, contract.scores if contract.answer == "scores" else None}
    outputs = [_port(port) for port in hosted.session.outputs if port.name in promised]
    document = {
        "model": hosted.version.model,
        "version": hosted.version.number,
        "inputs": [_port(port) for port in hosted.session.inputs],
        # without an output for labels, the label is made from the scores
        "outputs": outputs or [{"name": LABEL, "type": "int64", "shape": [None]}],
    }
    return Response(200, msgspec.json.encode(document), [(b"content-type", JSON)])


def _port(port: Port) -> dict[str, object]:
    return {"name": port.name, "type": port.dtype, "shape": list(port.shape)}
