"""What feeds know of the clients of a gate: looked up as they come, recorded once, and weighed as hints with an end.

A hit never changes a p-value and never steps anybody down. It moves the threshold at which a client that its own
queries make suspicious is *watched*, by as much as `weights` allow; but for hits of signatures, which are made of the
same queries and are only told. In memory, for one event loop, bounded whatever comes.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from palladion.clock import Clock, timestamp
from palladion.errors import PalladionError
from palladion.gate.intelligence.signatures import Signatures
from palladion.gate.intelligence.weights import Weights
from palladion.intel.indicators import Hit, LoadedFeed, hit_record, look_up, prior
from palladion.intel.sketch import Sketch
from palladion.ledger.record import Record
from palladion.policy import Policy
from palladion.watch.response import NO_PRIOR, Prior

ACTOR = "gate"
CLIENTS_MAX = 65_536  # of whom something is remembered, those who asked last: 28 MB, and 150 if feeds listed them all
PLACES_MAX = 8  # addresses that a client may use by turns without being looked up each time
HITS_MAX = 16  # of one client at once; those that end soonest go
TOLD_MAX = 64  # hits of one client that are recorded, of the versions that are loaded: a rule looks for five networks
LOOKED_FOR = timedelta(minutes=10)  # until a client is looked up again at the same address
HELD_FOR = timedelta(days=1)  # after a client was last seen where a feed lists it; its end may come sooner
WAITING_MAX = 1000  # records; who finds no room is told of when it is looked up again
RECORDED_AT_ONCE = 100  # asked for every ten seconds: 600 in a minute, whatever comes
WORDS_MAX = 3  # hits that a reason names
_NEVER = datetime.min.replace(tzinfo=UTC)

_WHAT = {
    "networks": "address listed by",
    "tor": "address listed by",
    "asn": "provider's network listed by",
    "queries": "queries like a harvest listed by",
}


@dataclass(eq=False, slots=True)
class _Held:
    """A hit of a client, and until when it counts: as long as the feed says, and a day after it was last found."""

    hit: Hit
    until: datetime


@dataclass(eq=False, slots=True)
class _Known:
    """What is remembered of a client; `places` were looked up since `since` and need not be until `until`."""

    places: tuple[tuple[str | None, int | None], ...] = ()
    until: datetime = _NEVER
    generation: int = 0
    held: dict[tuple[str, str], _Held] = field(default_factory=dict)
    told: dict[tuple[str, str, str], None] = field(default_factory=dict)  # an empty set takes three times as much
    prior: Prior = NO_PRIOR


class Intelligence:
    """The loaded feeds, and what they say of clients."""

    def __init__(self, policy: Policy, clock: Clock, *, key: bytes, name: Callable[[str], str]) -> None:
        """`key` is the gate root's "pseudonyms", and `name` gives a client's."""
        self._clock = clock
        self._key = key
        self._name = name
        self._feeds: tuple[LoadedFeed, ...] = ()
        self._generation = 0
        self._clients: OrderedDict[str, _Known] = OrderedDict()  # who asked longest ago comes first
        self._waiting: deque[Record] = deque()
        self.hits: Counter[tuple[str, str]] = Counter()  # new ones, by feed and kind
        self.recorded = 0
        self.signatures = Signatures(self._compare)
        self.weights = Weights(_share(policy))
        self.renew(policy)

    @property
    def feeds(self) -> Sequence[LoadedFeed]:
        """What is loaded."""
        return self._feeds

    @property
    def compares(self) -> bool:
        """Whether queries are to be seen: a feed lists harvests."""
        return self._compares

    @property
    def waiting(self) -> int:
        """How many hits wait for being recorded."""
        return len(self._waiting)

    def renew(self, policy: Policy) -> None:
        """Go by another policy from now on: a feed that is not in it any more says nothing."""
        self._active = bool(policy.feed)
        self._compares = any(feed.kind == "queries" for feed in policy.feed)
        self.weights.share = _share(policy)
        self._plain = Prior(1 - self.weights.share) if self.weights.share else NO_PRIOR  # of whom no feed lists
        if not self._compares:
            self.signatures.clear()
        named = {feed.name: feed for feed in policy.feed}
        kept = [feed for feed in self._feeds if feed.policy == named.get(feed.policy.name)]
        if len(kept) != len(self._feeds):
            self.take(kept)

    def take(self, feeds: Sequence[LoadedFeed]) -> None:
        """Look into these from now on; who is known is looked up again at its next request."""
        self._feeds = tuple(feeds)
        self._generation += 1

    def note(self, client: str, address: str | None, system: int | None, now: datetime) -> None:
        """A client asks, from an address and out of an autonomous system, if these can be believed.

        Looks it up, unless that was done of late: nearly always it was.
        """
        if not self._active:
            return
        known = self._clients.get(client)
        if (
            known is None
            or known.generation != self._generation
            or now >= known.until
            or (address, system) not in known.places
        ):
            self._look_up(client, address, system, now)

    def prior(self, client: str) -> Prior:
        """What a client's threshold is weighed by, as of when it was last looked up."""
        known = self._clients.get(client)
        return NO_PRIOR if known is None else known.prior

    def words(self, client: str) -> list[str]:
        """What is to be said to a person of the hits of a client, the heaviest first."""
        known, now = self._clients.get(client), self._clock.now()
        held = [] if known is None else [item for item in known.held.values() if item.until > now]
        return [_words(item) for item in sorted(held, key=_heaviest)]

    async def record(self, append: Callable[[Sequence[Record]], Awaitable[object]]) -> None:
        """Record some of the hits that wait. Raises PalladionError, and then they go on waiting."""
        some = [self._waiting.popleft() for _ in range(min(RECORDED_AT_ONCE, len(self._waiting)))]
        if not some:
            return
        try:
            await append(some)
        except PalladionError:
            self._waiting.extendleft(reversed(some))
            raise
        self.recorded += len(some)

    def _look_up(self, client: str, address: str | None, system: int | None, now: datetime) -> None:
        known = self._of(client)
        if known.generation != self._generation:
            loaded = {(feed.policy.name, feed.version) for feed in self._feeds}
            known.held = {at: item for at, item in known.held.items() if (item.hit.feed, item.hit.version) in loaded}
            known.told = {told: None for told in known.told if told[:2] in loaded}
            known.generation, known.until = self._generation, _NEVER
        if now >= known.until or len(known.places) >= PLACES_MAX:
            known.places = ()
        known.places = (*known.places, (address, system))
        hits = [] if address is None else look_up(self._feeds, address, now)
        if system is not None:
            hits += [hit for feed in self._feeds if (hit := feed.system(system, now)) is not None]
        self._hold(client, known, hits, now)

    def _compare(self, client: str, sketch: Sketch) -> None:
        """A client's queries were brought into a signature: hold it against the known ones."""
        now = self._clock.now()
        hits = [hit for feed in self._feeds if (hit := feed.queries(sketch, now)) is not None]
        # it may be forgotten by now
        if hits and (known := self._clients.get(client)) is not None:
            self._hold(client, known, hits, now)

    def _of(self, client: str) -> _Known:
        known = self._clients.get(client)
        if known is not None:
            self._clients.move_to_end(client)
            return known
        known = self._clients[client] = _Known()
        self.weights.enter()
        while len(self._clients) > CLIENTS_MAX:
            self._clients.popitem(last=False)
            self.weights.leave()
        return known

    def _hold(self, client: str, known: _Known, hits: Sequence[Hit], now: datetime) -> None:
        """Take hits in, tell of those that are new, and weigh what there is."""
        for hit in hits:
            known.held[hit.feed, hit.indicator] = _Held(hit, min(hit.expires, now + HELD_FOR))
            self._tell(client, known, hit, now)
        known.held = {at: item for at, item in known.held.items() if item.until > now}
        while len(known.held) > HITS_MAX:
            known.held.pop(min(known.held, key=lambda at: known.held[at].until))
        known.until = min([now + LOOKED_FOR, *(item.until for item in known.held.values())])
        # a weight must not depend on what the client asks (`weights`), and a signature is nothing else
        beside = [item.hit for item in known.held.values() if item.hit.kind != "queries"]
        log_odds = prior(beside, now)
        weight = self.weights.of(client, log_odds)
        words = "; ".join(map(_words, sorted(known.held.values(), key=_heaviest)[:WORDS_MAX]))
        if (weight, words) != (known.prior.weight, known.prior.words):
            known.prior = self._plain if (weight, words) == (self._plain.weight, "") else Prior(weight, words)

    def _tell(self, client: str, known: _Known, hit: Hit, now: datetime) -> None:
        told = (hit.feed, hit.version, hit.indicator)
        if told in known.told or len(known.told) >= TOLD_MAX or len(self._waiting) >= WAITING_MAX:
            return
        known.told[told] = None
        self.hits[hit.feed, hit.kind] += 1
        self._waiting.append(hit_record(hit, client=self._name(client), actor=ACTOR, key=self._key, now=now))


def _share(policy: Policy) -> float:
    return policy.intel.threshold_share if any(feed.weight > 0 for feed in policy.feed) else 0.0


def _heaviest(item: _Held) -> tuple[float, str]:
    return -item.hit.log_odds, item.hit.feed


def _words(item: _Held) -> str:
    hit = item.hit
    return f"{_WHAT[hit.kind]} {hit.feed}, version {hit.version[:16]}, until {timestamp(item.until)}"
