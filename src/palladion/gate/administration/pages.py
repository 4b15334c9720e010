"""The HTTP side of operators' requests: the order of its steps is what protects it.

1 the host is one of ours, 2 no browser's page asks, 3 the address does not ask too often, 4 the path exists, 5 somebody
proves who he is and is an operator, 6 he does not ask too often, 7 his role permits it, 8 the body is JSON and small.
Nobody is exempt, from wherever he comes; the one page without a credential says how to get one.
"""

# ruff: noqa: TID253 (imported only where the policy lets operators sign in)

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from palladion.access.limits import Rate, States, admit
from palladion.access.networks import network_of
from palladion.access.strict_json import decode_object
from palladion.errors import FormatError, PalladionError
from palladion.gate.administration.effect import PendingError
from palladion.gate.administration.endpoints import Asked, Endpoint, Office, concerned, find_endpoint
from palladion.gate.administration.people import Evidence, People, Person, StrangerError
from palladion.gate.administration.refusals import MEDIA_TYPE, Refusal, refusal_of
from palladion.gate.administration.roles import ForbiddenError, require
from palladion.gate.administration.strangers import Strangers
from palladion.gate.operations.pages import is_loopback
from palladion.gate.operations.peers import prove
from palladion.policy import OperatorsPolicy

PREFIX = "/v1/"
UNIX = "unix"  # in place of an address, of whoever comes through the socket; no address is written so
BODY_BYTES_MAX = 256 * 1024  # a campaign of a thousand clients with the longest names
BODY_SECONDS_MAX = 10.0
# Before anybody has proved anything, by address, behind which there may be a whole team: verifying costs a millisecond.
ADDRESS_RATE = Rate(5.0, 100.0)
ADDRESSES_MAX = 4096
# Of one operator: a refused request is a record in the ledger, which nobody may flood.
PERSON_RATE = Rate(2.0, 60.0)
PEOPLE_MAX = 1024
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_NO_STORE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}

log = logging.getLogger("palladion.gate")


