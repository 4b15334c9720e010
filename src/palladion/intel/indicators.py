"""What a feed says, and what a look into it finds: values without I/O.

A hit is a bounded hint with an end. It never decides: what it adds to the odds is for the watch to weigh, and recorded.
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from palladion.access.pseudonyms import identity_pseudonym
from palladion.clock import timestamp
from palladion.intel.networks import Entry, NetworkTable, network_text
from palladion.intel.sketch import PLACES, SIMILAR_MIN, Sketch
from palladion.ledger.record import Record
from palladion.policy.intelligence import WEIGHT_MAX, FeedKind, FeedPolicy

PRIOR_MAX = WEIGHT_MAX  # of all hits together: however many feeds agree, they copy from each other
HIT = "intel.hit"


@dataclass(frozen=True)
class Content:
    """The items of one version of a feed, each with its expiry (seconds since the epoch) and share of the weight.

    `skipped` are items that this kind of feed does not use.
    """

    networks: Sequence[Entry] = ()
    systems: tuple[tuple[int, float, float], ...] = ()  # numbers of autonomous systems
    queries: tuple[tuple[str, Sketch, float, float], ...] = ()  # name and signature of a harvest
    skipped: int = 0

    @property
    def items(self) -> int:
        """How many there are."""
        return len(self.networks) + len(self.systems) + len(self.queries)


@dataclass(frozen=True)
class Hit:
    """Something that a feed knows: which, in which version, until when, and what it adds to the odds at most (nats)."""

    feed: str
    kind: FeedKind
    version: str
    indicator: str
    expires: datetime
    log_odds: float


class LoadedFeed:
    """One version of a feed, ready for lookups; `valid_until` ends all of it (seconds since the epoch)."""

    def __init__(self, policy: FeedPolicy, version: str, content: Content, valid_until: float) -> None:
        self.policy = policy
        self.version = version
        self.valid_until = valid_until
        self._table = NetworkTable(content.networks)
        self._systems = {number: (expires, share) for number, expires, share in content.systems}
        self._queries = content.queries
        places = [known.places for _, known, _, _ in content.queries]
        self._places = np.array(places, np.uint32).reshape(len(places), PLACES)

    def renewed(self, policy: FeedPolicy, valid_until: float) -> "LoadedFeed":
        """The same version under other settings, or fetched again: its tables are shared."""
        found = copy(self)
        found.policy, found.valid_until = policy, valid_until
        return found

    def address(self, address: str, now: datetime) -> Hit | None:
        """The hit of an address that can be believed, if there is one."""
        found = self._table.find(address, now.timestamp())
        return None if found is None else self._hit(network_text(found[0]), found[1], found[2], now)

    def system(self, number: int, now: datetime) -> Hit | None:
        """The hit of the number of an autonomous system, if there is one."""
        found = self._systems.get(number)
        return None if found is None else self._hit(f"AS{number}", *found, now)

    def queries(self, sketch: Sketch, now: datetime) -> Hit | None:
        """The hit of the harvest that a client's queries are most like, if that is like enough."""
        # one comparison with all of them: a client's queries are compared while requests wait
        alike = (self._places == np.array(sketch.places, np.uint32)).mean(axis=1)
        for place in np.argsort(-alike, kind="stable"):
            name, known, expires, share = self._queries[place]
            if alike[place] < SIMILAR_MIN:
                break
            if sketch.comparable(known) and expires > now.timestamp():
                return self._hit(name, expires, share, now)
        return None

    def _hit(self, indicator: str, expires: float, share: float, now: datetime) -> Hit | None:
        end = min(expires, self.valid_until)
        if end <= now.timestamp():
            return None
        until = datetime.fromtimestamp(end, UTC)
        log_odds = min(self.policy.weight, WEIGHT_MAX) * min(max(share, 0.0), 1.0)
        return Hit(self.policy.name, self.policy.kind, self.version, indicator, until, log_odds)


def look_up(feeds: Iterable[LoadedFeed], address: str, now: datetime) -> list[Hit]:
    """What all feeds know of an address, the heaviest first. Whether the address can be believed is for the caller."""
    found = [hit for feed in feeds if (hit := feed.address(address, now)) is not None]
    return sorted(found, key=lambda hit: (-hit.log_odds, hit.feed))


def prior(hits: Iterable[Hit], now: datetime) -> float:
    """What hits add to the log-odds together, in nats, at most `PRIOR_MAX`.

    Of each kind the largest alone counts, since lists of one kind copy from each other; an expired hit counts nothing.
    """
    by_kind: dict[FeedKind, float] = {}
    for hit in hits:
        if hit.expires > now:
            by_kind[hit.kind] = max(by_kind.get(hit.kind, 0.0), hit.log_odds)
    return min(PRIOR_MAX, sum(by_kind.values()))


def hit_record(hit: Hit, *, client: str, actor: str, key: bytes, now: datetime) -> Record:
    """The ledger's record of a hit about a client (by its pseudonym).

    The indicator is often the client's own address, so it stands there keyed, as identities of clients do; `key` is the
    gate root's "pseudonyms".
    """
    details: Mapping[str, str] = {
        "feed": hit.feed,
        "kind": hit.kind,
        "version": hit.version,
        "indicator": identity_pseudonym(key, "indicator", hit.indicator),
        "expires": timestamp(hit.expires),
        "log_odds": f"{hit.log_odds:.4f}",
    }
    return Record(HIT, now, actor, client, dict(details))
