"""A path of a route on which two versions answer: each client is asked of one of them, and how it ends is counted."""

from collections.abc import Callable, Sequence

from palladion.gate.callers import Caller
from palladion.gate.endpoint import Endpoint
from palladion.gate.operations.meter import CANARY, STANDING, Meter
from palladion.gate.problems import Problem
from palladion.gate.questions import LATE
from palladion.gate.requests import Request, Response
from palladion.gate.served import OnTrial
from palladion.gate.trial import Finding

# Problems of a version. All others are of a request, of its client, or of the gate, whichever version was to answer.
FAILURES = frozenset({"model-failed", "upstream-failed", "upstream-timeout", "internal"})

Failing = Callable[[OnTrial, Finding], None]


class CanaryPath:
    """Answers by the version that is the client's. Satisfies `endpoint.Endpoint`."""

    def __init__(self, standing: Endpoint, canary: Endpoint, on_trial: OnTrial, failing: Failing, meter: Meter) -> None:
        """`failing` is told when the version on trial was found to fail; `meter` counts for whoever watches."""
        self.methods: Sequence[str] = standing.methods
        self.media_types = standing.media_types
        self._standing = standing
        self._canary = canary
        self._on_trial = on_trial
        self._failing = failing
        self._meter = meter

    def allows(self, caller: Caller) -> bool:
        """Whether the caller may ask here: the same for both versions."""
        return self._standing.allows(caller)

    async def answer(self, caller: Caller, request: Request) -> Response:
        """The response of the client's version. Raises Problem."""
        on_trial = self._on_trial.is_chosen(caller.id)
        endpoint = self._canary if on_trial else self._standing
        if request.method != "POST":
            return await endpoint.answer(caller, request)
        try:
            response = await endpoint.answer(caller, request)
        except Problem as problem:
            if problem.kind in FAILURES or problem.detail == LATE:
                self._count(caller, on_trial=on_trial, failed=True)
            raise
        except Exception:
            self._count(caller, on_trial=on_trial, failed=True)
            raise
        self._count(caller, on_trial=on_trial, failed=False)
        return response

    def _count(self, caller: Caller, *, on_trial: bool, failed: bool) -> None:
        # by themselves: the trial's own counts begin anew, with each version and after its last look
        role = CANARY if on_trial else STANDING
        self._meter.trials[self._on_trial.served.route.route, role, failed] += 1
        finding = self._on_trial.trial.count(caller.id, on_trial=on_trial, failed=failed)
        if finding is not None:
            self._failing(self._on_trial, finding)
