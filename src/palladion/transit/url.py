"""Addresses on the web: parsed once, shown without what may be secret in them, and followed to no weaker ones. Pure."""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

URL_CHARACTERS_MAX = 16 * 1024  # a presigned one with a session token has 2 to 4 thousand
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,252}[a-z0-9])?|[0-9a-f:]{2,39}")
_UNPRINTABLE = re.compile(r"[^!-~]")


@dataclass(frozen=True)
class Url:
    """An http or https address. `str()` leaves out the query: a presigned one is a password."""

    secure: bool
    host: str
    port: int
    path: str
    query: str = ""

    @property
    def origin(self) -> tuple[bool, str, int]:
        """Whom one talks to there."""
        return self.secure, self.host, self.port

    @property
    def target(self) -> str:
        """What a request names."""
        return self.path + (f"?{self.query}" if self.query else "")

    @property
    def base(self) -> str:
        """Scheme, host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == (443 if self.secure else 80) else f":{self.port}"
        return f"{'https' if self.secure else 'http'}://{host}{port}"

    def __str__(self) -> str:
        return self.base + self.path

    def __repr__(self) -> str:
        return f"<Url {self}>"


def parse_url(text: str, *, insecure_http: bool = False) -> Url:
    """The address that a person typed. Raises ValueError with a sentence.

    Unencrypted http is taken for this machine alone unless `insecure_http`: the sealed file stays what was signed, but
    everybody on the way learns who fetches which model, and can withhold it.
    """
    url = _parse(text)
    if not url.secure and not insecure_http and not is_loopback(url.host):
        raise ValueError(f"{url} is not encrypted: https was expected, or --insecure-http to allow it")
    return url


def follow(url: Url, location: str, *, insecure_http: bool = False) -> Url:
    """Where `location`, sent by the server at `url`, leads. Raises ValueError if that is weaker than `url` is."""
    target = _parse(urljoin(url.base + url.target, location))
    if url.secure and not target.secure:
        raise ValueError(f"it leads from https to {target}, which is not encrypted")
    # whoever runs a server elsewhere must not make this machine ask its own services
    if is_loopback(target.host) and not is_loopback(url.host):
        raise ValueError(f"it leads from {url.host} to this machine, {target}")
    if not target.secure and not insecure_http and not is_loopback(target.host):
        raise ValueError(f"it leads to {target}, which is not encrypted")
    return target


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine and nobody listens on the way."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"  # RFC 6761 §6.3: never leaves the machine


def _parse(text: str) -> Url:
    if len(text) > URL_CHARACTERS_MAX:
        raise ValueError(f"an address of {len(text)} characters, at most {URL_CHARACTERS_MAX} are allowed")
    if _UNPRINTABLE.search(text):
        # a line break would end the request line and begin a header of somebody else's choice
        raise ValueError("an address with blanks, line breaks or letters that are not ASCII: %-escape them")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"an address of the kind {parts.scheme or 'none'!r}, http or https was expected")
    if parts.username is not None or parts.password is not None:
        raise ValueError("an address with a name or password in it, which logs and process lists show: use ~/.netrc")
    host = (parts.hostname or "").rstrip(".")
    if not _HOST.fullmatch(host):
        raise ValueError(f"an address with the host name {host!r}, which is none")
    secure = parts.scheme == "https"
    try:
        port = parts.port or (443 if secure else 80)
    except ValueError:
        raise ValueError("an address with a port that is none") from None
    return Url(secure, host, port, parts.path or "/", parts.query)


def shown_address(text: str) -> str:
    """What is recorded of an address that somebody typed: all but user, query and fragment, which can be credentials.

    Raises ValueError, with the reason, where it cannot be read.
    """
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host:
        raise ValueError("it names no host, or a port that is none")
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return f"{shown}?…" if parts.query else shown
