"""From a route's policy to its upstream: the address, whom it trusts, and what it shows of itself. Asks nobody yet."""

import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from palladion import files
from palladion.errors import FormatError, PalladionError, PolicyError
from palladion.gate.upstream.address import parse_address
from palladion.gate.upstream.limits import UpstreamLimits
from palladion.gate.upstream.pool import Upstream
from palladion.policy import RoutePolicy

KEY_BYTES_MAX = 16 * 1024  # a token with many claims has 4 KiB
DEADLINE_SHARE = 0.9  # for the upstream; what follows takes milliseconds
HINT_HTTP = "set upstream_insecure_http = true if the network on the way can be believed"


def open_upstream(route: RoutePolicy, home: Path, *, limits: UpstreamLimits | None = None) -> Upstream:
    """The server that a route names; file names are relative to `home`. To be used and closed in one event loop.

    Raises PolicyError for an address that is none, plain HTTP beyond the loopback that the policy does not ask for
    aloud, and for files that are missing or do not fit.
    """
    what = f"route {route.route}"
    try:
        address = parse_address(route.upstream, insecure_http=route.upstream_insecure_http)
    except ValueError as error:
        # the words of other places where addresses are typed
        reason = str(error).replace(", or --insecure-http to allow it", "")
        hints = [HINT_HTTP] if "not encrypted" in reason else []
        raise PolicyError(f"{what}: upstream: {reason}", *hints) from None
    unused = [name for name in ("upstream_ca", "upstream_certificate") if getattr(route, name) and not address.secure]
    if unused:
        raise PolicyError(f"{what}: {unused[0]} is for https, and upstream is {address}")
    try:
        tls = _context(route, home, what) if address.secure else None
        headers = [(b"authorization", b"Bearer " + _key(route, home))] if route.upstream_key else []
        return Upstream(address, limits=limits or UpstreamLimits(), tls=tls, headers=headers)
    except (ValueError, PalladionError) as error:
        if isinstance(error, PolicyError):
            raise
        # of headers and files: neither quotes what is in them
        raise PolicyError(f"{what}: {error}") from None


def needs_upstream(route: RoutePolicy) -> PolicyError:
    """The error for a route whose protocol no model here speaks."""
    return PolicyError(
        f"route {route.route}: protocol {route.protocol} needs an upstream",
        'for example upstream = "http://127.0.0.1:8000"',
    )


def unaskable(route: RoutePolicy) -> PolicyError:
    """The error for a route whose protocol no upstream speaks."""
    return PolicyError(
        f"route {route.route}: nothing can be asked by {route.protocol} at an upstream",
        "set protocol to what the upstream speaks",
    )


def limits_within(seconds: float) -> UpstreamLimits:
    """Limits for answers that have to be there within so many seconds, recorded and all.

    A server that hangs so is found out before our own deadline, which would only say that something was too slow.
    """
    share, usual = seconds * DEADLINE_SHARE, UpstreamLimits()
    names = ("waiting_seconds", "connect_seconds", "head_seconds", "idle_seconds")
    return replace(usual, **{name: min(share, getattr(usual, name)) for name in names})


def _context(route: RoutePolicy, home: Path, what: str) -> ssl.SSLContext:
    if bool(route.upstream_certificate) != bool(route.upstream_certificate_key):
        raise PolicyError(f"{what}: upstream_certificate and upstream_certificate_key go together, and one is empty")
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if route.upstream_ca:
        # of this authority alone: whoever gets a certificate for that name elsewhere is somebody else
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        _load(what, "upstream_ca", lambda: context.load_verify_locations(home / Path(route.upstream_ca).expanduser()))
    if route.upstream_certificate:
        chain, key = (
            home / Path(name).expanduser() for name in (route.upstream_certificate, route.upstream_certificate_key)
        )
        # an encrypted key would have OpenSSL ask the terminal for its passphrase
        _load(what, "upstream_certificate", lambda: context.load_cert_chain(chain, key, password=_no_passphrase))
    return context


def _load(what: str, setting: str, load: Callable[[], None]) -> None:
    try:
        load()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise PolicyError(f"{what}: {setting} cannot be used: {reason}") from None


def _no_passphrase() -> str:
    raise ValueError("the private key is encrypted, and nobody is there to be asked for its passphrase")


def _key(route: RoutePolicy, home: Path) -> bytes:
    path = home / Path(route.upstream_key).expanduser()
    key = files.read_limited(path, size_max=KEY_BYTES_MAX, what="the upstream's key").strip()
    if not key:
        raise FormatError(f"the upstream's key {path} is empty")
    return key
