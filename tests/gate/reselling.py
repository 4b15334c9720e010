"""A gate for tests whose client acme resells, and a watch that says of each client what it is told."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from palladion.access.users import end_user_id
from palladion.gate.callers import Caller
from palladion.gate.directory import Directory
from palladion.gate.end_users import HEADER, EndUsers
from palladion.gate.gate import Gate
from palladion.gate.requests import Peer, Request, Response
from palladion.gate.served import open_route
from palladion.gate.stages import Stages
from palladion.policy import Policy, RoutePolicy
from palladion.policy.resellers import ResellersPolicy
from palladion.registry import StandingChange
from palladion.watch.response import Verdict
from palladion.watch.watch import AnyAsked, Observation
from tests.gate.rolls import read_roll

from .gates import MODEL, Bench, House, MemoryJournal, ScriptedWatch


class PerClient(ScriptedWatch):
    """A watch that gives each client the verdict that it is told, and everybody else none."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.verdicts: dict[str, Verdict] = {}

    def observe_all(self, model: str, asked: Sequence[AnyAsked], *, now: float) -> list[Observation]:
        found = super().observe_all(model, asked, now=now)
        return [
            replace(observation, verdict=self.verdicts.get(item.asker.client, self.verdict))
            for item, observation in zip(asked, found, strict=True)
        ]


@dataclass(eq=False)
class Reselling(Bench):
    """A gate whose client acme asks for end users."""

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """By client id, what the watch says of it."""
        assert isinstance(self.watch, PerClient)
        return self.watch.verdicts

    @property
    def directory(self) -> Directory:
        """Who may come in."""
        return self.gate.stages.directory

    def id_of(self, user: str) -> str:
        """The id of an end user of acme."""
        return id_of(self.house, user)

    def caller(self, user: str) -> Caller:
        """An end user of acme who has asked."""
        return self.directory.callers[self.id_of(user)]

    def for_user(self, user: str | None, *, peer: Peer | None = None, client: str = "acme", **changes: Any) -> Request:
        """A request of acme for an end user."""
        request = self.request(client=client, **changes)
        named = {} if user is None else {HEADER: user.encode()}
        request.headers = {**request.headers, **named}
        if peer is not None:
            request.peer = peer
        return request

    def ask_for(self, user: str | None, **changes: Any) -> Response:
        """The answer to a request of acme for an end user."""
        (response,) = self.ask_all([self.for_user(user, **changes)])
        return response


def make_reseller(house: House, name: str = "acme") -> None:
    """Let a client of a house that is a test's own resell."""
    with house.installation.open_registry() as registry, registry.write() as records:
        records.end_users.declare(house.ids[name])


def id_of(house: House, user: str, name: str = "acme") -> str:
    """The id of an end user of a reseller of a house."""
    with house.installation.open_registry() as registry, registry.read() as records:
        reseller = records.clients.get(house.ids[name])
    return end_user_id(house.root.derive("pseudonyms"), reseller.secret, reseller.id, user)


def open_reselling(
    house: House, *routes: RoutePolicy, resellers: ResellersPolicy | None = None, **sections: Any
) -> Reselling:
    """A gate over a house, one of whose clients resells."""
    installation = house.with_policy(*(routes or (RoutePolicy(model=MODEL, mode="enforce"),)), **sections)
    policy: Policy = installation.policy
    end_users = EndUsers(house.root.derive("pseudonyms"), resellers or policy.resellers)
    directory = Directory(house.root.derive("client-key-pepper"), end_users=end_users)
    with house.installation.open_registry() as registry, registry.read() as records:
        directory.load(read_roll(records))
    watch, journal, kept = PerClient(policy.watch), MemoryJournal(), list[StandingChange]()

    async def keep(changes: Iterable[StandingChange]) -> None:
        kept.extend(changes)

    stages = Stages(installation, house.root, directory=directory, watch=watch, journal=journal, keep=keep)
    gate = Gate(stages)
    gate.serve({route.route: open_route(house.installation, route) for route in policy.route})
    clock: Any = installation.clock
    return Reselling(house, gate, clock, journal, watch, kept)
