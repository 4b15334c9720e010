"""The stages that every kind of question shares: identify, admit, observe, settle, record. In memory, but the record.

What is asked and answered differs by protocol (`questions`, `chat`); who may, how much, what it means for a standing
and that nothing leaves without its record, does not. One per process, used from one event loop.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import lru_cache, partial
from typing import Protocol, cast

from palladion.access.pseudonyms import network_pseudonym, pseudonym
from palladion.errors import PalladionError
from palladion.gate.budgets import Reservation
from palladion.gate.callers import Caller
from palladion.gate.contract import Contract
from palladion.gate.deadlines import Deadlines
from palladion.gate.decoys import DecoyProblem
from palladion.gate.directory import Directory
from palladion.gate.disclosure import LEVELS, Terms, own_contracts, terms_of
from palladion.gate.disclosure.terms import Own
from palladion.gate.end_users import Resold, SeeingBoth, asker_of, names, with_verdict
from palladion.gate.intelligence.intelligence import Intelligence
from palladion.gate.intelligence.signatures import Seeing
from palladion.gate.limits import Limits
from palladion.gate.marks import Retainer
from palladion.gate.modes import Mode, Modes
from palladion.gate.operations.meter import Meter
from palladion.gate.problems import Problem
from palladion.gate.requests import Request
from palladion.gate.retention import Retention
from palladion.gate.seeds import open_seeds
from palladion.gate.standing import Standings, Step
from palladion.gate.together import Together
from palladion.gate.touches import UNOBSERVED, Touches, toucher, verdict_on
from palladion.gate.whys import Whys
from palladion.incident.links import Link, links_of
from palladion.keys import Root
from palladion.ledger.record import Record
from palladion.ledger.writer import BATCH_MAX, Receipt
from palladion.lifecycle.clients import standing_record
from palladion.lifecycle.installation import Installation
from palladion.policy import Policy, RoutePolicy
from palladion.registry import StandingChange
from palladion.watch.watch import Asker, Observation, Watch

HEARD_AT_ONCE = 16_384  # characters of texts that may be decoys, and one text more: at most some 10 ms
REFUSED_FROM_MAX = 8  # networks that a record of refusals names; a client can come from as many as it can pay for
NAMES_MAX = 65_536  # pseudonyms that are remembered, some 20 MiB; making one anew takes 2 µs


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
        retention: Retention | None = None,
    ) -> None:
        """`keep` writes changes of standing to the registry, after they are recorded. Must not raise.

        Without a `retainer`, routes that mark answers give none; without `retention`, no other queries are kept.
        """
        self.policy = installation.policy
        self.clock = installation.clock
        self.directory = directory
        self.watch = watch
        self.together = Together(self._observer, self.clock)
        self.deadlines = Deadlines()
        self.retainer = retainer
        self.retention = retention
        self.limits = Limits(self.policy, self.clock, pseudonyms=root.derive("pseudonyms"), work=root.derive("work"))
        self.meter = Meter()
        self.touches = Touches(directory.certified)
        self.refusals: Counter[tuple[str, str]] = Counter()  # since the last record of them, by client and kind
        self.refused_from: dict[tuple[str, str], set[str]] = {}  # the networks of these
        self.answered = 0
        # requests with rows too unlike honest ones, refused or not, and these rows: by route and mode
        self.unlike: Counter[tuple[str, str]] = Counter()
        self.unlike_rows: Counter[tuple[str, str]] = Counter()
        self.flipped = 0  # labels that marks turned: told of all together, since of one answer it would help a thief
        self.unrecorded: list[StandingChange] = []  # in effect already, and on their way into the ledger
        self.asked: list[StandingChange] = []  # on record, for a person to decide, and in no case yet
        self._journal = journal
        self._keep = keep
        self.modes = Modes(self.policy)
        self._standings = Standings(directory, self.policy.watch, self.modes, contracts=_under_contract(self.policy))
        self._own = own_contracts(self.policy)
        self._names = lru_cache(NAMES_MAX)(partial(pseudonym, root.derive("pseudonyms")))
        self._networks = lru_cache(NAMES_MAX)(partial(network_pseudonym, root.derive("pseudonyms")))
        self._links_of = partial(links_of, key=root.derive("pseudonyms"))
        self.whys = Whys(lambda: self.watch)
        self.intelligence = Intelligence(self.policy, self.clock, key=root.derive("pseudonyms"), name=self.name)
        self._both = SeeingBoth(lambda: self.watch)
        # outside, as signatures are of clients with a credential: whoever invents end users must not crowd them out
        self._seeing = Seeing(lambda: cast(Watch, self._both), self.intelligence.signatures)
        self.seeds = open_seeds(
            installation, root.derive("ledger-salts"), self.name, is_let_in=lambda client: client in directory.callers
        )
        watch.draw_onsets(root.derive("onsets"))
        self._recording: set[asyncio.Task[list[Receipt]]] = set()

    def renew(self, policy: Policy) -> None:
        """Go by another policy from now on; what was spent and observed counts on."""
        self.policy = policy
        self._own = own_contracts(policy)
        self.limits.renew(policy)
        self.watch.renew(policy.watch)
        self.intelligence.renew(policy)
        self.modes = Modes(policy)
        self._standings.renew(policy.watch, self.modes, contracts=_under_contract(policy))

    # 1. identify

    def identify(self, request: Request) -> Caller:
        """Who asks, as of now: a key can be revoked while a body arrives or a model runs. Raises Problem."""
        now = self.clock.now()
        try:
            caller = self.directory.identify(request.headers, now, request.peer)
        except Problem as problem:
            # whoever is refused takes this way, so that a decoy takes no longer: what is left is done later
            self.touches.put_aside(problem.decoy if isinstance(problem, DecoyProblem) else None, request, now)
            raise
        self.intelligence.note(caller.id, request.address, request.peer.system, now)
        return caller

    def name(self, client: str) -> str:
        """The client's pseudonym, as the ledger has it."""
        return self._names(client)

    def end_user(self, caller: Caller) -> dict[str, str]:
        """The member of a record's details that has the end user it was asked for, as a pseudonym; none without one."""
        return {} if caller.end_user is None else {"end_user": self.name(caller.end_user.id)}

    def network(self, request: Request) -> dict[str, str]:
        """The member of a record's details that has the network of a request, as a pseudonym; none if it is unknown."""
        network = self._networks(request.address) if request.address else ""
        return {"network": network} if network else {}

    def refused(self, caller: Caller, kind: str, request: Request) -> None:
        """Count a refusal, until they are recorded together."""
        self.refusals[caller.id, kind] += 1
        networks = self.refused_from.setdefault((caller.id, kind), set())
        if len(networks) < REFUSED_FROM_MAX:
            networks.update(self.network(request).values())

    # 2. admit

    def room(self, caller: Caller) -> AbstractContextManager[None]:
        """A place for one more request; only a part of them for one client. Entering it raises Problem."""
        return self.limits.places.room(caller.id)

    def reserve(
        self,
        caller: Caller,
        route: RoutePolicy,
        *,
        queries: float = 1,
        tokens: float = 0,
        information: float = 0,
        begin: bool = True,
    ) -> Reservation:
        """Set aside what a request may cost of today's budgets, until it is settled or released. Raises Problem.

        Takes up a place at the model as well, unless the model cannot `begin` yet, because a body has still to come.
        """
        if self.modes.level(caller, route) is None:
            raise Problem("suspended")
        held = self.limits.budgets.open(caller, route.model, seconds=self._seconds(route))
        try:
            held.reserve(queries=queries, tokens=tokens, information=information)
            if begin:
                held.begin()
        except Problem:
            held.release()
            raise
        return held

    def admit(
        self,
        caller: Caller,
        route: RoutePolicy,
        queries: int,
        *,
        rows: int = 1,
        address: str | None,
        spending: bool = True,
    ) -> None:
        """Spend `queries` of every rate, which lets in an end user; more `rows` than can ever be asked are told so.

        `address` is the request's. Raises Problem, and then nothing is spent. Unless `spending`, nothing is anyway:
        then it only says whether it could be.
        """
        if self.modes.effective(caller, route) not in LEVELS:
            raise Problem("suspended")
        divisor, of_user = self._standings.rate_divisors(caller, route)
        self.limits.rates.admit(
            caller,
            route.model,
            queries,
            rows=rows,
            divisor=divisor,
            user_divisor=of_user,
            address=address,
            spending=spending,
        )
        if spending:
            self.directory.enter(caller)

    def _seconds(self, route: RoutePolicy) -> float:
        """How long a request can take, from its head to its answer; nothing is reserved for longer."""
        answer = route.answer_seconds if route.protocol == "openai" else self.policy.gate.deadline_ms / 1000
        return self.policy.gate.body_seconds_max + answer

    # 5. observe

    def asker(self, caller: Caller, request: Request) -> Asker:
        """The caller as the watch knows it."""
        peer, prior = request.peer, self.intelligence.prior(caller.id)
        own = Asker(caller.id, caller.client.organisation, request.address, peer.payment, peer.device, peer.tls, prior)
        if caller.end_user is None or not self.directory.enter(caller):
            return own
        return asker_of(caller.end_user.client, own, by_proxy=names(peer, caller.user))

    def _observer(self) -> Watch:
        # all that is asked of it is `observe_all`
        return cast(Watch, self._seeing if self.intelligence.compares else self._both)

    def may_rise(self, caller: Caller) -> bool:
        """Whether `settle` could raise the caller, which then begins anew."""
        return caller.standing != "trusted" and self._standings.may_rise(caller, self.clock.now())

    def touched(
        self, caller: Caller, observation: Observation, decoys: Sequence[str], request: Request | None = None
    ) -> Observation:
        """What is observed of a caller whose request touched decoys, each of which is counted. `settle` it."""
        now, who = self.clock.now(), toucher(request, caller.id)
        for decoy in decoys:
            self.touches.add(decoy, who, now)
        if self.directory.enter(caller) and not isinstance(observation, Resold):
            observation = Resold.of(observation, observation)
        # what was observed counts where it asks for as much: of a campaign, it concerns others too
        return with_verdict(observation, verdict_on(decoys, self.policy.watch))

    async def heard(self, caller: Caller, request: Request, route: RoutePolicy, texts: Iterable[str]) -> Caller:
        """The caller as it stands after `texts` for a language model, which may be decoys. Raises Problem."""
        decoys: dict[str, None] = {}
        characters = 0
        for text in texts:
            decoys |= dict.fromkeys(self.directory.decoys.said(route.model, (text,)))
            characters += len(text)
            if characters > HEARD_AT_ONCE:
                characters = 0
                await asyncio.sleep(0)
        if not decoys:
            return caller
        caller = self.directory.current(caller)
        steps = self.settle(caller, route, self.touched(caller, UNOBSERVED, list(decoys), request))
        if steps:
            await self.record([], steps, route)
        return self.directory.current(caller)

    def settle(self, caller: Caller, route: RoutePolicy, observation: Observation, *, watched: str = "") -> list[Step]:
        """Put the verdict into effect, in memory; returns what changed, or would have.

        Where it was asked for an end user, of that one too. `watched` is the name under which the watch knows what was
        asked, if that is not the model's.
        """
        self.meter.verdicts[route.route, observation.verdict.standing] += 1
        steps = self._settle(caller, route, observation, watched or route.model)
        if caller.end_user is not None and isinstance(observation, Resold):
            steps += self._settle(caller.end_user, route, observation.end_user, watched or route.model)
        return steps

    def _settle(self, caller: Caller, route: RoutePolicy, observation: Observation, watched: str) -> list[Step]:
        concerned: AbstractSet[str] = frozenset((caller.id,))
        if observation.verdict.cause == "campaign":
            members = self.watch.members(caller.id, watched)
            concerned = members if caller.id in members else members | concerned
        steps = self._standings.settle(caller, concerned, route, observation, self.clock.now())
        if steps:
            steps = self.whys.explain(steps, caller.id, watched, observation.verdict)
        for step in steps:
            if step.raised:
                self.watch.forgive(step.change.client)
        return steps

    def links(self, clients: Sequence[str]) -> list[Link]:
        """What links these clients, as far as the watch knows; nothing of it in clear. Raises PalladionError."""
        return self._links_of(self.watch.links_between(clients)) if len(clients) > 1 else []

    def forgive(self, client: str) -> None:
        """Begin anew with a client whose standing was raised."""
        self.watch.forgive(client)
        self._standings.forget(client)

    def count_unlike(self, route: RoutePolicy, mode: Mode, *, rows: int) -> None:
        """Count a request so many of whose rows are too unlike honest ones, refused or not."""
        self.unlike[route.route, mode] += 1
        self.unlike_rows[route.route, mode] += rows

    # 7. disclose

    @property
    def promises(self) -> Own:
        """The contracts that promise a precision: for answers that are no arrays."""
        return self._own

    def terms(self, caller: Caller, route: RoutePolicy, contract: Contract) -> Terms | None:
        """What the caller's answers disclose on a route; None for nothing: it is suspended."""
        return terms_of(caller, self.modes.effective(caller, route), route, contract, self._own)

    # 8. record

    async def record(self, records: list[Record], steps: Sequence[Step], route: RoutePolicy) -> list[Receipt]:
        """Write the steps and `records`, and keep the changes; durable when this returns. Raises Problem."""
        if not steps:
            return await self._append(records)
        return await asyncio.shield(self.begin_recording(records, steps, route))

    def begin_recording(
        self, records: list[Record], steps: Sequence[Step], route: RoutePolicy
    ) -> asyncio.Task[list[Receipt]]:
        """`record` that goes on whether or not anybody waits, as it must: the change that a step says was made."""
        changes = [step.change for step in steps if not step.proposed_on]
        self.unrecorded += changes
        every = [*(self._step_record(step, route) for step in steps), *records]
        task = asyncio.create_task(self._record_steps(every, steps, changes))
        self._recording.add(task)
        task.add_done_callback(self._recorded)
        return task

    async def close(self) -> None:
        """Finish what is being recorded."""
        if self._recording:
            await asyncio.wait(self._recording)

    def _recorded(self, task: asyncio.Task[list[Receipt]]) -> None:
        self._recording.discard(task)
        # who waits is told; where nobody does, asyncio must not complain that nobody looked
        _ = task.cancelled() or task.exception()

    def _step_record(self, step: Step, route: RoutePolicy) -> Record:
        subject = self.name(step.change.client)
        why = {} if step.why is None else dict(step.why.details())
        if (reseller := step.before.client.parent) is not None:
            why["reseller"] = self.name(reseller)
        record = standing_record(step.change, before=step.before.standing, subject=subject, route=route.route, why=why)
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
        self.asked += [step.change for step in steps if step.for_a_person]
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


def _under_contract(policy: Policy) -> frozenset[tuple[str, str]]:
    return frozenset(contract.organisation_and_name for contract in policy.contract)
