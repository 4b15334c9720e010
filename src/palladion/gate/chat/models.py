"""The language models of a policy: a route for each, and the endpoints on the paths that they share."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from palladion.gate.chat.budget import Budget, Unlimited
from palladion.gate.chat.endpoint import Asking, Listing
from palladion.gate.chat.kinds import KINDS
from palladion.gate.chat.marks import TextMarks
from palladion.gate.chat.route import ModelRoute
from palladion.gate.endpoint import Endpoint
from palladion.gate.stages import Stages
from palladion.gate.upstream.limits import UpstreamLimits
from palladion.gate.upstream.opening import needs_upstream, open_upstream
from palladion.gate.upstream.pool import Upstream
from palladion.keys import Root
from palladion.policy import Policy, RoutePolicy

PROTOCOL = "openai"


class LanguageModels:
    """The routes of protocol openai. Made and closed in one event loop."""

    def __init__(self, policy: Policy, home: Path, stages: Stages, root: Root, budget: Budget | None = None) -> None:
        """File names in the policy are relative to `home`; `root` is the gate's. Raises PolicyError."""
        self.policies = [route for route in policy.route if route.protocol == PROTOCOL]
        self._stages, self._budget = stages, budget or Unlimited()
        self.put([_open(route, home, root) for route in self.policies])

    @property
    def servers(self) -> Mapping[str, Upstream]:
        """The upstream of each route."""
        return {route.policy.route: route.server for route in self._routes}

    def renewed(self, policy: Policy) -> list[ModelRoute]:
        """The same routes under other settings, which are in force once they are `put`. Raises PolicyError."""
        settings = {route.route: route for route in policy.route}
        return [ModelRoute(settings[route.policy.route], route.server, route.marks) for route in self._routes]

    def put(self, routes: Sequence[ModelRoute]) -> None:
        """Answer by these from now on; `endpoints` are others then."""
        self.policies = [route.policy for route in routes]
        self._routes = list(routes)
        self.endpoints = self.answering(routes)

    def answering(self, routes: Sequence[ModelRoute]) -> Mapping[str, Endpoint]:
        """What answers on which path, by these routes."""
        return _endpoints(self._stages, routes, self._budget)

    async def close(self) -> None:
        """Close every connection."""
        for route in self._routes:
            await route.server.close()


def _open(route: RoutePolicy, home: Path, root: Root) -> ModelRoute:
    if not route.upstream:
        raise needs_upstream(route)
    # a whole text is written before its head comes
    limits = UpstreamLimits(head_seconds=float(route.answer_seconds))
    marks = TextMarks(route.engine, root) if route.engine else None
    return ModelRoute(route, open_upstream(route, home, limits=limits), marks)


def _endpoints(stages: Stages, routes: Sequence[ModelRoute], budget: Budget) -> dict[str, Endpoint]:
    """What answers on which path; routes of one prefix share all but the page of each model."""
    prefixes: dict[str, dict[str, ModelRoute]] = {}
    for route in routes:
        prefixes.setdefault(route.policy.path.rstrip("/"), {})[route.policy.model] = route
    found: dict[str, Endpoint] = {}
    for prefix, named in prefixes.items():
        for kind in KINDS:
            found[prefix + kind] = Asking(stages, kind, named, budget)
        found[f"{prefix}/v1/models"] = Listing(stages, named)
        for model in named:
            found[f"{prefix}/v1/models/{model}"] = Listing(stages, named, only=model)
    return found
