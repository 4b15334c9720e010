"""The verdict on a request by its head alone, for a proxy that asks before it lets one through (Envoy's ext_authz).

It says what the gate itself would say before it reads a body, and costs the client nothing: no query, no budget. The
gate decides again when the request comes; so a proxy that asks nobody opens nothing.
"""

# ruff: noqa: TID253 (operations imports this, and only where the policy names an address for its port)

import hmac
import logging

from starlette.requests import Request as Asked
from starlette.responses import Response as Answer
from starlette.routing import Route

from palladion.gate.callers import Caller
from palladion.gate.gate import Gate
from palladion.gate.hops import ONCE, Hop, Hops
from palladion.gate.operations.peers import prove
from palladion.gate.problems import Problem
from palladion.gate.requests import Request, Response
from palladion.policy import RoutePolicy

VERDICT_PATH = "/verdict"  # before the path that is asked about
TOKEN_HEADER = b"palladion-token"
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_NO_STORE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}

log = logging.getLogger("palladion.gate")


def verdict_route(gate: Gate, token: bytes | None) -> Route:
    """What answers on `VERDICT_PATH`, followed by the path of a request: 200 with an empty body lets it through.

    Where there is a `token`, only who shows it in `TOKEN_HEADER` is told anything; and is believed what a proxy may
    say of a client (`proxy.certificate_header`), as nobody else is.
    """
    hops = Hops(gate.stages.policy.proxy)

    async def verdict(asked: Asked) -> Answer:
        try:
            _judge(gate, hops, asked, token)
        except Problem as problem:
            refused = Response.of_problem(problem)
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in refused.headers}
            return Answer(refused.body, refused.status, {**headers, **_NO_STORE})
        except Exception:
            # a bug of ours: the proxy learns that nobody is let in, the operator everything
            log.exception("a verdict failed")
            return Answer(status_code=500, headers=_NO_STORE)
        return Answer(status_code=200, headers=_NO_STORE)

    return Route(VERDICT_PATH + "{path:path}", verdict, methods=_METHODS)


def _judge(gate: Gate, hops: Hops, asked: Asked, token: bytes | None) -> None:
    """Return where the gate would read on. Raises Problem."""
    headers: dict[bytes, bytes] = {}
    repeated = set()
    for name, value in asked.headers.raw:
        if name in headers:
            if name in ONCE or name == TOKEN_HEADER:
                raise Problem("bad-request", f"the header {name.decode('latin-1')} comes twice")
            repeated.add(name)
        headers[name] = value
    if token is not None and not hmac.compare_digest(headers.pop(TOKEN_HEADER, b""), token):
        raise Problem("unauthenticated", "the operations port's token was expected")
    peer, address = hops.peer(None if token is None else Hop(local=True), headers, None, repeated)
    path = asked.path_params["path"]
    caller = gate.stages.identify(Request(asked.method, path, headers, _no_body, address, peer))
    prove(asked.scope)  # a proxy keeps its connections, and somebody whom we know has just asked on this one
    endpoint = gate.endpoints.get(path)
    if endpoint is None:
        raise Problem("not-found")
    if not endpoint.allows(caller):
        raise Problem("forbidden")
    _admit(gate, caller, path, address)


def _admit(gate: Gate, caller: Caller, path: str, address: str | None) -> None:
    """Whether one of the routes that can be meant by a path would take a query now. Raises Problem of the last one."""
    routes = [route for route in gate.stages.policy.route if _is_meant(route, path)]
    if not routes and caller.standing == "suspended":
        raise Problem("suspended")
    refused: Problem | None = None
    for route in routes:
        try:
            gate.stages.admit(caller, route, 1, address=address, spending=False)
        except Problem as problem:
            refused = problem
        else:
            return
    if refused is not None:
        raise refused


def _is_meant(route: RoutePolicy, path: str) -> bool:
    # of a language model, the body says which one: any of those that share the path may be
    if route.protocol == "openai":
        return path.startswith(f"{route.path.rstrip('/')}/v1/")
    return path == route.route or path.startswith(f"{route.route}/")


async def _no_body() -> bytes:
    return b""
