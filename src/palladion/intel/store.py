"""Feeds on disk: each version by its SHA-256, and which one is current. No network; the content is read by `formats`.

    FEED/current.json   which version, when it was fetched, until when it counts
    FEED/SHA256.data    its bytes as they were fetched

A version that cannot be read never becomes current. Old ones stay, so that a hit of last week can be explained.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from palladion import canonical, files
from palladion.clock import parse_timestamp, timestamp
from palladion.errors import FormatError, NotFoundError, TamperError
from palladion.intel.formats import FEED_BYTES_MAX, read_content
from palladion.intel.indicators import Content, LoadedFeed
from palladion.policy.intelligence import FeedPolicy

FOLDER = "intel"
VERSIONS_KEPT = 5  # of one feed
LOADED_MAX = 2_000_000  # items of all feeds that a gate loads: some 150 MB, and more while they are read
_CURRENT = "current.json"
_CURRENT_BYTES_MAX = 4096
_FIELDS = {"v", "version", "format", "kind", "fetched", "valid_until", "items", "skipped"}


@dataclass(frozen=True)
class Version:
    """What is current of a feed: its `digest` (SHA-256), when it was fetched, until when it counts at most."""

    digest: str
    fetched: datetime
    valid_until: datetime
    items: int
    skipped: int
    format: str
    kind: str


class FeedStore:
    """The feeds of one installation. Whoever writes holds `lock`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def current(self, feed: str) -> Version | None:
        """What is current; None before the first. Raises FormatError on a damaged file."""
        path = self._folder / feed / _CURRENT
        if not path.is_file():
            return None
        what = f"the state of feed {feed}"
        data = files.read_limited(path, size_max=_CURRENT_BYTES_MAX, what=what)
        return _parse(canonical.decode(data, size_max=_CURRENT_BYTES_MAX, what=what), what)

    def keep(self, feed: FeedPolicy, data: bytes, now: datetime) -> Version:
        """Make `data` the current version. Raises FormatError, and changes nothing, if it is malformed."""
        content = read_content(data, feed.format, feed.kind)
        version = Version(
            hashlib.sha256(data).hexdigest(),
            now,
            now + timedelta(days=feed.expiry_days),
            content.items,
            content.skipped,
            feed.format,
            feed.kind,
        )
        files.make_private_directory(self._folder / feed.name)
        files.write_atomically(self._data(feed.name, version.digest), data)
        # the bytes first: whoever reads the name finds them
        files.write_atomically(self._folder / feed.name / _CURRENT, canonical.encode(_document(version)))
        self._forget(feed.name, version.digest)
        return version

    def content(self, feed: str, version: Version) -> Content:
        """What a version says. Raises TamperError if its bytes are not those that were kept, NotFoundError."""
        path = self._data(feed, version.digest)
        if not path.is_file():
            raise NotFoundError(f"feed {feed} has no version {version.digest[:16]}", "palladion intel refresh")
        data = files.read_limited(path, size_max=FEED_BYTES_MAX, what="the feed")
        if hashlib.sha256(data).hexdigest() != version.digest:
            raise TamperError(f"{path} is not what was fetched", "palladion intel refresh --force fetches it again")
        return read_content(data, version.format, version.kind)  # type: ignore[arg-type]  # checked by _parse

    def load(self, feed: FeedPolicy) -> LoadedFeed | None:
        """The current version, ready for lookups; None if none was fetched, or as another kind than the policy's.

        One whose time is over is loaded as well, and never hits.
        """
        version = self.current(feed.name)
        if version is None or (version.kind, version.format) != (feed.kind, feed.format):
            return None
        return self.load_version(feed, version)

    def load_version(self, feed: FeedPolicy, version: Version) -> LoadedFeed:
        """A version, ready for lookups. Raises as `content` does."""
        return LoadedFeed(feed, version.digest, self.content(feed.name, version), ends(feed, version))

    @property
    def lock(self) -> Path:
        """What to lock while feeds are refreshed."""
        files.make_private_directory(self._folder)
        return self._folder

    def _data(self, feed: str, digest: str) -> Path:
        return self._folder / feed / f"{digest}.data"

    def _forget(self, feed: str, current: str) -> None:
        folder = self._folder / feed
        with files.storage_errors(folder):
            old = sorted(folder.glob("*.data"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
            for path in [path for path in old if path.stem != current][VERSIONS_KEPT - 1 :]:
                path.unlink(missing_ok=True)


def ends(feed: FeedPolicy, version: Version) -> float:
    """When a version ends (seconds since the epoch): the policy may have become stricter since it was fetched."""
    return min(version.valid_until, version.fetched + timedelta(days=feed.expiry_days)).timestamp()


def _document(version: Version) -> dict[str, Any]:
    return {
        "v": 1,
        "version": version.digest,
        "format": version.format,
        "kind": version.kind,
        "fetched": timestamp(version.fetched),
        "valid_until": timestamp(version.valid_until),
        "items": version.items,
        "skipped": version.skipped,
    }


def _parse(document: Any, what: str) -> Version:
    if not isinstance(document, dict) or document.keys() != _FIELDS or document["v"] != 1:
        raise FormatError(f"{what} is not one of version 1", "palladion intel refresh --force")
    digest, form, kind = document["version"], document["format"], document["kind"]
    texts = all(isinstance(document[name], str) for name in ("version", "format", "kind", "fetched", "valid_until"))
    numbers = all(type(document[name]) is int and document[name] >= 0 for name in ("items", "skipped"))
    if (
        not (texts and numbers)
        or len(digest) != 64
        or set(digest) - set("0123456789abcdef")  # it becomes the name of a file
        or form not in {"list", "csv", "stix", "taxii"}
        or kind not in {"networks", "tor", "asn", "queries"}
    ):
        raise FormatError(f"{what} is not one of version 1", "palladion intel refresh --force")
    try:
        fetched, until = parse_timestamp(document["fetched"]), parse_timestamp(document["valid_until"])
    except ValueError:
        raise FormatError(f"{what} has no canonical time") from None
    return Version(digest, fetched, until, document["items"], document["skipped"], form, kind)
