"""The pages of the second port: metrics and health. What is in them comes from `figures` and `health`."""

# ruff: noqa: TID253 (port imports this, and only where the policy names an address)

import hmac
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from palladion.gate.operations.figures import Figures
from palladion.gate.operations.health import Health
from palladion.gate.operations.prometheus import CONTENT_TYPE, encode

_NO_STORE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}

Page = Callable[[Request], Awaitable[Response]]


def make_pages(figures: Figures, health: Health, *, token: bytes | None, others: Sequence[Route] = ()) -> Starlette:
    """The pages. Without a `token` they answer to the names of the loopback alone; `others` look after themselves."""

    async def metrics(request: Request) -> Response:
        if token is not None and not _shows(request, token):
            return Response(status_code=401, headers={"www-authenticate": "Bearer", **_NO_STORE})
        return Response(encode(await figures.read()), media_type=CONTENT_TYPE, headers=_NO_STORE)

    async def live(_request: Request) -> Response:
        return JSONResponse({"ok": True}, headers=_NO_STORE)

    async def ready(request: Request) -> Response:
        faults = health.faults()
        told = {"ok": not faults}
        # the names of routes and of what is wrong with them are for those who may read the figures
        if token is None or _shows(request, token):
            told["faults"] = faults  # type: ignore[assignment]
        return JSONResponse(told, status_code=503 if faults else 200, headers=_NO_STORE)

    def local(page: Page) -> Page:
        async def guarded(request: Request) -> Response:
            # a page in a browser on this host can send requests here under a name of its own (DNS rebinding)
            if token is None and not is_loopback(request.headers.get("host", "")):
                return Response(status_code=421, headers=_NO_STORE)
            return await page(request)

        return guarded

    pages = {"/metrics": metrics, "/health/live": live, "/health/ready": ready}
    own = [Route(path, local(page), methods=["GET"]) for path, page in pages.items()]
    return Starlette(routes=[*own, *others])


def _shows(request: Request, token: bytes) -> bool:
    scheme, _, shown = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(shown.strip().encode("utf-8", "replace"), token)


def is_loopback(host: str) -> bool:
    """Whether the value of a Host header names this machine to itself."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    try:
        return ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return name == "localhost"
