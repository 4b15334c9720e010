"""Replays recorded traffic through the gate's own stages, under any policy: a dry run.

Limits, budgets, the watch and standings are those of `palladion.gate`, by the traffic's own clock, from a state in
which nobody has asked yet and everybody is trusted. Nothing is recorded, and nothing is kept. What it cannot know: how
long requests took (`requests_max`), who was refused already when the traffic was recorded, and what a thief would have
done on being answered otherwise.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from palladion.access.cedar import load_policies
from palladion.access.pseudonyms import pseudonym
from palladion.clock import ManualClock
from palladion.errors import FormatError
from palladion.gate.budgets import Reservation, heaviest, weight
from palladion.gate.callers import WATCH, Caller
from palladion.gate.contract import make_contract
from palladion.gate.curves import load_curve
from palladion.gate.decoys import NO_DECOYS, DecoyReader, Decoys
from palladion.gate.directory import Directory
from palladion.gate.problems import Problem
from palladion.gate.stages import Stages
from palladion.gate.standing import Step
from palladion.gate.unlike import refusal, require_share, rows_unlike
from palladion.keys import Root
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.policy import Policy, RoutePolicy
from palladion.policy.compare import digest
from palladion.redteam.answering import Answering, Shown, Subject, routes_of
from palladion.registry import Client, StandingChange
from palladion.watch.campaign_list import list_campaigns
from palladion.watch.recorded import Recorded
from palladion.watch.replay import Course, Outcome, Turn
from palladion.watch.watch import Asked, Asker, Watch

CLIENTS_MAX = 100_000  # the watch holds up to 16 KiB of each, so 1.6 GB
FORGET_EVERY = 10_000  # requests, after which limits let go of what does not count any more
STRANGER = "recorded:"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Roster:
    """Who the clients of recorded traffic are: those of this installation by name, pseudonym or id, and strangers."""

    def __init__(self, clients: Iterable[Client], key: bytes, decoys: Decoys = NO_DECOYS) -> None:
        """`key` is the gate root's "pseudonyms"; `decoys` are what none of them should ask."""
        self.decoys = decoys
        self._known: dict[str, Client] = {}
        self._organisations: set[str] = set()
        for client in clients:
            self._organisations.add(client.organisation)
            for name in (client.id, pseudonym(key, client.id), f"{client.organisation}/{client.name}"):
                self._known[name] = client
            if client.organisation == client.name:
                self._known.setdefault(client.name, client)

    def name(self, client: str) -> str:
        """What a client, by the id that `client` gives it, is called in reports; a stranger as lines name it."""
        known = self._known.get(client)
        return client.removeprefix(STRANGER) if known is None else f"{known.organisation}/{known.name}"

    def client(self, request: Recorded) -> Client:
        """The client that a line names; a stranger is one in an organisation of its own, unless the line names one."""
        return self.named(request.client, request.organisation)

    def named(self, said: str, of: str = "") -> Client:
        """The client that is called so, of the organisation `of` where that is said."""
        known = self._known.get(said)
        if known is not None:
            return known
        organisation, _, name = said.partition("/")
        if "://" in said:
            organisation, name = said, ""  # a SPIFFE id or an issuer's subject: the scheme is nobody
        organisation, name = of or organisation, name or organisation
        if organisation in self._organisations:
            organisation = f"{STRANGER}{organisation}"  # whoever writes a log names itself: it joins nobody by that
        # by an id that nobody has here, whatever it calls itself
        return Client(f"{STRANGER}{said}", organisation, name, (), "trusted", _EPOCH, None)


def read_roster(installation: Installation, root: Root) -> Roster:
    """The roster of all clients that the registry knows, those that were revoked included."""
    with installation.open_registry() as registry, registry.read() as records:
        return Roster(records.clients.all(), root.derive("pseudonyms"), DecoyReader(root).read(records))


