"""What answers on the paths of language models: which model is meant, who may ask it, and the way to its server.

Several models share the paths: the body says which one. One that does not exist and one that the client may not ask
look alike. Whole answers are made in `turn`, streams in `relay`.
"""

import secrets
from collections.abc import Mapping, Sequence

import msgspec

from palladion.gate.callers import Caller
from palladion.gate.chat.asked import EmbeddingAsked, model_of
from palladion.gate.chat.budget import Budget
from palladion.gate.chat.embeddings import Embeddings
from palladion.gate.chat.kinds import KINDS, Asked
from palladion.gate.chat.problems import ErrorObject
from palladion.gate.chat.relay import Relay
from palladion.gate.chat.response_request import ResponseAsked
from palladion.gate.chat.responses import Responses
from palladion.gate.chat.route import ModelRoute
from palladion.gate.chat.ruled import RuledClients
from palladion.gate.chat.shown import SaidBefore, Shown
from palladion.gate.chat.terms import Terms
from palladion.gate.chat.texts import Label, Texts
from palladion.gate.chat.turn import Turn, Work, encoded
from palladion.gate.chat.usage import BYTES_PER_TOKEN
from palladion.gate.end_users import name_from
from palladion.gate.problems import Problem
from palladion.gate.questions import REQUEST_ID_BYTES
from palladion.gate.requests import JSON, Request, Response
from palladion.gate.stages import Stages
from palladion.watch.text.query import NOT_SAID

OWNER = "palladion"  # whose the models are, as clients see it


class Asking(ErrorObject):
    """Answers on one path of all models that share it. Satisfies `endpoint.Endpoint` and `ErrorForm`."""

    methods: Sequence[str] = ("POST",)
    media_types = frozenset({JSON})

    def __init__(
        self,
        stages: Stages,
        kind: str,
        routes: Mapping[str, ModelRoute],
        budget: Budget,
        said_before: SaidBefore,
        *,
        ruled: RuledClients,
    ) -> None:
        """`kind` is one of `KINDS`; `routes` are by the names of their models."""
        self._stages = stages
        self._kind = kind
        self._action = KINDS[kind].action
        self._routes = routes
        self._budget = budget
        self._said_before = said_before
        self._ruled = ruled

    def allows(self, caller: Caller) -> bool:
        """Whether the caller may ask any of the models."""
        return any(caller.may(self._action, route.policy) for route in self._routes.values())

    async def answer(self, caller: Caller, request: Request) -> Response:
        """The response to a request. Raises Problem."""
        stages = self._stages
        open_to = [route for route in self._routes.values() if caller.may(self._action, route.policy)]
        for each in open_to:
            if stages.modes.level(caller, each.policy) is not None:
                break
        else:
            raise Problem("suspended")
        # 2. admit: which model pays is known when the body is read
        body = await request.body()
        if caller.client.reseller and caller.user is None and name_from(request, body):
            caller = stages.identify(request)
        model = model_of(body)
        route = self._routes.get(model)
        if route is None or route not in open_to:
            # guessing names is paid for as well
            stages.admit(caller, open_to[0].policy, 1, address=request.address)
            raise Problem("model-not-found", field="model")
        stages.admit(caller, route.policy, 1, address=request.address)
        # 3. decode
        asked = route.decode(self._kind, body)
        rows = asked.rows
        if rows > 1:
            if rows > stages.policy.gate.rows_max:
                raise Problem("bad-input", f"{rows} texts, at most {stages.policy.gate.rows_max} are taken")
            stages.admit(caller, route.policy, rows - 1, rows=rows, address=request.address)
        if model in stages.directory.decoys.texts:
            caller = await stages.heard(caller, request, route.policy, _said(asked))
        shown = None
        if route.calibration is None:
            shown = self._unwatched(caller, asked)
            caller = await self._heard(caller, route, asked, shown)
        turn = await self._turn(caller, request, body, route, asked, shown=shown)
        # 4. infer, and what follows
        if asked.stream:
            return await Relay(turn, await turn.streamed()).response()
        return await turn.whole()

    def _unwatched(self, caller: Caller, asked: Asked) -> Shown | None:
        """What is new in a request that the watch does not look at; None where nobody else does."""
        retention = self._stages.retention
        if isinstance(asked, EmbeddingAsked) and not (retention is not None and retention.keeps_texts):
            return None  # documents say what they say: nobody asks an embedding for its reasons
        try:
            return self._said_before.show(caller.id, asked)
        except Problem:
            return None  # numbers of tokens: a model that is not watched takes them, and they say nothing

    async def _heard(self, caller: Caller, route: ModelRoute, asked: Asked, shown: Shown | None) -> Caller:
        """The caller as it stands by rules on what it asks, where nothing else looks at that. Raises Problem."""
        if shown is None or isinstance(asked, EmbeddingAsked):
            return caller
        queries = [query for part in shown.parts(at=NOT_SAID) for query in part]
        return await self._ruled.hear(self._stages, caller, route.policy, queries)

    async def _turn(
        self, caller: Caller, request: Request, body: bytes, route: ModelRoute, asked: Asked, *, shown: Shown | None
    ) -> Turn:
        stages, policy = self._stages, route.policy
        disclosed = route.given_to(caller, stages.modes, stages.promises)
        if disclosed is None:
            raise Problem("suspended")
        level, given = disclosed
        # before it is bound: how it was asked tells of who asks
        if route.calibration is not None:
            shown = self._said_before.show(caller.id, asked)
        request_id = secrets.token_hex(REQUEST_ID_BYTES)
        if not stages.seeds.holds(caller.id):
            await stages.seeds.open(caller.id)
        # before anything is set aside, and for good: the client may be forgotten while its answer is on the way
        salt = stages.seeds.salt(caller.id, request_id)
        label = Label(request_id, int(stages.clock.now().timestamp()), policy.model)
        work = _bound(asked, given, label, model=route.upstream_model, request_bytes=len(body))
        sent = encoded(asked)
        if route.marks is not None and not isinstance(asked, EmbeddingAsked):
            sent = msgspec.json.encode(
                await route.marks.marked(
                    msgspec.json.decode(sent),
                    stages.name(caller.id),
                    stages.clock.now(),
                    lambda record: stages.record([record], [], policy),
                )
            )
        tokens = len(body) // BYTES_PER_TOKEN + work.tokens_max
        return Turn(
            stages, route, self._kind, caller, request, body, sent, asked.rows, level, given, work,
            # of information at most: one new bucket for each text
            self._budget.reserve(caller, policy, queries=asked.rows, tokens=tokens, information=asked.rows),
            request_id, salt, shown,
        )  # fmt: skip


