"""Where operators' requests are carried out: checked, recorded in the ledger, written, and in effect when it is told.

Each goes through one transaction of the registry's thread, in which the right to it is looked up as well: between being
allowed and being done, nobody's role changes. The record is on the disk before the registry commits.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, NamedTuple, Protocol, TypeVar

from palladion.errors import ConflictError, FormatError, StorageError
from palladion.gate.administration.changes import (
    Change,
    change_document,
    parse_change,
    require_alone,
    require_decider,
    require_proposer,
    right_to_propose,
)
from palladion.gate.administration.effect import Effect, PendingError
from palladion.gate.administration.effects import apply_change, gather_facts, told, told_about
from palladion.gate.administration.people import Evidence, Person, admit
from palladion.gate.administration.roles import ForbiddenError, require
from palladion.incident.cases import Action as CaseAction
from palladion.incident.cases import find_case, take_step
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.registry import Incident, Proposal, Records, Registry, names
from palladion.registry.rows import Verdict

APPEND_SECONDS_MAX = 30.0  # that a transaction stays open for its record; requests wait for the same disk
REASON_CHARACTERS_MAX = names.NOTE_CHARACTERS_MAX  # as the registry keeps it

_Result = TypeVar("_Result")
_Work = Callable[[Records, Person], tuple[_Result, list[Record]]]


class KeeperPort(Protocol):
    """The thread that may use the registry."""

    async def run(self, function: Callable[[Registry], _Result]) -> _Result:
        """Do something with the registry in its thread."""
        ...


class LedgerPort(Protocol):
    """What takes records."""

    async def append(self, records: list[Record]) -> list[Receipt]:
        """Append `records`; all are on the disk when this returns."""
        ...


class Reloaded(Protocol):
    """What a reload of the policy tells."""

    @property
    def digest(self) -> str:
        """That of the policy in force."""
        ...

    @property
    def changes(self) -> list[dict[str, Any]]:
        """What is different."""
        ...


class Done(NamedTuple):
    """What was done, and the receipt of its first record."""

    result: Any
    receipt: Receipt


class Desk:
    """Carries out what operators ask for. For one event loop."""

    def __init__(
        self,
        installation: Installation,
        *,
        keeper: KeeperPort,
        ledger: LedgerPort,
        pseudonyms: bytes,
        reload: Callable[[], Awaitable[object]],
        take_over: Callable[[str], Awaitable[Reloaded]],
    ) -> None:
        """`reload` takes over what the registry says of clients, `take_over` what the policy file says."""
        self._installation = installation
        self._keeper = keeper
        self._ledger = ledger
        self._pseudonyms = pseudonyms
        self.effect = Effect(reload)
        self._take_over = take_over
        self._turn = asyncio.Lock()
        self._working: set[asyncio.Task[Any]] = set()

    async def person(self, evidence: Evidence) -> Person:
        """Who it is, by what the registry says now. Raises ForbiddenError."""
        return await self._keeper.run(lambda registry: _admitted(registry, evidence))

    async def read(self, function: Callable[[Records], _Result]) -> _Result:
        """Something that the registry says."""
        return await self._keeper.run(lambda registry: _read(registry, function))

    async def note(self, kind: str, identity: str, details: dict[str, Any]) -> Receipt:
        """Record something that changes nothing in the registry. Raises StorageError, BusyError."""
        record = Record(kind, self._installation.clock.now(), identity, self._installation.paths.home.name, details)
        return (await self._shielded(self._ledger.append([record])))[0]

    async def refused(
        self, identity: str, what: str, why: str, *, change: Change | None = None, client: str = "", count: int = 1
    ) -> None:
        """Record that something was not done: which path, the kind of the problem, and by pseudonym whom it concerned.

        Nothing that was sent, and no sentence about it: both name clients. `count` is how often it was refused.
        """
        about = await self.read(lambda records: told_about(records, change, client, self._pseudonyms))
        times = {"count": count} if count > 1 else {}
        await self.note("operator.refused", identity, {"what": what, "why": why, **about, **times})

    async def make(self, evidence: Evidence, change: Change, reason: str) -> Done:
        """Make a change that one person may make. Raises ForbiddenError, ConflictError, NotFoundError."""
        _require_reason(reason)

        def work(records: Records, person: Person) -> tuple[dict[str, Any], list[Record]]:
            now = self._installation.clock.now()
            require(person.role, right_to_propose(change))
            facts = gather_facts(records, change, self._installation.policy, now)
            require_alone(person.role, person.identity, change, facts)
            made = apply_change(records, change, actor=person.identity, reason=reason, key=self._pseudonyms, now=now)
            return change_document(change), made

        return await self._write(evidence, work)

    async def propose(self, evidence: Evidence, change: Change, reason: str) -> Done:
        """Ask a second person for a change. Raises ForbiddenError, ConflictError, NotFoundError."""
        _require_reason(reason)

        def work(records: Records, person: Person) -> tuple[Proposal, list[Record]]:
            # the right comes first: whoever has none is not told who is a client here
            require(person.role, right_to_propose(change))
            facts = gather_facts(records, change, self._installation.policy, self._installation.clock.now())
            require_proposer(person.role, person.identity, change, facts)
            days = self._installation.policy.operators.proposal_days
            made = records.proposals.add(change_document(change), reason=reason, proposer=person.identity, days=days)
            details = {"change": told(records, change, self._pseudonyms), "reason": reason}
            return made, [Record("proposal.made", made.at, person.identity, f"proposal:{made.id}", details)]

        return await self._write(evidence, work)

    async def decide(self, evidence: Evidence, proposal: str, verdict: Verdict, reason: str) -> Done:
        """Approve or reject what somebody else proposed, or withdraw what one has proposed oneself.

        What is approved is done in the same transaction. Raises ForbiddenError, ConflictError, NotFoundError.
        """

        def work(records: Records, person: Person) -> tuple[Proposal, list[Record]]:
            if verdict != "withdrawn":
                require(person.role, "proposal.decide")
            found = records.proposals.get(proposal)
            now = self._installation.clock.now()
            change = parse_change(found.change)
            made: list[Record] = []
            if verdict == "withdrawn":
                require(person.role, right_to_propose(change))
            else:
                facts = gather_facts(records, change, self._installation.policy, now)
                require_decider(person.role, person.identity, found.proposer, facts)
            decided = records.proposals.decide(proposal, verdict, actor=person.identity, reason=reason)
            if verdict == "approved":
                _require_standing(records, found, change)
                # who agreed did it: the proposal's record, one line above, says who asked
                made = apply_change(
                    records, change, actor=person.identity, reason=found.reason, key=self._pseudonyms, now=now
                )
            details = {"verdict": verdict, "proposer": found.proposer, "reason": reason}
            record = Record("proposal.decided", now, person.identity, f"proposal:{proposal}", details)
            return decided, [record, *made]

        return await self._write(evidence, work)

    async def work_on(self, evidence: Evidence, incident: str, action: CaseAction, text: str) -> Done:
        """Take a case on, add to it, or close it. Raises ForbiddenError, NotFoundError, ConflictError."""

        def work(records: Records, person: Person) -> tuple[Incident, list[Record]]:
            require(person.role, "incident.close" if action == "close" else "incident.work")
            case, record = take_step(
                records,
                find_case(records, incident),
                action,
                text,
                actor=person.identity,
                now=self._installation.clock.now(),
            )
            return case, [record]

        return await self._write(evidence, work)

    async def reload_policy(self, evidence: Evidence) -> Reloaded:
        """Go by what the policy file says now. Raises ForbiddenError; PolicyError, and then nothing changes."""
        person = await self.person(evidence)
        require(person.role, "policy.reload")
        done = await self._shielded(self._taken_over(person.identity))
        if not done.changes:
            raise ConflictError("the policy file says what is in force already")
        return done

    async def close(self) -> None:
        """Let what has begun come to its end."""
        while self._working:
            await asyncio.wait(self._working)
        await self.effect.close()

    async def _taken_over(self, actor: str) -> Reloaded:
        before = self._installation.policy
        try:
            return await self._take_over(actor)
        except Exception as error:
            if self._installation.policy is before:
                raise
            # its record is in the ledger, and it has begun to take the place of the old one
            self.effect.took_part()
            raise PendingError(
                "the policy is recorded, and not all of it is in effect", "restart the gate to go by all of it"
            ) from error

    async def _write(self, evidence: Evidence, work: "_Work[Any]") -> Done:
        return await self._shielded(self._commit(evidence, work))

    async def _shielded(self, work: Awaitable[_Result]) -> _Result:
        # whoever stops waiting does not end it halfway: between a record and what it speaks of
        task = asyncio.ensure_future(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return await asyncio.shield(task)

    async def _commit(self, evidence: Evidence, work: "_Work[Any]") -> Done:
        loop = asyncio.get_running_loop()

        def record(made: list[Record]) -> Receipt:
            # from the registry's thread, for which the ledger's never waits
            waiting = asyncio.run_coroutine_threadsafe(self._ledger.append(made), loop)
            try:
                return waiting.result(APPEND_SECONDS_MAX)[0]
            except FutureTimeoutError:
                waiting.cancel()
                raise StorageError("the ledger takes too long, so nothing was changed", "try again") from None

        def write(registry: Registry) -> Done:
            with registry.write() as records:
                person = admit(evidence, records.operators.known(evidence.identity))
                result, made = work(records, person)
                return Done(result, record(made))

        async with self._turn:
            done = await self._keeper.run(write)
            await self.effect.take()
        return done


def _admitted(registry: Registry, evidence: Evidence) -> Person:
    with registry.read() as records:
        return admit(evidence, records.operators.known(evidence.identity))


def _read(registry: Registry, function: Callable[[Records], _Result]) -> _Result:
    with registry.read() as records:
        return function(records)


def _require_reason(reason: str) -> None:
    # also what the registry does not keep: it goes to terminals
    names.note(reason, what="the reason")
    if not reason.strip() or len(reason) > REASON_CHARACTERS_MAX:
        raise FormatError(f"a reason of 1 to {REASON_CHARACTERS_MAX} characters was expected: the ledger keeps it")


def _require_standing(records: Records, found: Proposal, change: Change) -> None:
    """Raise ForbiddenError where who proposed has lost the right to since, as far as the registry knows."""
    proposer = records.operators.known(found.proposer)
    if proposer is None:
        return  # of a role that a claim gave, nothing is known between two sign-ins
    if proposer.revoked_at is not None:
        raise ForbiddenError(f"{found.proposer}, who proposed it, is no operator any more")
    require(proposer.role, right_to_propose(change))
