"""What answers on the rpcs of the Open Inference Protocol: the routes of a gate once more, with protobuf as codec.

Identity, limits, watch, disclosure, marks and records are the gate's own stages; here is only which route is meant,
which in gRPC stands in the message. Routes that speak another protocol are not reached from here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from palladion.gate.callers import Caller
from palladion.gate.endpoint import Endpoint
from palladion.gate.gate import Gate
from palladion.gate.grpc.codec import GrpcInference
from palladion.gate.grpc.head import read_head, read_name
from palladion.gate.problems import Problem
from palladion.gate.protocols.open_inference import OpenInferenceErrors
from palladion.gate.protocols.tensors import OCTETS
from palladion.gate.readiness import Waiting
from palladion.gate.requests import Request, Response
from palladion.gate.served import OnTrial, Served, disclosable
from palladion.gate.stages import Stages
from palladion.gate.trial import Finding
from palladion.policy import RoutePolicy

PROTOCOL = "open-inference"
SERVICE_PATH = "/inference.GRPCInferenceService/"
# By rpc, of those that name a model: what stands after the model's path in REST, and by which method it is asked.
_NAMED: Mapping[str, tuple[str, str]] = {
    "ModelInfer": ("/infer", "POST"), "ModelMetadata": ("", "GET"), "ModelReady": ("/ready", "GET"),
}  # fmt: skip
# By rpc, of those about the server: the path that stands for it in REST.
_SERVER: Mapping[str, str] = {
    "ServerLive": "/v2/health/live", "ServerReady": "/v2/health/ready", "ServerMetadata": "/v2",
}  # fmt: skip
RPCS = (*_NAMED, *_SERVER)


class Front:
    """Serves what `gate` serves, as long as that lives. Used from the same event loop."""

    def __init__(self, gate: Gate) -> None:
        """Raises MissingExtraError."""
        self._gate = gate
        self._inner = Gate(gate.stages, gate.run)
        self._inner.failing = self._failing
        self._named = {rpc: _Named(self, rpc) for rpc in _NAMED}
        self._paths: Mapping[tuple[str, str], str] = {}
        self._routes: Sequence[RoutePolicy] = ()
        self._follow()
        gate.following.append(self._follow)

    @property
    def stages(self) -> Stages:
        """Those of the gate."""
        return self._gate.stages

    @property
    def routes(self) -> Sequence[RoutePolicy]:
        """What can be asked here, or will be when its upstream is reached."""
        return self._routes

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """What answers, by path: the rpcs, and behind them the paths of REST."""
        return self._inner.endpoints

    def path(self, model: str, version: str) -> str | None:
        """The path of a model as REST has it; a route with a prefix is asked for as PREFIX/MODEL."""
        return self._paths.get((model, version))

    async def handle(self, rpc: str, request: Request) -> Response:
        """Answer a call of one of `RPCS`, whatever its method and path; never raises for what a client can cause."""
        path = _SERVER.get(rpc)
        if path is not None:
            return await self._inner.handle(replace(request, method="GET", path=path))
        return await self._inner.handle(replace(request, method="POST", path=SERVICE_PATH + rpc))

    def _follow(self) -> None:
        """Take over what the gate serves now; nobody is asked in between."""
        served = {name: self._spoken(item) for name, item in self._gate.served.items() if _speaks(item.route)}
        waiting = {name: _asked_so(item) for name, item in self._gate.waiting.items() if _speaks(item.route)}
        others = {SERVICE_PATH + rpc: endpoint for rpc, endpoint in self._named.items()}
        self._inner.serve(served, others, waiting)
        routes = [(item.route, item.version_text) for item in served.values()]
        routes += [(late.route, "") for late in waiting.values()]
        paths = {(_name(route), version): f"{route.route}/versions/{version}" for route, version in routes}
        paths |= {(_name(route), ""): route.route for route, _ in routes}
        self._paths = paths
        self._routes = [route for route, _ in routes]

    def _spoken(self, item: Served) -> Served:
        """A route with protobuf as its codec, and the version on trial there as well, counted together with REST."""
        route, rows_max = item.route, self.stages.policy.gate.rows_max
        codec = GrpcInference(
            route.path.rstrip("/"),
            route.model,
            item.version_text,
            item.source.inputs,
            outputs=disclosable(item.contract),
            rows_max=rows_max,
        )
        on_trial = item.on_trial
        if on_trial is not None:
            on_trial = replace(on_trial, served=self._spoken(on_trial.served))
        return replace(item, protocol=codec, on_trial=on_trial)

    def _failing(self, on_trial: OnTrial, finding: Finding) -> None:
        current = self._gate.served.get(on_trial.served.route.route)
        # in the gate's own words: the one whose calls were counted, if it is still on trial
        if current is not None and current.on_trial is not None and current.on_trial.trial is on_trial.trial:
            self._gate.failing(current.on_trial, finding)


class _Named:
    """Answers an rpc whose message names a model. Satisfies `endpoint.Endpoint` and `protocol.ErrorForm`."""

    methods: Sequence[str] = ("POST",)
    media_types = frozenset({OCTETS})

    def __init__(self, front: Front, rpc: str) -> None:
        self._front = front
        self._end, self._method = _NAMED[rpc]
        self._action = "ask" if self._method == "POST" else "describe"
        self._field = "model_name" if self._method == "POST" else "name"
        self._read = read_head if self._method == "POST" else read_name

    def allows(self, caller: Caller) -> bool:
        """Whether the caller may ask any of the models."""
        return any(caller.may(self._action, route) for route in self._front.routes)

    async def answer(self, caller: Caller, request: Request) -> Response:
        """The response of the model's own endpoint. Raises Problem."""
        stages = self._front.stages
        open_to = [route for route in self._front.routes if caller.may(self._action, route)]
        if not any(stages.modes.level(caller, route) for route in open_to):
            # nothing is read of who would get nothing
            raise Problem("suspended")
        # nor of who has used up its rate; which model is asked, and so which limits count, stands in the message
        stages.admit(caller, open_to[0], 1, address=request.address, spending=False)
        body = await request.body()
        try:
            path = self._front.path(*self._read(body))
            endpoint = None if path is None else self._front.endpoints.get(path + self._end)
            if path is None or endpoint is None:
                raise Problem("model-not-found", "there is no such model", field=self._field)
        except Problem:
            # what cannot be read, and guessed names, are paid for as well
            stages.admit(caller, open_to[0], 1, address=request.address)
            raise
        if not endpoint.allows(caller):
            raise Problem("forbidden")

        async def read() -> bytes:
            return body

        return await endpoint.answer(caller, replace(request, method=self._method, path=path + self._end, body=read))

    def error_members(self, problem: Problem) -> Mapping[str, object]:
        """The sentence that the protocol's clients show."""
        return OpenInferenceErrors().error_members(problem)


def _speaks(route: RoutePolicy) -> bool:
    return route.protocol == PROTOCOL


def _name(route: RoutePolicy) -> str:
    """What clients call a model here: paths there are none, so a prefix goes before the name."""
    prefix = route.path.rstrip("/").removeprefix("/")
    return f"{prefix}/{route.model}" if prefix else route.model


def _asked_so(item: Waiting) -> Waiting:
    """A route that waits; those of its paths that are about the server are the same for all, as of any other here."""
    prefix = item.route.path.rstrip("/")
    paths = {path.removeprefix(prefix) if action == "server" else path: action for path, action in item.paths.items()}
    return replace(item, paths=paths)
