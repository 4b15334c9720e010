"""A call of gRPC as the gate's request: metadata as headers, the message on demand, and who is at the other end.

The other way round, a response as what the call ends with. What a call means is in `front`.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from typing import Any, NoReturn
from urllib.parse import unquote

from palladion.access.certificates import read_certificate
from palladion.errors import FormatError
from palladion.gate.grpc.front import SERVICE_PATH, Front
from palladion.gate.grpc.messages import Messages
from palladion.gate.grpc.statuses import status_of, trailing_metadata
from palladion.gate.hops import CERTIFICATES_MAX, ONCE, Hop, Hops
from palladion.gate.problems import Problem
from palladion.gate.protocols.open_inference import PLATFORM
from palladion.gate.protocols.tensors import OCTETS
from palladion.gate.requests import Request, Response

REQUEST_HEADER = b"palladion-request"
UNREAD_SECONDS_MAX = 30.0  # a peer that takes no answer holds memory, as over HTTP

Handler = Callable[[Any, Any], Awaitable[bytes]]
log = logging.getLogger("palladion.gate")


class Calls:
    """Answers the rpcs of a front. One per listener."""

    def __init__(self, front: Front, messages: Messages) -> None:
        """Raises PolicyError where `[proxy]` cannot be understood."""
        self._front = front
        self._stages = front.stages
        self._hops = Hops(front.stages.policy.proxy)
        self._read_hop = lru_cache(CERTIFICATES_MAX)(_read_hop)
        self._answers: dict[str, Callable[[Response], bytes]] = {
            "ServerLive": lambda _: _encoded(messages["ServerLiveResponse"](live=True)),
            "ServerReady": lambda response: _encoded(messages["ServerReadyResponse"](ready=response.status == 200)),
            "ModelReady": lambda response: _encoded(messages["ModelReadyResponse"](ready=response.status == 200)),
            # the version stays untold: it would say which faults are still in here
            "ServerMetadata": lambda _: _encoded(messages["ServerMetadataResponse"](name=PLATFORM)),
            "ModelMetadata": lambda response: response.body,
            "ModelInfer": lambda response: response.body,
        }

    def handler(self, rpc: str) -> Handler:
        """What gRPC calls for an rpc, as for one that takes a stream: of such it reads nothing until it is asked to."""
        answer = self._answers[rpc]

        async def handle(_: object, context: Any) -> bytes:
            begun = time.perf_counter()
            try:
                response = await self._respond(rpc, context)
                message = b"" if response.problem else answer(response)
            except Problem as problem:
                response, message = Response.of_problem(problem), b""
            except Exception:
                # a bug of ours: the client learns nothing, the operator everything
                log.exception("a call failed")
                response, message = Response.of_problem(Problem("internal")), b""
            self._count(rpc, response, time.perf_counter() - begun)
            if response.problem:
                await _abort(context, response)
            context.set_trailing_metadata(trailing_metadata(response))
            _end_unread(UNREAD_SECONDS_MAX)
            return message

        return handle

    async def _respond(self, rpc: str, context: Any) -> Response:
        headers, repeated = _headers(context.invocation_metadata())
        stages = self._stages
        policy = stages.policy.gate

        async def body() -> bytes:
            # called when the client is known and admitted; until then nothing is read, and no limit is told
            try:
                with stages.deadlines.within(policy.body_seconds_max):
                    message = await context.read()
            except TimeoutError:
                raise Problem("timeout", f"a message has to arrive within {policy.body_seconds_max} s") from None
            if not isinstance(message, bytes):
                raise Problem("bad-request", "there is no message")
            if len(message) > policy.body_bytes_max:
                raise Problem("too-large", f"a message may have {policy.body_bytes_max} bytes")
            return message

        address = None if policy.behind_proxy else _address(context.peer())
        peer, address = self._hops.peer(self._hop(context), headers, address, repeated)
        return await self._front.handle(rpc, Request("POST", SERVICE_PATH + rpc, headers, body, address, peer))

    def _hop(self, context: Any) -> Hop | None:
        if self._stages.policy.gate.client_certificate != "required":
            return None  # nobody was asked for one
        # gRPC gives it only when it was verified
        shown = context.auth_context().get("x509_pem_cert")
        return self._read_hop(bytes(shown[0])) if shown else None

    def _count(self, rpc: str, response: Response, seconds: float) -> None:
        self._stages.meter.answered(
            SERVICE_PATH + rpc, response.status, response.problem, seconds, lambda: _request_id(response)
        )


def _headers(metadata: Iterable[tuple[str, str | bytes]] | None) -> tuple[dict[bytes, bytes], set[bytes]]:
    """Headers in lower case, as gRPC has them, and which of them came more than once. Raises Problem."""
    headers: dict[bytes, bytes] = {}
    repeated: set[bytes] = set()
    for key, value in metadata or ():
        name = key.encode()
        if name in headers:
            if name in ONCE:
                raise Problem("bad-request", f"the header {key} comes twice")
            repeated.add(name)
        headers[name] = value.encode() if isinstance(value, str) else value
    headers[b"content-type"] = OCTETS  # of all that the gate sees of a message; gRPC's own says nothing more
    return headers, repeated


def _read_hop(pem: bytes) -> Hop:
    """Who showed a certificate. Raises Problem where it is verified, and still not to be read."""
    try:
        return Hop(read_certificate(ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))))
    except (FormatError, ValueError):
        raise Problem("unauthenticated", "the credential is not accepted") from None


def _address(peer: str) -> str | None:
    """The address in what gRPC says of a peer: `ipv4:127.0.0.1:1` or `ipv6:%5B::1%5D:1`."""
    kind, _, rest = peer.partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return None
    return unquote(rest).rpartition(":")[0].strip("[]") or None


async def _abort(context: Any, response: Response) -> NoReturn:
    import grpc

    code, sentence = status_of(response)
    # where the call is over, nobody can be told: the client went away, or sent more than a message may have
    with suppress(grpc.aio.InternalError):
        await context.abort(grpc.StatusCode[code], sentence, trailing_metadata(response))
    raise asyncio.CancelledError


def _end_unread(seconds: float) -> None:
    """End the call that is being answered where its answer is not taken in time."""
    task = asyncio.current_task()
    if task is not None:
        timer = asyncio.get_running_loop().call_later(seconds, task.cancel)
        task.add_done_callback(lambda _: timer.cancel())


def _encoded(message: Any) -> bytes:
    encoded: bytes = message.SerializeToString()
    return encoded


def _request_id(response: Response) -> str:
    return next((value.decode("ascii") for name, value in response.headers if name == REQUEST_HEADER), "")
