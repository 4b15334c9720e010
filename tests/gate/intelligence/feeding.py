"""Feeds and the intelligence made of them, for tests."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from palladion.clock import ManualClock
from palladion.gate.intelligence.intelligence import Intelligence
from palladion.intel.indicators import Content, LoadedFeed
from palladion.intel.networks import parse_network
from palladion.intel.sketch import sketch_of
from palladion.ledger.record import Record
from palladion.policy import Policy
from palladion.policy.intelligence import FeedKind, FeedPolicy
from tests.lifecycle.installations import NOW

VERSION, OTHER = "ab" * 32, "cd" * 32
HARVEST = [b"%d" % number for number in range(256)]


def feed_policy(name: str = "tor", kind: FeedKind = "tor", weight: float = 0.5, **settings: object) -> FeedPolicy:
    form = {"format": "stix"} if kind == "queries" else {}
    return FeedPolicy(name=name, file="x", kind=kind, weight=weight, **form, **settings)  # type: ignore[arg-type]


def loaded(
    policy: FeedPolicy, *texts: str, version: str = VERSION, days: int = 7, ends: datetime | None = None
) -> LoadedFeed:
    """A feed that lists networks, or AS numbers, or a harvest; each item ends `ends`, all of it after `days`."""
    expires = 9e9 if ends is None else ends.timestamp()
    if policy.kind == "queries":
        content = Content(queries=(("harvest", sketch_of(HARVEST), expires, 1.0),))
    elif policy.kind == "asn":
        content = Content(systems=tuple((int(text), expires, 1.0) for text in texts))
    else:
        content = Content(networks=tuple((parse_network(text), expires, 1.0) for text in texts))
    return LoadedFeed(policy, version, content, (NOW + timedelta(days=days)).timestamp())


def intelligence(*feeds: LoadedFeed, crowd: int = 100, clock: ManualClock | None = None) -> Intelligence:
    """The intelligence of a gate with these feeds, and a crowd of clients that none lists."""
    policy = Policy(feed=tuple(feed.policy for feed in feeds))
    made = Intelligence(policy, clock or ManualClock(NOW), key=bytes(32), name=lambda client: f"client:{client}")
    made.take(feeds)
    for number in range(crowd):
        made.note(f"crowd-{number}", "198.51.100.1", None, NOW)
    return made


class Book:
    """A ledger that is a list; `error` makes it fail."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.error: Exception | None = None

    async def append(self, records: Sequence[Record]) -> None:
        if self.error is not None:
            raise self.error
        self.records += records
