"""HAProxy in front of gates (2.6 or later): TLS, consistent hashing on the credential, and strict HTTP."""

from palladion.gate.deploy.front import (
    CHECK_SECONDS,
    CONNECT_SECONDS,
    CONNECTIONS_MAX,
    HEAD_KIB_MAX,
    HEAD_SECONDS,
    IDLE_SECONDS,
    Front,
    Worker,
)
from palladion.gate.deploy.plan import Address

OWNER = "txn.owner"
_KEY = r"req.hdr(authorization),regsub(^bearer\x20+,,i)"


def configuration(front: Front) -> str:
    """The text of haproxy.cfg. `certificate` of the front is one file with chain and key, as HAProxy wants it."""
    policy = front.plan.policy
    seconds = front.plan.request_seconds + 5
    lines = [
        "global",
        f"    maxconn {CONNECTIONS_MAX}",
        "    ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets",
        f"    tune.bufsize {HEAD_KIB_MAX * 1024}",
        "    tune.h2.max-concurrent-streams 100",
        "    hard-stop-after 60s",
        "",
        "defaults",
        "    mode http",
        "    option http-keep-alive",
        # a header that two readers could read differently
        "    option http-restrict-req-hdr-names reject",
        "    option http-ignore-probes",
        f"    timeout connect {CONNECT_SECONDS}s",
        f"    timeout http-request {HEAD_SECONDS}s",
        "    timeout http-keep-alive 60s",
        f"    timeout client {max(60, seconds)}s",
        f"    timeout server {seconds}s",
        f"    timeout queue {CONNECT_SECONDS}s",
        "    timeout tunnel 60s",
        # only what has not reached a gate: a query that may have been answered is the client's to repeat
        "    retries 1",
        "    retry-on conn-failure",
        "",
        "frontend api",
        f"    bind {_bind(front.listen)} ssl crt {front.certificate} alpn h2,http/1.1",
        # what clients say here never arrives
        *(f"    http-request del-header {name}" for name in front.removed),
        *([f"    http-request set-header {policy.proxy.address_header} %[src]"] if policy.proxy.address_header else []),
        "    http-request del-header x-forwarded-client-cert",
        f"    http-request deny deny_status 404 if {_elsewhere(front.paths)}",
        "    default_backend gates",
        "",
        "backend gates",
        # one key has one gate, in whichever of its two headers it comes, and however "Bearer" is written
        f"    http-request set-var({OWNER}) src",
        f"    http-request set-var({OWNER}) req.hdr(x-api-key) if {{ req.hdr(x-api-key) -m found }}",
        f"    http-request set-var({OWNER}) {_KEY} if {{ req.hdr(authorization) -m found }}",
        f"    balance hash var({OWNER})",
        "    hash-type consistent sdbm avalanche",
        "    http-reuse safe",
        "    option httpchk GET /health/ready",
        "    http-check expect status 200",
        f"    default-server inter {CHECK_SECONDS}s fall 2 rise 1 pool-purge-delay {IDLE_SECONDS}s",
        *(_server(number, worker, front) for number, worker in enumerate(front.workers, 1)),
    ]
    return "\n".join(lines) + "\n"


def _elsewhere(paths: list[str]) -> str:
    below = [f"{path.rstrip('/')}/" for path in paths]
    return f"!{{ path {' '.join(paths)} }} !{{ path_beg {' '.join(below)} }}"


def _server(number: int, worker: Worker, front: Front) -> str:
    if worker.address is None:
        return f"    server gate{number} unix@{worker.path} check"
    line = f"    server gate{number} {_bind(worker.address)} check"
    if front.authority:
        name = worker.address.host
        line += f" ssl verify required ca-file {front.authority} verifyhost {name}"
        line += "" if worker.address.is_ip else f" sni str({name})"
    return line


def _bind(address: Address) -> str:
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"