class Run:
    """One model under one policy, for traffic in order of time. Everybody begins trusted and with full budgets.

    What is asked, and what is looked at in it, is of the kinds of traffic: `Replay`, `replay_talk.TalkReplay`.
    """

    def __init__(
        self,
        installation: Installation,
        root: Root,
        model: str,
        roster: Roster,
        policy: Policy,
        *,
        enforce: bool,
    ) -> None:
        """With `enforce`, all routes are taken as enforcing, for everybody. Raises PolicyError."""
        self._roster = roster
        self._clock = ManualClock(_EPOCH)
        if enforce:
            routes = tuple(msgspec.structs.replace(route, mode="enforce") for route in policy.route)
            contracts = tuple(msgspec.structs.replace(item, mode="") for item in policy.contract)
            self._policy = msgspec.structs.replace(policy, route=routes, contract=contracts)
        else:
            self._policy = policy
        found = routes_of(self._policy, model)
        self._routes = {route.route: route for route in found}
        self._first = msgspec.structs.replace(found[0], mode="enforce") if enforce else found[0]
        here = Installation(installation.paths, self._policy, self._clock)
        path = self._policy.access.policies
        access = load_policies(here.paths.home / Path(path).expanduser(), policy.route) if path else None
        self._directory = Directory(root.derive("client-key-pepper"), access=access)
        self._directory.decoys = roster.decoys
        self._watch = Watch(policy.watch)
        self._stages = Stages(
            here, root, directory=self._directory, watch=self._watch, journal=_Nowhere(), keep=_nothing
        )
        self._access = access
        self._digest = digest(policy)
        self._courses: dict[str, Course] = {}
        self._began: float | None = None
        self._requests = 0

    def outcome(self) -> Outcome:
        """What it has come to so far."""
        courses = list(self._courses.values())
        names = {client: course.client for client, course in self._courses.items()}
        campaigns = [
            replace(item, members=tuple(names.get(member, member) for member in item.members))
            for item in list_campaigns(self._watch, self._courses)
        ]
        return Outcome(
            self._digest,
            self._requests,
            sum(course.queries for course in courses),
            self._began,
            None if self._began is None else self._clock.now().timestamp(),
            courses,
            dict(sorted(self._stages.limits.refused.items())),
            campaigns,
        )

    def _begin(self, client: Client, at: float, *, line: str) -> tuple[Caller, Course]:
        """Who asks at that time (seconds since 1970), and its course, in which the request is counted already.

        Raises FormatError, naming the `line`, where there are more clients than can be watched.
        """
        # as a gate's limits: time never goes back
        self._clock.advance(max(datetime.fromtimestamp(at, UTC) - self._clock.now(), timedelta()))
        if self._began is None:
            self._began = at
        caller = self._directory.callers.get(client.id)
        if caller is None:
            if len(self._courses) >= CLIENTS_MAX:
                raise FormatError(f"{line} has one client too many: at most {CLIENTS_MAX} are replayed")
            caller = Caller(client, "trusted", _EPOCH, WATCH, access=self._access)
            self._directory.add(caller)
            self._courses[client.id] = Course(self._roster.name(client.id), client.organisation)
        course = self._courses[client.id]
        course.requests += 1
        self._requests += 1
        if self._requests % FORGET_EVERY == 0:
            self._stages.limits.changes()
        return caller, course

    def _turn(self, step: Step) -> None:
        client = step.change.client
        course = self._courses[client]
        explained = self._watch.explain(client)
        course.turns.append(
            Turn(
                step.change.standing,
                step.change.at.timestamp(),
                course.queries,
                step.change.reason,
                proposed=step.proposed_on is not None,
                features=() if step.raised or not explained else explained[0].reasons,
            )
        )


