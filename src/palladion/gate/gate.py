"""The way into the data path: identify, find what answers on the path, and let it answer. Knows no transport.

What follows then is in `questions`, with the `stages` that all kinds of questions share.
"""

from collections.abc import Callable, Mapping
from functools import partial

from palladion.gate.callers import Caller
from palladion.gate.canary import CanaryPath, Failing
from palladion.gate.disclosure.private_answers import Run, Spending
from palladion.gate.endpoint import Endpoint
from palladion.gate.paths import Paths
from palladion.gate.problems import Problem
from palladion.gate.questions import Questions
from palladion.gate.readiness import Waiting
from palladion.gate.requests import JSON, Request, Response
from palladion.gate.served import OnTrial, Served
from palladion.gate.stages import Stages
from palladion.gate.trial import Finding


class Gate:
    """Answers requests. One per process, used from one event loop."""

    def __init__(self, stages: Stages, run: Run | None = None) -> None:
        """`run` does something with the registry; without one, no route answers privately."""
        self.stages = stages
        self.run = run
        self._spending = Spending(run)
        self.failing: Failing = _nobody  # told of each canary that fails
        self.following: list[Callable[[], None]] = []  # told, without an await, that something else is served now
        self._served: Mapping[str, Served] = {}
        self._others: Mapping[str, Endpoint] = {}
        self._waiting: Mapping[str, Waiting] = {}
        self._paths = Paths(stages, {})

    @property
    def served(self) -> Mapping[str, Served]:
        """What is served, by route."""
        return self._served

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """What answers, by path."""
        return self._paths.endpoints

    @property
    def waiting(self) -> Mapping[str, Waiting]:
        """Routes whose upstream was not reached yet, by route."""
        return self._waiting

    def serve(
        self,
        served: Mapping[str, Served],
        others: Mapping[str, Endpoint] | None = None,
        waiting: Mapping[str, Waiting] | None = None,
    ) -> None:
        """Serve this from now on, in place of everything before.

        `others` answer on their paths without arrays, by path; `waiting` are routes whose upstream was not reached yet,
        by name, which ends when they are served. Each of the two stays as it was where it is None. Raises PolicyError
        where two answer on one path.
        """
        # one assignment after the other, and no await between them: requests see all of it, or nothing
        self._served, self._others, self._waiting, self._paths = self._arranged(served, others, waiting)
        for follow in self.following:
            follow()

    def check(
        self, served: Mapping[str, Served], others: Mapping[str, Endpoint], waiting: Mapping[str, Waiting]
    ) -> None:
        """Raise PolicyError where `serve` would, and change nothing."""
        self._arranged(served, others, waiting)

    def _arranged(
        self,
        served: Mapping[str, Served],
        others: Mapping[str, Endpoint] | None,
        waiting: Mapping[str, Waiting] | None,
    ) -> tuple[Mapping[str, Served], Mapping[str, Endpoint], Mapping[str, Waiting], Paths]:
        others = self._others if others is None else others
        waiting = {
            name: item for name, item in (self._waiting if waiting is None else waiting).items() if name not in served
        }
        paths = Paths(self.stages, others)
        for item in served.values():
            paths.add_served(item, self._asking)
        for late in waiting.values():
            paths.add_waiting(late)
        return served, others, waiting, paths

    async def handle(self, request: Request) -> Response:
        """Answer one request; never raises for anything that a client can cause."""
        caller = None
        try:
            # 1. identify: before anything else, so that a stranger learns nothing, not even which routes exist
            caller = self.stages.identify(request)
            places, streams = self.stages.limits.places, False
            places.enter(caller.id)
            try:
                response = await self._endpoint(caller, request).answer(caller, request)
                if response.stream is not None:
                    # it takes up its place until the last part is gone
                    response.stream.release = partial(places.leave, caller.id)
                    streams = True
                return response
            finally:
                if not streams:
                    places.leave(caller.id)
        except Problem as problem:
            if caller is not None:
                self.stages.refused(caller, problem.kind, request)
                # in the words of the protocol; a stranger is not told which one is spoken on a path
                return self.told(request.path, problem)
            return Response.of_problem(problem)

    def told(self, path: str, problem: Problem) -> Response:
        """What a problem looks like to whoever was let in, in the words of what is spoken on a path."""
        return Response.of_problem(problem, self._paths.error_members(path, problem))

    def _endpoint(self, caller: Caller, request: Request) -> Endpoint:
        endpoint = self._paths.endpoints.get(request.path)
        if endpoint is None:
            raise Problem("not-found")
        if not endpoint.allows(caller):
            raise Problem("forbidden")
        if request.method not in endpoint.methods:
            raise Problem("method-not-allowed", allow=", ".join(endpoint.methods))
        if request.method == "POST":
            kind, known = request.headers.get(b"content-type", JSON), endpoint.media_types
            if kind not in known and kind.partition(b";")[0].strip().lower() not in known:
                raise _unsupported(endpoint)
            if request.headers.get(b"content-encoding", b"identity") != b"identity":
                raise _unsupported(endpoint)
        return endpoint

    def _asking(self, served: Served, path: str, action: str) -> Endpoint:
        standing = Questions(self.stages, served, action, is_current=self._is_current, spending=self._spending)
        on_trial = served.on_trial
        # a path with a version's number in it is that version's, for everybody
        if on_trial is None or on_trial.served.protocol.paths.get(path) != action:
            return standing
        canary = Questions(self.stages, on_trial.served, action, is_current=self._is_current, spending=self._spending)
        return CanaryPath(standing, canary, on_trial, self._failed, self.stages.meter)

    def _failed(self, on_trial: OnTrial, finding: Finding) -> None:
        self.failing(on_trial, finding)

    def _is_current(self, served: Served) -> bool:
        current = self._served.get(served.route.route)
        if current is served:
            return True
        return current is not None and any(
            item.calibration is served.calibration and item.is_canary == served.is_canary for item in current.all
        )


def _unsupported(endpoint: Endpoint) -> Problem:
    wanted = b" or ".join(sorted(endpoint.media_types)).decode()
    return Problem("unsupported-media-type", f"{wanted} without an encoding was expected")


def _nobody(on_trial: OnTrial, finding: Finding) -> None:
    """Nobody acts on it."""
