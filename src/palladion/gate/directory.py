"""Who may come in: clients by the keyed hash of their API keys, and their standing, in memory and renewed at will."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from palladion.access.cedar import Cedar
from palladion.access.certificates import Certificate
from palladion.access.identity import KEY_CHARACTERS_MAX, key_hasher, parse_api_key
from palladion.access.tokens import RefusedTokenError, Tokens
from palladion.errors import KeysError
from palladion.gate.callers import (
    API_KEY,
    CERTIFICATE,
    SPIFFE,
    TOKEN,
    WATCH,
    AnyRoll,
    Caller,
    LookedUpCallers,
    newcomer,
)
from palladion.gate.credentials import fingerprint_of, read_credential
from palladion.gate.decoys import NO_DECOYS, DecoyProblem
from palladion.gate.end_users import EndUsers
from palladion.gate.problems import Problem
from palladion.gate.requests import STRANGER, Peer
from palladion.registry import Client, ClientKey, StandingChange
from palladion.registry.end_users import DECIDED_PART
from palladion.registry.rows import Standing

# What everybody is told whose credential has the right form: unknown, expired, revoked, of whatever kind.
_REFUSED = "the credential is not accepted"


class Directory:
    """All clients of the registry, as of the last `load`, and what was changed since. For one thread."""

    def __init__(
        self,
        pepper: bytes,
        *,
        tokens: Tokens | None = None,
        access: Cedar | None = None,
        end_users: EndUsers | None = None,
        decided: Mapping[str, int] | None = None,
    ) -> None:
        """Without `tokens`, nobody comes in by one; without `access`, scopes alone say who may do what.

        Without `end_users`, those of clients that resell are no clients of their own. `decided` is how many of a
        client's have a history, by its id: beyond a number nobody new is one.
        """
        self._hash = key_hasher(pepper)
        self._others: tuple[Callable[[bytes], bytes], ...] = ()
        self._tokens = tokens
        self._access = access
        self._keys: Mapping[bytes, ClientKey] = {}
        self._identities: Mapping[tuple[str, str], str] = {}
        self._callers: dict[str, Caller] | LookedUpCallers = {}
        self.decoys = NO_DECOYS
        self._end_users = end_users
        self._decided: Mapping[str, int] = {} if decided is None else decided
        if end_users is not None:
            end_users.gone = self._drop
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
        if self._end_users is not None:
            waiting, callers = self._end_users.waiting, self._callers
            if isinstance(callers, dict):
                for client in waiting.values():
                    callers.setdefault(client.id, Caller(client, "trusted", client.created, WATCH))
            else:
                callers.hold(waiting)
        for change in unwritten:
            known = self._callers.get(change.client)
            if known is not None and not known.overrules(change):
                self.change(change)
        return roll.raised(before, self._callers)

    def identify(self, headers: Mapping[bytes, bytes], now: datetime, peer: Peer = STRANGER) -> Caller:
        """The client whose credential this is: an API key or a token in the headers, or else the peer's certificate.

        With its end user, if it resells and one is named, who is let in only once it may ask (`enter`). Raises Problem.
        An unknown, a revoked and an expired credential are told apart in no way, of whatever kind.
        """
        caller = self._identified(headers, now, peer)
        if not caller.client.reseller or self._end_users is None:
            return caller
        user = self._end_users.named(caller.user, headers)
        if user is None:
            return caller
        end_user = self._end_user(caller.client, user, now)
        return replace(caller, user=user) if end_user is None else caller.asking_for(end_user, user)

    def _identified(self, headers: Mapping[bytes, bytes], now: datetime, peer: Peer) -> Caller:
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
        known = replace(known, user=caller.user, credential=caller.credential)
        if caller.end_user is None:
            return known
        # one who was dropped since stands as it did
        return known.asking_for(self._callers.get(caller.end_user.id) or caller.end_user, caller.user)

    def reseller_of(self, caller: Caller) -> Caller:
        """The client that asks for an end user, or whoever else it is itself: modes and contracts are that one's."""
        parent = caller.client.parent
        return caller if parent is None else self._callers.get(parent) or caller

    def enter(self, caller: Caller) -> bool:
        """Let in the end user that a client asks for, now that it may: whether it is one with a standing of its own.

        Not before, or whoever is refused would fill memory and registry with names. Where there is no room for it, the
        client is judged alone.
        """
        asks_for, end_users = caller.end_user, self._end_users
        if asks_for is None or end_users is None:
            return False
        if self._callers.get(asks_for.id) is not None:
            return True
        made = end_users.enter(asks_for.id, caller.client, asks_for.since)
        if made is None:
            return False
        entered = Caller(made, "trusted", made.created, WATCH, access=self._access)
        if isinstance(self._callers, dict):
            self._callers[entered.id] = entered
        else:
            self._callers.enter(entered)
        return True

    def _end_user(self, reseller: Client, user: str, now: datetime) -> Caller | None:
        """An end user as a client, let in or not yet; None if there is no room for another one."""
        end_users = self._end_users
        if end_users is None:
            return None
        client = end_users.id_of(reseller, user)
        known = self._callers.get(client)
        if known is None:
            if self._is_full(reseller.id):
                return None
            known = Caller(newcomer(client, reseller, now), "trusted", now, WATCH)
        # else it is somebody whose id is the same by chance
        return known if known.client.parent == reseller.id else None

    def _is_full(self, reseller: str) -> bool:
        """Whether so many of a client's end users have a history that the registry takes no more."""
        most = 0 if self._end_users is None else self._end_users.policy.end_users_max
        return self._decided.get(reseller, 0) >= DECIDED_PART * most

    def _drop(self, clients: Iterable[str]) -> None:
        """Let end users go whom the registry has no more; who was put elsewhere meanwhile goes there again."""
        callers, end_users = self._callers, self._end_users
        changed = callers if isinstance(callers, dict) else callers.changed
        gone: list[str] = []
        for client in clients:
            known = changed.get(client)
            if known is None or known.standing == "trusted" or known.client.parent not in callers or end_users is None:
                gone.append(client)
            else:
                end_users.waiting[client] = known.client
        if not isinstance(callers, dict):
            callers.drop(gone)
            return
        for client in gone:
            callers.pop(client, None)

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
        # an end user has no credential, whatever the registry says
        if known is None or known.client.parent is not None:
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
            self._callers[caller.id] = replace(
                caller, user=None, credential=API_KEY, access=self._access, end_user=None
            )
            self.version += 1