class Replay(Run):
    """One version, which is asked in rows of numbers."""

    def __init__(
        self,
        installation: Installation,
        root: Root,
        subject: Subject,
        roster: Roster,
        policy: Policy,
        *,
        enforce: bool,
    ) -> None:
        """As `Run`. Raises PolicyError where the policy does not fit."""
        model = subject.version.model
        super().__init__(installation, root, model, roster, policy, enforce=enforce)
        self._subject = subject
        for route in self._routes.values():
            require_share(route, subject.name, subject.calibration)
        self._contracts = {name: make_contract(route, subject.session.outputs) for name, route in self._routes.items()}
        self._watch.watch_model(model, subject.calibration, {})
        self._watch.learn(model, load_curve(subject.row))

    def take(self, shown: Shown) -> None:
        """Take the next request. Raises FormatError where there are more clients than can be watched."""
        request = shown.request
        caller, course = self._begin(self._roster.client(request), request.at, line=f"line {request.line}")
        if request.user is not None:
            caller = replace(caller, user=request.user)
        try:
            self._ask(shown, caller, self._routes.get(request.route, self._first), course)
        except Problem as problem:
            course.withheld[problem.kind] += 1

    def _ask(self, shown: Shown, caller: Caller, route: RoutePolicy, course: Course) -> None:
        """The stages of `gate.questions`, in their order. Raises Problem where there would be no answer."""
        stages, request = self._stages, shown.request
        if not caller.may("ask", route):
            raise Problem("forbidden")
        with stages.reserve(caller, route, information=1, begin=False) as held:
            stages.admit(caller, route, 1, address=request.address)
            if not shown.fits or len(shown.inputs) > self._policy.gate.rows_max:
                raise Problem("bad-input")
            rows = len(shown.inputs)
            if rows > 1:
                held.reserve(queries=rows - 1, information=rows - 1)
            held.begin()
            if rows > 1:
                stages.admit(caller, route, rows - 1, rows=rows, address=request.address)
            course.queries += rows
            self._observe(shown, caller, route, held)

    def _observe(self, shown: Shown, caller: Caller, route: RoutePolicy, held: Reservation) -> None:
        stages, request = self._stages, shown.request
        links = (request.address, request.payment, request.device, request.tls)
        asker = Asker(caller.id, caller.client.organisation, *links)
        now = self._clock.now().timestamp()
        asked = [Asked(asker, shown.inputs, shown.scores)]
        observation = self._watch.observe_all(route.model, asked, now=now)[0]
        decoys = self._directory.decoys.asked(route.model, shown.inputs)
        if decoys:
            observation = stages.touched(caller, observation, decoys)
        for step in stages.settle(caller, route, observation):
            self._turn(step)
        caller = self._directory.current(caller)
        terms = stages.terms(caller, route, self._contracts[route.route])
        if terms is None:
            held.settle(queries=0)
            raise Problem("suspended")
        if observation.calibrated:
            weighs = heaviest(terms, caller, route.model, self._policy.route, stages.terms)
            information = observation.new_buckets * weighs
        else:
            information = observation.distinct * weight(terms.level, terms.contract.answer)
        unlike = rows_unlike(route, self._subject.calibration, asked[0])
        if unlike:
            self._courses[caller.id].unlike += 1
            if stages.modes.of(caller, route) == "enforce":
                held.settle(queries=0, information=information)
                raise refusal(unlike, of=len(shown.inputs))
        if terms.level != "contract" or terms.perturbation is not None:
            self._courses[caller.id].reduced += 1
        held.settle(information=information)


def replay_all(
    requests: Iterable[Recorded],
    answering: Answering,
    replays: Sequence[Replay],
    *,
    broken: Callable[[FormatError], None] | None = None,
) -> int:
    """Show all requests to every replay, in order; returns how many there were.

    `broken` is told of those that cannot be used; without it FormatError is raised. Raises as `recorded.in_order` does.
    """
    count = 0
    for shown in answering.shown(requests):
        if shown.fault is not None:
            if broken is None:
                raise shown.fault
            broken(shown.fault)
            continue
        count += 1
        for replay in replays:
            replay.take(shown)
    return count


def of_model(requests: Iterable[Recorded], subject: Subject, policy: Policy) -> Iterator[Recorded]:
    """The requests that are for a model: those that name it, or a route of it, or say nothing."""
    model = subject.version.model
    models = {route.route: route.model for route in policy.route}
    for request in requests:
        named = request.model.partition("@")[0] or models.get(request.route, model)
        if named == model:
            yield request


class _Nowhere:
    """A journal of what must not be recorded."""

    async def append(self, records: Sequence[Record]) -> list[Receipt]:
        """Nobody calls it."""
        raise RuntimeError(f"{len(records)} records of a replay were about to be written")


async def _nothing(changes: Iterable[StandingChange]) -> None:
    """Nothing is kept."""
