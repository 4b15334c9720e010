"""What a policy says of how its gate is run: addresses, files, seconds, servers. Pure; others make files of it.

Whatever comes from a policy and goes into a file of another program is checked here, or quoted there: a path with a
line break must not become a setting of somebody else's.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from palladion.errors import PolicyError
from palladion.gate.encrypted.flight import QUERIES_TOTAL
from palladion.gate.listener import DRAIN_SECONDS, UNIX
from palladion.incident.alerts.channels import PAGERDUTY
from palladion.intel.refresh import SHIPPED
from palladion.policy import IssuerPolicy, Policy, RoutePolicy

IN_FLIGHT = 2 * QUERIES_TOTAL  # encrypted queries of the largest size: as they came, and in parts
CLOSE_SECONDS = 30  # for the ledger, the registry and commands that are at work, after the last answer


@dataclass(frozen=True)
class Address:
    """Host and port; `secure` where TLS is spoken there."""

    host: str
    port: int
    secure: bool = False

    @property
    def loopback(self) -> bool:
        """Whether nobody else reaches it."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def is_ip(self) -> bool:
        """Whether it is an address, and not a name."""
        try:
            ip_address(self.host)
        except ValueError:
            return False
        return True


@dataclass(frozen=True)
class Socket:
    """A Unix socket that the gate makes: its path as `setting` says it, and the group that may connect, if one may."""

    setting: str
    path: str
    group: str = ""


