"""The stages that every kind of question shares: identify, admit, observe, settle, record. In memory, but the record.

What is asked and answered differs by protocol (`questions`, `chat`); who may, how much, what it means for a standing
and that nothing leaves without its record, does not. One per process, used from one event loop.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

from palladion.access.limits import Rate, admit
from palladion.access.pseudonyms import pseudonym
from palladion.errors import PalladionError
from palladion.gate.directory import Caller, Directory
from palladion.gate.disclosure import LEVELS, Level, rate_divisor
from palladion.gate.marks import Retainer
from palladion.gate.problems import Problem
from palladion.gate.requests import Digests, Request
from palladion.gate.standing import Standings, Step
from palladion.keys import Root
from palladion.ledger.record import Record
from palladion.ledger.writer import BATCH_MAX, Receipt
from palladion.lifecycle.clients import standing_record
from palladion.lifecycle.installation import Installation
from palladion.policy import RoutePolicy
from palladion.registry import StandingChange
from palladion.registry.rows import Standing
from palladion.watch.watch import Asker, Observation, Watch


class Journal(Protocol):
    """Where records go."""

    async def append(self, records: Sequence[Record]) -> list[Receipt]:
        """Append `records`, at most `BATCH_MAX`; they are durable when this returns. Raises StorageError, BusyError."""
        ...


class Stages:
    """What all endpoints of a gate share."""

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
        self.clock = installation.clock
        self.directory = directory
        self.watch = watch
        self.retainer = retainer
        self.limits: dict[str, float] = {}
        self.changed_limits: set[str] = set()
        self.refusals: Counter[tuple[str, str]] = Counter()  # since the last record of them, by client and kind
        self.answered = 0
        self.flipped = 0  # labels that marks turned: told of all together, since of one answer it would help a thief
        self.unrecorded: list[StandingChange] = []  # in effect already, and on their way into the ledger
        self._journal = journal
        self._keep = keep
        self._standings = Standings(directory, self.policy.watch)
        self._pseudonyms = root.derive("pseudonyms")
        self._salts = root.derive("ledger-salts")
        self._rate = Rate(self.policy.limits.queries_per_second, self.policy.limits.burst)
        self._working: Counter[str] = Counter()  # requests that are being worked on, by client
        self._recording: set[asyncio.Task[list[Receipt]]] = set()

    # 1. identify

    def identify(self, request: Request) -> Caller:
        """Who asks, as of now: a key can be revoked while a body arrives or a model runs. Raises Problem."""
        return self.directory.identify(request.headers, self.clock.now())

    def name(self, client: str) -> str:
        """The client's pseudonym, as the ledger has it."""
        return pseudonym(self._pseudonyms, client)

    # 2. admit

    @contextmanager
    def room(self, caller: Caller) -> Iterator[None]:
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

    def admit(self, caller: Caller, route: RoutePolicy, queries: int, *, rows: int = 1) -> None:
        """Spend `queries`; a request of more `rows` than can ever be asked at once is told so. Raises Problem."""
        standing = effective(caller, route)
        if standing not in LEVELS:
            raise Problem("suspended")
        rate = self._rate.divided(rate_divisor(standing))
        if rows > rate.burst:
            raise Problem("rate-limited", f"{rows} rows are more than can ever be asked at once: send fewer")
        admission = admit(rate, self.limits.get(caller.id, 0.0), self.clock.now().timestamp(), queries)
        self.limits[caller.id] = admission.state
        self.changed_limits.add(caller.id)
        if not admission.admitted:
            raise Problem("rate-limited", retry_after_seconds=admission.wait_seconds)

    # 5. observe

    def asker(self, caller: Caller, request: Request) -> Asker:
        """The caller as the watch knows it."""
        return Asker(caller.id, caller.client.organisation, request.address)

    def settle(self, caller: Caller, route: RoutePolicy, observation: Observation) -> list[Step]:
        """Put the verdict into effect, in memory; returns what changed, or would have."""
        concerned = {caller.id}
        if observation.verdict.cause == "campaign":
            concerned |= self.watch.members(caller.id, route.model)
        steps = self._standings.settle(caller, concerned, route, observation, self.clock.now())
        for step in steps:
            if step.raised:
                self.watch.forgive(step.change.client)
        return steps

    def forgive(self, client: str) -> None:
        """Begin anew with a client whose standing was raised."""
        self.watch.forgive(client)
        self._standings.forget(client)

    # 8. record

    def digests(self, request_id: str, question: bytes, answer: bytes) -> Digests:
        """Salted digests of what was asked and answered, for its record."""
        return Digests.of(self._salts, request_id, question, answer)

    async def record(self, records: list[Record], steps: Sequence[Step], route: RoutePolicy) -> list[Receipt]:
        """Write the steps and `records`, and keep the changes; durable when this returns. Raises Problem."""
        if not steps:
            return await self._append(records)
        # a change that was made has to be recorded and kept, whether or not the client still waits
        changes = [step.change for step in steps if not step.proposed_on]
        self.unrecorded += changes
        every = [*(self._step_record(step, route) for step in steps), *records]
        task = asyncio.create_task(self._record_steps(every, steps, changes))
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Finish what is being recorded."""
        if self._recording:
            await asyncio.wait(self._recording)

    def _step_record(self, step: Step, route: RoutePolicy) -> Record:
        subject = self.name(step.change.client)
        record = standing_record(step.change, before=step.before.standing, subject=subject, route=route.route)
        return replace(record, kind="standing.proposed") if step.proposed_on else record

    async def _record_steps(
        self, records: list[Record], steps: Sequence[Step], changes: list[StandingChange]
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


def effective(caller: Caller, route: RoutePolicy) -> Standing:
    """The standing that counts on a route: one that only observes withholds nothing but from suspended clients."""
    if route.mode == "observe" and caller.standing != "suspended":
        return "trusted"
    return caller.standing


def level_of(caller: Caller, route: RoutePolicy) -> Level | None:
    """How much an answer discloses to a caller on a route; None for nothing: it is suspended."""
    return LEVELS.get(effective(caller, route))