class Pages:
    """Answers operators. For one event loop."""

    def __init__(
        self,
        policy: OperatorsPolicy,
        people: People,
        office: Office,
        *,
        any_host: bool,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """`any_host` where TLS proves who answers; otherwise names of the loopback are answered to, and no others."""
        self._policy = policy
        self._people = people
        self._office = office
        self._any_host = any_host
        self._seconds = seconds
        self._addresses = States(ADDRESSES_MAX)
        self._persons = States(PEOPLE_MAX)
        self._strangers = Strangers()

    @property
    def routes(self) -> list[Route]:
        """For the application of the port, and for that of the socket."""
        return [Route(PREFIX + "{rest:path}", self.answer, methods=_METHODS)]

    async def answer(self, request: Request) -> Response:
        """The answer to one request."""
        try:
            document = await self._answer(request)
        except Refusal as refusal:
            return _response(refusal.status, refusal.document(), MEDIA_TYPE, refusal.headers())
        except ClientDisconnect:
            return _response(400, {}, MEDIA_TYPE, {})  # nobody reads it
        except Exception:
            log.exception("an operator's request failed")
            return _response(500, Refusal("internal").document(), MEDIA_TYPE, {})
        return _response(200, document, "application/json", {})

    async def _answer(self, request: Request) -> dict[str, Any]:
        peer = request.client.host if request.client is not None else ""
        # 1. a page in a browser on this host can send requests here under a name of its own (DNS rebinding)
        if peer != UNIX and not self._any_host and not is_loopback(request.headers.get("host", "")):
            raise Refusal("wrong-host")
        # 2. what a browser sends for a page says so, and no page is meant to ask here
        if "origin" in request.headers or "sec-fetch-site" in request.headers:
            raise Refusal("from-a-browser")
        # 3.
        address = f"{UNIX} {request.client.port}" if peer == UNIX and request.client else network_of(peer)
        self._spend(self._addresses, ADDRESS_RATE, address, 1.0)
        # 4.
        path = request.path_params["rest"]
        if (request.method, path) == ("GET", "sign-in"):
            return self._sign_in()
        if path == "session":
            return await self._session(request)
        endpoint, parts, methods = find_endpoint(request.method, path)
        if endpoint is None and not methods:
            raise Refusal("not-found", "there is no such path")
        if endpoint is None:
            raise Refusal("method-not-allowed", allow=", ".join(methods))
        # 5. and 6.
        evidence = self._prove(request)
        person = await self._admit(request, evidence, f"{endpoint.method} {endpoint.path}", parts)
        return await self._carry_out(request, endpoint, evidence, person, parts)

    async def _admit(
        self, request: Request, evidence: Evidence, what: str, parts: Mapping[str, str] = MappingProxyType({})
    ) -> Person:
        """The operator who asks. Raises Refusal, of which the ledger hears once an hour."""
        try:
            person = await self._office.desk.person(evidence)
        except PalladionError as error:
            count = self._strangers.count(evidence.identity, self._seconds())
            refusal = refusal_of(error)
            if count is not None:
                refusal = await self._told(evidence, what, refusal, parts=parts, body={}, count=count)
            raise refusal from None
        prove(request.scope)
        return person

    async def _carry_out(
        self, request: Request, endpoint: Endpoint, evidence: Evidence, person: Person, parts: Mapping[str, str]
    ) -> dict[str, Any]:
        body: Mapping[str, Any] = {}
        try:
            # 7. what changes something is checked where it is done
            if endpoint.right not in ("own", "desk"):
                require(person.role, endpoint.right)
            # 8.
            body = await _body(request) if endpoint.method == "POST" else {}
            return await endpoint.answer(self._office, Asked(evidence, person, parts, dict(request.query_params), body))
        except (PalladionError, ValueError) as error:
            raise await self._refuse(evidence, f"{endpoint.method} {endpoint.path}", error, parts, body) from None

    def _sign_in(self) -> dict[str, Any]:
        """How to sign in, for programs (as RFC 9728 has it): nothing that the provider keeps secret."""
        policy = self._policy
        if not policy.issuer:
            raise Refusal("not-found", "nobody signs in here by a provider: connect to the socket")
        return {
            "issuer": policy.issuer,
            "client_id": policy.client_id,
            "scope": policy.scope,
            "token": "access_token" if policy.audience else "id_token",
            **({"audience": policy.audience} if policy.audience else {}),
        }

    async def _session(self, request: Request) -> dict[str, Any]:
        if request.method not in {"POST", "DELETE"}:
            raise Refusal("method-not-allowed", allow="POST, DELETE")
        evidence = self._prove(request)
        desk = self._office.desk
        if request.method == "DELETE":
            ended = self._people.end(_bearer(request) or "")
            if ended:
                await desk.note("operator.signed-out", evidence.identity, {})
            return {"ended": ended}
        person = await self._admit(request, evidence, "POST session")
        try:
            session = self._people.begin(evidence, self._now())
            receipt = await desk.note("operator.signed-in", person.identity, {"role": person.role})
        except PalladionError as error:
            raise await self._refuse(evidence, "POST session", error) from None
        return {
            "token": session.token,
            "expires": int(session.expires),
            "identity": person.identity,
            "role": person.role,
            "receipt": str(receipt),
        }

    def _prove(self, request: Request) -> Evidence:
        """Who asks, as far as a credential proves it."""
        try:
            bearer = _bearer(request)
            if bearer is not None:
                evidence = self._people.of_bearer(bearer, self._now())
            elif request.client is not None and request.client.host == UNIX and self._policy.socket:
                evidence = self._people.of_user(request.client.port)
            else:
                raise Refusal("unauthenticated", "Authorization: Bearer TOKEN was expected")
        except StrangerError as error:
            raise refusal_of(error) from None
        self._spend(self._persons, PERSON_RATE, evidence.identity, 1.0)
        return evidence

    async def _refuse(
        self,
        evidence: Evidence,
        what: str,
        error: PalladionError | ValueError,
        parts: Mapping[str, str] = MappingProxyType({}),
        body: Mapping[str, Any] = MappingProxyType({}),
    ) -> Refusal:
        """The answer to an operator; it is in the ledger before he has it."""
        refusal = refusal_of(error) if isinstance(error, PalladionError) else Refusal("bad-request", str(error))
        if isinstance(error, PendingError):
            return refusal  # it was done, and the ledger says so
        if what.startswith("GET ") and not isinstance(error, ForbiddenError):
            return refusal  # a look at what is not there is no attempt at anything
        return await self._told(evidence, what, refusal, parts=parts, body=body)

    async def _told(
        self,
        evidence: Evidence,
        what: str,
        refusal: Refusal,
        *,
        parts: Mapping[str, str],
        body: Mapping[str, Any],
        count: int = 1,
    ) -> Refusal:
        change, client, number = concerned(parts, body)
        place = what.replace("{proposal}", number or "?").replace("{incident}", number or "?")
        try:
            await self._office.desk.refused(
                evidence.identity, place, refusal.kind, change=change, client=client, count=count
            )
        except PalladionError as unrecorded:
            return refusal_of(unrecorded)
        return refusal

    def _spend(self, states: States, rate: Rate, key: str, units: float) -> None:
        now = self._seconds()
        wait = states.wait(key, key, now)
        admission = admit(rate, states.by_key.get(key, 0.0), now, units)
        wait = max(wait, admission.wait_seconds)
        if wait > 0:
            raise Refusal("rate-limited", retry_after_seconds=int(wait) + 1)
        states.put(key, key, admission.state)

    def _now(self) -> float:
        return self._office.installation.clock.now().timestamp()


def _bearer(request: Request) -> str | None:
    values = request.headers.getlist("authorization")
    if not values:
        return None
    scheme, _, shown = values[0].partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer" or not shown.strip():
        raise StrangerError("Authorization: Bearer TOKEN was expected")
    return shown.strip()


async def _body(request: Request) -> Mapping[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal("unsupported-media-type", "application/json was expected")
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            async for piece in request.stream():
                data += piece
                if len(data) > BODY_BYTES_MAX:
                    raise Refusal("too-large", f"at most {BODY_BYTES_MAX} bytes were expected")
    except TimeoutError:
        raise FormatError("the body took too long to arrive") from None
    return decode_object(bytes(data), what="the body") if data else {}


def _response(status: int, document: Mapping[str, Any], media_type: str, headers: Mapping[str, str]) -> Response:
    # what is no number in it cannot be said in JSON, and is left out by msgspec as null
    data = msgspec.json.encode(document)
    return Response(data, status, {**_NO_STORE, **headers}, media_type)
