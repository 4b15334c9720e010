"""The way into the data path: identify, find what answers on the path, and let it answer. Knows no transport.

What follows then is in `questions`, with the `stages` that all kinds of questions share.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from types import MappingProxyType

from palladion.errors import PolicyError
from palladion.gate.directory import Caller
from palladion.gate.endpoint import Endpoint
from palladion.gate.problems import Problem
from palladion.gate.questions import Questions
from palladion.gate.requests import JSON, Request, Response
from palladion.gate.served import Served
from palladion.gate.stages import Stages


class Gate:
    """Answers requests. One per process, used from one event loop."""

    def __init__(self, stages: Stages) -> None:
        self.stages = stages
        self._served: Mapping[str, Served] = {}
        self._endpoints: Mapping[str, Endpoint] = {}

    @property
    def served(self) -> Mapping[str, Served]:
        """What is served, by route."""
        return self._served

    def serve(self, served: Mapping[str, Served], others: Mapping[str, Endpoint] = MappingProxyType({})) -> None:
        """Serve this from now on, in place of everything before; `others` answer on their paths without arrays.

        Raises PolicyError where two answer on one path.
        """
        endpoints = dict(others)
        for item in served.values():
            for path, action in item.protocol.paths.items():
                if path in endpoints:
                    raise PolicyError(f"the path {path} is taken twice", "give one of the routes a path of its own")
                endpoints[path] = Questions(self.stages, item, action, is_current=self._is_current)
        # one assignment after the other, and no await between them: requests see all of it, or nothing
        self._served, self._endpoints = served, endpoints

    async def handle(self, request: Request) -> Response:
        """Answer one request; never raises for anything that a client can cause."""
        caller = None
        try:
            # 1. identify: before anything else, so that a stranger learns nothing, not even which routes exist
            caller = self.stages.identify(request)
            with ExitStack() as place:
                place.enter_context(self.stages.room(caller))
                response = await self._endpoint(caller, request).answer(caller, request)
                if response.stream is not None:
                    # it takes up its place until the last part is gone
                    response.stream.release = place.pop_all().close
                return response
        except Problem as problem:
            if caller is not None:
                self.stages.refusals[caller.id, problem.kind] += 1
            return Response.of_problem(problem)

    def _endpoint(self, caller: Caller, request: Request) -> Endpoint:
        endpoint = self._endpoints.get(request.path)
        if endpoint is None:
            raise Problem("not-found")
        if not endpoint.allows(caller):
            raise Problem("forbidden")
        if request.method not in endpoint.methods:
            raise Problem("method-not-allowed", allow=", ".join(endpoint.methods))
        if request.method == "POST":
            kind = request.headers.get(b"content-type", JSON).partition(b";")[0].strip().lower()
            if kind not in endpoint.media_types or request.headers.get(b"content-encoding", b"identity") != b"identity":
                wanted = b" or ".join(sorted(endpoint.media_types)).decode()
                raise Problem("unsupported-media-type", f"{wanted} without an encoding was expected")
        return endpoint

    def _is_current(self, served: Served) -> bool:
        current = self._served.get(served.route.route)
        return current is not None and current.calibration is served.calibration
