"""End users of clients that resell, as clients of their own: who they are, who is new, and that the watch sees both.

Who names one can invent one, so nothing here takes anything from what is known of the reseller: each query counts for
it as it always did, and for its end user beside. What is kept of end users is bounded, and kept as of other clients.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import lru_cache, partial
from operator import attrgetter

import msgspec

from palladion.access.networks import caseless
from palladion.access.users import end_user_id, user_name
from palladion.gate.callers import newcomer
from palladion.gate.problems import Problem
from palladion.gate.requests import Peer, Request
from palladion.policy.resellers import ResellersPolicy
from palladion.registry import Client
from palladion.watch.response import Verdict, rank
from palladion.watch.watch import AnyAsked, Asked, AskedTexts, Asker, Observation, Watch

HEADER = b"palladion-end-user"  # by which a reseller names one itself, where no proxy and no token does
WAITING_MAX = 65_536  # new ones that the registry does not have yet, some 50 MiB: it is written to each second
IDS_CACHED = 16_384  # hashing a name takes 3 µs
_SHOWN = attrgetter(*(field.name for field in fields(Asker)))
_OBSERVED = attrgetter(*(field.name for field in fields(Observation)))


class _Named(msgspec.Struct):
    """Who a body says that it is asked for; OpenAI calls it so now, and `user` before."""

    user: str | None = None
    safety_identifier: str | None = None


_NAMED = msgspec.json.Decoder(_Named)


@dataclass(frozen=True)
class ResellingAsker(Asker):
    """A client that asks for an end user, who is to be observed as well."""

    end_user: Asker | None = None


@dataclass(frozen=True, slots=True)
class Resold(Observation):
    """What is observed of a client that asks for an end user, and of that one."""

    end_user: Observation

    @classmethod
    def of(cls, reseller: Observation, end_user: Observation) -> "Resold":
        """Both."""
        return cls(*(*_OBSERVED(reseller), end_user))


def asker_of(client: Client, shown: Asker, *, by_proxy: bool) -> Asker:
    """Who asks `shown` for an end user, as the watch knows it.

    What a proxy says of a request for somebody whom it names itself (`by_proxy`) is said of that one: then it links
    the end user with others. Where the reseller names him, it is the reseller's own address.
    """
    alone = Asker(client.id, client.judged_with)
    if not by_proxy:
        end_user = alone
    else:
        end_user = replace(shown, client=alone.client, organisation=alone.organisation, prior=alone.prior)
        # else the reseller would be judged together with its end users, by the same queries twice
        shown = Asker(shown.client, shown.organisation, prior=shown.prior)
    return ResellingAsker(*(*_SHOWN(shown), end_user))


def names(peer: Peer, user: str | None) -> bool:
    """Whether a proxy names this very end user. Where a token does, the proxy may speak of somebody else."""
    return peer.user is not None and user is not None and caseless(peer.user) == caseless(user)


def with_verdict(observation: Observation, verdict: Verdict) -> Observation:
    """The same with another verdict, where that asks for more; nothing is quiet about it."""
    stricter = max(observation.verdict, verdict, key=lambda item: rank(item.standing))
    found = replace(observation, verdict=stricter, quiet_hours=0.0)
    return replace(found, end_user=with_verdict(found.end_user, verdict)) if isinstance(found, Resold) else found


class SeeingBoth:
    """What requests are observed by: a watch that sees a reseller's queries, and its end users'."""

    def __init__(self, watch: Callable[[], Watch]) -> None:
        """`watch` is asked for each time; only `observe_all` is called."""
        self._watch = watch

    def observe_all(self, model: str, asked: Sequence[AnyAsked], *, now: float) -> list[Observation]:
        """As the watch does; a request for an end user is observed once for each of both, and is `Resold`."""
        end_users = [item.asker.end_user if isinstance(item.asker, ResellingAsker) else None for item in asked]
        watch = self._watch()
        if not any(end_users):
            return watch.observe_all(model, asked, now=now)
        every: list[AnyAsked] = []
        for item, end_user in zip(asked, end_users, strict=True):
            every.append(item)
            if end_user is not None:
                every.append(_asked_by(end_user, item))
        observed = iter(watch.observe_all(model, every, now=now))
        return [
            observation if end_user is None else Resold.of(observation, next(observed))
            for end_user in end_users
            for observation in (next(observed),)
        ]


class EndUsers:
    """The end users that a gate lets in: their ids, and who is not in the registry yet. For one event loop."""

    def __init__(self, key: bytes, policy: ResellersPolicy) -> None:
        """`key` is the gate root's "pseudonyms"."""
        self.policy = policy
        self.waiting: dict[str, Client] = {}
        self._waiting_of: Counter[str | None] = Counter()  # by reseller
        self.gone: Callable[[Iterable[str]], None] = lambda clients: None  # is told by id who was dropped
        self._id = lru_cache(IDS_CACHED)(partial(end_user_id, key))

    def named(self, user: str | None, headers: Mapping[bytes, bytes]) -> str | None:
        """The end user of a reseller's request: whom a proxy or a token names, or else the reseller. Raises Problem."""
        said = headers.get(HEADER)
        if user is None and said is not None:
            try:
                return user_name(said.decode())
            except ValueError:
                raise Problem("bad-request", "this is not the name of an end user", field=HEADER.decode()) from None
        if user is None and self.policy.unnamed == "refuse":
            raise Problem("bad-request", "the name of an end user was expected", field=HEADER.decode())
        return user

    def id_of(self, reseller: Client, user: str) -> str:
        """The id of an end user of a client that resells."""
        return self._id(reseller.secret, reseller.id, user)

    def enter(self, client: str, reseller: Client, now: datetime) -> Client | None:
        """The client that an end user is from now on, who is in the registry soon; None if there is no room.

        A reseller may take as many places as it leaves free, so that whoever invents names fills none of another's.
        """
        if self._waiting_of[reseller.id] >= WAITING_MAX - len(self.waiting):
            return None
        made = newcomer(client, reseller, now)
        self.waiting[client] = made
        self._waiting_of[reseller.id] += 1
        return made

    def written(self, clients: Iterable[str], dropped: Iterable[str]) -> None:
        """The registry has `clients` now, and no more those that were `dropped` for them."""
        for client in clients:
            if (was := self.waiting.pop(client, None)) is not None:
                self._waiting_of[was.parent] -= 1
        self._waiting_of = +self._waiting_of  # without those of whom nobody waits
        self.gone(dropped)


def name_from(request: Request, body: bytes) -> bool:
    """Let the end user that a body in OpenAI's form names be that of a request, and say whether it names one.

    As if the header did: whoever asks again who is asking finds it there. What is no such body is told by who reads it.
    """
    try:
        named = _NAMED.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    user = named.safety_identifier or named.user
    if not user or HEADER in request.headers:
        return False
    request.headers = {**request.headers, HEADER: user.encode(errors="surrogatepass")}
    return True


def _asked_by(asker: Asker, asked: AnyAsked) -> AnyAsked:
    if isinstance(asked, Asked | AskedTexts):
        return replace(asked, asker=asker)
    raise TypeError(f"requests with askers were expected, got {type(asked).__name__}")
