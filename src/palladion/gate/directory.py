"""Who may come in: clients by the keyed hash of their API keys, and their standing, in memory and renewed at will."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from palladion.access.cedar import Cedar, Question
from palladion.access.certificates import Certificate
from palladion.access.identity import KEY_CHARACTERS_MAX, key_hasher, parse_api_key
from palladion.access.tokens import RefusedTokenError, Tokens
from palladion.errors import KeysError
from palladion.gate.credentials import fingerprint_of, read_credential
from palladion.gate.decoys import NO_DECOYS, DecoyProblem, Decoys
from palladion.gate.problems import Problem
from palladion.gate.requests import STRANGER, Peer
from palladion.keys import Root
from palladion.lifecycle.client_copy import peppers
from palladion.lifecycle.clients import route_scope, scope
from palladion.policy import RoutePolicy
from palladion.registry import Client, ClientKey, Records, StandingChange
from palladion.registry.rows import Standing
from palladion.watch.response import rank

WATCH = "watch"  # the actor of changes that no person decided
API_KEY, TOKEN, SPIFFE, CERTIFICATE = "api-key", "jwt", "spiffe", "certificate"
# What everybody is told whose credential has the right form: unknown, expired, revoked, of whatever kind.
_REFUSED = "the credential is not accepted"


@dataclass(frozen=True)
class Caller:
    """An authenticated client: who it is, its standing, since when, and who decided that.

    `user` is its own customer on whose behalf it asks, where a proxy or a token that is believed says so; `credential`
    is how it has proved who it is. Without `access` policies, the scopes alone say what it may do.
    """

    client: Client
    standing: Standing
    since: datetime
    decided_by: str
    user: str | None = None
    credential: str = API_KEY
    access: Cedar | None = field(default=None, repr=False, compare=False)

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

    def overrules(self, change: StandingChange) -> bool:
        """Whether a person put the client where it is, and later than `change` was decided."""
        return self.decided_by != WATCH and self.since > change.at


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


class AnyRoll(Protocol):
    """What a directory needs of a roll: `Roll`, or one that looks up who asks (`rolls`)."""

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


@dataclass(frozen=True)
class Roll:
    """What the registry says of clients at one moment: live keys by their keyed hash, and callers by client id.

    `identities` are those that are not revoked, by kind and text, with the client's id. `peppers` are those of other
    gates whose clients were taken over: what the hashes of their keys are keyed with.
    """

    keys: Mapping[bytes, ClientKey]
    callers: Mapping[str, Caller]
    identities: Mapping[tuple[str, str], str] = field(default_factory=dict)
    peppers: tuple[bytes, ...] = field(default=(), repr=False)
    decoys: Decoys = NO_DECOYS

    def entered(self, access: Cedar | None) -> dict[str, Caller]:
        """The callers by id, who may be changed."""
        if access is None:
            return dict(self.callers)
        return {client: replace(caller, access=access) for client, caller in self.callers.items()}

    def raised(self, before: Mapping[str, Caller], now: Mapping[str, Caller]) -> list[str]:
        """Those who stand better now than before."""
        return [
            client
            for client, caller in now.items()
            if client in before and rank(caller.standing) < rank(before[client].standing)
        ]


def read_roll(records: Records, gate: Root | None = None) -> Roll:
    """Every client that is not revoked, and every key and identity of theirs that is not.

    Without the `gate` root, keys that another gate made are not accepted.
    """
    standings = records.standings.current()
    callers = {
        client.id: Caller(client, change.standing, change.at, change.actor)
        for client in records.clients.all()
        if client.revoked_at is None
        for change in [standings[client.id]]
    }
    keys = {key_hash: key for key_hash, key in records.clients.credentials() if key.client in callers}
    live = records.identities.live()
    identities: dict[tuple[str, str], str] = {
        (row.kind, row.value): row.client for row in live if row.client in callers
    }
    return Roll(keys, callers, identities, peppers(records, gate) if gate is not None else ())


class Directory:
    """All clients of the registry, as of the last `load`, and what was changed since. For one thread."""

    def __init__(self, pepper: bytes, *, tokens: Tokens | None = None, access: Cedar | None = None) -> None:
        """Without `tokens`, nobody comes in by one; without `access`, scopes alone say who may do what."""
        self._hash = key_hasher(pepper)
        self._others: tuple[Callable[[bytes], bytes], ...] = ()
        self._tokens = tokens
        self._access = access
        self._keys: Mapping[bytes, ClientKey] = {}
        self._identities: Mapping[tuple[str, str], str] = {}
        self._callers: dict[str, Caller] | LookedUpCallers = {}
        self.decoys = NO_DECOYS
        self.version = 0  # another one whenever anybody may stand differently

    @property
    def callers(self) -> Mapping[str, Caller]:
        """Every client that is not revoked, by id."""
        return self._callers

    def renew_access(self, access: Cedar | None) -> None:
        """Go by other access policies from now on: who has come in already is judged by those that were in force."""
        self._access = access
        callers = self._callers
        if isinstance(callers, dict):
            self._callers = {client: replace(caller, access=access) for client, caller in callers.items()}
        else:
            self._callers = callers.under(access)
        self.version += 1

    def strangers(self) -> list[str]:
        """Clients and organisations that the access policies name and nobody is."""
        if self._access is None:
            return []
        clients, organisations = self._access.mentioned()
        split = [tuple(name.split("/", 1)) for name in clients]
        found = [(name[0], name[1]) for name in split if len(name) == 2 and self.named(name[0], name[1])]
        return self._access.strangers([*found, *((name, "") for name in organisations if self._has_organisation(name))])

    def named(self, organisation: str, name: str) -> Caller | None:
        """The client of that name, if it is not revoked."""
        if isinstance(self._callers, dict):
            wanted = (organisation, name)
            every = self._callers.values()
            return next((item for item in every if (item.client.organisation, item.client.name) == wanted), None)
        return self._callers.named(organisation, name)

    def _has_organisation(self, organisation: str) -> bool:
        if isinstance(self._callers, dict):
            return any(caller.client.organisation == organisation for caller in self._callers.values())
        return self._callers.has_organisation(organisation)

    @property
    def mark(self) -> int | None:
        """That of the roll, where it looks up who asks."""
        return None if isinstance(self._callers, dict) else self._callers.mark

    @property
    def changed(self) -> int:
        """How many changes of standing it holds that its roll does not have, where it looks up who asks."""
        return 0 if isinstance(self._callers, dict) else len(self._callers.changed)

    def snapshot(self) -> Iterable[Caller]:
        """Every caller, for somebody who takes a while and lets others change them meanwhile."""
        callers = self._callers
        return list(callers.values()) if isinstance(callers, dict) else callers.every()

    def standings(self) -> Counter[Standing]:
        """How many clients stand how."""
        if isinstance(self._callers, dict):
            return Counter(caller.standing for caller in self._callers.values())
        return Counter(self._callers.counts)

    def load(self, roll: AnyRoll, unwritten: Iterable[StandingChange] = ()) -> list[str]:
        """Take over what the registry says; returns the clients whose standing was raised since the last time.

        `unwritten` are changes that the watch decided and the registry does not have yet: they hold, unless a person
        decided something later. Without them, any command would undo the watch's last decisions.
        """
        before, self._keys, self._callers = self._callers, roll.keys, roll.entered(self._access)
        self._identities, self.decoys = roll.identities, roll.decoys
        self.version += 1
        self._others = tuple(map(key_hasher, roll.peppers))
        if self._tokens is not None:
            self._tokens.forget()
        for change in unwritten:
            known = self._callers.get(change.client)
            if known is not None and not known.overrules(change):
                self.change(change)
        return roll.raised(before, self._callers)

    def identify(self, headers: Mapping[bytes, bytes], now: datetime, peer: Peer = STRANGER) -> Caller:
        """The client whose credential this is: an API key or a token in the headers, or else the peer's certificate.

        Raises Problem. An unknown, a revoked and an expired credential are told apart in no way, of whatever kind.
        """
        text = read_credential(headers)
        if text is None:
            if peer.certificate is None:
                raise Problem("unauthenticated", "Authorization: Bearer KEY was expected")
            return self._of_certificate(peer, peer.certificate, now)
        if self._tokens is not None and b"." in text and b"authorization" in headers:
            return self._of_token(self._tokens, text, peer, now)
        caller = self._of_key(text, now)
        if peer is STRANGER:
            return caller
        self._require_one_client(caller.id, peer)
        return caller if peer.user is None else replace(caller, user=peer.user)

    def current(self, caller: Caller) -> Caller:
        """The same caller, standing as it stands now."""
        known = self._let_in(caller.id)
        if caller.user is None and caller.credential == API_KEY:
            return known
        return replace(known, user=caller.user, credential=caller.credential)

    def _of_key(self, text: bytes, now: datetime) -> Caller:
        if len(text) > KEY_CHARACTERS_MAX or not text.isascii():
            raise Problem("unauthenticated", "this is not an API key")
        # the look-up may take a different time for different hashes: without the pepper nobody can choose one
        hashed = self._hash(text)
        key = self._keys.get(hashed) or self._made_elsewhere(text)
        if key is not None and (key.expires is None or now < key.expires):
            return self._let_in(key.client)
        try:
            # what is wrong with it, if it is none; one that is over takes as long as one that never was
            parse_api_key(text.decode("ascii"))
        except KeysError as error:
            raise Problem("unauthenticated", error.message) from None
        # looked up for whatever is unknown, and answered with the same
        decoy = self.decoys.keys.get(hashed)
        raise Problem("unauthenticated", _REFUSED) if decoy is None else DecoyProblem(decoy, _REFUSED)

    def _let_in(self, client: str) -> Caller:
        """The caller of an id that a credential names; it may have been revoked since that was looked up."""
        known = self._callers.get(client)
        if known is None:
            raise Problem("unauthenticated", _REFUSED)
        return known

    def _made_elsewhere(self, text: bytes) -> ClientKey | None:
        """The key, if it is one that another gate made: hashed once for each of these gates."""
        return next((key for digest in self._others if (key := self._keys.get(digest(text))) is not None), None)

    def _of_token(self, tokens: Tokens, text: bytes, peer: Peer, now: datetime) -> Caller:
        try:
            token = tokens.verify(text, now.timestamp())
        except RefusedTokenError:
            # why is counted, and told to nobody who may be trying
            raise Problem("unauthenticated", _REFUSED) from None
        client = self._identities.get((TOKEN, token.identity))
        if client is None or (token.bound_to is not None and token.bound_to != fingerprint_of(peer, now)):
            raise Problem("unauthenticated", _REFUSED)
        if peer is not STRANGER:
            self._require_one_client(client, peer)
        known = self._let_in(client)
        user = token.user or peer.user
        return Caller(known.client, known.standing, known.since, known.decided_by, user, TOKEN, known.access)

    def _of_certificate(self, peer: Peer, certificate: Certificate, now: datetime) -> Caller:
        if certificate.expires is not None and certificate.expires <= now:
            raise Problem("unauthenticated", _REFUSED)
        clients = self._certified(certificate)
        if len(clients) != 1:
            raise Problem("unauthenticated", _REFUSED)
        ((client, credential),) = clients.items()
        return replace(self._let_in(client), user=peer.user, credential=credential)

    def _certified(self, certificate: Certificate) -> dict[str, str]:
        """Whom a certificate names, and by what; two, where its SPIFFE id is one client's and its digest another's."""
        found: dict[str, str] = {}
        for kind, name in ((CERTIFICATE, certificate.fingerprint), (SPIFFE, certificate.spiffe)):
            client = None if name is None else self._identities.get((kind, name))
            if client is not None:
                found[client] = kind
        return found

    def certified(self, peer: Peer) -> str | None:
        """The client, by id, whose certificate the peer has shown, whatever it said beside; None if it is nobody's."""
        known = self._certified(peer.certificate) if peer.certificate is not None else {}
        return next(iter(known)) if len(known) == 1 else None

    def _require_one_client(self, client: str, peer: Peer) -> None:
        """A certificate that is registered counts beside a key or a token too: a stolen one is of no use to others."""
        if peer.certificate is not None and self._certified(peer.certificate).keys() - {client}:
            raise Problem("unauthenticated", _REFUSED)

    def change(self, change: StandingChange) -> None:
        """Take over a change of standing at once."""
        caller = self._callers.get(change.client)
        if caller is not None:
            self.put(replace(caller, standing=change.standing, since=change.at, decided_by=change.actor))

    def add(self, caller: Caller) -> None:
        """Let in a client that the registry need not know: of traffic that is replayed."""
        self._callers[caller.id] = caller
        self.version += 1

    def put(self, caller: Caller) -> None:
        """Let a client stand as `caller` says, if it is still let in."""
        if caller.id in self._callers:
            # how one request has come in, for which user and under which policies, says nothing of the client
            self._callers[caller.id] = replace(caller, user=None, credential=API_KEY, access=self._access)
            self.version += 1
