"""The language models of a policy: a route for each, and the endpoints on the paths that they share."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from palladion.gate.chat.budget import Budget, Unlimited
from palladion.gate.chat.calibrated import check_calibrations, read_calibration
from palladion.gate.chat.encoding import Encoding
from palladion.gate.chat.endpoint import Asking, Listing
from palladion.gate.chat.kinds import KINDS
from palladion.gate.chat.marks import TextMarks
from palladion.gate.chat.route import ModelRoute
from palladion.gate.chat.ruled import RuledClients
from palladion.gate.chat.shown import SaidBefore
from palladion.gate.endpoint import Endpoint
from palladion.gate.keeper import Keeper, try_states
from palladion.gate.retiring import Retiring
from palladion.gate.stages import Stages
from palladion.gate.upstream.limits import UpstreamLimits
from palladion.gate.upstream.opening import needs_upstream, open_upstream
from palladion.gate.upstream.pool import Upstream
from palladion.gate.upstream.sources import comes_from_elsewhere
from palladion.keys import Root
from palladion.policy import Policy, RoutePolicy
from palladion.registry import Registry
from palladion.watch.text.encoder import Digests, SentenceEncoder

PROTOCOL = "openai"


class LanguageModels:
    """The routes of protocol openai. Made and closed in one event loop."""

    def __init__(
        self,
        policy: Policy,
        home: Path,
        stages: Stages,
        root: Root,
        budget: Budget | None = None,
        *,
        calibrations: Path | None = None,
    ) -> None:
        """File names in the policy are relative to `home`; `root` is the gate's.

        `calibrations` is their folder; without it, none is read, and nothing is watched. Raises PolicyError, and
        TamperError or FormatError for a calibration that is not the one that the policy names, or whose encoder is not.
        """
        self.policies = [route for route in policy.route if route.protocol == PROTOCOL]
        self.purposes: dict[str, str] = {}  # under which the suspicion of each model that is watched is kept
        self._stages, self._budget, self._said_before = stages, budget or Unlimited(), SaidBefore()
        self._ruled = RuledClients()  # of models without a calibration
        check_calibrations(policy)
        encoders: dict[Digests, SentenceEncoder] = {}  # of which several routes have one in common
        self._open = partial(
            _open, home=home, root=root, calibrations=calibrations, encoders=encoders, threads=policy.gate.threads
        )
        self._server_of = partial(_server, home=home)
        self._marks_of = partial(_marks, root=root)
        self._retired = Retiring()
        self._routes: list[ModelRoute] = []
        self.put([self._open(route) for route in self.policies])

    def watch(self, keeper: Keeper, registry: Registry) -> None:
        """Have clients watched from now on, with what is known of them from before. Raises FormatError."""
        self._ruled.keep(keeper)
        for route in self._routes:
            model = route.policy.model
            if route.calibration is not None and model not in self.purposes:
                purpose = f"suspicion:{model}:{route.policy.calibration[:16]}"
                try_states(registry, purpose, route.calibration)
                self._stages.watch.watch_model(model, route.calibration, keeper.shelf(purpose))
                self.purposes[model] = purpose

    @property
    def servers(self) -> Mapping[str, Upstream]:
        """The upstream of each route."""
        return {route.policy.route: route.server for route in self._routes}

    @asynccontextmanager
    async def renewing(self, policy: Policy) -> AsyncIterator[list[ModelRoute]]:
        """The routes of another policy, which are in force once they are `put`; who raises closes what is new.

        Raises PolicyError, and as the constructor does.
        """
        routes: list[ModelRoute] = []
        try:
            self._renew(policy, routes)
            yield routes
        except BaseException:
            for route in routes:
                if route.server not in self.servers.values():
                    await route.server.close()
            raise

    def _renew(self, policy: Policy, routes: list[ModelRoute]) -> None:
        check_calibrations(policy)
        known = {route.policy.route: route for route in self._routes}
        for after in policy.route:
            if after.protocol != PROTOCOL:
                continue
            route = known.get(after.route)
            if route is None:
                routes.append(self._open(after))
                continue
            if not after.upstream:
                raise needs_upstream(after)
            elsewhere = comes_from_elsewhere(route.policy, after)
            marks = self._marks_of(after) if route.policy.engine != after.engine else route.marks
            server = self._server_of(after) if elsewhere else route.server
            routes.append(ModelRoute(after, server, marks, route.calibration, route.encoding))

    def put(self, routes: Sequence[ModelRoute]) -> None:
        """Answer by these from now on; `endpoints` are others then.

        Servers that none of them asks are closed when no answer can be on its way from them any more.
        """
        kept = {route.server for route in routes}
        for route in self._routes:
            if route.server not in kept:
                self._retired.put(route.server, self._stages.policy.gate.body_seconds_max + route.policy.answer_seconds)
        self.policies = [route.policy for route in routes]
        self._routes = list(routes)
        self.endpoints = self.answering(routes)

    def answering(self, routes: Sequence[ModelRoute]) -> Mapping[str, Endpoint]:
        """What answers on which path, by these routes."""
        return _endpoints(self._stages, routes, self._budget, self._said_before, self._ruled)

    async def close(self) -> None:
        """Close every connection."""
        await self._retired.close()
        for route in self._routes:
            if route.encoding is not None:
                route.encoding.close()
            await route.server.close()


def _open(
    route: RoutePolicy,
    home: Path,
    root: Root,
    calibrations: Path | None,
    encoders: dict[Digests, SentenceEncoder],
    *,
    threads: int,
) -> ModelRoute:
    if not route.upstream:
        raise needs_upstream(route)
    marks = _marks(route, root)
    if calibrations is None or not route.calibration:
        return ModelRoute(route, _server(route, home), marks)
    calibration = read_calibration(calibrations, route, home, encoders)
    features = calibration.calibration.instruments.features
    encoding = None
    if features.encoder is not None:
        encoding = Encoding(features, encoders[features.encoder.digests], threads=threads)
    return ModelRoute(route, _server(route, home), marks, calibration, encoding)


def _server(route: RoutePolicy, home: Path) -> Upstream:
    # a whole text is written before its head comes
    return open_upstream(route, home, limits=UpstreamLimits(head_seconds=float(route.answer_seconds)))


def _marks(route: RoutePolicy, root: Root) -> TextMarks | None:
    return TextMarks(route.engine, root) if route.engine else None


def _endpoints(
    stages: Stages, routes: Sequence[ModelRoute], budget: Budget, said_before: SaidBefore, ruled: RuledClients
) -> dict[str, Endpoint]:
    """What answers on which path; routes of one prefix share all but the page of each model."""
    prefixes: dict[str, dict[str, ModelRoute]] = {}
    for route in routes:
        prefixes.setdefault(route.policy.path.rstrip("/"), {})[route.policy.model] = route
    found: dict[str, Endpoint] = {}
    for prefix, named in prefixes.items():
        for kind in KINDS:
            found[prefix + kind] = Asking(stages, kind, named, budget, said_before, ruled=ruled)
        found[f"{prefix}/v1/models"] = Listing(stages, named)
        for model in named:
            found[f"{prefix}/v1/models/{model}"] = Listing(stages, named, only=model)
    return found
