"""What answers on the three paths of a program: its bundle, keys that a client sends once, and encrypted queries.

Whoever is read here is identified. A query goes: admit → decode → spend slots → compute → record; there is no observing
and no disclosing, since nobody here sees what is asked or answered.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from palladion.errors import FormatError, TamperError
from palladion.gate.callers import Caller
from palladion.gate.encrypted.flight import QUERIES_EACH, QUERIES_TOTAL, InFlight
from palladion.gate.encrypted.shelf import Shelf
from palladion.gate.encrypted.slots import Charge, SlotBudgets
from palladion.gate.encrypted.workers import Keys, RefusedError, WorkerError, Workers
from palladion.gate.problems import Problem
from palladion.gate.questions import REQUEST_ID_BYTES
from palladion.gate.requests import JSON, Request, Response
from palladion.gate.stages import Stages
from palladion.ledger.record import Record
from palladion.policy import RoutePolicy
from palladion.policy.encrypted import EncryptedPolicy
from palladion.private.homomorphic.envelope import HEADER_BYTES_MAX, MEDIA_TYPE, Envelope, keys_id, parse_envelope
from palladion.private.homomorphic.forms import Forms
from palladion.private.homomorphic.leakage import slots_carried
from palladion.private.homomorphic.program import Bundle

MIB = 1024 * 1024
UPLOADS_MAX = 16  # of keys at once, of one client each; fewer where they are large
LENGTH_DIGITS_MAX = 12
REFUSED = "this cannot be computed on: were ciphertexts and keys made for this program?"
_TYPE = MEDIA_TYPE.encode()

log = logging.getLogger("palladion.gate")


@dataclass(frozen=True, eq=False)
class Serving:
    """A program that is served: what clients may have, who computes, and under which name records tell of it."""

    policy: EncryptedPolicy
    route: RoutePolicy
    bundle: Bundle
    forms: Forms
    workers: Workers
    subject: str
    digest: str


class _Paths:
    """What the endpoints of a program have in common."""

    media_types = frozenset({_TYPE})
    action = "ask"

    def __init__(self, stages: Stages, serving: Serving, shelf: Shelf) -> None:
        self.stages, self.serving, self.shelf = stages, serving, shelf

    @property
    def body_seconds_max(self) -> int:
        """Seconds in which a body has to arrive."""
        return self.serving.policy.upload_seconds

    def allows(self, caller: Caller) -> bool:
        """Whether the caller may do this here at all."""
        return caller.may(self.action, self.serving.route)

    def let_in(self, caller: Caller) -> None:
        """Raise Problem unless the caller is to see whole answers: an encrypted one cannot be reduced."""
        level = self.stages.modes.level(caller, self.serving.route)
        if level is None:
            raise Problem("suspended")
        if level != "contract":
            raise Problem("forbidden", "encrypted answers are for clients that may see whole ones")

    def check_type(self, request: Request) -> None:
        """Raise Problem for a body of another kind."""
        if request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != _TYPE:
            raise Problem("unsupported-media-type", f"{MEDIA_TYPE} was expected")


class BundlePage(_Paths):
    """Gives the bundle. Satisfies `endpoint.Endpoint`."""

    methods: Sequence[str] = ("GET",)
    action = "describe"

    async def answer(self, caller: Caller, request: Request) -> Response:
        """The bundle's file. Raises Problem."""
        self.stages.admit(caller, self.serving.route, 1, address=request.address)
        return Response(200, self.serving.bundle.encode(), [(b"content-type", _TYPE)])