@dataclass(frozen=True)
class Plan:
    """How one gate is run. `listen` is None for a Unix socket; `sockets` has that one too."""

    policy: Policy
    listen: Address | None
    grpc: Address | None
    operations: Address | None
    sockets: tuple[Socket, ...]
    servers: tuple[Address, ...]
    files: tuple[str, ...]
    feed_servers: tuple[Address, ...] = ()  # asked by whatever refreshes feeds, where the gate does not
    feed_files: tuple[str, ...] = ()

    @property
    def refreshed_beside(self) -> bool:
        """Whether something beside the gate has to refresh feeds."""
        return bool(self.policy.feed) and not self.policy.intel.refresh

    @property
    def extras(self) -> tuple[str, ...]:
        """What has to be installed besides, as packagers name it."""
        wanted = {
            "alerts": any(channel.kind == "apprise" for channel in self.policy.alert),
            "grpc": self.grpc is not None,
            "he": bool(self.policy.encrypted),
            "intel": any(feed.format == "taxii" for feed in self.policy.feed),
            "otel": bool(self.policy.operations.otlp),
        }
        return tuple(name for name, is_wanted in wanted.items() if is_wanted)

    @property
    def stop_seconds(self) -> int:
        """How long it may take to stop."""
        return self.policy.operations.drain_seconds + DRAIN_SECONDS + CLOSE_SECONDS

    @property
    def request_seconds(self) -> int:
        """How long a request can take at most, from its head to the last byte of its answer."""
        gate = self.policy.gate
        answers = [route.answer_seconds for route in self.policy.route if route.protocol == "openai"]
        encrypted = [item.upload_seconds + item.answer_seconds for item in self.policy.encrypted]
        return max([gate.body_seconds_max + max([-(-gate.deadline_ms // 1000), *answers]), *encrypted])

    @property
    def encrypted_mib(self) -> int:
        """Memory that programs for encrypted queries may take, in MiB: their processes, keys, queries in flight."""
        programs = self.policy.encrypted
        own = sum(item.workers * item.memory_mib + IN_FLIGHT * item.query_mib for item in programs)
        return own + max((item.keys_mib for item in programs), default=0)

    @property
    def local(self) -> bool:
        """Whether it neither listens to nor asks anybody beyond this host."""
        listens = [address for address in (self.listen, self.grpc, self.operations) if address is not None]
        # where apprise sends to stands in a file
        hidden = any(channel.kind == "apprise" for channel in self.policy.alert)
        return not hidden and all(address.loopback for address in [*listens, *self.servers])


def make_plan(policy: Policy) -> Plan:
    """What a policy says of how its gate is run. Raises PolicyError on what cannot be written into files of others."""
    gate, operations = policy.gate, policy.operations
    secure = bool(gate.tls_certificate)
    own, sockets = [*_files(policy)], tuple(_sockets(policy))
    servers, of_feeds = [*_servers(policy)], [*_feed_files(policy)]
    asked = [*_addresses(feed.url for feed in policy.feed)]
    if policy.intel.refresh:
        own, servers, of_feeds, asked = own + of_feeds, servers + asked, [], []
    named = tuple(dict.fromkeys(own))
    for name in [*named, *of_feeds]:
        plain(name, "the name of a file in the policy")
    for socket in sockets:
        plain(socket.path, socket.setting)
        plain(socket.group, f"the group of {socket.setting}")
    return Plan(
        policy,
        None if gate.listen.startswith(UNIX) else _address(gate.listen, secure=secure),
        _address(gate.grpc_listen, secure=secure) if gate.grpc_listen else None,
        _address(operations.listen, secure=bool(operations.tls_certificate)) if operations.listen else None,
        sockets,
        tuple(dict.fromkeys(servers)),
        named,
        tuple(dict.fromkeys(asked)),
        tuple(dict.fromkeys(of_feeds)),
    )


def plain(text: str, what: str) -> str:
    """`text`, if it can stand in any file. Raises PolicyError where it holds what no path needs."""
    if not text.isprintable() or any(sign in text for sign in "\"'\\$%`"):
        raise PolicyError(f"{what} cannot be written into files of other programs: {text!r}", "use a plain name")
    return text


def prefixes(policy: Policy) -> list[str]:
    """The beginnings of all paths that answer, without those of others: what a proxy lets through."""
    routes = [*policy.route, *(item.route for item in policy.encrypted)]
    found = dict.fromkeys(path for route in routes for path in _paths(route))
    return [path for path in found if not any(path.startswith(f"{other}/") for other in found if other != path)]


def _paths(route: RoutePolicy) -> Iterator[str]:
    base = route.path.rstrip("/")
    if route.protocol == "openai":
        for end in ("chat/completions", "completions", "embeddings", "models", "responses"):
            yield f"{base}/v1/{end}"
    elif route.protocol == "open-inference":
        yield f"{base}/v2"
    else:
        yield route.route


def _files(policy: Policy) -> Iterator[str]:
    gate, operations = policy.gate, policy.operations
    named = [gate.tls_certificate, gate.tls_key, gate.client_ca]
    named += [operations.tls_certificate, operations.tls_key, operations.token, policy.access.policies]
    for route in policy.route:
        named += [route.upstream_key, route.upstream_ca, route.upstream_certificate, route.upstream_certificate_key]
    named += [item.program for item in policy.encrypted]
    for issuer in _issuers(policy):
        named += [issuer.ca, "" if "://" in issuer.keys else issuer.keys]
    for channel in policy.alert:
        named += [channel.secret, channel.ca]
    yield from filter(None, named)


def _servers(policy: Policy) -> Iterator[Address]:
    addresses = [route.upstream for route in policy.route if not route.upstream.startswith(UNIX)]
    # keys in a file are not fetched from anybody
    addresses += [issuer.keys or issuer.url for issuer in _issuers(policy) if not issuer.keys or "://" in issuer.keys]
    addresses.append(policy.operations.otlp)
    addresses += [item.url or (PAGERDUTY if item.kind == "pagerduty" else "") for item in policy.alert]
    yield from _addresses(addresses)


def _feed_files(policy: Policy) -> Iterator[str]:
    for feed in policy.feed:
        yield from filter(None, ["" if feed.file == SHIPPED else feed.file, feed.ca, feed.credentials])


_PORTS = {"https": 443, "tls": 6514}  # of addresses that name none


def _addresses(addresses: Iterable[str]) -> Iterator[Address]:
    for address in filter(None, addresses):
        split = urlsplit(address)
        try:
            port = split.port or _PORTS.get(split.scheme, 80)
        except ValueError:
            raise PolicyError(f"{address} has no port between 0 and 65535") from None
        if split.scheme == "udp":
            continue  # to this machine alone
        yield Address(plain(split.hostname or "", "the name of a server"), port, split.scheme in {"https", "tls"})


def _issuers(policy: Policy) -> Iterator[IssuerPolicy]:
    """Those of clients, and that of operators."""
    yield from policy.issuer
    if policy.operators.issuer:
        yield policy.operators.as_issuer


def _sockets(policy: Policy) -> Iterator[Socket]:
    gate, operators = policy.gate, policy.operators
    if gate.listen.startswith(UNIX):
        yield Socket("gate.listen", gate.listen.removeprefix(UNIX), gate.socket_group)
    if operators.socket:
        yield Socket("operators.socket", operators.socket, operators.socket_group)


def _address(listen: str, *, secure: bool) -> Address:
    host, _, port = listen.rpartition(":")
    return Address(host.strip("[]"), int(port), secure)


def absolute(home: PurePosixPath, name: str, user_home: PurePosixPath) -> PurePosixPath:
    """Where a file of the policy lies, relative to its folder or to the user's."""
    if name.startswith("~/"):
        return user_home / name.removeprefix("~/")
    return home / name
