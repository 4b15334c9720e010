"""What is told of a server and of models without asking them: that they are up, by paths that a protocol names.

Open-inference has such paths; `/health/live` and `/health/ready`, which need no key, are in `app`. Here clients are
known and admitted as everywhere: who may ask no model behind a path learns nothing from it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from palladion.gate.callers import Caller
from palladion.gate.problems import Problem
from palladion.gate.protocols.open_inference import ready_page, server_page
from palladion.gate.protocols.protocol import ErrorForm
from palladion.gate.protocols.tensors import OCTETS
from palladion.gate.requests import JSON, Request, Response
from palladion.gate.stages import Stages
from palladion.policy import RoutePolicy

RETRY_SECONDS = 5  # about as often as an upstream that is down is looked for


@dataclass(frozen=True, eq=False)
class Waiting:
    """A route that waits until its upstream says what the model takes; by path, what it will answer."""

    route: RoutePolicy
    paths: Mapping[str, str]
    errors: ErrorForm | None = None


class ReadyPage:
    """Whether one model can be asked. Satisfies `endpoint.Endpoint`."""

    methods: Sequence[str] = ["GET"]
    media_types = frozenset({JSON})

    def __init__(self, stages: Stages, route: RoutePolicy, is_ready: Callable[[], bool]) -> None:
        self._stages = stages
        self.route = route
        self.is_ready = is_ready

    def allows(self, caller: Caller) -> bool:
        """Whether the caller may ask this model."""
        return caller.may("describe", self.route)

    async def answer(self, caller: Caller, request: Request) -> Response:
        """Its state; costs one query, as a description does."""
        self._stages.admit(caller, self.route, 1, address=request.address)
        status, page = ready_page(self.route.model, ready=self.is_ready())
        return Response(status, page.body, page.headers)


class ServerPage:
    """What several routes have in common on a path. Satisfies `endpoint.Endpoint`."""

    methods: Sequence[str] = ["GET"]
    media_types = frozenset({JSON})

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self.models: list[ReadyPage] = []

    def allows(self, caller: Caller) -> bool:
        """Whether the caller may ask any of the models."""
        return any(model.allows(caller) for model in self.models)

    async def answer(self, caller: Caller, request: Request) -> Response:
        """The page; ready is who has all the models ready that this caller may ask. Costs one query."""
        models = [model for model in self.models if model.allows(caller)]
        self._stages.admit(caller, models[0].route, 1, address=request.address)
        status, page = server_page(request.path, lambda: all(model.is_ready() for model in models))
        return Response(status, page.body, page.headers)


class WaitingPage:
    """Where a model will be asked and described. Satisfies `endpoint.Endpoint`."""

    def __init__(self, stages: Stages, route: RoutePolicy, action: str) -> None:
        self.methods: Sequence[str] = [
            method for method, word in (("GET", "describe"), ("POST", "ask")) if word in action.split()
        ]
        self.media_types: frozenset[bytes] = frozenset({JSON, OCTETS})
        self._stages = stages
        self._route = route

    def allows(self, caller: Caller) -> bool:
        """Whether the caller may ask this model."""
        return caller.may("ask", self._route)

    async def answer(self, caller: Caller, request: Request) -> Response:
        """Raises Problem: nothing can be said yet."""
        self._stages.admit(caller, self._route, 1, address=request.address)
        raise Problem("not-ready", retry_after_seconds=RETRY_SECONDS)