class KeysPage(_Paths):
    """Takes evaluation keys. Satisfies `endpoint.Endpoint`."""

    methods: Sequence[str] = ("PUT",)

    def __init__(self, stages: Stages, serving: Serving, shelf: Shelf) -> None:
        super().__init__(stages, serving, shelf)
        most = serving.policy.keys_mib * MIB // self.body_bytes_max
        self._uploads = InFlight(each=1, total=max(2, min(UPLOADS_MAX, most)))

    @property
    def body_bytes_max(self) -> int:
        """Bytes of a body: keys of this program's parameters have one size."""
        return self.serving.forms.rotation.size + self.serving.forms.squares.size + HEADER_BYTES_MAX

    async def answer(self, caller: Caller, request: Request) -> Response:
        """Keep the keys. Raises Problem."""
        self.let_in(caller)
        self.check_type(request)
        self.stages.admit(caller, self.serving.route, 1, address=request.address)
        with self._uploads.holding(caller.id, 1):
            body = await request.body()
            keys = await asyncio.to_thread(self._checked, body)
        # whoever was revoked or suspended while they arrived leaves nothing here
        caller = self.stages.identify(request)
        self.let_in(caller)
        self.shelf.put(caller.id, self.serving.bundle.id, keys)
        document = {"keys": keys.id, "program": self.serving.bundle.id}
        return Response(200, msgspec.json.encode(document), [(b"content-type", JSON)])

    def _checked(self, body: bytes) -> Keys:
        try:
            envelope = parse_envelope(body, kind="keys", program=self.serving.bundle.id)
            if len(envelope.parts) != 2:
                raise FormatError(f"{len(envelope.parts)} sets of keys, expected those for rotations and for squares")
            rotation, squares = envelope.parts
            self.serving.forms.check_keys(rotation, squares)
        except (FormatError, TamperError) as error:
            raise Problem("bad-input", error.message) from None
        return Keys(keys_id(rotation, squares), rotation, squares)


