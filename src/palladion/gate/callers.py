"""Callers of a gate, and what a roll of them is: what the registry says of clients at one moment.

Who a credential is of, and what has changed since, is `directory`.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from palladion.access.cedar import Cedar, Question
from palladion.gate.decoys import Decoys
from palladion.lifecycle.clients import route_scope, scope
from palladion.policy import RoutePolicy
from palladion.registry import Client, ClientKey, StandingChange
from palladion.registry.rows import END_USER, Standing
from palladion.watch.response import rank

WATCH = "watch"  # the actor of changes that no person decided
API_KEY, TOKEN, SPIFFE, CERTIFICATE = "api-key", "jwt", "spiffe", "certificate"


@dataclass(frozen=True)
class Caller:
    """An authenticated client: who it is, its standing, since when, and who decided that.

    `user` is its own customer on whose behalf it asks, where a proxy or a token that is believed says so; `credential`
    is how it has proved who it is. Without `access` policies, the scopes alone say what it may do. `end_user` is that
    customer as a client of its own, of a client that resells: then `standing`, `since` and `decided_by` are those of
    whoever stands lower, for this request; `Directory.callers` has the reseller's own.
    """

    client: Client
    standing: Standing
    since: datetime
    decided_by: str
    user: str | None = None
    credential: str = API_KEY
    access: Cedar | None = field(default=None, repr=False, compare=False)
    end_user: "Caller | None" = None

    @property
    def id(self) -> str:
        """The client's id."""
        return self.client.id

    def may(self, action: str, route: RoutePolicy) -> bool:
        """Whether scopes and policies let the client do this on a route; `action` is one of `access.cedar.ACTIONS`."""
        if self.access is None and not self.client.scopes:
            return True
        return self.may_ask(route.model, route.route, action)

    def may_ask(self, model: str, route: str = "", action: str = "ask") -> bool:
        """The same by names; without a `route`, on none in particular.

        A client without scopes may ask all; policies only ever take away from that.
        """
        client = self.client
        if client.scopes and scope(model) not in client.scopes and route_scope(route) not in client.scopes:
            return False
        if self.access is None:
            return True
        return self.access.permits(
            Question(client.organisation, client.name, self.standing, self.credential, action, model, route)
        )

    def asking_for(self, end_user: "Caller", user: str | None) -> "Caller":
        """The same, asking for an end user whose name is `user`."""
        lower = max(self, end_user, key=lambda caller: rank(caller.standing))
        return replace(
            self,
            user=user,
            standing=lower.standing,
            since=lower.since,
            decided_by=lower.decided_by,
            end_user=end_user,
        )

    def overrules(self, change: StandingChange) -> bool:
        """Whether a person put the client where it is, and later than `change` was decided."""
        return self.decided_by != WATCH and self.since > change.at


def newcomer(client: str, reseller: Client, now: datetime) -> Client:
    """The client that an end user is who asks for the first time, by its id."""
    name = f"{reseller.name}{END_USER}{client}"
    return Client(client, reseller.organisation, name, (), "trusted", now, None, parent=reseller.id)


class LookedUpCallers(MutableMapping[str, Caller]):
    """Callers by id that are read from the registry when they ask (`rolls`).

    They stand as at the `mark`, but for those that were `changed` since; `counts` is how many stand how.
    """

    mark: int
    changed: dict[str, Caller]
    counts: Counter[Standing]

    @abstractmethod
    def under(self, access: Cedar | None) -> "LookedUpCallers":
        """The same callers under other access policies."""

    @abstractmethod
    def named(self, organisation: str, name: str) -> Caller | None:
        """The caller of that name, if it is let in."""

    @abstractmethod
    def has_organisation(self, organisation: str) -> bool:
        """Whether anybody who is let in belongs to an organisation."""

    @abstractmethod
    def every(self) -> Iterable[Caller]:
        """Every caller, none of which is kept in memory."""

    @abstractmethod
    def hold(self, waiting: Mapping[str, Client]) -> None:
        """Let in the end users whom the registry does not have yet, by id: whoever waits for it whenever one asks."""

    @abstractmethod
    def enter(self, caller: Caller) -> None:
        """Count one who has just begun to wait."""

    @abstractmethod
    def drop(self, clients: Iterable[str]) -> None:
        """Forget end users, by id, whom the registry has no more."""


class AnyRoll(Protocol):
    """What a directory needs of a roll: one that was read in one piece, or that looks up who asks (`rolls`)."""

    @property
    def keys(self) -> Mapping[bytes, ClientKey]:
        """Live keys by their keyed hash."""
        ...

    @property
    def identities(self) -> Mapping[tuple[str, str], str]:
        """Clients by the kind and text of live identities."""
        ...

    @property
    def peppers(self) -> tuple[bytes, ...]:
        """Those of other gates whose clients were taken over."""
        ...

    @property
    def decoys(self) -> Decoys:
        """What nobody honest touches."""
        ...

    def entered(self, access: Cedar | None) -> "dict[str, Caller] | LookedUpCallers":
        """The callers by id, who may be changed."""
        ...

    def raised(self, before: Mapping[str, Caller], now: Mapping[str, Caller]) -> list[str]:
        """Those who stand better now than before."""
        ...
