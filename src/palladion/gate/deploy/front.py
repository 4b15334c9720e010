"""A proxy in front of several gates: where it listens, which gates there are, and what it lets through. Pure.

`envoy` and `haproxy` write it in the language of each. Both send a credential to one gate always, so that limits and
suspicion of a client are exact without anything shared; and both refuse what the gate would refuse, a little earlier.
"""

import re
from dataclasses import dataclass

from palladion.errors import PolicyError
from palladion.gate.deploy.plan import Address, Plan, make_plan, prefixes
from palladion.gate.listener import KEEP_ALIVE_SECONDS, UNIX
from palladion.policy import Policy
from palladion.transit.url import is_loopback

WORKERS_MAX = 64
VERDICT_PATH = "/verdict"  # on the operations port, as `operations.verdict` has it
HEAD_KIB_MAX = 32  # as the gate's
HEAD_SECONDS = 10  # as the gate's
CONNECT_SECONDS = 2
# Idle connections to a gate end here before they end there: a request on its way would be lost.
IDLE_SECONDS = KEEP_ALIVE_SECONDS - 10
CHECK_SECONDS = 2
CONNECTIONS_MAX = 8000  # twice as many descriptors are needed, and many hosts allow 20,000
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}|[0-9A-Fa-f:.]{2,45}")
_WORD = re.compile(r"[A-Za-z0-9._~/@:+=,-]*")


@dataclass(frozen=True)
class Worker:
    """One gate: its address, or the path of its socket."""

    address: Address | None
    path: str = ""

    def __str__(self) -> str:
        return self.path if self.address is None else f"{self.address.host}:{self.address.port}"


@dataclass(frozen=True)
class Front:
    """What a proxy needs to know. `authority` is a file with who vouches for the certificates of gates, if any.

    Where `answered_by` is a server, that one answers, and the gate gets copies of what is asked.
    """

    listen: Address
    certificate: str
    key: str
    workers: tuple[Worker, ...]
    plan: Plan
    authority: str = ""
    answered_by: Address | None = None

    @property
    def verdict(self) -> Address | None:
        """Where the proxy can ask the gate about a request's head: one gate, on the proxy's own host.

        Of several gates each knows its own clients, and a token would stand in the proxy's file.
        """
        operations = self.plan.policy.operations
        listen, _, port = operations.listen.rpartition(":")
        beside = [worker for worker in self.workers if worker.address is None or is_loopback(worker.address.host)]
        if len(self.workers) > 1 or not beside or self.answered_by is not None:
            return None
        if not is_loopback(listen.strip("[]")) or not int(port or 0) or operations.token or operations.tls_certificate:
            return None
        return parse_address(operations.listen)

    @property
    def paths(self) -> list[str]:
        """The beginnings of the paths that are let through."""
        return [_word(path, "a path of the policy") for path in prefixes(self.plan.policy)]

    @property
    def removed(self) -> list[str]:
        """Headers that only a proxy may say: what clients put there never arrives."""
        proxy = self.plan.policy.proxy
        links = (proxy.payment_header, proxy.device_header, proxy.tls_header)
        told = (proxy.user_header, *links, proxy.address_header, proxy.asn_header)
        return [name for name in told if name]


def make_front(
    policy: Policy,
    *,
    listen: str,
    certificate: str,
    key: str,
    workers: tuple[str, ...],
    authority: str = "",
    answered_by: str = "",
) -> Front:
    """What a proxy needs to know. Raises PolicyError on what cannot be served so."""
    plan = make_plan(policy)
    if not policy.route and not policy.encrypted:
        raise PolicyError("there is no [[route]]: nothing would be let through")
    if not workers:
        workers = (policy.gate.listen,)
    if len(workers) > WORKERS_MAX:
        raise PolicyError(f"{len(workers)} gates, at most {WORKERS_MAX} are allowed")
    if answered_by and len(workers) > 1:
        raise PolicyError(
            "copies go to one gate: they are not sent by credential, so each of several would see a part of everybody",
            "name one by --worker",
        )
    if len(set(workers)) < len(workers):
        raise PolicyError("a gate is named twice")
    if policy.gate.tls_certificate and not authority:
        raise PolicyError(
            "the gates speak TLS, and nobody vouches for their certificate",
            "name a file with its authority: --worker-ca FILE",
        )
    if not policy.gate.behind_proxy and any(not text.startswith(UNIX) for text in workers):
        raise PolicyError(
            "gate.behind_proxy is not set: all clients would seem to come from the proxy, and be judged as one",
            "set gate.behind_proxy = true, or let the gates listen on Unix sockets (gate.listen = unix:PATH)",
        )
    for name in (certificate, key, authority):
        _word(name, "the name of a file")
    secure = bool(policy.gate.tls_certificate)
    return Front(
        parse_address(listen, secure=True),
        certificate,
        key,
        tuple(_worker(text, secure=secure) for text in workers),
        plan,
        authority,
        parse_address(answered_by) if answered_by else None,
    )


def parse_address(text: str, *, secure: bool = False) -> Address:
    """HOST:PORT, with brackets around an IPv6 address. Raises PolicyError."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not _HOST.fullmatch(host) or not port.isdecimal() or not 0 < int(port) < 65536:
        raise PolicyError(f"{text!r} is no HOST:PORT")
    return Address(host, int(port), secure)


def _word(text: str, what: str) -> str:
    """`text`, if it is one word in either language. Raises PolicyError."""
    if not _WORD.fullmatch(text):
        raise PolicyError(f"{what} cannot be written into files of other programs: {text!r}", "use a plain name")
    return text


def _worker(text: str, *, secure: bool) -> Worker:
    if text.startswith(UNIX):
        return Worker(None, _word(text.removeprefix(UNIX), "the path of a socket"))
    return Worker(parse_address(text, secure=secure))