class QueryPage(_Paths):
    """Answers queries. Satisfies `endpoint.Endpoint`."""

    methods: Sequence[str] = ("POST",)

    def __init__(self, stages: Stages, serving: Serving, shelf: Shelf, slots: SlotBudgets) -> None:
        super().__init__(stages, serving, shelf)
        self._slots = slots
        self._in_flight = InFlight(each=QUERIES_EACH * self.body_bytes_max, total=QUERIES_TOTAL * self.body_bytes_max)

    @property
    def body_bytes_max(self) -> int:
        """Bytes of a body."""
        return self.serving.policy.query_mib * MIB

    async def answer(self, caller: Caller, request: Request) -> Response:
        """The encrypted answer to a query. Raises Problem."""
        self.let_in(caller)
        # a body costs memory before anything of it is known
        self.stages.admit(caller, self.serving.route, 1, address=request.address)
        with self._in_flight.holding(caller.id, _announced(request, self.body_bytes_max)):
            return await self._answered(caller, request)

    async def _answered(self, caller: Caller, request: Request) -> Response:
        stages, serving = self.stages, self.serving
        # 1. decode: nothing of it reaches SEAL here
        body = await request.body()
        envelope = await asyncio.to_thread(self._decoded, body)
        keys = self._keys(caller, envelope)
        # 2. admit: what cannot be seen counts as if it were full, and for the budget as all that an answer carries
        by_columns, bundle = envelope.form == "columns", serving.bundle
        count = bundle.parameters.slots if by_columns else len(envelope.parts) * bundle.layout.rows
        slots = slots_carried(bundle, len(envelope.parts), by_columns=by_columns)
        models = (bundle.header.model, f"name:{serving.policy.model}")
        # one was spent before the body
        stages.admit(caller, serving.route, max(0, count - 1), rows=count, address=request.address)
        with stages.reserve(caller, serving.route, queries=count) as reservation:
            name = stages.name(caller.id)
            charge = Charge(self._slots, models, name, slots)
            try:
                spent = await charge.pay(each=serving.policy.slots_per_client, total=serving.policy.slots_total)
                # 3. compute, and 4. record: nothing leaves without it
                answer = await self._computed(keys, envelope, charge)
                caller = stages.identify(request)
                self.let_in(caller)
                headers = await self._recorded(caller, request, body, answer, slots=(count, spent))
            except RefusedError:
                # paid for as well: what SEAL refuses tells of keys and ciphertexts, and cost a process its time
                raise Problem("bad-input", REFUSED) from None
            except WorkerError:
                log.error("%s: a worker for encrypted queries ended", serving.route.route)  # noqa: TRY400
                raise Problem("upstream-failed", "the process that computes ended: were these made for this?") from None
            finally:
                # whatever becomes of it: what a worker has begun is paid for, and nothing else is
                if charge.is_due:
                    reservation.settle()
                else:
                    await asyncio.shield(charge.give_back())
        stages.answered += count
        return Response(200, answer, [(b"content-type", _TYPE), *headers])

    def _decoded(self, body: bytes) -> Envelope:
        bundle = self.serving.bundle
        try:
            envelope = parse_envelope(body, kind="query", program=bundle.id)
            if envelope.form == "columns" and not bundle.by_columns:
                raise FormatError("a program of several hidden layers is not asked by columns")
            wanted = bundle.features if envelope.form == "columns" else 1
            if len(envelope.parts) < wanted or (envelope.form == "columns" and len(envelope.parts) != wanted):
                raise FormatError(f"{len(envelope.parts)} ciphertexts came, {wanted} or more were expected")
            for part in envelope.parts:
                self.serving.forms.ciphertext.check(part, what="a ciphertext")
        except (FormatError, TamperError) as error:
            raise Problem("bad-input", error.message) from None
        return envelope

    def _keys(self, caller: Caller, envelope: Envelope) -> Keys | None:
        if envelope.form == "columns":
            return None
        keys = self.shelf.get(caller.id, self.serving.bundle.id, envelope.keys)
        if keys is None:
            raise Problem("keys-needed", f"send them by PUT to {self.serving.route.route}/keys")
        return keys

    async def _computed(self, keys: Keys | None, envelope: Envelope, charge: Charge) -> bytes:
        try:
            with self.stages.deadlines.within(self.serving.policy.answer_seconds):
                parts = await self.serving.workers.evaluate(keys, envelope.form, envelope.parts, begun=charge.fall_due)
        except TimeoutError:
            raise Problem("upstream-timeout", "the answer was not computed in time") from None
        return Envelope("answer", envelope.program, envelope.keys, envelope.form, tuple(parts)).encode()

    async def _recorded(
        self, caller: Caller, request: Request, body: bytes, answer: bytes, *, slots: tuple[int, int]
    ) -> list[tuple[bytes, bytes]]:
        stages, serving, (count, spent) = self.stages, self.serving, slots
        request_id = secrets.token_hex(REQUEST_ID_BYTES)
        if not stages.seeds.holds(caller.id):
            await stages.seeds.open(caller.id)
        salt = stages.seeds.salt(caller.id, request_id)
        details: dict[str, Any] = {
            "request": request_id,
            "route": serving.route.route,
            "endpoint": "encrypted",
            "program": serving.digest,
            "queries": count,
            "slots_spent": spent,
            "standing": caller.standing,
            "disclosed": "contract",
            "mode": stages.modes.of(caller, serving.route),
            **stages.network(request),
            **stages.end_user(caller),
            "p_value": None,
            "request_digest": salt.digest(body),
            "answer_digest": salt.digest(answer),
            "seed": salt.seed,
        }
        record = Record("answer.given", stages.clock.now(), stages.name(caller.id), serving.subject, details)
        receipt = (await stages.record([record], [], serving.route))[-1]
        return [(b"palladion-request", request_id.encode()), (b"palladion-receipt", str(receipt).encode())]


def _announced(request: Request, bytes_max: int) -> int:
    """Bytes that a body may have: what its length says, where it has one that holds, and else the most."""
    length = request.headers.get(b"content-length", b"")
    if b"transfer-encoding" in request.headers or not length.isdigit() or len(length) > LENGTH_DIGITS_MAX:
        return bytes_max
    return min(int(length), bytes_max)


def endpoints(
    stages: Stages, serving: Serving, shelf: Shelf, slots: SlotBudgets
) -> dict[str, BundlePage | KeysPage | QueryPage]:
    """What answers on which path of a program."""
    path = serving.route.route
    make: dict[str, Callable[[Stages, Serving, Shelf], BundlePage | KeysPage | QueryPage]] = {
        path: BundlePage,
        f"{path}/keys": KeysPage,
        f"{path}/query": partial(QueryPage, slots=slots),
    }
    return {name: page(stages, serving, shelf) for name, page in make.items()}
