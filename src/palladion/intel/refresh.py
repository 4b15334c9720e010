"""Fetches feeds that are due, keeps what is well formed, and says of each what became of it.

A feed that cannot be fetched or is malformed changes nothing: its last good version stays until that expires.
"""

import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import resources
from pathlib import Path

from palladion import files
from palladion.clock import timestamp
from palladion.errors import PalladionError, PolicyError, StorageError
from palladion.intel.formats import FEED_BYTES_MAX
from palladion.intel.store import FeedStore, Version
from palladion.ledger.record import Record
from palladion.policy.intelligence import FeedPolicy, is_safe_address
from palladion.seal.http import exchange

REFRESHED = "intel.refreshed"
SHIPPED = "palladion:harvests"  # as `file` of a feed: signatures of our own attacks, which come with this release
_SHIPPED_FILE = "harvests.json"
_CA_BYTES_MAX = 1024 * 1024

Read = Callable[[FeedPolicy], bytes]


@dataclass(frozen=True)
class Refreshed:
    """What became of a feed: `error` says why the version that is current stayed; `changed` whether it is another."""

    feed: FeedPolicy
    version: Version | None
    changed: bool
    error: PalladionError | None = None


def due(feed: FeedPolicy, current: Version | None, now: datetime) -> bool:
    """Whether a feed is to be fetched: never yet, long ago, as another kind, or in what is the future now."""
    if current is None or (current.kind, current.format) != (feed.kind, feed.format):
        return True
    return not timedelta(0) <= now - current.fetched < timedelta(hours=feed.refresh_hours)


def refresh(
    store: FeedStore, feeds: Iterable[FeedPolicy], read: Read, *, now: datetime, force: bool = False
) -> list[Refreshed]:
    """Fetch those that are due, or all with `force`. One that fails stops no other.

    Raises BusyError if another process does the same.
    """
    outcomes = []
    with files.exclusive_lock(store.lock, what="the store of feeds"):
        for feed in feeds:
            # a damaged state is no reason to keep it, only to fetch again
            before, error = _current(store, feed)
            if not force and error is None and not due(feed, before, now):
                continue
            try:
                after = store.keep(feed, read(feed), now)
            except PalladionError as failed:
                outcomes.append(Refreshed(feed, before, changed=False, error=failed))
                continue
            changed = before is None or before.digest != after.digest
            outcomes.append(Refreshed(feed, after, changed=changed))
    return outcomes


def refreshed_record(outcome: Refreshed, *, actor: str, now: datetime) -> Record:
    """The ledger's record of a feed that became another version, or could not."""
    version = outcome.version
    details: dict[str, str | int | bool] = {"changed": outcome.changed}
    if version is not None:
        details |= {
            "version": version.digest,
            "items": version.items,
            "fetched": timestamp(version.fetched),
            "valid_until": timestamp(version.valid_until),
        }
    if outcome.error is not None:
        details["error"] = outcome.error.message[:400]
    return Record(REFRESHED, now, actor, f"feed:{outcome.feed.name}", details)


def reader(home: Path) -> Read:
    """What reads a feed as its policy says; files are relative to `home`. Raises PalladionError, whatever fails."""

    def read(feed: FeedPolicy) -> bytes:
        if feed.file == SHIPPED:
            return resources.files("palladion.intel").joinpath(_SHIPPED_FILE).read_bytes()
        if feed.file:
            path = home / Path(feed.file).expanduser()
            return files.read_limited(path, size_max=FEED_BYTES_MAX, what="the feed")
        if not feed.url:
            raise PolicyError(f"feed {feed.name} has neither url nor file: there is nothing to fetch")
        if not is_safe_address(feed.url):
            raise PolicyError(f"feed {feed.name} is fetched over plain http, which anybody on the way can change")
        if feed.format == "taxii":
            from palladion.intel.taxii import read_collection

            return read_collection(feed, home)
        return _fetch(feed.url, authorities(feed, home))

    return read


def authorities(feed: FeedPolicy, home: Path) -> ssl.SSLContext | None:
    """Who alone may vouch for a feed's server; None for the system's. Raises PolicyError."""
    if not feed.ca:
        return None
    path = home / Path(feed.ca).expanduser()
    data = files.read_limited(path, size_max=_CA_BYTES_MAX, what="the file of authorities")
    try:
        return ssl.create_default_context(cadata=data.decode("ascii"))
    except (ValueError, ssl.SSLError):
        raise PolicyError(f"feed {feed.name}: ca: {path} holds no certificate in PEM") from None


def _fetch(url: str, context: ssl.SSLContext | None) -> bytes:
    with exchange(url, context=context) as answer:
        if answer.status != 200:
            raise StorageError(f"the server of the feed answers {answer.status}")
        data = bytearray()
        for piece in answer.pieces:
            data += piece
            if len(data) > FEED_BYTES_MAX:
                raise StorageError(f"the feed is larger than the {FEED_BYTES_MAX} bytes allowed")
    return bytes(data)


def _current(store: FeedStore, feed: FeedPolicy) -> tuple[Version | None, PalladionError | None]:
    try:
        return store.current(feed.name), None
    except PalladionError as error:
        return None, error