def _said(asked: Asked) -> list[str]:
    """The texts that a request may have taken from somewhere: the first and the newest of each query."""
    try:
        return [text for texts in asked.said if texts for text in {texts[0], texts[-1]}]
    except Problem:
        return []  # numbers of tokens, which a model that is not watched takes: no decoy is known by these


def _bound(asked: Asked, given: Terms, label: Label, *, model: str, request_bytes: int) -> Work:
    """Bind a request to what is given, and make what will read its answer."""
    if isinstance(asked, EmbeddingAsked):
        encoding = asked.encoding_format
        asked.bind(given, model)
        return Embeddings(asked, label, request_bytes=request_bytes, encoding=encoding)
    if isinstance(asked, ResponseAsked):
        asked.bind(given, model)
        return Responses(asked, label, request_bytes=request_bytes)
    include_usage = asked.include_usage
    asked.bind(given, model)
    return Texts(asked, label, request_bytes=request_bytes, include_usage=include_usage)


class Listing(ErrorObject):
    """Lists the models that the client may ask, or shows one. Satisfies `endpoint.Endpoint` and `ErrorForm`."""

    methods: Sequence[str] = ("GET",)
    media_types = frozenset({JSON})

    def __init__(self, stages: Stages, routes: Mapping[str, ModelRoute], *, only: str = "") -> None:
        """With `only`, one model is described."""
        self._stages = stages
        self._routes = routes
        self._only = only
        self._since = int(stages.clock.now().timestamp())

    def allows(self, caller: Caller) -> bool:
        """Everybody who is let in: who may ask nothing sees nothing."""
        return True

    async def answer(self, caller: Caller, request: Request) -> Response:
        """The response to a request. Raises Problem."""
        shown = [
            name
            for name, route in self._routes.items()
            if caller.may("describe", route.policy) and self._only in {"", name}
        ]
        route = self._routes[shown[0]] if shown else next(iter(self._routes.values()))
        self._stages.admit(caller, route.policy, 1, address=request.address)
        if self._only and not shown:
            raise Problem("model-not-found", field="model")
        models = [{"id": name, "object": "model", "created": self._since, "owned_by": OWNER} for name in shown]
        document = models[0] if self._only else {"object": "list", "data": models}
        return Response(200, msgspec.json.encode(document), [(b"content-type", JSON)])
