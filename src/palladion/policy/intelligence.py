"""The settings of feeds: what others know of addresses and queries, as hints with an end.

What they mean is in docs/threat_intelligence.md.
"""

from collections.abc import Sequence
from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta

from palladion.errors import PolicyError
from palladion.policy.section import Section

FeedFormat = Literal["list", "csv", "stix", "taxii"]
FeedKind = Literal["networks", "tor", "asn", "queries"]
FEEDS_MAX = 32  # each is asked by turns, and each request looks into all of them
WEIGHT_MAX = 2.0  # nats: at most 7.4 times the odds, so that no feed alone suspends anybody
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class IntelPolicy(Section, frozen=True):
    """What a running gate does with feeds (docs/threat_intelligence.md)."""

    refresh: Annotated[
        bool,
        Meta(
            description="Lets the gate itself fetch the feeds that are due. Without it, it asks nobody: a timer with "
            "palladion intel refresh does."
        ),
    ] = False
    threshold_share: Annotated[
        float,
        Meta(
            ge=0.0,
            le=0.5,
            description="Share of watch.alpha_watched that clients give up whom no feed lists, for those whom one "
            "lists: so the mean over clients stays. 0 only records hits. It counts only where a feed has a weight.",
        ),
    ] = 0.1


class FeedPolicy(Section, frozen=True):
    """A feed of threat intelligence: a hint with a bound and an end, never a verdict."""

    name: Annotated[
        str,
        Meta(
            pattern=r"^[a-z][a-z0-9-]{0,31}$",
            examples=["tor-exits"],
            description="Name of the feed, for commands and records.",
        ),
    ]
    url: Annotated[
        str,
        Meta(
            max_length=2000,
            pattern=r"^(https?://[!-~]+)?$",
            description="Where it is fetched from; of taxii the address of the collection. Plain http only from the "
            "loopback.",
        ),
    ] = ""
    file: Annotated[
        str,
        Meta(
            max_length=4096,
            description="File that holds it, relative to this file, instead of url. palladion:harvests is the feed "
            "that ships: signatures of our own attacks (stix, queries).",
        ),
    ] = ""
    format: Annotated[
        FeedFormat,
        Meta(
            description="list has one network in a line, csv names its columns in the first line, stix is a STIX 2.1 "
            "bundle, taxii is a collection of a TAXII 2.1 server (extra intel)."
        ),
    ] = "list"
    kind: Annotated[
        FeedKind,
        Meta(
            description="What it lists: networks, tor (exits), asn (numbers of autonomous systems), or queries "
            "(signatures of known harvests)."
        ),
    ] = "networks"
    weight: Annotated[
        float,
        Meta(
            ge=0.0,
            le=WEIGHT_MAX,
            description="Most that a hit adds to the log-odds of suspicion, in nats. 0 only records hits.",
        ),
    ] = 0.5
    refresh_hours: Annotated[int, Meta(ge=1, le=720, description="Hours after which it is fetched again.")] = 24
    expiry_days: Annotated[
        int,
        Meta(
            ge=1,
            le=365,
            description="Days after which what was fetched counts no more, whatever it says: addresses change hands.",
        ),
    ] = 7
    ca: Annotated[
        str,
        Meta(
            max_length=4096,
            description="File of authorities, in PEM, that alone may vouch for its server; empty means the system's.",
        ),
    ] = ""
    credentials: Annotated[
        str,
        Meta(
            max_length=4096,
            description="File with user:password for taxii, in one line, readable by its owner alone, relative to this "
            "file.",
        ),
    ] = ""


def check_feeds(feeds: Sequence[FeedPolicy]) -> None:
    """Raises PolicyError where a feed contradicts itself or another one."""
    if len(feeds) > FEEDS_MAX:
        raise PolicyError(f"there are {len(feeds)} feeds, at most {FEEDS_MAX} are allowed")
    names = [feed.name for feed in feeds]
    for feed in feeds:
        if names.count(feed.name) > 1:
            raise PolicyError(f"two feeds are called {feed.name}", "give each a name of its own")
        if feed.url and feed.file:
            raise PolicyError(f"feed {feed.name} has both url and file", "leave one of the two out")
        if feed.format == "taxii" and not feed.url:
            raise PolicyError(f"feed {feed.name} is a TAXII collection, which has a url")
        if feed.credentials and feed.format != "taxii":
            raise PolicyError(f"feed {feed.name} has credentials, which only taxii takes")
        if feed.kind == "queries" and feed.format in {"list", "csv"}:
            raise PolicyError(f"feed {feed.name} lists queries, which needs format stix or taxii")
        if not is_safe_address(feed.url):
            raise PolicyError(f"feed {feed.name} is fetched over plain http, which anybody on the way can change")


def is_safe_address(url: str) -> bool:
    """Whether nobody on the way can change what is fetched: https, or http from the loopback; empty is fine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    return not url or parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)
